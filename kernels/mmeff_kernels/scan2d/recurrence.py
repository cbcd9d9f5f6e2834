"""Recurrences of two dimensions: the state of a token comes from its neighbours in the row and in the column."""

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from ..arguments import has_shape, innermost
from ..dispatch import choose
from ..first_order import first_order
from ..padding import nothing
from ..selective_scan.checks import Impl
from ..selective_scan.reference import step_sizes
from .op import outside_grid, without_steps
from .recurrence_reference import separable_scan_reference, wavefront_scan_reference

#: Where a recurrence starts: the corner whose token has no predecessor. Whether rows, and columns, are walked from
#: their end.
TURNS = {
    "top-left": (False, False), "top-right": (False, True),
    "bottom-left": (True, False), "bottom-right": (True, True),
}  # fmt: skip
FOUR_CORNERS = tuple(TURNS)
#: States a channel that a tile of the Triton kernels holds.
LARGEST_STATE = 64


def separable_scan(
    x: Tensor,
    dt: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    D: Tensor | None = None,
    *,
    grid: tuple[int, int],
    corners: Sequence[str] = FOUR_CORNERS,
    dt_bias: Tensor | None = None,
    dt_softplus: bool = False,
    grid_sizes: Tensor | None = None,
    impl: Impl = "auto",
) -> Tensor:
    """A recurrence along rows, then one of its states along columns (2DMamba, arXiv 2412.00678), from each corner:

        g_ij = a_ij g_i,j-1 + u_ij;  h_ij = a_ij h_i-1,j + g_ij;  y_ij = C_ij h_ij + D x_ij;  y is summed over corners

    a = exp(dt A), u = dt B x; states outside the grid are 0. A token reaches another by one path: along its own row,
    then along the other's column. Indices count from the corner.

    x                   (B, H W, D), tokens row-major; it may lead with an axis K, as may all tensors that follow
    dt                  ([K,] B, H W, D)
    A                   ([K,] D, N), A <= 0
    B, C                ([K,] B, H W, N)
    D, dt_bias          ([K,] D) or None
    grid                (H, W)
    corners             K of "top-left", "top-right", "bottom-left", "bottom-right"
    dt_softplus         dt <- softplus(dt + dt_bias)
    grid_sizes          (B, 2) integers or None: of each row of the batch the rows and columns of its grid, from the
                        first corner, that hold tokens. What lies outside is never read, and y is 0 there
    impl                "triton", "torch", "reference", or "auto": Triton on CUDA

    Computes in fp32, in float64 if x is (not by Triton). Returns y (B, H W, D) in x's dtype. ValueError if the shapes
    do not fit together, a corner is unknown, or impl cannot serve the tensors.
    """
    left = {"dt": dt, "A": A, "B": B, "dt_bias": dt_bias}
    return _scan(x, left, None, C, D, grid, corners, dt_softplus, grid_sizes, impl)


def wavefront_scan(
    x: Tensor,
    dt: Tensor,
    A: Tensor,
    B: Tensor,
    dt_top: Tensor,
    A_top: Tensor,
    B_top: Tensor,
    C: Tensor,
    D: Tensor | None = None,
    *,
    grid: tuple[int, int],
    corners: Sequence[str] = FOUR_CORNERS,
    dt_bias: Tensor | None = None,
    dt_bias_top: Tensor | None = None,
    dt_softplus: bool = False,
    grid_sizes: Tensor | None = None,
    impl: Impl = "auto",
) -> Tensor:
    """One state from both neighbours (Mamba2D, arXiv 2412.16146), from each corner, summed over corners:

        h_ij = (aL_ij h_i,j-1 + uL_ij + aT_ij h_i-1,j + uT_ij) / 2;  y_ij = C_ij h_ij + D x_ij

    aL = exp(dt A), uL = dt B x; aT and uT likewise of dt_top, A_top, B_top, each of the shape of its partner; states
    outside the grid are 0. A token reaches another by all monotone paths, each of s steps with a weight of 2^-s at
    most, so that their sum stays bounded.

    The other arguments, errors and precision are those of `separable_scan`.
    """
    left = {"dt": dt, "A": A, "B": B, "dt_bias": dt_bias}
    top = {"dt": dt_top, "A": A_top, "B": B_top, "dt_bias": dt_bias_top}
    if (dt_bias is None) != (dt_bias_top is None):
        raise ValueError("give both of dt_bias and dt_bias_top, or neither")
    return _scan(x, left, top, C, D, grid, corners, dt_softplus, grid_sizes, impl)


#: dt, A, B and dt_bias of an axis; dt_bias may be None.
Axis = dict[str, Any]


