"""Launching Triton kernels without waiting for Triton to look them up."""

from typing import Any

import torch
import triton
from torch import Tensor


class Launcher:
    """A Triton kernel that remembers its compiled forms by what decides between them.

    Triton takes 30 us a launch to find out which compiled form serves the arguments; where a kernel itself takes 50 us,
    the GPU waits for that. What decides is: types and alignment of tensors, whether a number is 1, a multiple of 16 or
    wider than 32 bits, and every option.
    """

    def __init__(self, kernel: Any):
        self.kernel = kernel
        self.names: list[str] = kernel.arg_names
        self.interpreted = not isinstance(kernel, triton.JITFunction)
        self.compiled: dict[Any, Any] = {}

    def __call__(
        self, programs: int, tensors: dict[str, Tensor | None], numbers: dict[str, int], options: dict[str, Any]
    ) -> None:
        """Launch `programs` programs on the device of the first tensor; the names are those of the kernel."""
        given = {**tensors, **numbers, **options}
        first = next(iter(tensors.values()))
        assert first is not None
        if self.interpreted:
            self.kernel[(programs,)](**given)
            return
        key = (
            first.get_device(),
            tuple([None if t is None else (t.dtype, t.data_ptr() % 16 == 0) for t in tensors.values()]),
            tuple([(n % 16 == 0, n == 1, -(2**31) <= n < 2**31) for n in numbers.values()]),
            tuple(options.values()),
        )
        with torch.cuda.device_of(first):
            compiled = self.compiled.get(key)
            if compiled is None:
                self.compiled[key] = self.kernel[(programs,)](**given)
            else:
                compiled[(programs, 1, 1)](*[given[name] for name in self.names])
