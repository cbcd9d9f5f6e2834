"""The public selective scan."""

from typing import Literal, overload

import torch
from torch import Tensor

from ..padding import Packing, nothing
from .blocked import blocked_scan
from .checks import Impl, check, choose_scan
from .reference import selective_scan_reference


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
    dt_weight: Tensor | None = None,
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
    dt_weight: Tensor | None = None,
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
    dt_weight: Tensor | None = None,
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
    dt_weight      (D, R) or None: dt is given in its low-rank form (B, L, R) and is dt dt_weight^T. That is never kept:
                   the backward pass takes the product again
    dt_softplus    take softplus(dt + dt_bias); without it dt + dt_bias must be >= 0
    z              (B, L, D) or None: the gate
    reverse        scan from the last token to the first
    lengths        (B,) real tokens a row; what lies after them is never read (its y and its gradients are 0), and a
                   reverse scan starts at each row's own last token. Their values are checked on the CPU alone: to look
                   at them on another device would wait for it
    cu_seqlens     (S + 1,) integers: S sequences lie one after the other in the one row of x (1, L, D), sequence s from
                   cu_seqlens[s] to cu_seqlens[s + 1] - 1; each, empty or not, is scanned alone
    initial_state  (B, D, N), for packed sequences (S, D, N): h before the first token (reverse: after the last)
    impl           "triton": fused kernels on CUDA. "torch": blocks of time steps, gradient by hand. "reference": the
                   definition, step by step. "auto": "torch", or "triton" on CUDA for all but fp64 and N > 256.
                   A named one never falls back to another.

    Returns y (B, L, D) in x's dtype; with `return_final_state` also the state after the last real token scanned, shaped
    like `initial_state`. "triton" and "torch" compute in fp32, under autocast too, and so is the state; "torch" in fp64
    if any input is; "reference" in the promoted dtype of the inputs. Gradients for every tensor of floating point, the
    states included; first order only with "triton" and "torch".

    ValueError if the shapes do not fit together, or if `impl` does not exist or cannot serve these tensors.
    """
    tensors = {
        "x": x, "dt": dt, "z": z, "A": A, "B": B, "C": C, "D": D,
        "dt_bias": dt_bias, "dt_weight": dt_weight, "initial_state": initial_state,
    }  # fmt: skip
    check(tensors, lengths, cu_seqlens, None)
    chosen = choose_scan(impl, tensors)
    if x.numel() == 0:
        y, state = nothing(x.shape, x.dtype, *tensors.values()), initial_state
        if state is None:
            wide = torch.float64 if torch.float64 in (x.dtype, A.dtype) else torch.float32
            rows = len(x) if cu_seqlens is None else len(cu_seqlens) - 1
            state = nothing((rows, *A.shape), wide, x)
        return (y, state.clone()) if return_final_state else y
    if chosen == "triton":
        y, state = _triton(tensors, dt_softplus, reverse, lengths, cu_seqlens, return_final_state)
    elif chosen == "torch":
        y, state = _torch(tensors, dt_softplus, reverse, lengths, cu_seqlens)
    else:
        y, state = selective_scan_reference(
            x, dt, A, B, C, D, z=z, dt_bias=dt_bias, dt_weight=dt_weight, dt_softplus=dt_softplus, reverse=reverse,
            lengths=lengths, cu_seqlens=cu_seqlens, initial_state=initial_state,
        )  # fmt: skip
        y = y.to(x.dtype)
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
    dt_weight: Tensor | None = None,
    dt_softplus: bool = False,
) -> tuple[Tensor, Tensor]:
    """One token of `selective_scan`, for streaming: state (B, D, N) -> y (B, D) and the next state.

    x, dt, z (B, D), A (D, N), B and C (B, N) or (B, G, N), D and dt_bias (D,); with dt_weight (D, R) dt is (B, R).
    Computes in the state's dtype, y in x's.
    """
    wide, kind = state.dtype, x.dtype
    x, dt, A, B, C = (t.to(wide) for t in (x, dt, A, B, C))
    D, z, dt_bias, dt_weight = (None if t is None else t.to(wide) for t in (D, z, dt_bias, dt_weight))
    y, state = selective_scan(
        x[:, None], dt[:, None], A, B[:, None], C[:, None], D, z=None if z is None else z[:, None],
        dt_bias=dt_bias, dt_weight=dt_weight, dt_softplus=dt_softplus, initial_state=state, return_final_state=True,
        impl="reference",
    )  # fmt: skip
    return y[:, 0].to(kind), state


def _triton(
    tensors: dict[str, Tensor | None],
    dt_softplus: bool,
    reverse: bool,
    lengths: Tensor | None,
    cu_seqlens: Tensor | None,
    want_state: bool,
) -> tuple[Tensor, Tensor]:
    from .operators import scan

    state = tensors["initial_state"]
    y, last = scan(
        {**tensors, "initial_state": None if state is None else state[None]},
        dt_softplus, 1, int(reverse), None, False, lengths, cu_seqlens, want_state,
    )  # fmt: skip
    return y, last[0] if want_state else last


def _torch(
    tensors: dict[str, Tensor | None],
    dt_softplus: bool,
    reverse: bool,
    lengths: Tensor | None,
    cu_seqlens: Tensor | None,
) -> tuple[Tensor, Tensor]:
    x = tensors["x"]
    assert x is not None
    packing = None if cu_seqlens is None else Packing(cu_seqlens.to(x.device))
    if packing is not None:
        rows = {name: tensors[name] for name in ("x", "dt", "B", "C", "z")}
        tensors = {**tensors, **{name: None if t is None else packing.pad(t) for name, t in rows.items()}}
        lengths = packing.lengths
    y, state = blocked_scan(tensors, dt_softplus, reverse, lengths)
    return (y if packing is None else packing.unpad(y)), state
