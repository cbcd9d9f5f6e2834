"""Operators as their kernels run them, on tensors without data: what is counted is the same on every machine."""

import importlib
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import Any
from unittest.mock import patch

import torch
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils.flop_counter import sdpa_backward_flop_count, sdpa_flop_count

from mmeff_kernels.arguments import check_triton
from mmeff_kernels.decay import decay_attention
from mmeff_kernels.full_sum import full_sum, full_sum_qkvpacked
from mmeff_kernels.scan2d import cross_scan, separable_scan, wavefront_scan
from mmeff_kernels.selective_scan import selective_scan_routes
from mmeff_kernels.selective_scan.checks import check_routes

#: Operators that have FLOP formulas, where the mixers call them, and the modules that register the formulas.
OPERATORS = (
    decay_attention, full_sum, full_sum_qkvpacked, selective_scan_routes, cross_scan, separable_scan, wavefront_scan,
)  # fmt: skip
FORMULAS = ("decay.operators", "full_sum.operators", "selective_scan.operators", "scan2d.corner_operators")


def _convolution_backward(g: Any, x: Any, weight: Any, *rest: Any, **_: Any) -> int:
    """As many products for the gradient of the input, and of the weight, as forward; torch's own forgets the groups."""
    transposed, wanted = rest[4], rest[-1]
    places = x if transposed else g
    product = 2 * places[0] * torch.Size(places[2:]).numel() * torch.Size(weight).numel()
    return product * (wanted[0] + wanted[1])


def _attention(q: Any, k: Any, v: Any, *_: Any, **__: Any) -> int:
    """Scores and their products with the values, of all pairs of tokens, as torch counts them on CUDA."""
    return sdpa_flop_count(q, k, v)


def _attention_backward(g: Any, q: Any, k: Any, v: Any, *_: Any, **__: Any) -> int:
    """Five products: the scores once more, and four gradients."""
    return sdpa_backward_flop_count(g, q, k, v)


#: Formulas that torch does not have, or has wrong.
CORRECTIONS = {
    torch.ops.aten.convolution_backward: _convolution_backward,
    torch.ops.aten._scaled_dot_product_flash_attention_for_cpu: _attention,
    torch.ops.aten._scaled_dot_product_flash_attention_for_cpu_backward: _attention_backward,
}


@contextmanager
def as_kernels() -> Iterator[None]:
    """Within, tensors on the CPU have shapes alone, and mixers call the kernels' operators, which know their FLOPs."""
    for name in FORMULAS:
        importlib.import_module(f"mmeff_kernels.{name}")
    _forget_tables()
    with ExitStack() as stack:
        for module, name, value in _names():
            if any(value is operator for operator in OPERATORS):
                stack.enter_context(patch.object(module, name, partial(value, impl="triton")))
            elif value is check_triton or value is check_routes:  # they want a GPU, and to see what has no data here
                stack.enter_context(patch.object(module, name, _unchecked))
        # What torch traces launches no kernel outside an operator.
        stack.enter_context(patch.object(torch.compiler, "is_compiling", lambda: True))
        stack.enter_context(FakeTensorMode(allow_non_fake_inputs=True))
        stack.callback(_forget_tables)
        yield


def _unchecked(*arguments: Any) -> None:
    pass


def _names() -> list[tuple[Any, str, Any]]:
    """What modules that models are made of have imported under which names: (module, name, value)."""
    modules = [
        module
        for name, module in sys.modules.items()
        if name.startswith(("mmeff.", "mmeff_kernels")) and not name.startswith("mmeff.compare")
    ]
    return [(module, name, value) for module in modules for name, value in vars(module).items()]


def _forget_tables() -> None:
    """Tables that functions keep must not pass between tensors with data and those without."""
    for _, _, value in _names():
        if hasattr(value, "cache_clear"):
            value.cache_clear()
