"""How far an operation on a device is from its definition in float64."""

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor


@dataclass(frozen=True)
class Finding:
    """Of one operation in one configuration: the worst relative Frobenius error, of which tensor, and what is allowed.

    An operation that fails has an infinite error, and its message in `worst`.
    """

    name: str
    error: float
    worst: str
    bound: float
    seconds: float

    @property
    def right(self) -> bool:
        return self.error <= self.bound  # False for NaN


def compare(
    name: str,
    bound: float,
    tensors: dict[str, Tensor],
    run: Callable[[], tuple[Tensor, ...]],
    define: Callable[[dict[str, Tensor]], tuple[Tensor, ...]],
    outputs: tuple[str, ...],
) -> Finding:
    """Outputs and gradients of `run`, which reads `tensors`, against `define` of the same in float64."""
    start = time.perf_counter()
    wide = {key: tensor.detach().double().requires_grad_() for key, tensor in tensors.items()}
    want = define(wide)
    # Of both signs, but not evenly: the sums that some gradients are shall not vanish.
    weights = [torch.linspace(-1, 2, t.numel(), dtype=t.dtype, device=t.device).view(t.shape) for t in want]
    want_grads = torch.autograd.grad(want, tuple(wide.values()), weights)
    try:
        got = run()
        own_weights = [weight.to(t.dtype) for weight, t in zip(weights, got, strict=True)]
        got_grads = torch.autograd.grad(got, tuple(tensors.values()), own_weights)
    except Exception as error:  # a compiler's failure is a finding too
        return Finding(name, float("inf"), " ".join(str(error).split())[:200], bound, time.perf_counter() - start)
    names = (*outputs, *(f"the gradient of {key}" for key in tensors))
    errors = {
        label: ((a.double() - b).norm() / b.norm()).item()
        for label, a, b in zip(names, (*got, *got_grads), (*want, *want_grads), strict=True)
    }
    worst = max(errors, key=lambda label: (errors[label] != errors[label], errors[label]))  # NaN before all numbers
    return Finding(name, errors[worst], worst, bound, time.perf_counter() - start)


def draw(shapes: dict[str, tuple[int, ...]]) -> dict[str, Tensor]:
    """Normal numbers, the same every time."""
    generator = torch.Generator().manual_seed(0)
    return {name: torch.randn(shape, generator=generator) for name, shape in shapes.items()}


def compare_implementations(
    op: str,
    drawn: dict[str, Tensor],
    run: Callable[[dict[str, Tensor], Any], Tensor],
    device: torch.device,
    narrow: tuple[str, ...] = ("x",),
    define: Callable[[dict[str, Tensor]], Tensor] | None = None,
) -> Iterator[Finding]:
    """`run(tensors, impl)` of every implementation, the `narrow` tensors in fp32 and in bf16, against `define(tensors)`
    in float64, by default what torch does there."""
    for impl in ("torch", "triton") if device.type == "cuda" else ("torch",):
        for dtype, bound in ((torch.float32, 1e-5), (torch.bfloat16, 1e-2)):
            tensors = {
                name: tensor.to(device, dtype if name in narrow else torch.float32).requires_grad_()
                for name, tensor in drawn.items()
            }
            yield compare(
                f"{op}, {impl}, {str(dtype).removeprefix('torch.')}",
                bound,
                tensors,
                lambda tensors=tensors, impl=impl: (run(tensors, impl),),
                lambda wide: (run(wide, "torch") if define is None else define(wide),),
                ("y",),
            )
