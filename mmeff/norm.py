"""Normalisation of tokens."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

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
