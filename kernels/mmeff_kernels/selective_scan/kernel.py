"""The selective scan in Triton: time runs sequentially, the state of a block of channels stays in registers.

States lie in memory as (N, D): with channels contiguous a warp spreads a tile over 8 threads of 4 channels and 4
threads of states, and sums over either axis cost few shuffles.

A program walks one row and BD channels of one group, (N, BD) numbers of state, T steps an iteration. The forward pass
saves the state before every T-th step. The backward pass goes through those groups of T steps from the end: it repeats
a group from its saved state with all T states in registers, then takes the gradients step by step. What a program can
only sum over its own channels (dB, dC) or its own row (dA, dD, d bias) goes to a buffer of its own and is summed by
torch: no atomics, the same bits every time.
"""

from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor
from torch.autograd.function import once_differentiable

#: Steps between two saved states. Each keeps two (N, BD) tiles in registers in the backward pass.
T = 4
#: Channels of a program's tile, forward and backward.
BLOCK, BLOCK_BACKWARD = 32, 16


@triton.jit
def load_rows(p, s, length, first, stride, o, m, REVERSE: tl.constexpr, T: tl.constexpr):
    """What the steps s to s + T - 1 read at `o`, as a tuple: all at once, for memory is far. 0 outside the row."""
    rows = ()
    for i in tl.static_range(T):  # pyright: ignore[reportGeneralTypeIssues]
        i_t = first - s - i if REVERSE else first + s + i
        rows = rows + (tl.load(p + i_t * stride + o, m & (s + i >= 0) & (s + i < length), 0.0),)  # noqa: RUF005
    return rows


@triton.jit
def step_size(raw, b_bias, real, SOFTPLUS: tl.constexpr):
    """dt from what the step read, and dt before its softplus. 0 past the end: the state passes unchanged."""
    raw = raw.to(tl.float32) + b_bias
    dt = raw
    if SOFTPLUS:
        # log1p is not there; above 20 softplus is the identity in fp32, below -15 log(1 + e) would lose what exp keeps.
        e = tl.exp(raw)
        dt = tl.where(raw > 20.0, raw, tl.where(raw < -15.0, e, tl.log(1.0 + e)))
    return tl.where(real, dt, 0.0), raw


