"""The scans over grids as they are defined, token after token."""

from collections.abc import Sequence

import torch
from torch import Tensor

from .orders import route


def cross_scan_reference(
    x: Tensor,
    dt: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    D: Tensor,
    grid: tuple[int, int],
    routes: Sequence[str],
    grid_sizes: Sequence[tuple[int, int]],
) -> Tensor:
    """x (B, H W, D), dt (K, B, H W, D) as the recurrence takes it, A (K, D, N), B and C (K, B, H W, N), D (K, D)."""
    y = torch.zeros_like(x)
    for b, (height, width) in enumerate(grid_sizes):
        for k, name in enumerate(routes):
            h = torch.zeros_like(A[k])
            for t in route(name, *grid).tolist():
                if t // grid[1] >= height or t % grid[1] >= width:
                    continue
                h = torch.exp(dt[k, b, t][:, None] * A[k]) * h + (dt[k, b, t] * x[b, t])[:, None] * B[k, b, t]
                y[b, t] += h @ C[k, b, t] + D[k] * x[b, t]
    return y
