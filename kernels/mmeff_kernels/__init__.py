"""Operators of efficient sequence models, on torch and triton alone. Import an operator's package: it loads itself only."""

__version__ = "0.1.0"
