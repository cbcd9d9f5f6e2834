"""Recurrences of two dimensions: from the corners of a grid, with two neighbours to come from."""

from collections.abc import Sequence

from torch import Tensor

from mmeff.mixers.heads import inner_width
from mmeff.mixers.scan2d import GridMixer
from mmeff.mixers.selective_scan import ScanMixer
from mmeff_kernels.scan2d import FOUR_CORNERS, separable_scan, wavefront_scan
from mmeff_kernels.stacked import expanded


class _Corners(GridMixer):
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