def _scan(
    x: Tensor,
    left: Axis,
    top: Axis | None,
    C: Tensor,
    D: Tensor | None,
    grid: tuple[int, int],
    corners: Sequence[str],
    softplus: bool,
    grid_sizes: Tensor | None,
    impl: Impl,
) -> Tensor:
    sides = [left] if top is None else [left, top]
    tensors = _by_name(x, sides, C, D)
    _check(tensors, grid, corners)
    beyond, N = "", left["A"].shape[-1]
    if N > LARGEST_STATE:
        beyond = f"serves up to {LARGEST_STATE} states a channel, A {tuple(left['A'].shape)} has {N}"
    chosen = choose(impl, Impl, tensors, beyond)
    if x.numel() == 0:
        return nothing(x.shape[-3:], x.dtype, *tensors.values())
    if grid_sizes is not None:
        outside = outside_grid(grid_sizes, *grid, x)[..., None]
        x, C = x.masked_fill(outside, 0), C.masked_fill(outside, 0)
        sides = [_masked(side, outside, softplus) for side in sides]
    if chosen == "triton":
        y = _triton(x, sides, C, D, grid, corners, softplus)
    else:
        tensors = {"x": x, "C": C, "D": D}
        wide = torch.promote_types(x.dtype, torch.float32)
        ys = []
        for k, corner in enumerate(corners):
            own = {name: _of_corner(name, t, k, wide) for name, t in tensors.items()}
            axes: list[Axis] = [{name: _of_corner(name, t, k, wide) for name, t in side.items()} for side in sides]
            for axis in axes:
                axis["dt"] = step_sizes(axis["dt"], None, axis.pop("dt_bias"), softplus)
            ys.append(_one_corner(own, axes, grid, TURNS[corner], chosen == "reference"))
        y = torch.stack(ys).sum(0).to(x.dtype)
    return y if grid_sizes is None else y.masked_fill(outside, 0)


def _triton(
    x: Tensor, sides: list[Axis], C: Tensor, D: Tensor | None, grid: tuple[int, int], corners: Sequence[str],
    softplus: bool,
) -> Tensor:  # fmt: skip
    from .corner_operators import CornerScan

    def given(side: Axis) -> tuple[Any, ...]:
        A, bias = side["A"].float().mT.contiguous(), side["dt_bias"]
        return innermost(side["dt"]), A, innermost(side["B"]), None if bias is None else bias.float().contiguous()

    rows, columns = (sum(1 << k for k, corner in enumerate(corners) if TURNS[corner][axis]) for axis in (0, 1))
    top = given(sides[1]) if len(sides) == 2 else (None,) * 4
    own = None if D is None else D.float().contiguous()
    turned = softplus, len(corners), rows, columns, *grid
    y = CornerScan.apply(innermost(x), *given(sides[0]), *top, innermost(C), own, *turned)
    return y[0] if len(corners) == 1 else y.sum(0)


def _one_corner(
    own: dict[str, Any], axes: list[Axis], grid: tuple[int, int], turns: tuple[bool, bool], reference: bool
) -> Tensor:
    """Both paths on the CPU: turn the grid so that the corner comes first, scan, turn back."""
    H, W = grid
    flipped = [axis for axis, turned in zip((1, 2), turns, strict=True) if turned]

    def turn(tensor: Tensor) -> Tensor:
        return tensor.unflatten(1, (H, W)).flip(flipped)

    x, C, D = turn(own["x"]), turn(own["C"]), own["D"]
    given = [(turn(axis["dt"]), axis["A"], turn(axis["B"])) for axis in axes]
    if reference:
        if len(axes) == 1:
            y = separable_scan_reference(x, given[0], C)
        else:
            y = wavefront_scan_reference(x, given[0], given[1], C)
    else:
        pairs = [(torch.exp(dt[..., None] * A), (dt * x)[..., None] * B[..., None, :]) for dt, A, B in given]
        h = _separable(*pairs[0]) if len(axes) == 1 else _wavefront(*pairs[0], *pairs[1])
        y = (h @ C[..., None]).squeeze(-1)
    y = y if D is None else y + D * x
    return y.flip(flipped).flatten(1, 2)


def _separable(a: Tensor, u: Tensor) -> Tensor:
    """States (B, H, W, D, N): all rows at once from column to column, then all columns at once from row to row."""
    g = _along(a, u, 2)
    return _along(a, g, 1)


def _along(a: Tensor, u: Tensor, axis: int) -> Tensor:
    h, found = torch.zeros_like(u.select(axis, 0)), []
    for decay, entering in zip(a.unbind(axis), u.unbind(axis), strict=True):
        h = decay * h + entering
        found.append(h)
    return torch.stack(found, axis)


def _wavefront(left: Tensor, u_left: Tensor, top: Tensor, u_top: Tensor) -> Tensor:
    """States (B, H, W, D, N). Row i is moved i places to the right, so that antidiagonals become columns."""
    states = Antidiagonals.apply(*(_skewed(t).movedim(2, 0).contiguous() for t in (left, top, u_left + u_top)))
    return _straightened(states.movedim(0, 2))


