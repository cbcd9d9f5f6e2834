"""Tensors of constants that are made once and kept."""

from collections.abc import Callable
from functools import lru_cache, wraps
from typing import Any

import torch


def kept(make: Callable[..., Any]) -> Callable[..., Any]:
    """A function of hashable arguments (the device and the dtype among them) whose tensors are made once.

    What is kept serves training, in eager mode, whatever was on at the first call: inference mode, autocast and a
    default device do not reach `make`. While a graph is traced, under a dispatch mode (FakeTensorMode, functional
    tensors) and within torch.func's transforms nothing is looked up or kept: such tensors hold no numbers, or die with
    the mode. `make` gives its dtypes itself.
    """

    @lru_cache(maxsize=256)
    def once(*arguments: Any) -> Any:
        with torch.inference_mode(False), torch.autocast("cpu", enabled=False), torch.device("cpu"):
            return make(*arguments)

    @wraps(make)
    def given(*arguments: Any) -> Any:
        if (
            torch.compiler.is_compiling()
            or torch._C._len_torch_dispatch_stack()
            or torch._C._functorch.peek_interpreter_stack() is not None  # pyright: ignore[reportAttributeAccessIssue]
        ):
            return make(*arguments)
        return once(*arguments)

    return given
