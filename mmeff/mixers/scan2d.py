"""Scans over grids of two axes: along several routes at once, or from the corners with two neighbours to come from."""

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
from mmeff_kernels.scan2d import CROSS, FOUR_CORNERS, cross_scan, separable_scan, wavefront_scan
from mmeff_kernels.scan2d.orders import named
from mmeff_kernels.stacked import expanded


class _GridMixer(Mixer):
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


class SS2D(_GridMixer):
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


class TimeFrequency(_GridMixer):
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


class _Corners(_GridMixer):
    """A recurrence of two dimensions from each of K corners, each with parameters of its own."""

    axes_of_step = 1

    def __init__(
        self,
        dim: int,
        expand: float = 1,
        state: int = 4,
        conv: int = 3,
        gate: bool = False,
        corners: Sequence[str] = FOUR_CORNERS,
        dt_rank: int | None = None,
    ) -> None:
        """
        Args:
            dim: width of the tokens.
            expand: inner width as a multiple of dim.
            state: numbers kept for each inner channel and corner.
            conv: size of the depthwise convolution along each axis, odd.
            gate: multiply by silu of a projection of the tokens.
            corners: where recurrences start: "top-left", "top-right", "bottom-left", "bottom-right". From fewer than
                four, a token does not see all others.
            dt_rank: rank of the step size's projection; by default dim / 16, rounded up to a multiple of 8.
        """
        E = inner_width(dim, expand)
        super().__init__(dim, E, conv, gate)
        self.corners = _Corner(dim, E, tuple(corners), state, dt_rank, self.axes_of_step)

    def scan(self, u: Tensor, grid: tuple[int, int], sizes: Tensor | None) -> Tensor:
        return self.corners(u, grid, sizes)


class _Corner(ScanMixer):
    """sum_k h_k C_k + D_k u over K corners, with one step size and decay, or one for each axis."""

    def __init__(
        self, dim: int, E: int, corners: tuple[str, ...], state: int, dt_rank: int | None, axes_of_step: int
    ) -> None:
        self.corners = corners
        super().__init__(dim, E, len(corners), state, dt_rank, axes_of_step)

    def forward(self, x: Tensor, grid: tuple[int, ...], lengths: Tensor | None = None) -> Tensor:
        K, (low_rank, B, C, *top) = len(self.corners), self.projected(x)
        A, weight, bias = -self.A_log.exp(), self.dt_weight, self.dt_bias
        options = {"grid": grid, "corners": self.corners, "dt_softplus": True, "grid_sizes": lengths}
        dt = expanded(low_rank, weight[:K])
        if not top:
            return separable_scan(x, dt, A, B, C, self.D, dt_bias=bias, **options)
        return wavefront_scan(
            x, dt, A[:K], B, expanded(top[0], weight[K:]), A[K:], top[1], C, self.D,
            dt_bias=bias[:K], dt_bias_top=bias[K:], **options,
        )  # fmt: skip


class SeparableScan(_Corners):
    """u = silu(dwconv(W_in x));  y = LN(sum_k R_k(u)) over four corners;  W_out y. O(L).

    R is a recurrence along rows, then one of its states along columns: g_ij = a_ij g_i,j-1 + dt B u_ij;
    h_ij = a_ij h_i-1,j + g_ij;  R(u) = C h + D u. A token sees all others, each by one path.

    Source: Zhang et al., 2DMamba, arXiv 2412.00678, from four corners instead of one.
    """


class WavefrontScan(_Corners):
    """u = silu(dwconv(W_in x));  y = LN(sum_k R_k(u)) over four corners;  W_out y. O(L).

    R is one recurrence from both neighbours, with a step size, decay and B of its own for each axis:
    h_ij = (aL_ij h_i,j-1 + dtL BL u_ij + aT_ij h_i-1,j + dtT BT u_ij) / 2;  R(u) = C h + D u. A token sees all others,
    each by all monotone paths.

    Source: Baty et al., Mamba2D, arXiv 2412.16146, from four corners instead of one.
    """

    axes_of_step = 2
