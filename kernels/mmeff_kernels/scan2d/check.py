"""Whether the scans over grids are right on a device: every implementation against the definition in float64."""

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from ..finding import Finding, compare_implementations, draw
from .line import line_scan
from .op import cross_scan
from .orders import CROSS
from .recurrence import separable_scan, wavefront_scan
from .reference import cross_scan_reference

GRID = (5, 7)
K, L = len(CROSS), GRID[0] * GRID[1]
#: Two rows of the batch, 24 channels, 4 states.
SHAPES = {
    "x": (2, L, 24), "dt": (K, 2, L, 24), "A": (K, 24, 4), "B": (K, 2, L, 1, 4), "C": (K, 2, L, 1, 4), "D": (K, 24),
}  # fmt: skip


def check(device: torch.device) -> Iterator[Finding]:
    """Four routes, corners or directions with parameters of their own: y and every gradient."""
    drawn = draw(SHAPES)
    drawn["A"], drawn["dt"] = -drawn["A"].abs(), drawn["dt"].abs()
    yield from compare_implementations("cross_scan", drawn, _run, device, ("x", "dt", "B", "C"), _define)
    drawn |= {name: drawn[name].detach().squeeze(-2) for name in "BC"}
    narrow = ("x", "dt", "B", "C", "dt_top", "B_top")
    for scan in (separable_scan, wavefront_scan):

        def run(tensors: dict[str, Tensor], impl: Any, scan: Any = scan) -> Tensor:
            return scan(**tensors, grid=GRID, impl=impl)

        yield from compare_implementations(
            scan.__name__, drawn, run, device, narrow, lambda wide, run=run: run(wide, "reference")
        )
        drawn |= {f"{name}_top": drawn[name].detach().flip(0) for name in ("dt", "A", "B")}
    lines = draw({"x": (2, L, 24), "weights": (K, 2, L, 3, 1), "u": (K, 2, L, 24), "D": (K, 24)})
    lines["weights"] = lines["weights"].softmax(-2)

    def walk(tensors: dict[str, Tensor], impl: Any) -> Tensor:
        x, weights, u, D = tensors.values()
        return line_scan(x, weights, u, D, grid=GRID, impl=impl)

    yield from compare_implementations(
        "line_scan", lines, walk, device, ("x", "weights", "u"), lambda wide: walk(wide, "reference")
    )


def _run(tensors: dict[str, Tensor], impl: Any) -> Tensor:
    x, dt, A, B, C, D = tensors.values()
    return cross_scan(x, dt, A, B, C, D, grid=GRID, impl=impl)


def _define(wide: dict[str, Tensor]) -> Tensor:
    x, dt, A, B, C, D = wide.values()
    return cross_scan_reference(x, dt, A, B.squeeze(-2), C.squeeze(-2), D, GRID, CROSS, [GRID] * len(x))
