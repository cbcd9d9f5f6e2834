"""Which implementation serves a call, and the table of all torch operators: what else is known of a kernel."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from pkgutil import iter_modules
from typing import Any, get_args

import torch
from torch import Tensor

from .arguments import check_triton

_forced: ContextVar[str | None] = ContextVar("mmeff_kernels.forced", default=None)


@contextmanager
def forced(impl: str) -> Iterator[None]:
    """Within, calls with impl="auto" take this implementation where they have it, on any device.

    With "triton" tensors without data (FakeTensorMode) reach the kernels' operators, as they would on a GPU.
    """
    token = _forced.set(impl)
    try:
        yield
    finally:
        _forced.reset(token)


def traced() -> bool:
    """Whether calls are written down rather than run: then no kernel is launched that is no torch operator."""
    return torch.compiler.is_compiling() or _forced.get() is not None


def choose(impl: str, choices: Any, tensors: Mapping[str, Tensor | None], beyond: str = "", opaque: bool = True) -> str:
    """The implementation of a call: `impl` itself, or of "auto" Triton on CUDA and torch elsewhere.

    choices  a Literal of all names
    tensors  by the names of the arguments; the first says where the call takes place
    beyond   why the Triton kernels have no room for these shapes, as "serves D up to 8192, x is (2, 9000)"; "": they do
    opaque   whether the kernels are torch operators, which a traced graph can hold

    ValueError for a name that is no choice, or "triton" for tensors on another device or in float64.
    """
    if impl not in get_args(choices):
        raise ValueError(f"impl {impl!r}: choose one of {', '.join(get_args(choices))}")
    if impl == "triton":
        check_triton(tensors)
        if beyond:
            raise ValueError(f"impl 'triton' {beyond}")
    if impl != "auto":
        return impl
    wanted = None if torch.compiler.is_compiling() else _forced.get()  # torch.compile knows no context variables
    if wanted is None:
        on_gpu = next(t.is_cuda for t in tensors.values() if t is not None)
        single = on_gpu and all(t is None or t.dtype != torch.float64 for t in tensors.values())
        wanted = "triton" if single else "torch"
    if wanted == "triton" and (beyond or (not opaque and traced())):
        return "torch"
    return wanted if wanted in get_args(choices) else "torch"


@dataclass(frozen=True)
class Operator:
    """A torch operator of ours.

    name    as "mmeff::decay_forward"; those that end in _forward are kept where activations are computed again
    states  bytes of fp32 that a recurrence carries from token to token in a call, from its arguments by name and its
            results; None: it carries none
    """

    name: str
    arguments: tuple[str, ...]
    states: Callable[..., int] | None = None


#: By name; an operator's package fills it when the operator is first called, `load` for all at once.
OPERATORS: dict[str, Operator] = {}

_LIBRARY = torch.library.Library("mmeff", "FRAGMENT")


def define(
    schema: str,
    run: Callable[..., Any],
    fake: Callable[..., Any],
    flops: Callable[..., int],
    states: Callable[..., int] | None = None,
) -> Any:
    """Make `run` a torch operator, opaque to torch.compile and counted by torch's FLOP counter; returns it.

    schema  "decay_forward(Tensor q, ...) -> (Tensor, Tensor)"
    fake    its results without their numbers
    flops   its multiplications and additions, from the shapes of its tensors and its other arguments
    states  see `Operator`: gets the results as `out`

    fake, flops and states take the arguments by the schema's names, of which they name those that they use: the others
    go into **_.
    """
    from torch.utils.flop_counter import register_flop_formula  # which loads triton

    _LIBRARY.define(schema)
    short = schema.partition("(")[0]
    operator = getattr(torch.ops.mmeff, short).default
    names = tuple(argument.name for argument in operator._schema.arguments)
    for device in ("CPU", "CUDA"):  # on the CPU for Triton's interpreter
        _LIBRARY.impl(short, run, device)
    torch.library.register_fake(
        f"mmeff::{short}", lambda *given: fake(**dict(zip(names, given, strict=True))), lib=_LIBRARY
    )

    def formula(*given: Any, **_: Any) -> int:
        return flops(**dict(zip(names, given, strict=True)))

    register_flop_formula(getattr(torch.ops.mmeff, short))(formula)
    OPERATORS[f"mmeff::{short}"] = Operator(f"mmeff::{short}", names, states)
    return operator


def state_bytes(operator: Any, given: tuple[Any, ...], out: Any) -> int:
    """Bytes of recurrent states in a call of any torch operator."""
    known = OPERATORS.get(operator._schema.name)
    if known is None or known.states is None:
        return 0
    return known.states(**dict(zip(known.arguments, given, strict=True)), out=out)


def packages() -> tuple[str, ...]:
    """The operations: subpackages, each of which can check itself (`check.py`)."""
    return tuple(module.name for module in iter_modules([str(Path(__file__).parent)]) if module.ispkg)


def load() -> None:
    """Fill OPERATORS with those of all packages."""
    for package in packages():
        for module in iter_modules([str(Path(__file__).parent / package)]):
            if module.name.endswith("operators"):
                import_module(f"{__package__}.{package}.{module.name}")