@triton.jit
def forward_kernel(
    p_x, p_dt, p_A, p_B, p_C, p_D, p_z, p_bias, p_h0, p_lengths, p_y, p_hT, p_saves,
    L, channels, per_group, N, n_saves,
    x_b, x_l, dt_b, dt_l, z_b, z_l, B_b, B_l, B_g, C_b, C_l, C_g,
    HAS_D: tl.constexpr, HAS_Z: tl.constexpr, HAS_BIAS: tl.constexpr, HAS_LENGTHS: tl.constexpr,
    SOFTPLUS: tl.constexpr, REVERSE: tl.constexpr, SAVE: tl.constexpr,
    BD: tl.constexpr, BN: tl.constexpr, T: tl.constexpr,
):  # fmt: skip
    i_b = tl.program_id(1).to(tl.int64)
    n_blocks = tl.cdiv(per_group, BD)
    i_g = tl.program_id(0) // n_blocks
    o_g = (tl.program_id(0) % n_blocks) * BD + tl.arange(0, BD)
    o_d, m_d = i_g * per_group + o_g, o_g < per_group
    o_n = tl.arange(0, BN)
    m_n = o_n < N
    o_state, m_state = o_n[:, None] * channels + o_d[None, :], m_n[:, None] & m_d[None, :]
    length = tl.zeros([], tl.int64) + L
    if HAS_LENGTHS:
        length = tl.load(p_lengths + i_b).to(tl.int64)
    first = length - 1 if REVERSE else length * 0

    b_A = tl.load(p_A + o_state, m_state, 0.0) * 1.4426950408889634  # exp(v) = exp2(v log2 e)
    b_h = tl.load(p_h0 + i_b * channels * N + o_state, m_state, 0.0)
    if HAS_D:
        b_D = tl.load(p_D + o_d, m_d, 0.0)
    p_x += i_b * x_b
    p_dt += i_b * dt_b
    p_z += i_b * z_b
    p_B += i_b * B_b + i_g * B_g
    p_C += i_b * C_b + i_g * C_g
    p_y += i_b * L * channels
    p_saves += i_b * n_saves * channels * N
    b_bias = tl.zeros([BD], tl.float32)
    if HAS_BIAS:
        b_bias = tl.load(p_bias + o_d, m_d, 0.0)
    xs = load_rows(p_x, 0, length, first, x_l, o_d, m_d, REVERSE, T)
    raws = load_rows(p_dt, 0, length, first, dt_l, o_d, m_d, REVERSE, T)
    Bs = load_rows(p_B, 0, length, first, B_l, o_n, m_n, REVERSE, T)
    Cs = load_rows(p_C, 0, length, first, C_l, o_n, m_n, REVERSE, T)
    for k in range(0, tl.cdiv(length, T)):
        if SAVE:
            tl.store(p_saves + o_state, b_h, m_state)
            p_saves += channels * N
        next_xs = load_rows(p_x, k * T + T, length, first, x_l, o_d, m_d, REVERSE, T)
        next_raws = load_rows(p_dt, k * T + T, length, first, dt_l, o_d, m_d, REVERSE, T)
        next_Bs = load_rows(p_B, k * T + T, length, first, B_l, o_n, m_n, REVERSE, T)
        next_Cs = load_rows(p_C, k * T + T, length, first, C_l, o_n, m_n, REVERSE, T)
        if HAS_Z:
            zs = load_rows(p_z, k * T, length, first, z_l, o_d, m_d, REVERSE, T)
        for i in tl.static_range(T):
            s = k * T + i
            i_t = first - s if REVERSE else first + s
            m = m_d & (s < length)
            b_x = xs[i].to(tl.float32)
            b_dt, _ = step_size(raws[i], b_bias, m, SOFTPLUS)
            b_h = tl.exp2(b_dt[None, :] * b_A) * b_h + (b_dt * b_x)[None, :] * Bs[i].to(tl.float32)[:, None]
            b_y = tl.sum(b_h * Cs[i].to(tl.float32)[:, None], 0)
            if HAS_D:
                b_y += b_D * b_x
            if HAS_Z:
                b_z = zs[i].to(tl.float32)
                b_y *= b_z * tl.sigmoid(b_z)
            tl.store(p_y + i_t * channels + o_d, b_y, m)
        xs, raws, Bs, Cs = next_xs, next_raws, next_Bs, next_Cs
    tl.store(p_hT + i_b * channels * N + o_state, b_h, m_state)


