"""The recurrences of two dimensions as they are defined, from the first corner, token after token."""

import torch
from torch import Tensor

Axis = tuple[Tensor, Tensor, Tensor]


def separable_scan_reference(x: Tensor, left: Axis, C: Tensor) -> Tensor:
    """g_ij = a_ij g_i,j-1 + u_ij;  h_ij = a_ij h_i-1,j + g_ij;  y = C h;  a = exp(dt A), u = dt B x (arXiv 2412.00678).

    x (B, H, W, D); left: dt as the recurrence takes it (B, H, W, D), A (D, N), B (B, H, W, N); C likewise.
    """
    h: dict[tuple[int, int], Tensor] = {}
    y = []
    for i in range(x.shape[1]):
        g = x.new_zeros(())
        for j in range(x.shape[2]):
            a, u = _step(x, left, i, j)
            g = a * g + u
            h[i, j] = a * h[i - 1, j] + g if i else g
            y.append((h[i, j] * C[:, i, j, None]).sum(-1))
    return torch.stack(y, 1).unflatten(1, x.shape[1:3])


def wavefront_scan_reference(x: Tensor, left: Axis, top: Axis, C: Tensor) -> Tensor:
    """h_ij = (aL_ij h_i,j-1 + uL_ij + aT_ij h_i-1,j + uT_ij) / 2;  y = C h (arXiv 2412.16146).

    As `separable_scan_reference`, with dt, A and B of their own for each axis.
    """
    h: dict[tuple[int, int], Tensor] = {}
    y, nought = [], x.new_zeros(())
    for i in range(x.shape[1]):
        for j in range(x.shape[2]):
            (a_left, u_left), (a_top, u_top) = _step(x, left, i, j), _step(x, top, i, j)
            h[i, j] = (a_left * h.get((i, j - 1), nought) + u_left + a_top * h.get((i - 1, j), nought) + u_top) / 2
            y.append((h[i, j] * C[:, i, j, None]).sum(-1))
    return torch.stack(y, 1).unflatten(1, x.shape[1:3])


def _step(x: Tensor, axis: Axis, i: int, j: int) -> tuple[Tensor, Tensor]:
    """a and u of a token, (B, D, N)."""
    dt, A, B = axis
    return torch.exp(dt[:, i, j, :, None] * A), (dt * x)[:, i, j, :, None] * B[:, i, j, None]
