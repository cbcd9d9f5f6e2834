"""The selective scan in plain torch, for the CPU: blocks of time steps and a gradient by hand.

All that does not depend on the previous step (decays, inputs, outputs, sums of the gradient) is computed for a block of
steps at once; what is left to the loop over time is one in-place `addcmul_` a step. A block fits in the cache. Only the
state before each block is kept for the backward pass, which recomputes the block. Decays are multiplied, never divided
by, and only dt A <= 0 is exponentiated, so nothing overflows.

Inside, time comes first and channels last, (T, B, N, D): broadcasts run over contiguous channels, and every sum over
states or channels is a batched matrix product.
"""

import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from ..first_order import first_order
from ..padding import without_padding
from .reference import step_sizes

#: Elements (T B N D) of a block: 2 MiB of fp32. Larger ones leave the cache, smaller ones pay for more calls.
_BLOCK = 1 << 19


class BlockedScan(torch.autograd.Function):
    """x, dt (L, B, D), A (1 or B, N, D), B and C (L, B, N), state (B, N, D), all of one floating dtype and contiguous,
    reverse: bool -> y (L, B, D), the last state (B, N, D)."""

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, dt: Tensor, A: Tensor, B: Tensor, C: Tensor, state: Tensor, reverse: bool
    ) -> tuple[Tensor, Tensor]:
        dtx = dt * x
        y = torch.empty_like(x)
        work = _Workspace(dtx, A, reverse)
        starts, h = A.new_empty(len(work.blocks), *state.shape), state
        for start, block in zip(starts, work.blocks, strict=True):
            start.copy_(h)
            now, _, h = work.states(start, dt[block], dtx[block], B[block])
            y[block] = _sum_states(C[block], now)
        ctx.save_for_backward(x, dt, A, B, C, state, dtx, starts)
        ctx.reverse = reverse
        return y, h.clone()

    @staticmethod
    @first_order("selective_scan")
    def backward(  # pyright: ignore[reportIncompatibleMethodOverride]
        ctx: Any, gy: Tensor, g_state: Tensor
    ) -> tuple[Tensor | None, ...]:
        # Autocast would turn the matrix products into bf16, in a backward pass that runs inside it too.
        with torch.autocast(gy.device.type, enabled=False):
            x, dt, A, B, C, _, dtx, starts = ctx.saved_tensors
            return *_gradients(ctx.reverse, gy.contiguous(), g_state, x, dt, dtx, A, B, C, starts), None


def _gradients(
    reverse: bool,
    gy: Tensor,
    g_state: Tensor,
    x: Tensor,
    dt: Tensor,
    dtx: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    starts: Tensor,
) -> tuple[Tensor, ...]:
    """With a_t = exp(dt_t A), g_t = dLoss/dh_t = C_t gy_t + a_{t+1} g_{t+1} and q_t = g_t a_t h_{t-1}:

    d(dt x)_t = sum_n B_t g_t,  dB_t = sum_d dt_t x_t g_t,  dC_t = sum_d gy_t h_t,
    dA = sum_t dt_t q_t,  ddt_t = x_t d(dt x)_t + sum_n A q_t,  dx_t = dt_t d(dt x)_t.
    """
    g_dtx, g_dt, g_B, g_C = (torch.empty_like(tensor) for tensor in (dtx, dt, B, C))
    g_A, g_start = torch.zeros_like(A), g_state.clone(memory_format=torch.contiguous_format)
    work = _Workspace(dtx, A, reverse)
    g_buffer = torch.empty_like(work.a)
    g_views = g_buffer.unbind(0)
    for start, block in zip(reversed(starts.unbind(0)), reversed(work.blocks), strict=True):
        T = block.stop - block.start
        a, g = work.a[:T], g_buffer[:T]
        now, before, _ = work.states(start, dt[block], dtx[block], B[block])

        torch.mul(C[block][..., None], gy[block][:, :, None], out=g)
        a_steps, g_steps = work.in_order(work.a_views[:T]), work.in_order(g_views[:T])
        g_steps[-1].add_(g_start)
        for t in range(T - 1, 0, -1):
            g_steps[t - 1].addcmul_(a_steps[t], g_steps[t])
        torch.mul(a_steps[0], g_steps[0], out=g_start)

        g_dtx[block] = _sum_states(B[block], g)
        g_B[block] = _sum_channels(dtx[block], g)
        g_C[block] = _sum_channels(gy[block], now)
        q = a.mul_(before).mul_(g)
        g_A += torch.mul(q, dt[block][:, :, None], out=g).sum((0, 1) if len(A) == 1 else 0)
        torch.sum(q.mul_(A), 2, out=g_dt[block])
    g_dt.addcmul_(g_dtx, x)
    g_x = g_dtx.mul_(dt)
    return g_x, g_dt, g_A, g_B, g_C, g_start


