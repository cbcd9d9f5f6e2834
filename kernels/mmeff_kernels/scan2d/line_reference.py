"""The three-neighbour line scan as it is defined, cell after cell."""

from collections.abc import Sequence

import torch
from torch import Tensor


def line_scan_reference(
    x: Tensor, weights: Tensor, u: Tensor, D: Tensor | None, grid: tuple[int, int], directions: Sequence[str]
) -> Tensor:
    """h[r, c] = wl h[r-1, c-1] + wm h[r-1, c] + wr h[r-1, c+1] + x,  y = sum_k u_k h_k + D_k x (arXiv 2501.12381).

    The arguments of `line_scan`. Returns y (B, H W, D) in the promoted dtype of the tensors.
    """
    height, width = grid
    x, u = x.movedim(-2, 0), u.movedim(-2, 0)  # (H W, [K,] B, D)
    weights = weights.movedim((-3, -2), (0, 1))  # (H W, 3, [K,] B, G)
    zero = torch.zeros((), dtype=torch.promote_types(x.dtype, torch.promote_types(weights.dtype, u.dtype)))
    nothing = zero.to(x.device).expand(x.shape[-2:])
    y = [nothing] * (height * width)
    for k, name in enumerate(directions):
        lines, cells = (height, width) if name in ("down", "up") else (width, height)
        before = [nothing] * cells
        for r in range(lines):
            line = []
            for c in range(cells):
                if name == "down":
                    t = r * width + c
                elif name == "up":
                    t = (height - 1 - r) * width + c
                elif name == "right":
                    t = c * width + r
                else:
                    t = c * width + width - 1 - r
                h = x[t] if x.dim() == 3 else x[t, k]
                h = h + _of(weights[t], k)[1] * before[c]
                if c > 0:
                    h = h + _of(weights[t], k)[0] * before[c - 1]
                if c + 1 < cells:
                    h = h + _of(weights[t], k)[2] * before[c + 1]
                line.append(h)
                y[t] = y[t] + (u[t] if u.dim() == 3 else u[t, k]) * h
                if D is not None:
                    y[t] = y[t] + (D if D.dim() == 1 else D[k]) * (x[t] if x.dim() == 3 else x[t, k])
            before = line
    return torch.stack(y, 1)


def _of(weights: Tensor, k: int) -> Tensor:
    """(3, B, G) of direction k from (3, [K,] B, G)."""
    return weights if weights.dim() == 3 else weights[:, k]
