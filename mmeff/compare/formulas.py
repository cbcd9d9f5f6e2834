"""Operators as their kernels run them, on tensors without data: what is counted is the same on every machine."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils.flop_counter import sdpa_backward_flop_count, sdpa_flop_count

from mmeff_kernels import dispatch


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
    dispatch.load()
    with dispatch.forced("triton"), FakeTensorMode(allow_non_fake_inputs=True):
        yield
