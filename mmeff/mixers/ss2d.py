"""Selective scans over a grid of two axes, along several routes at once."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mmeff.mixers.conv import GridConv
from mmeff.mixers.selective_scan import ScanMixer
from mmeff.norm import LayerNorm
from mmeff.tokens import zero_padding
from mmeff_kernels.scan2d import CROSS, cross_scan
from mmeff_kernels.scan2d.orders import named


class SS2D(ScanMixer):
    """u = silu(dwconv(W_in x));  y = LN(sum_k S6_k(u)) over K routes, each with parameters of its own;  W_out y. O(L).

    With `gate`, [u, z] = W_in x and y is multiplied by silu(z), as in VMamba's first version; the released ones have
    none. All routes read u, and what is projected from it, in place.

    Source: Liu et al., VMamba, arXiv 2401.10166, section 4.2.
    """

    axes = (2,)

    def __init__(
        self,
        dim: int,
        expand: float = 1,
        state: int = 1,
        conv: int = 3,
        gate: bool = False,
        routes: Sequence[str] = CROSS,
        dt_rank: int | None = None,
    ) -> None:
        """
        Args:
            dim: width of the tokens.
            expand: inner width as a multiple of dim.
            state: numbers kept for each inner channel and route.
            conv: size of the depthwise convolution along each axis, odd.
            gate: multiply by silu of a projection of the tokens.
            routes: orders in which the grid is scanned, as named in `mmeff_kernels.scan2d.orders`.
            dt_rank: rank of the step size's projection; by default dim / 16, rounded up to a multiple of 8.
        """
        E, names = int(expand * dim), named(routes)
        super().__init__(dim, E, len(names), state, dt_rank)
        self.routes, self.gate = names, gate
        self.in_proj = nn.Linear(dim, 2 * E if gate else E, bias=False)
        self.conv = GridConv(E, conv)
        self.norm = LayerNorm(E)
        self.out = nn.Linear(E, dim, bias=False)

    def forward(self, x: Tensor, grid: tuple[int, ...], lengths: Tensor | None = None) -> Tensor:
        if len(grid) != 2:
            raise ValueError(
                f"SS2D scans the rows and columns of a grid with two axes, as images and patches of spectrograms have; "
                f"this one, {grid}, has {len(grid)}. For text and frames of sound take BiMamba"
            )
        inner, *z = self.in_proj(x).chunk(2 if self.gate else 1, dim=-1)
        u = F.silu(self.conv(zero_padding(inner, lengths), grid))
        # One product for all routes: (B, L, K (R + 2 N)), of which each route reads its part in place.
        projected = F.linear(u, self.x_weight.flatten(0, 1)).unflatten(-1, (len(self.routes), -1)).permute(2, 0, 1, 3)
        low_rank, B, C = projected.split(self.sizes, dim=-1)
        y = cross_scan(
            u, low_rank, -self.A_log.exp(), B.unsqueeze(-2), C.unsqueeze(-2), self.D, grid=grid, routes=self.routes,
            dt_bias=self.dt_bias, dt_weight=self.dt_weight, dt_softplus=True, grid_sizes=_sizes(lengths, grid[1]),
        )  # fmt: skip
        y = self.norm(y)
        return self.out(y * F.silu(z[0]) if self.gate else y)


def _sizes(lengths: Tensor | None, W: int) -> Tensor | None:
    """(B, 2): rows and columns of each row's own grid; padding is whole rows at the end."""
    if lengths is None:
        return None
    return torch.stack([lengths // W, torch.full_like(lengths, W)], 1)
