"""Benchmarks of the kernels, and what draws and measures besides; no part of the wheel."""
