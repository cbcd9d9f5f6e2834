"""Launching Triton kernels without waiting for Triton to look them up."""

from typing import Any

import torch
import triton
from torch import Tensor
from triton import knobs


class Launcher:
    """A Triton kernel that remembers its compiled forms by what decides between them.

    Triton takes 30 us a launch to find out which compiled form serves the arguments, and 5 more to ask for the device
    and make room for hooks; where a kernel itself takes 50 us, the GPU waits for that. What decides is: types and
    alignment of tensors, whether a number is 1, a multiple of 16 or wider than 32 bits, and every option.
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
        if self.interpreted:
            self.kernel[(programs,)](**given)
            return
        first = next(iter(tensors.values()))
        assert first is not None
        key: list[Any] = [first.get_device(), *options.values()]
        for tensor in tensors.values():
            key += (None, None) if tensor is None else (tensor.dtype, tensor.data_ptr() % 16 == 0)
        for number in numbers.values():
            key.append(1 if number == 1 else (number % 16 == 0, -(2**31) <= number < 2**31))
        if key[0] == torch.cuda.current_device():
            self._launch(programs, tuple(key), given)
        else:
            with torch.cuda.device(key[0]):
                self._launch(programs, tuple(key), given)

    def _launch(self, programs: int, form: tuple[Any, ...], given: dict[str, Any]) -> None:
        compiled = self.compiled.get(form)
        if compiled is None:
            self.compiled[form] = self.kernel[(programs,)](**given)
            return
        arguments = [given[name] for name in self.names]
        if knobs.runtime.launch_enter_hook.calls:  # a profiler is listening
            compiled[(programs, 1, 1)](*arguments)
            return
        run = compiled.run  # the first time, this loads the kernel
        stream = torch.cuda.current_stream().cuda_stream
        run(programs, 1, 1, stream, compiled.function, compiled.packed_metadata, None, None, None, *arguments)