class Antidiagonals(torch.autograd.Function):
    """Decays and what enters, (H + W - 1, B, H, D, N), one antidiagonal after the other -> states."""

    @staticmethod
    def forward(ctx: Any, left: Tensor, top: Tensor, u: Tensor) -> Tensor:  # pyright: ignore[reportIncompatibleMethodOverride]
        hs = torch.empty_like(u)
        h = torch.zeros_like(u[0])
        for d in range(len(u)):
            entering = torch.addcmul(u[d], left[d], h)
            entering[:, 1:].addcmul_(top[d][:, 1:], h[:, :-1])
            h = torch.mul(entering, 0.5, out=hs[d])
        ctx.save_for_backward(left, top, hs)
        return hs

    @staticmethod
    @first_order("wavefront_scan")
    def backward(ctx: Any, g: Tensor) -> tuple[Tensor, Tensor, Tensor]:  # pyright: ignore[reportIncompatibleMethodOverride]
        left, top, hs = ctx.saved_tensors
        gu = g * 0.5
        for d in range(len(hs) - 1, 0, -1):
            gu[d - 1].addcmul_(left[d], gu[d], value=0.5)
            gu[d - 1][:, :-1].addcmul_(top[d][:, 1:], gu[d][:, 1:], value=0.5)
        before = F.pad(hs[:-1], (0, 0, 0, 0, 0, 0, 0, 0, 1, 0))
        above = F.pad(before[:, :, :-1], (0, 0, 0, 0, 1, 0))
        return gu * before, gu * above, gu


def _skewed(t: Tensor) -> Tensor:
    """(B, H, W, ...) -> (B, H, H + W - 1, ...), token (i, j) at (i, i + j), 0 elsewhere. Rows of H + W read as rows of
    one place fewer; an index would cost a sort in the backward pass."""
    _, H, W = t.shape[:3]
    wide = F.pad(t, (0, 0, 0, 0, 0, H)).flatten(1, 2)
    return wide[:, : H * (H + W - 1)].unflatten(1, (H, H + W - 1))


def _straightened(t: Tensor) -> Tensor:
    """The inverse of `_skewed`."""
    _, H, wide = t.shape[:3]
    return F.pad(t.flatten(1, 2), (0, 0, 0, 0, 0, H)).unflatten(1, (H, wide + 1))[:, :, : wide + 1 - H]


_OF_ALL = {"x": 3, "dt": 3, "A": 2, "B": 3, "C": 3, "D": 1, "dt_bias": 1}


def _of_corner(name: str, tensor: Tensor | None, k: int, wide: torch.dtype) -> Tensor | None:
    """What corner k takes of a tensor: its own part, or the tensor that all share."""
    if tensor is None:
        return None
    return (tensor if tensor.dim() == _OF_ALL[name] else tensor[k]).to(wide)


def _masked(side: Axis, outside: Tensor, softplus: bool) -> Axis:
    """dt becomes 0 outside, where nothing enters then, and states pass as they are; they are 0 there or not seen."""
    dt = without_steps(side["dt"].masked_fill(outside, 0), side["dt_bias"], outside, softplus)
    return {**side, "dt": dt, "B": side["B"].masked_fill(outside, 0), "dt_bias": None}


def _by_name(x: Tensor, sides: list[Axis], C: Tensor, D: Tensor | None) -> dict[str, Tensor]:
    """All tensors that there are, by the names of the arguments."""
    named = {"x": x, "C": C, "D": D, **sides[0], **{f"{k}_top": t for side in sides[1:] for k, t in side.items()}}
    return {name: tensor for name, tensor in named.items() if tensor is not None}


def _check(tensors: dict[str, Tensor], grid: tuple[int, int], corners: Sequence[str]) -> None:
    """ValueError, with the shapes in it, if the tensors do not fit together."""
    if isinstance(corners, str) or not 1 <= len(corners) <= 32 or any(corner not in TURNS for corner in corners):
        raise ValueError(f"corners must be 1 to 32 of {', '.join(TURNS)}, not {corners!r}")
    x, A, K = tensors["x"], tensors["A"], len(corners)
    if x.dim() not in (3, 4) or A.dim() not in (2, 3):
        raise ValueError(f"x must be ([K,] B, L, D) and A ([K,] D, N), not {tuple(x.shape)} and {tuple(A.shape)}")
    rows, L, channels = x.shape[-3:]
    N = A.shape[-1]
    if grid[0] * grid[1] != L or 0 in (L, channels, N):
        raise ValueError(f"x {tuple(x.shape)} has no {grid[0] * grid[1]} tokens of a {grid[0]} x {grid[1]} grid")
    of_all = {
        "x": (rows, L, channels), "dt": (rows, L, channels), "A": (channels, N), "B": (rows, L, N), "C": (rows, L, N),
        "D": (channels,), "dt_bias": (channels,),
    }  # fmt: skip
    for name, tensor in tensors.items():
        shape = of_all[name.removesuffix("_top")]
        if not has_shape(tensor, shape, (K, *shape)):
            raise ValueError(
                f"{name} must be {shape} or {(K, *shape)} beside x {tuple(x.shape)} for {K} corners, "
                f"not {tuple(tensor.shape)}"
            )
        if tensor.device != x.device or not tensor.is_floating_point():
            raise ValueError(
                f"{name} must be floating point on {x.device}, as x, not {tensor.dtype} on {tensor.device}"
            )
