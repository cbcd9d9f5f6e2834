"""Operators of efficient sequence models, on torch and triton alone. Importing an operator loads that one only."""

import os

__version__ = "0.1.0"

#: Whether `impl="auto"` takes the Triton kernels on CUDA: where MMEFF_TRITON=1 is set. Without it once `pytest -m gpu`
#: has passed with the kernels as they are now.
AUTO_TRITON = os.environ.get("MMEFF_TRITON") == "1"
