"""Scans over grids of two axes, along several routes at once."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mmeff.errors import whole
from mmeff.mixers.base import Mixer
from mmeff.mixers.conv import GridConv, odd
from mmeff.mixers.heads import inner_width
from mmeff.mixers.selective_scan import ScanMixer
from mmeff.norm import LayerNorm
from mmeff.tokens import zero_padding
from mmeff_kernels.scan2d import CROSS, cross_scan
from mmeff_kernels.scan2d.orders import named


class GridMixer(Mixer):
    """u = silu(dwconv(W_in x));  W_out LN(scan(u)), or with a gate [u, z] = W_in x and W_out (LN(scan(u)) silu(z))."""

    axes = (2,)

    def __init__(self, dim: int, E: int, conv: int, gate: bool) -> None:
        super().__init__()
        odd(conv=conv)
        self.gate = gate
        self.in_proj = nn.Linear(dim, 2 * E if gate else E, bias=False)
        self.conv = GridConv(E, conv)
        self.norm = LayerNorm(E)
        self.out = nn.Linear(E, dim, bias=False)

    def forward(self, x: Tensor, grid: tuple[int, ...], lengths: Tensor | None = None) -> Tensor:
        if len(grid) != 2:
            raise ValueError(
                f"{type(self).__name__} scans the rows and columns of a grid with two axes, as images and patches of "
                f"spectrograms have; this one, {grid}, has {len(grid)}. For text and frames of sound take BiMamba"
            )
        inner, *z = self.in_proj(x).chunk(2 if self.gate else 1, dim=-1)
        u = F.silu(self.conv(zero_padding(inner, lengths), grid))
        y = self.norm(self.scan(u, (grid[0], grid[1]), _sizes(lengths, grid[1])))
        return self.out(y * F.silu(z[0]) if self.gate else y)

    def scan(self, u: Tensor, grid: tuple[int, int], sizes: Tensor | None) -> Tensor:
        """(B, L, E) -> (B, L, E); sizes (B, 2): rows and columns of each row's own grid."""
        raise NotImplementedError


def _sizes(lengths: Tensor | None, W: int) -> Tensor | None:
    """(B, 2): rows and columns of each row's own grid; padding is whole rows at the end."""
    if lengths is None:
        return None
    return torch.stack([lengths // W, torch.full_like(lengths, W)], 1)


class _Routes(ScanMixer):
    """sum_k S6_k(u) over K routes, each with parameters of its own. All read u, and its projections, in place."""

    def __init__(self, dim: int, E: int, routes: Sequence[str], state: int, dt_rank: int | None) -> None:
        self.routes = named(routes)
        super().__init__(dim, E, len(self.routes), state, dt_rank)

    def forward(self, x: Tensor, grid: tuple[int, ...], lengths: Tensor | None = None) -> Tensor:
        low_rank, B, C = self.projected(x)
        return cross_scan(
            x, low_rank, -self.A_log.exp(), B.unsqueeze(-2), C.unsqueeze(-2), self.D, grid=(grid[0], grid[1]),
            routes=self.routes, dt_bias=self.dt_bias, dt_weight=self.dt_weight, dt_softplus=True, grid_sizes=lengths,
        )  # fmt: skip


class SS2D(GridMixer):
    """u = silu(dwconv(W_in x));  y = LN(sum_k S6_k(u)) over K routes, each with parameters of its own;  W_out y. O(L).

    With `gate`, [u, z] = W_in x and y is multiplied by silu(z), as in VMamba's first version; the released ones have
    none.

    Source: Liu et al., VMamba, arXiv 2401.10166, section 4.2.
    """

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
        E = inner_width(dim, expand)
        super().__init__(dim, E, conv, gate)
        self.routes = _Routes(dim, E, routes, state, dt_rank)

    def scan(self, u: Tensor, grid: tuple[int, int], sizes: Tensor | None) -> Tensor:
        return self.routes(u, grid, sizes)


class TimeFrequency(GridMixer):
    """SS2D for spectrograms, whose axes are no equals: y = LN(g y_time + (1 - g) y_frequency),  g = sigmoid(W_g u).

    Each of the two is the sum of a scan from either end, along time or along frequency, with as many states as its axis
    wants: what is long ago matters in time, while along frequency few neighbours do. Grids are (time, frequency). O(L).
    """

    def __init__(
        self,
        dim: int,
        expand: float = 1,
        time_state: int = 8,
        frequency_state: int = 2,
        conv: int = 3,
        gate: bool = False,
        dt_rank: int | None = None,
    ) -> None:
        """
        Args:
            dim: width of the tokens.
            expand: inner width as a multiple of dim.
            time_state: numbers kept for each inner channel and direction along time.
            frequency_state: the same along frequency.
            conv: size of the depthwise convolution along each axis, odd.
            gate: multiply by silu of a projection of the tokens.
            dt_rank: rank of the step size's projection; by default dim / 16, rounded up to a multiple of 8.
        """
        whole(1, time_state=time_state, frequency_state=frequency_state)
        E = inner_width(dim, expand)
        super().__init__(dim, E, conv, gate)
        self.time = _Routes(dim, E, ("columns", "columns-reversed"), time_state, dt_rank)
        self.frequency = _Routes(dim, E, ("rows", "rows-reversed"), frequency_state, dt_rank)
        self.mix = nn.Linear(E, E)

    def scan(self, u: Tensor, grid: tuple[int, int], sizes: Tensor | None) -> Tensor:
        along_frequency = self.frequency(u, grid, sizes)
        return along_frequency + torch.sigmoid(self.mix(u)) * (self.time(u, grid, sizes) - along_frequency)
