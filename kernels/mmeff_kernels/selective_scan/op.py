"""The public selective scan."""

import os
from itertools import pairwise
from typing import Any, Literal, get_args, overload

import torch
import torch.nn.functional as F
from torch import Tensor

from .blocked import BlockedScan
from .reference import selective_scan_reference

#: States a channel that a tile of the Triton kernels holds.
LARGEST_STATE = 256

Impl = Literal["auto", "triton", "torch", "reference"]


@overload
def selective_scan(
    x: Tensor,
    dt: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    D: Tensor | None = None,
    *,
    z: Tensor | None = None,
    dt_bias: Tensor | None = None,
    dt_softplus: bool = False,
    reverse: bool = False,
    lengths: Tensor | None = None,
    cu_seqlens: Tensor | None = None,
    initial_state: Tensor | None = None,
    return_final_state: Literal[False] = False,
    impl: Impl = "auto",
) -> Tensor: ...


@overload
def selective_scan(
    x: Tensor,
    dt: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    D: Tensor | None = None,
    *,
    z: Tensor | None = None,
    dt_bias: Tensor | None = None,
    dt_softplus: bool = False,
    reverse: bool = False,
    lengths: Tensor | None = None,
    cu_seqlens: Tensor | None = None,
    initial_state: Tensor | None = None,
    return_final_state: Literal[True],
    impl: Impl = "auto",
) -> tuple[Tensor, Tensor]: ...


def selective_scan(
    x: Tensor,
    dt: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    D: Tensor | None = None,
    *,
    z: Tensor | None = None,
    dt_bias: Tensor | None = None,
    dt_softplus: bool = False,
    reverse: bool = False,
    lengths: Tensor | None = None,
    cu_seqlens: Tensor | None = None,
    initial_state: Tensor | None = None,
    return_final_state: bool = False,
    impl: Impl = "auto",
) -> Tensor | tuple[Tensor, Tensor]:
    """Selective scan (S6): h_t = exp(dt_t A) h_{t-1} + dt_t B_t x_t,  y_t = (C_t h_t + D x_t) silu(z_t).

    x, dt          (B, L, D)
    A              (D, N), A <= 0
    B, C           (B, L, N), or (B, L, G, N) with G groups of D / G neighbouring channels
    D, dt_bias     (D,) or None; the bias is added to dt
    dt_softplus    take softplus(dt + dt_bias); without it dt + dt_bias must be >= 0
    z              (B, L, D) or None: the gate
    reverse        scan from the last token to the first
    lengths        (B,) real tokens a row; what lies after them is never read (its y and its gradients are 0), and a
                   reverse scan starts at each row's own last token
    cu_seqlens     (S + 1,) integers: S sequences lie one after the other in the one row of x (1, L, D), sequence s from
                   cu_seqlens[s] to cu_seqlens[s + 1] - 1; each is scanned alone
    initial_state  (B, D, N), for packed sequences (S, D, N): h before the first token (reverse: after the last)
    impl           "triton": fused kernels on CUDA. "torch": blocks of time steps, gradient by hand. "reference": the
                   definition, step by step. "auto": "torch". A named one never falls back to another.

    Returns y (B, L, D) in x's dtype; with `return_final_state` also the state after the last real token scanned, shaped
    like `initial_state`. "triton" and "torch" compute in fp32, under autocast too, and so is the state; "torch" in fp64
    if any input is; "reference" in the promoted dtype of the inputs. Gradients for every tensor of floating point, the
    states included; first order only with "triton" and "torch".

    ValueError if the shapes do not fit together, or if `impl` does not exist or cannot serve these tensors.
    """
    _check(x, dt, A, B, C, D, z, dt_bias, lengths, cu_seqlens, initial_state, impl)
    if impl == "reference":
        y, state = selective_scan_reference(
            x, dt, A, B, C, D, z=z, dt_bias=dt_bias, dt_softplus=dt_softplus, reverse=reverse,
            lengths=lengths, cu_seqlens=cu_seqlens, initial_state=initial_state,
        )  # fmt: skip
        y = y.to(x.dtype)
        return (y, state) if return_final_state else y

    packing = None if cu_seqlens is None else _Packing(cu_seqlens.to(x.device))
    if packing is not None:
        x, dt, B, C = (packing.pad(tensor) for tensor in (x, dt, B, C))
        z, lengths = None if z is None else packing.pad(z), packing.lengths
    run = _triton if impl == "triton" else _torch
    with torch.autocast(x.device.type, enabled=False):
        y, state = run(x, dt, B, C, z, A, D, dt_bias, initial_state, dt_softplus, reverse, lengths)
    y = y if packing is None else packing.unpad(y)
    return (y, state) if return_final_state else y