@triton.jit
def backward_kernel(
    p_x, p_dt, p_A, p_B, p_C, p_D, p_z, p_bias, p_lengths, p_saves, p_gy, p_ghT,
    p_gx, p_gdt, p_gA, p_gB, p_gC, p_gD, p_gz, p_gbias, p_gh0,
    L, channels, per_group, N, n_saves,
    x_b, x_l, dt_b, dt_l, z_b, z_l, B_b, B_l, B_g, C_b, C_l, C_g,
    HAS_D: tl.constexpr, HAS_Z: tl.constexpr, HAS_BIAS: tl.constexpr, HAS_LENGTHS: tl.constexpr,
    SOFTPLUS: tl.constexpr, REVERSE: tl.constexpr,
    BD: tl.constexpr, BN: tl.constexpr, T: tl.constexpr,
):  # fmt: skip
    i_b = tl.program_id(1).to(tl.int64)
    n_blocks = tl.cdiv(per_group, BD)
    i_block = tl.program_id(0)
    i_g = i_block // n_blocks
    o_g = (i_block % n_blocks) * BD + tl.arange(0, BD)
    o_d, m_d = i_g * per_group + o_g, o_g < per_group
    o_n = tl.arange(0, BN)
    m_n = o_n < N
    o_state, m_state = o_n[:, None] * channels + o_d[None, :], m_n[:, None] & m_d[None, :]
    length = tl.zeros([], tl.int64) + L
    if HAS_LENGTHS:
        length = tl.load(p_lengths + i_b).to(tl.int64)
    first = length - 1 if REVERSE else length * 0

    b_A = tl.load(p_A + o_state, m_state, 0.0)
    b_g = tl.load(p_ghT + i_b * channels * N + o_state, m_state, 0.0)  # dLoss / dh of the step before the last one seen
    b_gA = tl.zeros([BN, BD], tl.float32)
    b_gD = tl.zeros([BD], tl.float32)
    b_gbias = tl.zeros([BD], tl.float32)
    b_D = tl.zeros([BD], tl.float32)
    if HAS_D:
        b_D = tl.load(p_D + o_d, m_d, 0.0)
    p_x += i_b * x_b
    p_dt += i_b * dt_b
    p_z += i_b * z_b
    p_B += i_b * B_b + i_g * B_g
    p_C += i_b * C_b + i_g * C_g
    p_saves += i_b * n_saves * channels * N
    row = i_b * L * channels
    p_gy += row
    part = (i_block * tl.num_programs(1).to(tl.int64) + i_b) * L * N
    groups_of_steps = tl.cdiv(length, T)
    p_saves += groups_of_steps * channels * N
    b_bias = tl.zeros([BD], tl.float32)
    if HAS_BIAS:
        b_bias = tl.load(p_bias + o_d, m_d, 0.0)
    s = groups_of_steps * T - T
    xs = load_rows(p_x, s, length, first, x_l, o_d, m_d, REVERSE, T)
    raws = load_rows(p_dt, s, length, first, dt_l, o_d, m_d, REVERSE, T)
    Bs = load_rows(p_B, s, length, first, B_l, o_n, m_n, REVERSE, T)
    Cs = load_rows(p_C, s, length, first, C_l, o_n, m_n, REVERSE, T)
    gys = load_rows(p_gy, s, length, first, channels, o_d, m_d, REVERSE, T)
    p_saves -= channels * N
    b_save = tl.load(p_saves + o_state, m_state & (length > 0), 0.0)
    for j in range(0, groups_of_steps):
        k = groups_of_steps - 1 - j
        s = k * T - T
        next_xs = load_rows(p_x, s, length, first, x_l, o_d, m_d, REVERSE, T)
        next_raws = load_rows(p_dt, s, length, first, dt_l, o_d, m_d, REVERSE, T)
        next_Bs = load_rows(p_B, s, length, first, B_l, o_n, m_n, REVERSE, T)
        next_Cs = load_rows(p_C, s, length, first, C_l, o_n, m_n, REVERSE, T)
        next_gys = load_rows(p_gy, s, length, first, channels, o_d, m_d, REVERSE, T)
        p_saves -= channels * N
        next_save = tl.load(p_saves + o_state, m_state & (k > 0), 0.0)
        if HAS_Z:
            zs = load_rows(p_z, k * T, length, first, z_l, o_d, m_d, REVERSE, T)
        b_h = b_save
        before = ()  # the state before each of the T steps
        decays = ()
        for i in tl.static_range(T):
            b_dt, _ = step_size(raws[i], b_bias, m_d & (k * T + i < length), SOFTPLUS)
            b_a = tl.exp2(b_dt[None, :] * (b_A * 1.4426950408889634))
            before = before + (b_h,)  # noqa: RUF005
            decays = decays + (b_a,)  # noqa: RUF005
            b_h = b_a * b_h + (b_dt * xs[i].to(tl.float32))[None, :] * Bs[i].to(tl.float32)[:, None]
        for i in tl.static_range(T - 1, -1, -1):
            s = k * T + i
            i_t = first - s if REVERSE else first + s
            m, m_t = m_d & (s < length), m_n & (s < length)
            b_x, b_gy = xs[i].to(tl.float32), gys[i].to(tl.float32)
            b_B, b_C = Bs[i].to(tl.float32), Cs[i].to(tl.float32)
            b_dt, b_raw = step_size(raws[i], b_bias, m, SOFTPLUS)
            b_ah = decays[i] * before[i]
            b_now = b_ah + (b_dt * b_x)[None, :] * b_B[:, None]
            if HAS_Z:
                b_z = zs[i].to(tl.float32)
                b_sigma = tl.sigmoid(b_z)
                b_y = tl.sum(b_now * b_C[:, None], 0) + b_D * b_x
                b_gz = b_gy * b_y * b_sigma * (1.0 + b_z * (1.0 - b_sigma))
                tl.store(p_gz + row + i_t * channels + o_d, b_gz, m)
                b_gy *= b_z * b_sigma
            b_g += b_gy[None, :] * b_C[:, None]
            b_gC = tl.sum(b_gy[None, :] * b_now, 1)
            b_gB = tl.sum((b_dt * b_x)[None, :] * b_g, 1)
            tl.store(p_gC + part + i_t * N + o_n, b_gC, m_t)
            tl.store(p_gB + part + i_t * N + o_n, b_gB, m_t)
            b_gdtx = tl.sum(b_g * b_B[:, None], 0)
            b_q = b_g * b_ah
            b_gA += b_dt[None, :] * b_q
            b_gdt = b_x * b_gdtx + tl.sum(b_q * b_A, 0)
            if SOFTPLUS:
                b_gdt *= tl.sigmoid(b_raw)
            tl.store(p_gdt + row + i_t * channels + o_d, b_gdt, m)
            tl.store(p_gx + row + i_t * channels + o_d, b_dt * b_gdtx + b_D * b_gy, m)
            b_gD += b_gy * b_x
            b_gbias += tl.where(m, b_gdt, 0.0)
            b_g = decays[i] * b_g
        xs, raws, Bs, Cs, gys, b_save = next_xs, next_raws, next_Bs, next_Cs, next_gys, next_save
    tl.store(p_gh0 + i_b * channels * N + o_state, b_g, m_state)
    tl.store(p_gA + i_b * channels * N + o_state, b_gA, m_state)
    tl.store(p_gD + i_b * channels + o_d, b_gD, m_d)
    tl.store(p_gbias + i_b * channels + o_d, b_gbias, m_d)


