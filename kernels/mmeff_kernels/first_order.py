"""Gradients of the first order only, which say so where those of the second are asked for."""

import functools
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor

Backward = Callable[..., Any]


def first_order(name: str, second: str = "reference") -> Callable[[Backward], Backward]:
    """Of an autograd.Function's backward: what it gives cannot be differentiated, and to try raises RuntimeError, which
    names the `impl` of the operation that has second derivatives.

    torch's `once_differentiable` raises only where a gradient reaches the output's own: `autograd.grad(inputs=...)`
    takes the edges that are missing for terms of 0. Here a gradient hangs on all that it depends on: on what came in,
    and on those of the saved tensors that are inputs or outputs themselves. So `forward` saves the tensors that it was
    given, not copies, of every input that a gradient depends on.
    """

    message = f'{name} has gradients of the first order only: impl="{second}" has second ones'

    def decorated(backward: Backward) -> Backward:
        @functools.wraps(backward)
        def wrapped(ctx: Any, *gradients: Tensor | None) -> Any:
            if not torch.is_grad_enabled() or torch.compiler.is_compiling():
                return backward(ctx, *gradients)
            saved = ctx.saved_tensors  # once: checkpointing gives them once
            with torch.no_grad():
                found = backward(SimpleNamespace(saved_tensors=saved, **vars(ctx)), *gradients)
            sources = [t for t in (*saved, *gradients) if t is not None and t.requires_grad]
            if not sources:
                return found
            given = [t for t in found if isinstance(t, Tensor)]
            tied = iter(_Tied.apply(message, len(given), *given, *sources))
            return tuple(next(tied) if isinstance(t, Tensor) else t for t in found)

        return wrapped

    return decorated


class _Tied(torch.autograd.Function):
    """`count` gradients, and the tensors that they depend on -> the gradients."""

    @staticmethod
    def forward(ctx: Any, message: str, count: int, *tensors: Tensor) -> tuple[Tensor, ...]:  # pyright: ignore[reportIncompatibleMethodOverride]
        ctx.message = message
        return tensors[:count]

    @staticmethod
    def backward(ctx: Any, *_: Tensor) -> Any:  # pyright: ignore[reportIncompatibleMethodOverride]
        raise RuntimeError(ctx.message)