def selective_scan_step(
    state: Tensor,
    x: Tensor,
    dt: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    D: Tensor | None = None,
    *,
    z: Tensor | None = None,
    dt_bias: Tensor | None = None,
    dt_softplus: bool = False,
) -> tuple[Tensor, Tensor]:
    """One token of `selective_scan`, for streaming: state (B, D, N) -> y (B, D) and the next state.

    x, dt, z (B, D), A (D, N), B and C (B, N) or (B, G, N), D and dt_bias (D,). Computes in the state's dtype, y in x's.
    """
    y, state = selective_scan(
        x[:, None], dt[:, None], A, B[:, None], C[:, None], D, z=None if z is None else z[:, None],
        dt_bias=dt_bias, dt_softplus=dt_softplus, initial_state=state, return_final_state=True, impl="reference",
    )  # fmt: skip
    return y[:, 0], state


def _triton(
    x: Tensor,
    dt: Tensor,
    B: Tensor,
    C: Tensor,
    z: Tensor | None,
    A: Tensor,
    D: Tensor | None,
    dt_bias: Tensor | None,
    state: Tensor | None,
    dt_softplus: bool,
    reverse: bool,
    lengths: Tensor | None,
) -> tuple[Tensor, Tensor]:
    from .launch import TritonScan

    B, C = (weights[:, :, None] if weights.dim() == 3 else weights for weights in (B, C))
    D, dt_bias, state = (None if tensor is None else tensor.float() for tensor in (D, dt_bias, state))
    lengths = None if lengths is None else lengths.to(x.device)
    return TritonScan.apply(x, dt, A.float(), B, C, D, z, dt_bias, state, lengths, dt_softplus, reverse)


def _torch(
    x: Tensor,
    dt: Tensor,
    B: Tensor,
    C: Tensor,
    z: Tensor | None,
    A: Tensor,
    D: Tensor | None,
    dt_bias: Tensor | None,
    state: Tensor | None,
    dt_softplus: bool,
    reverse: bool,
    lengths: Tensor | None,
) -> tuple[Tensor, Tensor]:
    dtype = x.dtype
    rows = [x, dt, B, C, z]
    if lengths is not None:
        rows = [None if tensor is None else _without_padding(tensor, lengths) for tensor in rows]
    given = [*rows, A, D, dt_bias, state]
    double = any(tensor is not None and tensor.dtype == torch.float64 for tensor in given)
    wide: list[Any] = [
        None if tensor is None else tensor.to(torch.float64 if double else torch.float32) for tensor in given
    ]
    x, dt, B, C, z, A, D, dt_bias, state = wide
    dt = dt if dt_bias is None else dt + dt_bias
    dt = F.softplus(dt) if dt_softplus else dt
    if lengths is not None and (dt_softplus or dt_bias is not None):
        dt = _without_padding(dt, lengths)  # a step of 0 passes the state on unchanged
    count, _, channels = x.shape
    groups = 1 if B.dim() == 3 else B.shape[2]
    if state is None:
        state = x.new_zeros(count, *A.shape)
    y, h = BlockedScan.apply(
        _split_channels(x, groups),
        _split_channels(dt, groups),
        A.unflatten(0, (groups, -1)).mT.repeat(count if groups > 1 else 1, 1, 1),
        _split_groups(B, groups),
        _split_groups(C, groups),
        state.unflatten(1, (groups, -1)).flatten(0, 1).mT,
        reverse,
    )
    y = y.unflatten(0, (count, groups)).transpose(1, 2).flatten(2)
    y = y if D is None else torch.addcmul(y, x, D)
    y = y if z is None else y * F.silu(z)
    return y.to(dtype), h.mT.unflatten(0, (count, groups)).reshape(count, channels, -1)


def _split_channels(x: Tensor, groups: int) -> Tensor:
    """(B, L, D) -> (B G, L, D / G)."""
    return x.unflatten(2, (groups, -1)).transpose(1, 2).flatten(0, 1)


def _split_groups(weights: Tensor, groups: int) -> Tensor:
    """(B, L, N) or (B, L, G, N) -> (B G, L, N)."""
    return weights if weights.dim() == 3 else weights.transpose(1, 2).flatten(0, 1)


def _without_padding(x: Tensor, lengths: Tensor) -> Tensor:
    """x (B, L, ...) with zeros past each row's end. Selected, not multiplied: the padding may hold NaN."""
    padding = torch.arange(x.shape[1], device=x.device) >= lengths.to(x.device)[:, None]
    return x.masked_fill(padding.reshape(*padding.shape, *[1] * (x.dim() - 2)), 0)


