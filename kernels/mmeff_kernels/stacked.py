"""Linear maps of K directions at once, with gradients of their weights that fill a GPU."""

import math
from typing import Any

import torch
from torch import Tensor

#: Pieces that the rows of a weight's gradient are cut into on CUDA. One sum over tens of thousands of rows is a
#: long loop of the few programs that cover a small weight.
PIECES = 64


def stacked_linear(x: Tensor, weight: Tensor) -> Tensor:
    """x (K, M, in) and weight (K, out, in) -> x_k weight_k^T, (K, M, out), in the type of autocast where it is on."""
    if torch.is_autocast_enabled(x.device.type):
        dtype = torch.get_autocast_dtype(x.device.type)
        x, weight = x.to(dtype), weight.to(dtype)
    return _StackedLinear.apply(x, weight)


def expanded(low: Tensor, weight: Tensor) -> Tensor:
    """Rows from their low-rank form, low weight^T: low ([K,] B, L, R), weight ([K,] D, R) -> ([K,] B, L, D), in low's
    type, under autocast too."""
    with torch.autocast(low.device.type, enabled=False):
        return (low.flatten(-3, -2) @ weight.to(low.dtype).mT).unflatten(-2, low.shape[-3:-1])


def weight_gradient(g: Tensor, x: Tensor) -> Tensor:
    """The sum of g x^T over rows: g (K, M, out), x (K, M, in) -> (K, out, in)."""
    pieces = math.gcd(g.shape[1], PIECES) if g.is_cuda else 1
    if pieces == 1:
        return g.mT @ x
    g, x = (t.unflatten(1, (pieces, -1)).flatten(0, 1) for t in (g, x))
    return (g.mT @ x).unflatten(0, (-1, pieces)).sum(1, dtype=torch.float32)


class _StackedLinear(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor) -> Tensor:  # pyright: ignore[reportIncompatibleMethodOverride]
        ctx.save_for_backward(x, weight)
        return x @ weight.mT

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> tuple[Tensor, Tensor]:  # pyright: ignore[reportIncompatibleMethodOverride]
        x, weight = ctx.saved_tensors
        return g @ weight, weight_gradient(g, x).to(weight.dtype)
