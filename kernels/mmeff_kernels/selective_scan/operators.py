"""The Triton scan as torch operators, and as one differentiable function.

`mmeff::selective_scan_forward` and `..._backward` are opaque to torch.compile and counted by torch's FLOP counter.
"""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from ..arguments import innermost
from ..dispatch import define, traced
from ..first_order import first_order
from ..padding import without_padding
from ..stacked import expanded, weight_gradient
from .division import tile
from .gate import gated_sum, gated_sum_gradients
from .launch import backward, forward


def _forward_fake(
    x: Tensor, A: Tensor, lengths: Tensor | None, routes: int, longest: int, last: bool, save: bool, **_: Any
) -> tuple[Tensor, Tensor, Tensor]:
    rows, L, channels = x.shape[-3:]
    N = A.shape[-2]
    y = x.new_empty(routes, rows, L, channels)
    if longest and lengths is not None:
        rows, L = len(lengths) - 1, longest
    return (
        y,
        A.new_empty((routes, rows, N, channels) if last else 0),
        A.new_empty((routes, rows, -(-L // tile(N).saved), N, channels) if save else 0),
    )


def _backward_fake(
    x: Tensor, dt: Tensor, A: Tensor, B: Tensor, C: Tensor, lengths: Tensor | None, routes: int, longest: int,
    first: bool, **_: Any,
) -> tuple[Tensor, ...]:  # fmt: skip
    rows, L, channels = x.shape[-3:]
    N, groups = A.shape[-2], B.shape[-2]
    narrow = torch.promote_types(B.dtype, C.dtype)
    sequences = len(lengths) - 1 if longest and lengths is not None else rows
    return (
        x.new_empty(routes, rows, L, channels),
        dt.new_empty(routes, rows, L, channels),
        B.new_empty(2, routes, groups, rows, L, N, dtype=narrow).permute(0, 1, 3, 4, 2, 5),
        A.new_empty(routes, N + 2, channels),
        A.new_empty((routes, sequences, N, channels) if first else 0),
    )


def _steps(x: Any, routes: int) -> int:
    """Of all channels and routes."""
    rows, L, channels = x[-3:]
    return routes * rows * L * channels


def forward_flops(x: Any, A: Any, routes: int, **_: Any) -> int:
    """A step's N states: dt A, its exponential, (dt x) B, two for a h + u, two for C h. A channel: dt x, 2 for D x."""
    return _steps(x, routes) * (7 * A[-2] + 3)


def backward_flops(x: Any, A: Any, routes: int, **_: Any) -> int:
    """A step's N states: 2 for dh, 2 each for dB, dC, d(dt x), dA and d dt, a dh and dh h; the repeated states: 5."""
    return _steps(x, routes) * (19 * A[-2] + 9)


def states(x: Tensor, A: Tensor, routes: int, **_: Any) -> int:
    """Bytes of the D channels of N numbers, for each row and route."""
    return 4 * routes * x.shape[-3] * A.shape[-2] * A.shape[-1]


_INPUTS = "Tensor x, Tensor dt, Tensor A, Tensor B, Tensor C, Tensor? D, Tensor? bias"
_forward = define(
    f"selective_scan_forward({_INPUTS}, Tensor? state, Tensor? lengths, Tensor? table, "
    "bool softplus, int routes, int backward, int longest, bool once, bool last, bool save) "
    "-> (Tensor, Tensor, Tensor)",
    forward,
    _forward_fake,
    forward_flops,
    states,
)
_backward = define(
    f"selective_scan_backward(Tensor gy, Tensor? g_last, {_INPUTS}, Tensor? lengths, Tensor? table, Tensor saves, "
    "bool softplus, int routes, int backward, int longest, bool once, bool first) "
    "-> (Tensor, Tensor, Tensor, Tensor, Tensor)",
    backward,
    _backward_fake,
    backward_flops,
)


class TritonScan(torch.autograd.Function):
    """x ([K,] B, L, D), dt likewise or low-rank ([K,] B, L, R) with W ([K,] D, R), A ([K,] D, N), B and C
    ([K,] B, L, G, N), D and bias ([K,] D), state (K, B, D, N), z (B, L, D), lengths (B,), table (K, L) int32
    -> y (K, B, L, D), with z silu(z) sum_k y_k (B, L, D); last (K, B, D, N).

    W, D, bias, state, z, lengths and table may be None. Bit k of `backward` turns route k around. `longest` > 0: rows
    are packed, lengths are cu_seqlens (S + 1,), and states have S rows. `once`: routes after the first leave out each
    token's own input. Computes in fp32 whatever the inputs' types, which A, W, D, bias and state must already be. D and
    bias are contiguous, the others have their last axis innermost. y has x's type, every gradient that of its tensor.
    """

    @staticmethod
    def forward(  # pyright: ignore[reportIncompatibleMethodOverride]
        ctx: Any,
        x: Tensor,
        dt: Tensor,
        W: Tensor | None,
        A: Tensor,
        B: Tensor,
        C: Tensor,
        D: Tensor | None,
        bias: Tensor | None,
        state: Tensor | None,
        z: Tensor | None,
        lengths: Tensor | None,
        table: Tensor | None,
        softplus: bool,
        routes: int,
        backward: int,
        longest: int,
        once: bool,
        last: bool,
    ) -> tuple[Tensor, Tensor]:
        decays, first = A.mT.contiguous(), None if state is None else state.mT.contiguous()
        save = any(ctx.needs_input_grad)
        options = softplus, routes, backward, longest, once
        full = dt if W is None else expanded(dt, W)
        y, final, saves = _forward(x, full, decays, B, C, D, bias, first, lengths, table, *options, last, save)
        total = None
        if z is not None:
            y, total = gated_sum(y, z, None if longest else lengths)
        ctx.save_for_backward(x, dt, W, A, B, C, D, bias, state, z, lengths, table, decays, saves, total)
        ctx.options, ctx.has_last = options, last
        ctx.set_materialize_grads(False)
        return y, final.mT if last else final

    @staticmethod
    @first_order("selective_scan")
    def backward(  # pyright: ignore[reportIncompatibleMethodOverride]
        ctx: Any, gy: Tensor | None, g_last: Tensor | None
    ) -> tuple[Tensor | None, ...]:
        x, dt, W, A, B, C, D, bias, state, z, lengths, table, decays, saves, total = ctx.saved_tensors
        softplus, routes, backward, longest, once = ctx.options
        g, gz = x.new_zeros(x.shape[-3:]) if gy is None else gy, None
        g = g[0] if g.dim() == 4 and g.stride(0) == 0 else g  # where routes are summed: one gradient for all
        if z is not None:
            g, gz = gated_sum_gradients(g, total, z, None if longest else lengths)
        g_last = g_last.mT.contiguous() if ctx.has_last and g_last is not None else None
        full = dt if W is None else expanded(dt, W)
        gx, gdt, gBC, sums, g_first = _backward(
            g.contiguous(), g_last, x, full, decays, B, C, D, bias, lengths, table, saves,
            softplus, routes, backward, longest, once, state is not None,
        )  # fmt: skip
        gW = None
        if W is not None:
            low = dt.expand(routes, *dt.shape[-3:])
            gW = shared(weight_gradient(gdt.flatten(1, 2), low.flatten(1, 2)).to(W.dtype), W)
            gdt = (gdt.flatten(1, 2) @ W.to(gdt.dtype)).unflatten(1, gdt.shape[1:3])
        gB, gC = gBC[0].to(B.dtype), gBC[1].to(C.dtype)
        N = A.shape[-1]
        gA, gD, gbias = sums[:, :N].mT, sums[:, N], sums[:, N + 1]
        return (
            shared(gx, x), shared(gdt, dt), gW, shared(gA, A), shared(gB, B), shared(gC, C),
            None if D is None else shared(gD, D), None if bias is None else shared(gbias, bias),
            None if state is None else g_first.mT, gz, *[None] * 8,
        )  # fmt: skip


def shared(gradient: Tensor, tensor: Tensor) -> Tensor:
    """(K, ...) summed over the routes if they share the tensor."""
    if gradient.dim() == tensor.dim():
        return gradient
    return gradient[0] if len(gradient) == 1 else gradient.sum(0)


def scan(
    tensors: dict[str, Tensor | None],
    softplus: bool,
    routes: int,
    backward: int,
    table: Tensor | None,
    once: bool,
    lengths: Tensor | None,
    cu_seqlens: Tensor | None,
    want_state: bool,
) -> tuple[Tensor, Tensor]:
    """`selective_scan_routes`, its tensors by name: y (B, L, D), the last states (K, B, D, N) if they are wanted."""
    x, dt, B, C, z = (tensors[name] for name in ("x", "dt", "B", "C", "z"))
    assert x is not None and dt is not None and B is not None and C is not None
    A, D, bias, W, state = (_float(tensors[n]) for n in ("A", "D", "dt_bias", "dt_weight", "initial_state"))
    B, C = (weights[:, :, None] if weights.dim() == 3 else weights for weights in (B, C))
    longest = 0
    if W is not None and lengths is not None:  # the product with W^T may see no NaN
        dt = without_padding(dt.movedim((-3, -2), (0, 1)), lengths).movedim((0, 1), (-3, -2))
    if cu_seqlens is not None:
        lengths = cu_seqlens.to(x.device)
        longest = int(cu_seqlens.diff().max())
    x, dt, B, C, z = (None if t is None else innermost(t) for t in (x, dt, B, C, z))
    D, bias = (None if t is None else t.contiguous() for t in (D, bias))
    gated = z is not None and not traced()  # compiled, the gate joins what follows
    y, last = TritonScan.apply(
        x, dt, W, A, B, C, D, bias, state, z if gated else None, lengths, table,
        softplus, routes, backward, longest, once, want_state,
    )  # fmt: skip
    if gated:
        return y, last
    total = y[0] if routes == 1 else y.sum(0)
    if z is None:
        return total, last
    return (total * F.silu(without_padding(z, None if longest else lengths).float())).to(y.dtype), last


def _float(tensor: Tensor | None) -> Tensor | None:
    return None if tensor is None else tensor.float()
