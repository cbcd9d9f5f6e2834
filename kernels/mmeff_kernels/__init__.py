"""Operators of efficient sequence models, on torch and triton alone. Importing an operator loads that one only."""

import os

__version__ = "0.1.0"

#: Whether `impl="auto"` takes the Triton kernels on CUDA: if MMEFF_TRITON=1 is set. Once `pytest -m gpu` has passed with
#: the kernels as they are now, it will without.
AUTO_TRITON = os.environ.get("MMEFF_TRITON") == "1"
