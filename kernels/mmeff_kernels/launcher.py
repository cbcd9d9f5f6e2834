"""Launching Triton kernels without waiting for Triton to look them up."""

from functools import lru_cache
from operator import itemgetter
from typing import Any

import torch
import triton
from torch import Tensor
from triton import knobs
from triton.runtime import driver


class Launcher:
    """A Triton kernel that remembers its compiled forms by what decides between them.

    Triton takes 30 us a launch to find out which compiled form serves the arguments, and 5 more to ask for the device
    and make room for hooks; where a kernel itself takes 50 us, the GPU waits for that. What decides is: types and
    alignment of tensors, whether a number is 1, a multiple of 16 or wider than 32 bits, and every option.
    """

    def __init__(self, kernel: Any):
        self.kernel = kernel
        self.in_order = itemgetter(*kernel.arg_names)
        self.interpreted = not isinstance(kernel, triton.JITFunction)
        self.compiled: dict[Any, Any] = {}

    def __call__(
        self, programs: int, tensors: dict[str, Tensor | None], numbers: dict[str, int], options: dict[str, Any]
    ) -> None:
        """Launch `programs` programs on the device of the first tensor; the names are those of the kernel."""
        given = {**tensors, **numbers, **options}
        if self.interpreted:
            self.kernel[(programs,)](**given)
            return
        first = next(iter(tensors.values()))
        assert first is not None
        device = first.get_device()
        kinds = [None if t is None else (t.dtype, t.data_ptr() % 16 == 0) for t in tensors.values()]
        form = device, _told_apart(tuple(numbers.values())), *kinds, *options.values()
        if device == torch.cuda.current_device():
            self._launch(programs, form, given)
        else:
            with torch.cuda.device(device):
                self._launch(programs, form, given)

    def _launch(self, programs: int, form: tuple[Any, ...], given: dict[str, Any]) -> None:
        compiled = self.compiled.get(form)
        if compiled is None:
            self.compiled[form] = self.kernel[(programs,)](**given)
            return
        arguments = self.in_order(given)
        if knobs.runtime.launch_enter_hook.calls:  # a profiler is listening
            compiled[(programs, 1, 1)](*arguments)
            return
        run = compiled.run  # the first time, this loads the kernel
        stream = driver.active.get_current_stream(form[0])  # pyright: ignore[reportAttributeAccessIssue]
        run(programs, 1, 1, stream, compiled.function, compiled.packed_metadata, None, None, None, *arguments)


@lru_cache(maxsize=4096)
def _told_apart(numbers: tuple[int, ...]) -> tuple[Any, ...]:
    """Of each number whether it is 1, or else a multiple of 16 and within 32 bits: what Triton compiles for."""
    return tuple(1 if n == 1 else (n % 16 == 0, -(2**31) <= n < 2**31) for n in numbers)