class _Workspace:
    """Slices of time in the order of the scan, and buffers for the decays and the T + 1 states of one."""

    def __init__(self, dtx: Tensor, A: Tensor, reverse: bool):
        L, rows, _ = dtx.shape
        state = (rows, *A.shape[1:])
        # What is traced for a batch of any size has blocks that do not depend on it.
        size = math.prod(state[1:] if torch.compiler.is_compiling() else state)
        T = max(1, min(L, _BLOCK // size))
        blocks = [slice(start, min(start + T, L)) for start in range(0, L, T)]
        self.reverse, self.blocks = reverse, blocks[::-1] if reverse else blocks
        self.a, self.h = dtx.new_empty(T, *state), dtx.new_empty(T + 1, *state)
        # Views of the steps, made once: in a loop over time they would cost as much as the arithmetic.
        self.a_views, self.h_views = self.a.unbind(0), self.h.unbind(0)
        self.A = A / math.log(2)  # exp(v) = exp2(v / log 2), and torch's exp2 is five times faster than its exp

    def states(self, start: Tensor, dt: Tensor, dtx: Tensor, B: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Fill a with the decays of a block and h with its states, start included.

        Returns views of h: the state after each step, the state before each step, the state after the last one.
        """
        T = len(dt)
        a, h = self.a[:T], self.h[: T + 1]
        now, before = (h[:-1], h[1:]) if self.reverse else (h[1:], h[:-1])
        torch.mul(dt[:, :, None], self.A, out=a).exp2_()
        torch.mul(dtx[:, :, None], B[..., None], out=now)
        a_steps, h_steps = self.in_order(self.a_views[:T]), self.in_order(self.h_views[: T + 1])
        h_steps[0].copy_(start)
        for t in range(T):
            h_steps[t + 1].addcmul_(a_steps[t], h_steps[t])
        return now, before, h_steps[T]

    def in_order(self, steps: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        """Views of the steps of a block in the order of the scan."""
        return steps[::-1] if self.reverse else steps


def _sum_states(weights: Tensor, h: Tensor) -> Tensor:
    """weights (T, B, N), h (T, B, N, D) -> sum over n of weights h, (T, B, D)."""
    return torch.matmul(weights[:, :, None], h).squeeze(2)


def _sum_channels(weights: Tensor, h: Tensor) -> Tensor:
    """weights (T, B, D), h (T, B, N, D) -> sum over d of weights h, (T, B, N). A row times the transpose: the other
    way round, (N, D) times a column, is eight times slower in MKL."""
    return torch.matmul(weights[:, :, None], h.transpose(2, 3)).squeeze(2)


def blocked_scan(
    tensors: dict[str, Tensor | None], dt_softplus: bool, reverse: bool, lengths: Tensor | None
) -> tuple[Tensor, Tensor]:
    """`selective_scan` for padded rows, its tensors by name: y (B, L, D), the last state (B, D, N). Autocast is off."""
    given = tensors["x"]
    assert given is not None
    with torch.autocast(given.device.type, enabled=False):
        return _blocked_scan(given, tensors, dt_softplus, reverse, lengths)


def _blocked_scan(
    given: Tensor, tensors: dict[str, Tensor | None], dt_softplus: bool, reverse: bool, lengths: Tensor | None
) -> tuple[Tensor, Tensor]:
    double = any(tensor is not None and tensor.dtype == torch.float64 for tensor in tensors.values())
    wide: dict[str, Any] = {}
    for name, tensor in tensors.items():
        if tensor is not None and name in ("x", "dt", "B", "C", "z"):
            tensor = without_padding(tensor, lengths)
        wide[name] = None if tensor is None else tensor.to(torch.float64 if double else torch.float32)
    x, dt, A, B, C, D, z = (wide[name] for name in ("x", "dt", "A", "B", "C", "D", "z"))
    bias, weight, state = wide["dt_bias"], wide["dt_weight"], wide["initial_state"]
    dt = step_sizes(dt, weight, bias, dt_softplus)
    if dt_softplus or bias is not None:
        dt = without_padding(dt, lengths)  # a step of 0 passes the state on unchanged
    count, _, channels = x.shape
    groups = 1 if B.dim() == 3 else B.shape[2]
    if state is None:
        state = x.new_zeros(count, *A.shape)
    y, h = BlockedScan.apply(
        *(_split_channels(t, groups).transpose(0, 1).contiguous() for t in (x, dt)),
        A.unflatten(0, (groups, -1)).mT.repeat(count if groups > 1 else 1, 1, 1),
        *(_split_groups(t, groups).transpose(0, 1).contiguous() for t in (B, C)),
        state.unflatten(1, (groups, -1)).flatten(0, 1).mT,
        reverse,
    )
    y = y.unflatten(1, (count, groups)).movedim(0, 1).flatten(2)
    y = y if D is None else torch.addcmul(y, x, D)
    y = y if z is None else y * F.silu(z)
    return y.to(given.dtype), h.mT.unflatten(0, (count, groups)).reshape(count, channels, -1)


def _split_channels(x: Tensor, groups: int) -> Tensor:
    """(B, L, D) -> (B G, L, D / G)."""
    return x.unflatten(2, (groups, -1)).transpose(1, 2).flatten(0, 1)


def _split_groups(weights: Tensor, groups: int) -> Tensor:
    """(B, L, N) or (B, L, G, N) -> (B G, L, N)."""
    return weights if weights.dim() == 3 else weights.transpose(1, 2).flatten(0, 1)
