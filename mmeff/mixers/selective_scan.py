"""Mamba's mixer: a selective scan, in one direction or in two."""

import math
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mmeff.errors import whole
from mmeff.mixers.base import Mixer
from mmeff.mixers.heads import inner_width
from mmeff.widths import aligned
from mmeff_kernels.selective_scan import selective_scan_routes
from mmeff_kernels.short_conv import Side, short_conv
from mmeff_kernels.stacked import stacked_linear


class ScanMixer(Mixer):
    """What mixers of K selective scans over E channels have in common: each scan's own parameters.

    Of what a scan reads, u: [r, B, C] = W_k u;  dt = softplus(W_dt,k r + b_k). A = -exp(A_log). Initialised as Mamba's.
    Recurrences of two dimensions may have r, B, A and all of dt once more for their second axis: then the latter lead
    with an axis of 2 K.
    """

    def __init__(self, dim: int, E: int, K: int, state: int, dt_rank: int | None, axes_of_step: int = 1) -> None:
        super().__init__()
        R = aligned(math.ceil(dim / 16)) if dt_rank is None else dt_rank
        whole(1, state=state, dt_rank=R)
        self.sizes = (R, state, state, R, state)[: 1 + 2 * axes_of_step]
        self.x_weight = nn.Parameter(torch.empty(K, sum(self.sizes), E))
        nn.init.trunc_normal_(self.x_weight, std=E**-0.5, a=-2 * E**-0.5, b=2 * E**-0.5)
        steps = axes_of_step * K
        self.dt_weight = nn.Parameter(torch.empty(steps, E, R).uniform_(-(R**-0.5), R**-0.5))
        dt = torch.empty(steps, E).uniform_(math.log(1e-3), math.log(1e-1)).exp()
        self.dt_bias = nn.Parameter(dt + torch.log(-torch.expm1(-dt)))  # softplus(bias) = dt
        self.A_log = nn.Parameter(torch.arange(1, state + 1, dtype=torch.float32).log().repeat(steps, E, 1))
        self.D = nn.Parameter(torch.ones(K, E))
        for parameter in (self.dt_bias, self.A_log, self.D):
            parameter._no_weight_decay = True  # pyright: ignore[reportAttributeAccessIssue]

    def projected(self, u: Tensor) -> tuple[Tensor, ...]:
        """u (B, L, E), which all scans read -> r, B, C of each, (K, B, L, ...), parts of one product in place."""
        stacked = F.linear(u, self.x_weight.flatten(0, 1)).unflatten(-1, (len(self.x_weight), -1))
        return stacked.permute(2, 0, 1, 3).split(self.sizes, dim=-1)


#: What the short convolution of a direction sees.
SIDES: dict[str, Side] = {"forward": "causal", "backward": "anticausal"}


class _SelectiveScan(ScanMixer):
    """[x, z] = W_in tokens;  y = W_out (silu(z) * mean_k y_k) over K directions, each with parameters of its own:

    u = silu(conv_k(x)), depthwise over the last `conv` tokens met;  [r, B, C] = W_k u;  dt = softplus(W_dt,k r + b_k);
    y_k = S6(u, dt, A_k, B, C, D_k), A = -exp(A_log). A, the state, and dt after its product with W_dt are fp32, under
    autocast too.

    Parameters lead with an axis K, and every step serves all directions at once; nothing is flipped or repeated.
    """

    routes: tuple[Literal["forward", "backward"], ...] = ("forward",)

    def __init__(self, dim: int, expand: float, state: int, conv: int, dt_rank: int | None) -> None:
        E = inner_width(dim, expand)
        super().__init__(dim, E, len(self.routes), state, dt_rank)
        whole(1, conv=conv)
        K = len(self.routes)
        self.in_proj = nn.Linear(dim, 2 * E, bias=False)
        self.conv_weight = nn.Parameter(torch.empty(K, E, conv).uniform_(-(conv**-0.5), conv**-0.5))
        self.conv_bias = nn.Parameter(torch.empty(K, E).uniform_(-(conv**-0.5), conv**-0.5))
        self.conv_bias._no_weight_decay = True  # pyright: ignore[reportAttributeAccessIssue]
        self.out = nn.Linear(E, dim, bias=False)

    def forward(self, x: Tensor, grid: tuple[int, ...], lengths: Tensor | None = None) -> Tensor:
        inner, z = self.in_proj(x).chunk(2, dim=-1)
        u = short_conv(inner, self.conv_weight, self.conv_bias, sides=[SIDES[r] for r in self.routes], lengths=lengths)
        projected = stacked_linear(u.flatten(1, 2), self.x_weight).unflatten(1, u.shape[1:3])
        low_rank, B, C = projected.split(self.sizes, dim=-1)
        y, _ = selective_scan_routes(
            u, low_rank, -self.A_log.exp(), B.unsqueeze(-2), C.unsqueeze(-2), self.D, routes=self.routes, z=z,
            dt_bias=self.dt_bias, dt_weight=self.dt_weight, dt_softplus=True, lengths=lengths,
        )  # fmt: skip
        return F.linear(y, self.out.weight / len(self.routes))


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
            dt_rank: rank of the step size's projection; by default dim / 16, as published, rounded up to a multiple of
                8, which a GPU's matrix products want.
        """
        super().__init__(dim, expand, state, conv, dt_rank)


class BiMamba(_SelectiveScan):
    """Two selective scans, one from each end, each with a convolution and parameters of its own. O(L).

    Each scan contains the token itself, so the diagonal counts twice, as published.

    Source: Zhu et al., Vim, arXiv 2401.09417, algorithm 1, with the mean of the two directions of its released "v2".
    """

    routes = ("forward", "backward")

    def __init__(self, dim: int, expand: float = 2, state: int = 16, conv: int = 4, dt_rank: int | None = None) -> None:
        """
        Args:
            dim: width of the tokens.
            expand: inner width as a multiple of dim.
            state: numbers kept for each inner channel and direction.
            conv: tokens that the short convolution sees.
            dt_rank: rank of the step size's projection; by default dim / 16, as published, rounded up to a multiple of
                8, which a GPU's matrix products want.
        """
        super().__init__(dim, expand, state, conv, dt_rank)
