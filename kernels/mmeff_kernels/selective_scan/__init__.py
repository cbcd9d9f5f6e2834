"""Selective scan (S6), the recurrence of Mamba: y_t = C_t h_t + D x_t, h_t = exp(dt_t A) h_{t-1} + dt_t B_t x_t."""

from .op import selective_scan, selective_scan_step
from .reference import selective_scan_reference
from .routes import selective_scan_routes
from .upstream import selective_scan_fn

__all__ = [
    "selective_scan",
    "selective_scan_fn",
    "selective_scan_reference",
    "selective_scan_routes",
    "selective_scan_step",
]
