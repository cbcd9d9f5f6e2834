"""Whether the scans over grids are right on a device: every implementation against the definition in float64."""

from collections.abc import Iterator

import torch
from torch import Tensor

from ..finding import Finding, compare
from ..selective_scan.checks import Impl
from .op import cross_scan
from .orders import CROSS
from .reference import cross_scan_reference

GRID = (5, 7)


def check(device: torch.device) -> Iterator[Finding]:
    """Four routes with parameters of their own, in fp32 and bf16: y and every gradient."""
    impls: tuple[Impl, ...] = ("torch", "triton") if device.type == "cuda" else ("torch",)
    for impl in impls:
        for dtype, bound in ((torch.float32, 1e-5), (torch.bfloat16, 1e-2)):
            tensors = inputs(device, dtype)
            yield compare(
                f"cross_scan, {impl}, {str(dtype).removeprefix('torch.')}",
                bound,
                tensors,
                lambda tensors=tensors, impl=impl: (_run(tensors, impl),),
                lambda wide: (_define(wide),),
                ("y",),
            )


def inputs(device: torch.device, dtype: torch.dtype) -> dict[str, Tensor]:
    """Two rows of the batch, 24 channels, 4 states."""
    generator = torch.Generator().manual_seed(0)
    K, L = len(CROSS), GRID[0] * GRID[1]
    shapes = {
        "x": (2, L, 24), "dt": (K, 2, L, 24), "A": (K, 24, 4), "B": (K, 2, L, 1, 4), "C": (K, 2, L, 1, 4), "D": (K, 24),
    }  # fmt: skip
    drawn = {name: torch.randn(shape, generator=generator) for name, shape in shapes.items()}
    drawn["A"], drawn["dt"] = -drawn["A"].abs(), drawn["dt"].abs()
    narrow = ("x", "dt", "B", "C")
    return {k: t.to(device, dtype if k in narrow else torch.float32).requires_grad_() for k, t in drawn.items()}


def _run(tensors: dict[str, Tensor], impl: Impl) -> Tensor:
    x, dt, A, B, C, D = tensors.values()
    return cross_scan(x, dt, A, B, C, D, grid=GRID, impl=impl)


def _define(wide: dict[str, Tensor]) -> Tensor:
    x, dt, A, B, C, D = wide.values()
    return cross_scan_reference(x, dt, A, B.squeeze(-2), C.squeeze(-2), D, GRID, CROSS, [GRID] * len(x))
