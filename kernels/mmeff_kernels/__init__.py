"""Operators of efficient sequence models, on torch and triton alone. Importing an operator loads that one only."""

__version__ = "0.1.0"