class TritonScan(torch.autograd.Function):
    """x, dt, z (B, L, D), A (D, N), B and C (B, L, G, N), D and bias (D,), h0 (B, D, N), lengths (B,) -> y, hT.

    z, D, bias, h0 and lengths may be None. Computes in fp32 whatever the inputs' types, which A, D, bias and h0 must
    already be. y has x's type, every gradient that of its tensor.
    """

    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        dt: Tensor,
        A: Tensor,
        B: Tensor,
        C: Tensor,
        D: Tensor | None,
        z: Tensor | None,
        bias: Tensor | None,
        h0: Tensor | None,
        lengths: Tensor | None,
        softplus: bool,
        reverse: bool,
    ) -> tuple[Tensor, Tensor]:
        rows, L, channels = x.shape
        N = A.shape[1]
        x, dt, B, C = (_dense(tensor) for tensor in (x, dt, B, C))
        z = None if z is None else _dense(z)
        A = A.t().contiguous()
        D, bias = (None if tensor is None else tensor.contiguous() for tensor in (D, bias))
        start = A.new_zeros(rows, N, channels) if h0 is None else h0.mT.contiguous()
        # Padding is not written by the kernels.
        y = torch.empty(x.shape, dtype=x.dtype, device=x.device) if lengths is None else torch.zeros_like(x)
        last = torch.empty_like(start)
        save = any(ctx.needs_input_grad)
        n_saves = -(-L // T) if save else 0
        saves = A.new_empty(rows, n_saves, N, channels)
        meta = _meta(x, dt, z, A, B, C, D, bias, lengths, softplus, reverse)
        with torch.cuda.device_of(x):
            forward_kernel[_grid(x, B, BLOCK)](
                x, dt, A, B, C, D, z if z is not None else x, bias, start, lengths, y, last, saves,
                n_saves=n_saves, SAVE=save, BD=BLOCK, T=T, num_warps=1, **meta,  # pyright: ignore[reportCallIssue]
            )  # fmt: skip
        ctx.save_for_backward(x, dt, A, B, C, D, z, bias, lengths, saves)
        ctx.options = softplus, reverse, h0 is not None
        return y, last.mT

    @staticmethod
    @once_differentiable
    def backward(  # pyright: ignore[reportIncompatibleMethodOverride]
        ctx: Any, gy: Tensor, g_last: Tensor
    ) -> tuple[Tensor | None, ...]:
        x, dt, A, B, C, D, z, bias, lengths, saves = ctx.saved_tensors
        softplus, reverse, has_state = ctx.options
        rows, L, channels = x.shape
        N, groups = len(A), B.shape[2]
        meta = _meta(x, dt, z, A, B, C, D, bias, lengths, softplus, reverse)
        grid = _grid(x, B, BLOCK_BACKWARD)
        new = torch.empty if lengths is None else torch.zeros
        gx, gdt = (new(t.shape, dtype=t.dtype, device=x.device) for t in (x, dt))
        gz = None if z is None else new(z.shape, dtype=z.dtype, device=x.device)
        gB, gC = new(2, grid[0], rows, L, N, dtype=torch.float32, device=x.device)
        gA, g_start = A.new_empty(2, rows, N, channels)
        gD, gbias = A.new_empty(2, rows, channels)
        with torch.cuda.device_of(x):
            backward_kernel[grid](
                x, dt, A, B, C, D, z if z is not None else x, bias, lengths, saves, gy.contiguous(),
                g_last.mT.contiguous(),
                gx, gdt, gA, gB, gC, gD, gz, gbias, g_start,
                n_saves=saves.shape[1], BD=BLOCK_BACKWARD, T=T, num_warps=1, **meta,  # pyright: ignore[reportCallIssue]
            )  # fmt: skip
        gB, gC = (part.unflatten(0, (groups, -1)).sum(1).permute(1, 2, 0, 3) for part in (gB, gC))
        return (
            gx, gdt, gA.sum(0).t(), gB.to(B.dtype), gC.to(C.dtype), None if D is None else gD.sum(0), gz,
            None if bias is None else gbias.sum(0), g_start.mT if has_state else None, None, None, None,
        )  # fmt: skip


def _dense(x: Tensor) -> Tensor:
    """x itself if its last axis is dense, as that of a slice of a projection's output is; else a copy."""
    return x if x.stride(-1) == 1 else x.contiguous()


def _grid(x: Tensor, B: Tensor, BD: int) -> tuple[int, int]:
    """A program for BD channels of a group, in each row."""
    rows, _, channels = x.shape
    groups = B.shape[2]
    per_group = channels // groups
    return groups * -(-per_group // BD), rows


def _meta(
    x: Tensor,
    dt: Tensor,
    z: Tensor | None,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    D: Tensor | None,
    bias: Tensor | None,
    lengths: Tensor | None,
    softplus: bool,
    reverse: bool,
) -> dict[str, Any]:
    """What both kernels are told: sizes, strides, and which inputs there are."""
    _, L, channels = x.shape
    groups, N = B.shape[2:]
    strides = {
        f"{name}_{axis}": tensor.stride(i)
        for name, tensor, axes in (
            ("x", x, "bl"), ("dt", dt, "bl"), ("z", x if z is None else z, "bl"), ("B", B, "blg"), ("C", C, "blg"),
        )
        for i, axis in enumerate(axes)
    }  # fmt: skip
    return {
        "L": L, "channels": channels, "per_group": channels // groups, "N": N, **strides,
        "HAS_D": D is not None, "HAS_Z": z is not None, "HAS_BIAS": bias is not None,
        "HAS_LENGTHS": lengths is not None, "SOFTPLUS": softplus, "REVERSE": reverse,
        "BN": triton.next_power_of_2(N),
    }  # fmt: skip
