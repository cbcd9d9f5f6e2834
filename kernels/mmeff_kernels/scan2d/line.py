"""The public three-neighbour line scan."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from ..arguments import has_shape
from ..dispatch import choose
from ..padding import nothing
from ..selective_scan.checks import Impl
from .line_reference import line_scan_reference
from .op import outside_grid

#: Ways to walk a grid line by line.
DIRECTIONS = ("down", "up", "right", "left")


def line_scan(
    x: Tensor,
    weights: Tensor,
    u: Tensor,
    D: Tensor | None = None,
    *,
    grid: tuple[int, int],
    directions: Sequence[str] = DIRECTIONS,
    grid_sizes: Tensor | None = None,
    impl: Impl = "auto",
) -> Tensor:
    """GSPN's line scan: a state takes in three neighbours of the line before. y = sum_k u_k h_k + D_k x, where

        h[r, c] = wl[r, c] h[r-1, c-1] + wm[r, c] h[r-1, c] + wr[r, c] h[r-1, c+1] + x[r, c],

    lines r follow one another in the direction k, and h is 0 outside the grid. Source: arXiv 2501.12381.

    x           ([K,] B, H W, D): what enters each state (GSPN's lambda x). Token i W + j lies in row i, column j
    weights     ([K,] B, H W, 3, G): wl, wm, wr, of the neighbours before, same and after. G = 1: all channels share
                them; G = D: each has its own. They are taken as they are. The scan is stable where they are >= 0 and
                the three sum to 1 (or less); it may grow without bound where they do not
    u           ([K,] B, H W, D): the gate of what leaves a state
    D           ([K,] D) or None
    grid        (H, W)
    directions  1 to 8 names, repeated or not; K is their number. "down", "up": lines are rows, walked from the top or
                the bottom, c is the column. "right", "left": lines are columns, walked from the left or the right, c is
                the row. Tensors without an axis K serve all directions
    grid_sizes  (B, 2) integers or None: of each row of the batch the rows and columns of its grid, from the first
                corner, that hold tokens. What lies outside is never read, y and gradients are 0 there, and the rest is
                as if the small grid were alone
    impl        "triton": fused kernels on CUDA. "torch": a loop over lines. "reference": the definition, cell by cell.
                "auto": "triton" on CUDA but for float64, else "torch". A named one never falls back to another

    Returns y (B, H W, D) in x's dtype. "triton" and "torch" compute in fp32, and so is the state; "torch" in fp64 if
    any input is; "reference" in the promoted dtype of the inputs. With "triton" gradients are of the first order only
    and need the states of all tokens and directions, which the forward pass keeps in fp32.

    ValueError if the shapes do not fit together, or if `impl` does not exist or cannot serve these tensors.
    """
    tensors = {"x": x, "weights": weights, "u": u, "D": D}
    _check(tensors, grid, directions)
    chosen = choose(impl, Impl, tensors)
    if x.numel() == 0:
        return nothing(x.shape[-3:], x.dtype, *tensors.values())
    double = any(t is not None and t.dtype == torch.float64 for t in tensors.values())
    outside = None
    if grid_sizes is not None:
        outside = outside_grid(grid_sizes, *grid, x)[..., None]
        x, u = x.masked_fill(outside, 0), u.masked_fill(outside, 0)
        weights = weights.masked_fill(outside[..., None], 0)
    if chosen == "triton":
        from .line_operators import scan

        return scan(x, weights, u, D, grid, [DIRECTIONS.index(name) for name in directions])
    if chosen == "reference":
        return line_scan_reference(x, weights, u, D, grid, directions).to(x.dtype)
    wide = torch.float64 if double else torch.float32
    y = _torch(x.to(wide), weights.to(wide), u.to(wide), None if D is None else D.to(wide), grid, directions)
    return y.to(x.dtype)


def _torch(
    x: Tensor, weights: Tensor, u: Tensor, D: Tensor | None, grid: tuple[int, int], directions: Sequence[str]
) -> Tensor:
    """A loop over lines; directions whose lines are equally long go through it together."""
    y = None
    for pair in (DIRECTIONS[:2], DIRECTIONS[2:]):
        ks = [k for k, name in enumerate(directions) if name in pair]
        if not ks:
            continue
        own_x, own_weights = (
            torch.stack([_lines(t if t.dim() == dim else t[k], grid, directions[k]) for k in ks], 1)
            for t, dim in ((x, 3), (weights, 4))
        )
        h, hs = torch.zeros_like(own_x[0]), []
        for x_line, w_line in zip(own_x.unbind(0), own_weights.unbind(0), strict=True):
            wl, wm, wr = w_line.unbind(-2)
            around = F.pad(h, (0, 0, 1, 1))
            h = x_line + wl * around[..., :-2, :] + wm * h + wr * around[..., 2:, :]
            hs.append(h)
        for k, of_k in zip(ks, torch.stack(hs).unbind(1), strict=True):
            part = (u if u.dim() == 3 else u[k]) * _tokens(of_k, directions[k])
            y = part if y is None else y + part
    assert y is not None
    if D is None:
        return y
    # The same x meets the sum of all D.
    D = D * len(directions) if D.dim() == 1 and x.dim() == 3 else D.sum(0) if x.dim() == 3 else D
    return y + D * x if x.dim() == 3 else y + ((D if D.dim() == 1 else D[:, None, None]) * x).sum(0)


def _lines(t: Tensor, grid: tuple[int, int], name: str) -> Tensor:
    """(B, H W, ...) -> (lines, B, cells, ...), lines in the order of the direction."""
    lines = t.unflatten(1, grid).movedim(1 if name in ("down", "up") else 2, 0)
    return lines.flip(0) if name in ("up", "left") else lines


def _tokens(lines: Tensor, name: str) -> Tensor:
    """(lines, B, cells, D) -> (B, H W, D)."""
    lines = lines.flip(0) if name in ("up", "left") else lines
    return lines.movedim(0, 1 if name in ("down", "up") else 2).flatten(1, 2)


def _check(tensors: dict[str, Tensor | None], grid: tuple[int, int], directions: Sequence[str]) -> None:
    if isinstance(directions, str) or not isinstance(directions, Sequence) or not 1 <= len(directions) <= 8:
        raise ValueError(f"directions must be 1 to 8 names of {', '.join(DIRECTIONS)}, not {directions!r}")
    if wrong := [name for name in directions if name not in DIRECTIONS]:
        raise ValueError(f"direction {wrong[0]!r}: choose from {', '.join(DIRECTIONS)}")
    x, weights = tensors["x"], tensors["weights"]
    assert x is not None and weights is not None
    K, (H, W) = len(directions), grid
    if x.dim() not in (3, 4):
        raise ValueError(f"x must be ([K,] B, H W, D), not {tuple(x.shape)}")
    rows, L, channels = x.shape[-3:]
    if min(H, W) < 1 or H * W != L:
        raise ValueError(f"x {tuple(x.shape)} has no {H * W} tokens of a {H} x {W} grid")
    if channels == 0:
        raise ValueError(f"nothing to scan: x {tuple(x.shape)}")
    own = weights.shape[-1] if weights.dim() >= 4 else 1
    if own not in (1, channels):
        raise ValueError(
            f"weights {tuple(weights.shape)} has a last axis of {own}: it must be 1, for weights that all channels "
            f"share, or the {channels} channels of x"
        )
    wanted = {
        "x": (rows, L, channels),
        "weights": (rows, L, 3, own),
        "u": (rows, L, channels),
        "D": (channels,),
    }
    for name, shape in wanted.items():
        tensor = tensors[name]
        if tensor is None:
            continue
        if not has_shape(tensor, shape, (K, *shape)):
            beside = "" if name == "x" else f" beside x {tuple(x.shape)}"
            raise ValueError(
                f"{name} must be {shape} or {(K, *shape)}{beside} for {K} directions, not {tuple(tensor.shape)}"
            )
        if tensor.device != x.device:
            raise ValueError(f"{name} is on {tensor.device}, x on {x.device}")
        if not tensor.is_floating_point():
            raise ValueError(f"{name} must be floating point, not {tensor.dtype}")
