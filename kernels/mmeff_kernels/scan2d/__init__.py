"""Scans over grids: selective scans along several routes, summed."""

from .op import cross_scan
from .orders import CORNERS, CROSS, directions, route, table

__all__ = ["CORNERS", "CROSS", "cross_scan", "directions", "route", "table"]
