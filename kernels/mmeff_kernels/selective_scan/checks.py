"""What the selective scan's inputs must be, and what is said where they are not."""

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor

from ..arguments import check_lengths, check_packing, has_shape
from ..dispatch import choose

Impl = Literal["auto", "triton", "torch", "reference"]

#: States a channel that a tile of the Triton kernels holds.
LARGEST_STATE = 256


def check(
    tensors: dict[str, Tensor | None], lengths: Tensor | None, cu_seqlens: Tensor | None, routes: int | None
) -> None:
    """ValueError, with the shapes in it, if the tensors of a scan do not fit together.

    tensors  by the names of the arguments of `selective_scan`
    routes   K, if the scan has routes: then x, dt, A, B, C, D, dt_bias and dt_weight may lead with an axis K
    """
    x, A, B = tensors["x"], tensors["A"], tensors["B"]
    assert x is not None and A is not None and B is not None
    extra = 0 if routes is None else 1
    if x.dim() - 3 not in (0, extra) or A.dim() - 2 not in (0, extra):
        lead = "([K,] " if routes is not None else "("
        raise ValueError(f"x must be {lead}B, L, D) and A {lead}D, N), not {tuple(x.shape)} and {tuple(A.shape)}")
    rows, L, channels = x.shape[-3:]
    N = A.shape[-1]
    if 0 in (channels, N):
        raise ValueError(f"nothing to scan: x {tuple(x.shape)}, A {tuple(A.shape)}")
    if cu_seqlens is not None:
        check_packing(x, cu_seqlens, lengths)
    groups = B.shape[-2:-1] if B.dim() == 4 or B.dim() == 5 else ()
    if groups and channels % groups[0]:
        raise ValueError(f"the {groups[0]} groups of B {tuple(B.shape)} do not divide the {channels} channels of x")
    states = rows if cu_seqlens is None else len(cu_seqlens) - 1
    weight = tensors["dt_weight"]
    rank = channels if weight is None else weight.shape[-1]
    wanted = {
        "x": (rows, L, channels),
        "dt": (rows, L, rank),
        "z": (rows, L, channels),
        "A": (channels, N),
        "B": (rows, L, *groups, N),
        "C": (rows, L, *groups, N),
        "D": (channels,),
        "dt_bias": (channels,),
        "dt_weight": (channels, rank),
        "initial_state": (states, channels, N),
    }
    for name, shape in wanted.items():
        tensor = tensors[name]
        if tensor is None:
            continue
        if routes is not None or not has_shape(tensor, shape):
            _check_shape(name, tensor, shape, routes, x)
        if tensor.device != x.device:
            raise ValueError(f"{name} is on {tensor.device}, x on {x.device}")
        if not tensor.is_floating_point():
            raise ValueError(f"{name} must be floating point, not {tensor.dtype}")
    if lengths is not None:
        check_lengths(lengths, x[0] if x.dim() == 4 else x)


def check_routes(routes: object, x: Tensor, lengths: Tensor | None) -> None:
    """ValueError if `routes` is neither names nor permutations of x's tokens. Tables are looked at once."""
    if not isinstance(routes, Tensor):
        known = ("forward", "backward")
        if isinstance(routes, str) or not isinstance(routes, Sequence) or not 1 <= len(routes) <= 32:
            raise ValueError(f"routes must be 1 to 32 names or a (K, L) table of integers, not {routes!r}")
        if wrong := [name for name in routes if name not in known]:
            raise ValueError(f"route {wrong[0]!r}: choose 'forward' or 'backward', or give a (K, L) table of integers")
        return
    L = x.shape[-2]
    if routes.dim() != 2 or routes.shape[1] != L or len(routes) == 0 or routes.is_floating_point():
        raise ValueError(
            f"routes must be (K, {L}) integers beside x {tuple(x.shape)}, not {tuple(routes.shape)} {routes.dtype}"
        )
    if lengths is not None:
        raise ValueError("a table of routes passes through all L tokens: lengths cannot be given beside it")
    if getattr(routes, "_mmeff_checked", None) == routes._version:
        return  # a look at a table on a GPU waits for the GPU
    if torch.compiler.is_compiling() or torch._C._len_torch_dispatch_stack():
        return  # traced tables hold no numbers
    tokens = torch.arange(L, device=routes.device)
    for k, route in enumerate(routes):
        if not torch.equal(route.long().sort().values, tokens):
            raise ValueError(f"route {k} is no permutation of the tokens 0 to {L - 1}")
    routes._mmeff_checked = routes._version  # pyright: ignore[reportAttributeAccessIssue]


def choose_scan(impl: str, tensors: dict[str, Tensor | None]) -> str:
    """The implementation that serves a scan of these tensors."""
    A = tensors["A"]
    assert A is not None
    beyond, N = "", A.shape[-1]
    if N > LARGEST_STATE:
        beyond = f"serves up to {LARGEST_STATE} states a channel, A {tuple(A.shape)} has {N}"
    return choose(impl, Impl, tensors, beyond)


def _check_shape(name: str, tensor: Tensor, shape: tuple[int, ...], routes: int | None, x: Tensor) -> None:
    allowed = [shape]
    if routes is not None:
        led = (routes, *shape)
        allowed = [shape] if name == "z" else [led] if name == "initial_state" else [shape, led]
        if name in ("B", "C") and len(shape) == 3:
            allowed = [shape, (routes, *shape[:2], 1, shape[2])]
    if not has_shape(tensor, *allowed):
        beside = "" if name == "x" else f" beside x {tuple(x.shape)}"
        along = "" if routes is None else f" for {routes} routes"
        raise ValueError(f"{name} must be {' or '.join(map(str, allowed))}{beside}{along}, not {tuple(tensor.shape)}")
