"""Mamba's mixer: a selective scan, in one direction or in two."""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mmeff.mixers.base import Mixer
from mmeff.tokens import zero_padding
from mmeff_kernels.selective_scan import selective_scan


class Direction(nn.Module):
    """One direction of the scan, with parameters of its own: (B, L, E) -> (B, L, E).

    u = silu(conv(x)), depthwise over the last `conv` tokens seen;  [dt, B, C] = W_x u;  dt = softplus(W_dt dt + b);
    y = S6(u, dt, A, B, C, D), A = -exp(A_log). dt, A and the state are fp32, under autocast too.
    """

    def __init__(self, width: int, state: int, conv: int, dt_rank: int, reverse: bool) -> None:
        super().__init__()
        self.reverse = reverse
        self.sizes = (dt_rank, state, state)
        self.conv1d = nn.Conv1d(width, width, conv, groups=width)
        self.x_proj = nn.Linear(width, sum(self.sizes), bias=False)
        self.dt_proj = nn.Linear(dt_rank, width)
        self.A_log = nn.Parameter(torch.arange(1, state + 1, dtype=torch.float32).log().repeat(width, 1))
        self.D = nn.Parameter(torch.ones(width))
        nn.init.uniform_(self.dt_proj.weight, -(dt_rank**-0.5), dt_rank**-0.5)
        with torch.no_grad():
            dt = torch.empty(width).uniform_(math.log(1e-3), math.log(1e-1)).exp()
            self.dt_proj.bias.copy_(dt + torch.log(-torch.expm1(-dt)))  # softplus(bias) = dt
        for parameter in (self.A_log, self.D, self.dt_proj.bias):
            parameter._no_weight_decay = True  # pyright: ignore[reportAttributeAccessIssue]

    def forward(self, x: Tensor, lengths: Tensor | None) -> Tensor:
        """x must be zero in the padding: the reversed convolution reads it."""
        reach = self.conv1d.kernel_size[0] - 1
        weight = self.conv1d.weight.flip(-1) if self.reverse else self.conv1d.weight
        around = F.pad(x.transpose(1, 2), (0, reach) if self.reverse else (reach, 0))
        u = F.silu(F.conv1d(around, weight, self.conv1d.bias, groups=len(weight))).transpose(1, 2)
        low_rank, B, C = self.x_proj(u).split(self.sizes, dim=-1)
        with torch.autocast(x.device.type, enabled=False):
            dt_proj = self.dt_proj
            dt = F.softplus(F.linear(low_rank.to(dt_proj.weight.dtype), dt_proj.weight, dt_proj.bias))
            A = -self.A_log.exp()
            return selective_scan(u, dt, A, B, C, self.D, reverse=self.reverse, lengths=lengths)


class _SelectiveScan(Mixer):
    """[x, z] = W_in tokens;  y = W_out mean over the directions of (direction(x) * silu(z))."""

    def __init__(
        self, dim: int, expand: float, state: int, conv: int, dt_rank: int | None, reverse: tuple[bool, ...]
    ) -> None:
        super().__init__()
        width = int(expand * dim)
        sizes = {"dim": dim, "expand * dim": width, "state": state, "conv": conv, "dt_rank": dt_rank}
        for name, size in sizes.items():
            if size is not None and size < 1:
                raise ValueError(f"{name} must be at least 1, not {size}")
        dt_rank = math.ceil(dim / 16) if dt_rank is None else dt_rank
        self.in_proj = nn.Linear(dim, 2 * width, bias=False)
        self.directions = nn.ModuleList(Direction(width, state, conv, dt_rank, backward) for backward in reverse)
        self.out_proj = nn.Linear(width, dim, bias=False)

    def forward(self, x: Tensor, grid: tuple[int, ...], lengths: Tensor | None = None) -> Tensor:
        # in_proj has no bias: zeros stay zeros, as Direction needs.
        inner, z = self.in_proj(zero_padding(x, lengths)).chunk(2, dim=-1)
        y = sum(direction(inner, lengths) for direction in self.directions)
        # The gate is shared, so the mean over the directions can be taken before it.
        return self.out_proj(y * F.silu(z) / len(self.directions))


class Mamba(_SelectiveScan):
    """The selective state space model, causal in row-major order. O(L).

    Source: Gu and Dao, arXiv 2312.00752, section 3.4.
    """

    causal = True

    def __init__(self, dim: int, expand: float = 2, state: int = 16, conv: int = 4, dt_rank: int | None = None) -> None:
        """
        Args:
            dim: width of the tokens.
            expand: inner width as a multiple of dim.
            state: numbers kept for each inner channel.
            conv: tokens that the short convolution sees.
            dt_rank: rank of the step size's projection; dim / 16, rounded up, by default.
        """
        super().__init__(dim, expand, state, conv, dt_rank, reverse=(False,))


class BiMamba(_SelectiveScan):
    """Two selective scans, one from each end, each with a convolution and parameters of its own. O(L).

    Each scan contains the token itself, so the diagonal counts twice, as published.

    Source: Zhu et al., Vim, arXiv 2401.09417, algorithm 1, with the mean of the two directions of its released "v2".
    """

    def __init__(self, dim: int, expand: float = 2, state: int = 16, conv: int = 4, dt_rank: int | None = None) -> None:
        """
        Args:
            dim: width of the tokens.
            expand: inner width as a multiple of dim.
            state: numbers kept for each inner channel and direction.
            conv: tokens that the short convolution sees.
            dt_rank: rank of the step size's projection; dim / 16, rounded up, by default.
        """
        super().__init__(dim, expand, state, conv, dt_rank, reverse=(False, True))