class _Packing:
    """S sequences in one row (1, L, ...) as S padded rows (S, longest, ...), and back."""

    def __init__(self, cu_seqlens: Tensor):
        self.lengths = cu_seqlens.diff()
        longest, L = int(self.lengths.max()), int(cu_seqlens[-1])
        start = cu_seqlens[:-1]
        # What lies behind a sequence is another one's: padding all the same.
        self.place = (start[:, None] + torch.arange(longest, device=start.device)).clamp_max(L - 1)
        self.row = torch.arange(len(start), device=start.device).repeat_interleave(self.lengths)
        self.column = torch.arange(L, device=start.device) - start.repeat_interleave(self.lengths)

    def pad(self, x: Tensor) -> Tensor:
        return x[0, self.place]

    def unpad(self, x: Tensor) -> Tensor:
        return x[self.row, self.column][None]


def _check(
    x: Tensor,
    dt: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    D: Tensor | None,
    z: Tensor | None,
    dt_bias: Tensor | None,
    lengths: Tensor | None,
    cu_seqlens: Tensor | None,
    initial_state: Tensor | None,
    impl: str,
) -> None:
    if impl not in get_args(Impl):
        raise ValueError(f"impl {impl!r}: choose one of {', '.join(get_args(Impl))}")
    if x.dim() != 3 or A.dim() != 2:
        raise ValueError(f"x must be (B, L, D) and A (D, N), not {tuple(x.shape)} and {tuple(A.shape)}")
    rows, L, channels = x.shape
    N = A.shape[1]
    if min(rows, L, channels, N) == 0:
        raise ValueError(f"nothing to scan: x {tuple(x.shape)}, A {tuple(A.shape)}")
    if cu_seqlens is not None:
        _check_packing(x, cu_seqlens, lengths)
    groups = B.shape[2:3] if B.dim() == 4 else ()
    if groups and channels % groups[0]:
        raise ValueError(f"the {groups[0]} groups of B {tuple(B.shape)} do not divide the {channels} channels of x")
    states = rows if cu_seqlens is None else len(cu_seqlens) - 1
    expected = {
        "x": (x, (rows, L, channels)),
        "dt": (dt, (rows, L, channels)),
        "z": (z, (rows, L, channels)),
        "A": (A, (channels, N)),
        "B": (B, (rows, L, *groups, N)),
        "C": (C, (rows, L, *groups, N)),
        "D": (D, (channels,)),
        "dt_bias": (dt_bias, (channels,)),
        "lengths": (lengths, (rows,)),
        "initial_state": (initial_state, (states, channels, N)),
    }
    for name, (tensor, shape) in expected.items():
        if tensor is None:
            continue
        if tensor.shape != shape:
            raise ValueError(f"{name} must be {shape} beside x {tuple(x.shape)}, not {tuple(tensor.shape)}")
        if tensor.device != x.device:
            raise ValueError(f"{name} is on {tensor.device}, x on {x.device}")
        if tensor.is_floating_point() == (name == "lengths"):
            raise ValueError(f"{name} cannot be {tensor.dtype}: lengths are integers, all else floating point")
    if impl == "triton":
        if x.device.type != "cuda" and os.environ.get("TRITON_INTERPRET") != "1":
            raise ValueError(f"impl 'triton' needs tensors on CUDA, x is on {x.device}")
        if double := [
            name for name, (tensor, _) in expected.items() if tensor is not None and tensor.dtype == torch.float64
        ]:
            raise ValueError(f"impl 'triton' computes in fp32: {double[0]} cannot be float64")
        if N > LARGEST_STATE:
            raise ValueError(f"impl 'triton' serves up to {LARGEST_STATE} states a channel, A {tuple(A.shape)} has {N}")
    # On another device the values are not looked at: that would wait for it.
    if lengths is not None and lengths.device.type == "cpu" and not bool(((lengths >= 0) & (lengths <= L)).all()):
        raise ValueError(f"lengths must lie between 0 and L = {L}, not {lengths.tolist()}")


def _check_packing(x: Tensor, cu_seqlens: Tensor, lengths: Tensor | None) -> None:
    if lengths is not None:
        raise ValueError("give lengths (padded rows) or cu_seqlens (packed rows), not both")
    if x.shape[0] != 1:
        raise ValueError(f"packed sequences lie in one row: with cu_seqlens x must be (1, L, D), not {tuple(x.shape)}")
    ends = cu_seqlens.tolist() if cu_seqlens.dim() == 1 and not cu_seqlens.is_floating_point() else []
    if len(ends) < 2 or ends[0] != 0 or ends[-1] != x.shape[1] or any(a >= b for a, b in pairwise(ends)):
        raise ValueError(f"cu_seqlens must be integers that rise from 0 to L = {x.shape[1]}, not {ends or cu_seqlens}")
