"""Normalisation of tokens."""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mmeff_kernels.dispatch import traced
from mmeff_kernels.layer_norm import add_layer_norm, layer_norm


class LayerNorm(nn.LayerNorm):
    """nn.LayerNorm whose result has the type that matrix products take: that of autocast, where it is on for CUDA.

    Statistics are fp32 all the same. On an H200 torch's own, and the cast after it, take 10 % of Vim-T's training step.
    """

    def forward(self, input: Tensor) -> Tensor:
        return layer_norm(input, self.weight, self.bias, self.eps, dtype=self._dtype(input))

    def of_sum(self, x: Tensor, branch: Tensor | None) -> tuple[Tensor, Tensor]:
        """x + branch (x itself if there is none) and its norm, on CUDA in one pass."""
        if branch is None:
            return x, self(x)
        return add_layer_norm(x, branch, self.weight, self.bias, self.eps, dtype=self._dtype(x))

    @staticmethod
    def _dtype(x: Tensor) -> torch.dtype:
        device = x.device.type
        cast = device == "cuda" and torch.is_autocast_enabled(device)
        return torch.get_autocast_dtype(device) if cast else x.dtype


class HeadNorm(nn.Module):
    """Layer norm of each head by itself, with a weight and a bias a channel: (..., H, K) -> (..., H K).

    nn.GroupNorm of every token is the same, and takes eight times as long on two CPU cores, forward and backward.
    """

    def __init__(self, heads: int, dim: int, eps: float = 1e-5) -> None:
        super().__init__()
        self.heads, self.eps = heads, eps
        self.weight, self.bias = nn.Parameter(torch.ones(dim)), nn.Parameter(torch.zeros(dim))

    def forward(self, input: Tensor) -> Tensor:
        normalised = F.layer_norm(input, input.shape[-1:], eps=self.eps).flatten(-2)
        return torch.addcmul(self.bias, normalised, self.weight)


class RMSNorm(nn.RMSNorm):
    """nn.RMSNorm, which on the CPU takes torch four times as long as `rms_norm`."""

    def forward(self, x: Tensor) -> Tensor:
        return rms_norm(x, self.weight, self.eps)


def rms_norm(x: Tensor, weight: Tensor | None = None, eps: float | None = None) -> Tensor:
    """x / sqrt(mean(x^2) + eps) * weight over the last axis, x (..., D), weight (D,).

    Source: Zhang and Sennrich, arXiv 1910.07467, eq. 4; eps is by default torch's.
    """
    exact = x.dtype in (torch.float32, torch.float64) and (weight is None or weight.dtype == x.dtype)
    if x.is_cpu and exact and not traced():
        return _RMSNorm.apply(x, weight, torch.finfo(x.dtype).eps if eps is None else eps)
    return F.rms_norm(x, x.shape[-1:], weight, eps)


class _RMSNorm(torch.autograd.Function):
    """On the CPU, in three passes over x and five back."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor | None, eps: float) -> Tensor:  # pyright: ignore[reportIncompatibleMethodOverride]
        squares = torch.linalg.vector_norm(x, dim=-1, keepdim=True).square_()
        rstd = (squares / x.shape[-1]).add_(eps).rsqrt_()
        normalised = x * rstd
        ctx.save_for_backward(x, rstd, weight)
        ctx.eps = eps
        return normalised if weight is None else normalised * weight

    @staticmethod
    def backward(ctx: Any, gy: Tensor) -> tuple[Tensor | None, ...]:  # pyright: ignore[reportIncompatibleMethodOverride]
        x, rstd, weight = ctx.saved_tensors
        if torch.is_grad_enabled():  # for second derivatives it too is a function of x
            rstd = (x.square().mean(-1, keepdim=True) + ctx.eps).rsqrt()
        normalised = x * rstd
        along = gy * normalised
        if weight is None:
            return torch.addcmul(gy, normalised, along.mean(-1, keepdim=True), value=-1).mul_(rstd), None, None
        mean = (along @ weight / len(weight)).unsqueeze(-1)
        gx = torch.addcmul(gy * weight, normalised, mean, value=-1).mul_(rstd)
        return gx, along.reshape(-1, len(weight)).sum(0), None
