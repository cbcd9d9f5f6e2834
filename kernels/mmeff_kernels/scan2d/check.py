"""Whether the scans over grids are right on a device: every implementation against the definition in float64."""

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from ..finding import Finding, compare_implementations, draw
from .op import cross_scan
from .orders import CROSS
from .reference import cross_scan_reference

GRID = (5, 7)
K, L = len(CROSS), GRID[0] * GRID[1]
#: Two rows of the batch, 24 channels, 4 states.
SHAPES = {
    "x": (2, L, 24), "dt": (K, 2, L, 24), "A": (K, 24, 4), "B": (K, 2, L, 1, 4), "C": (K, 2, L, 1, 4), "D": (K, 24),
}  # fmt: skip


def check(device: torch.device) -> Iterator[Finding]:
    """Four routes with parameters of their own: y and every gradient."""
    drawn = draw(SHAPES)
    drawn["A"], drawn["dt"] = -drawn["A"].abs(), drawn["dt"].abs()
    yield from compare_implementations("cross_scan", drawn, _run, device, ("x", "dt", "B", "C"), _define)


def _run(tensors: dict[str, Tensor], impl: Any) -> Tensor:
    x, dt, A, B, C, D = tensors.values()
    return cross_scan(x, dt, A, B, C, D, grid=GRID, impl=impl)


def _define(wide: dict[str, Tensor]) -> Tensor:
    x, dt, A, B, C, D = wide.values()
    return cross_scan_reference(x, dt, A, B.squeeze(-2), C.squeeze(-2), D, GRID, CROSS, [GRID] * len(x))
