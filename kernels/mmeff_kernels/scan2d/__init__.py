"""Scans over grids: selective scans along several routes, and recurrences of two dimensions."""

from .line import DIRECTIONS, line_scan
from .op import cross_scan
from .orders import CORNERS, CROSS, directions, route, table
from .recurrence import FOUR_CORNERS, separable_scan, wavefront_scan

__all__ = [
    "CORNERS", "CROSS", "DIRECTIONS", "FOUR_CORNERS", "cross_scan", "directions", "line_scan", "route",
    "separable_scan", "table", "wavefront_scan",
]  # fmt: skip
