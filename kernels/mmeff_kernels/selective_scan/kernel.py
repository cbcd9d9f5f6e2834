"""The selective scan in Triton: time runs sequentially, the state of a block of channels stays in registers.

States lie in memory as (N, D). A program is one warp. It walks `span` steps of one row with the (BN, BD) state of BD
channels of one group, T steps an iteration, whose inputs were asked for an iteration ahead.

Where rows and channels alone do not fill the chip, rows are cut into chunks of `span` steps: `ends_kernel` scans each
chunk from a state of 0, `chain_kernel` turns the ends that it finds into the states that chunks start with, and
`forward_kernel` then scans all chunks at once. The backward pass does the same with the gradient of the state.

The forward pass keeps the state before every SAVED-th step. The backward pass goes through segments of SAVED steps from
the end: it repeats a segment, leaving every T-th state in a scratch of the program's own, then goes through the
segment's groups of T steps from the end with T states in registers. What a program can only sum over its own channels
(dB, dC) or its own steps (dA, dD, d bias) goes to a buffer of its own and is summed by torch: no atomics, the same bits
every time.
"""

# pyright: reportGeneralTypeIssues=false, reportPossiblyUnboundVariable=false

import triton
import triton.language as tl

#: Steps between two states that the forward pass keeps.
SAVED = 64
LOG2_E = tl.constexpr(1.4426950408889634)
LN_2 = tl.constexpr(0.6931471805599453)
#: Arguments whose values do not make another kernel, where Triton would compile anew for 1 and for multiples of 16.
ALIKE = ["L", "rows", "span", "chunks", "blocks", "programs_before", "reverse", "one"]


@triton.jit
def place(
    program, L, span, chunks, blocks, per_group, p_lengths,
    HAS_LENGTHS: tl.constexpr, EVEN: tl.constexpr, BD: tl.constexpr,
):  # fmt: skip
    """Of a program: row, block of channels, chunk, group; its channels; the row's length; its first step and its end."""
    i_chunk = program % chunks
    i_block = program // chunks % blocks
    i_b = (program // chunks // blocks).to(tl.int64)
    blocks_of_group = tl.cdiv(per_group, BD)
    i_g = i_block // blocks_of_group
    o_g = i_block % blocks_of_group * BD + tl.arange(0, BD)
    m_d = o_g < per_group
    if EVEN:
        m_d = tl.full([BD], True, tl.int1)
    length = i_chunk * 0 + L
    if HAS_LENGTHS:
        length = tl.load(p_lengths + i_b).to(tl.int32)
    start = i_chunk * span
    return i_b, i_block, i_chunk, i_g, i_g * per_group + o_g, m_d, length, start, tl.minimum(start + span, length)


@triton.jit
def state_axis(N, BN: tl.constexpr, EVEN: tl.constexpr):
    o_n = tl.arange(0, BN)
    m_n = o_n < N
    if EVEN:
        m_n = tl.full([BN], True, tl.int1)
    return o_n, m_n


@triton.jit
def token(s, length, reverse):
    """The token that step s reads. Steps outside the row, which loads ahead ask for, read its first or last one."""
    last = tl.maximum(length - 1, 0)
    s = tl.minimum(tl.maximum(s, 0), last)
    return tl.where(reverse != 0, last - s, s)


@triton.jit
def load_rows(p, s, origin, length, stride, o, m, reverse, T: tl.constexpr):
    """What the steps s to s + T - 1 read at `o`, as a tuple: all at once, for memory is far. p is of token `origin`."""
    rows = ()
    for i in tl.static_range(T):
        rows = rows + (tl.load(p + ((token(s + i, length, reverse) - origin) * stride + o), m, 0.0),)  # noqa: RUF005
    return rows


@triton.jit
def step_size(raw, b_bias, real, SOFTPLUS: tl.constexpr):
    """dt from what the step read, and its derivative. dt is 0 past the end: the state passes unchanged.

    softplus(v) = max(v, 0) + log1p(u), u = exp(-|v|); log1p(u) / u by a polynomial, within 2e-7 on [0, 1].
    """
    dt = raw.to(tl.float32) + b_bias
    slope = dt * 0.0 + 1.0
    if SOFTPLUS:
        u = tl.exp2(tl.abs(dt) * -LOG2_E)
        q = u * 0.0052534580 - 0.0295885075
        q = q * u + 0.0783616677
        q = q * u - 0.1367477030
        q = q * u + 0.1911143064
        q = q * u - 0.2484436929
        q = q * u + 0.3331927061
        q = q * u - 0.4999950230
        q = q * u + 1.0
        slope = tl.where(dt > 0, 1.0, u) / (1.0 + u)
        dt = tl.maximum(dt, 0.0) + u * q
    return tl.where(real, dt, 0.0), slope


@triton.jit(do_not_specialize=ALIKE)
def ends_kernel(
    p_value, p_dt, p_A, p_weight, p_z, p_bias, p_lengths, p_ends, p_totals,
    L, span, chunks, blocks, channels, per_group, N, reverse, one,
    value_b, value_l, dt_b, dt_l, z_b, z_l, weight_b, weight_l, weight_g,
    HAS_Z: tl.constexpr, HAS_BIAS: tl.constexpr, HAS_LENGTHS: tl.constexpr,
    SOFTPLUS: tl.constexpr, ADJOINT: tl.constexpr,
    EVEN_D: tl.constexpr, EVEN_N: tl.constexpr, BD: tl.constexpr, BN: tl.constexpr, T: tl.constexpr,
):  # fmt: skip
    """Each chunk alone, from 0: h = a h + dt x B over its steps; ADJOINT: g = a (g + dy C) from its end to its start.

    Writes what is left at the chunk's other end, and the sum of its dt: its decay is exp(A sum dt).
    """
    i_b, i_block, i_chunk, i_g, o_d, m_d, length, start, stop = place(
        tl.program_id(0), L, span, chunks, blocks, per_group, p_lengths, HAS_LENGTHS, EVEN_D, BD
    )
    o_n, m_n = state_axis(N, BN, EVEN_N)
    o_state, m_state = o_d[:, None] * one + o_n[None, :] * channels, m_d[:, None] & m_n[None, :]
    b_A = tl.load(p_A + o_state, m_state, 0.0) * LOG2_E
    b_bias = tl.zeros([BD], tl.float32)
    if HAS_BIAS:
        b_bias = tl.load(p_bias + o_d, m_d, 0.0)
    origin = token(start, length, reverse)
    i_o = origin.to(tl.int64)
    p_value += i_b * value_b + i_o * value_l
    p_dt += i_b * dt_b + i_o * dt_l
    p_z += i_b * z_b + i_o * z_l
    p_weight += i_b * weight_b + i_o * weight_l + i_g * weight_g
    b_h = tl.zeros([BD, BN], tl.float32)
    b_total = tl.zeros([BD], tl.float32)
    groups_of_steps = tl.cdiv(tl.maximum(stop - start, 0), T)
    s = start + (groups_of_steps - 1) * T if ADJOINT else start
    values = load_rows(p_value, s, origin, length, value_l, o_d, m_d, reverse, T)
    raws = load_rows(p_dt, s, origin, length, dt_l, o_d, m_d, reverse, T)
    weights = load_rows(p_weight, s, origin, length, weight_l, o_n, m_n, reverse, T)
    for _ in range(0, groups_of_steps):
        ahead = s - T if ADJOINT else s + T
        next_values = load_rows(p_value, ahead, origin, length, value_l, o_d, m_d, reverse, T)
        next_raws = load_rows(p_dt, ahead, origin, length, dt_l, o_d, m_d, reverse, T)
        next_weights = load_rows(p_weight, ahead, origin, length, weight_l, o_n, m_n, reverse, T)
        if HAS_Z:
            zs = load_rows(p_z, s, origin, length, z_l, o_d, m_d, reverse, T)
        for i in tl.static_range(T - 1 if ADJOINT else 0, -1 if ADJOINT else T, -1 if ADJOINT else 1):
            real = s + i < stop
            b_dt, _ = step_size(raws[i], b_bias, real, SOFTPLUS)
            b_value = values[i].to(tl.float32)
            b_weight = weights[i].to(tl.float32)
            b_total += b_dt
            b_a = tl.exp2(b_dt[:, None] * b_A)
            if ADJOINT:
                if HAS_Z:
                    b_z = zs[i].to(tl.float32)
                    b_value *= b_z * tl.sigmoid(b_z)
                b_value = tl.where(real, b_value, 0.0)
                b_h = b_a * (b_h + b_value[:, None] * b_weight[None, :])
            else:
                b_h = b_a * b_h + (b_dt * b_value)[:, None] * b_weight[None, :]
        values, raws, weights = next_values, next_raws, next_weights
        s = ahead
    i_row = i_b * chunks + i_chunk
    tl.store(p_ends + i_row * channels * N + o_state, b_h, m_state)
    tl.store(p_totals + i_row * channels + o_d, b_total, m_d)


@triton.jit(do_not_specialize=ALIKE)
def chain_kernel(
    p_ends, p_totals, p_A, p_first, chunks, channels, N,
    BACKWARD: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """In place, from what chunks end with when they start from 0 to what they start with, one after the other."""
    o = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    i_b = tl.program_id(1).to(tl.int64)
    size = channels * N
    m = o < size
    b_A = tl.load(p_A + o, m, 0.0) * LOG2_E
    b_h = tl.load(p_first + i_b * size + o, m, 0.0)
    for j in range(0, chunks):
        i_row = i_b * chunks + (chunks - 1 - j if BACKWARD else j)
        b_end = tl.load(p_ends + i_row * size + o, m, 0.0)
        b_total = tl.load(p_totals + i_row * channels + o % channels, m, 0.0)
        tl.store(p_ends + i_row * size + o, b_h, m)
        b_h = tl.exp2(b_A * b_total) * b_h + b_end


@triton.jit(do_not_specialize=ALIKE)
def forward_kernel(
    p_x, p_dt, p_A, p_B, p_C, p_D, p_z, p_bias, p_lengths, p_starts, p_y, p_last, p_saves,
    L, span, chunks, blocks, channels, per_group, N, reverse, one,
    x_b, x_l, dt_b, dt_l, z_b, z_l, B_b, B_l, B_g, C_b, C_l, C_g,
    HAS_D: tl.constexpr, HAS_Z: tl.constexpr, HAS_BIAS: tl.constexpr, HAS_LENGTHS: tl.constexpr,
    SOFTPLUS: tl.constexpr, SAVE: tl.constexpr, SAVED: tl.constexpr,
    EVEN_D: tl.constexpr, EVEN_N: tl.constexpr, BD: tl.constexpr, BN: tl.constexpr, T: tl.constexpr,
):  # fmt: skip
    i_b, i_block, i_chunk, i_g, o_d, m_d, length, start, stop = place(
        tl.program_id(0), L, span, chunks, blocks, per_group, p_lengths, HAS_LENGTHS, EVEN_D, BD
    )
    o_n, m_n = state_axis(N, BN, EVEN_N)
    o_state, m_state = o_d[:, None] * one + o_n[None, :] * channels, m_d[:, None] & m_n[None, :]
    b_A = tl.load(p_A + o_state, m_state, 0.0) * LOG2_E  # exp(v) = exp2(v log2 e)
    b_h = tl.load(p_starts + (i_b * chunks + i_chunk) * channels * N + o_state, m_state, 0.0)
    b_bias = tl.zeros([BD], tl.float32)
    if HAS_BIAS:
        b_bias = tl.load(p_bias + o_d, m_d, 0.0)
    b_D = tl.zeros([BD], tl.float32)
    if HAS_D:
        b_D = tl.load(p_D + o_d, m_d, 0.0)
    origin = token(start, length, reverse)
    i_o = origin.to(tl.int64)
    p_x += i_b * x_b + i_o * x_l
    p_dt += i_b * dt_b + i_o * dt_l
    p_z += i_b * z_b + i_o * z_l
    p_B += i_b * B_b + i_o * B_l + i_g * B_g
    p_C += i_b * C_b + i_o * C_l + i_g * C_g
    p_y += (i_b * L + i_o) * channels
    p_saves += (i_b * tl.cdiv(L, SAVED) + start // SAVED) * channels * N
    xs = load_rows(p_x, start, origin, length, x_l, o_d, m_d, reverse, T)
    raws = load_rows(p_dt, start, origin, length, dt_l, o_d, m_d, reverse, T)
    Bs = load_rows(p_B, start, origin, length, B_l, o_n, m_n, reverse, T)
    Cs = load_rows(p_C, start, origin, length, C_l, o_n, m_n, reverse, T)
    for s in range(start, stop, T):
        if SAVE:
            if s % SAVED == 0:
                tl.store(p_saves + o_state, b_h, m_state)
                p_saves += channels * N
        next_xs = load_rows(p_x, s + T, origin, length, x_l, o_d, m_d, reverse, T)
        next_raws = load_rows(p_dt, s + T, origin, length, dt_l, o_d, m_d, reverse, T)
        next_Bs = load_rows(p_B, s + T, origin, length, B_l, o_n, m_n, reverse, T)
        next_Cs = load_rows(p_C, s + T, origin, length, C_l, o_n, m_n, reverse, T)
        if HAS_Z:
            zs = load_rows(p_z, s, origin, length, z_l, o_d, m_d, reverse, T)
        for i in tl.static_range(T):
            real = s + i < stop
            b_x = xs[i].to(tl.float32)
            b_dt, _ = step_size(raws[i], b_bias, real, SOFTPLUS)
            b_h = tl.exp2(b_dt[:, None] * b_A) * b_h + (b_dt * b_x)[:, None] * Bs[i].to(tl.float32)[None, :]
            b_y = tl.sum(b_h * Cs[i].to(tl.float32)[None, :], 1) + b_D * b_x
            if HAS_Z:
                b_z = zs[i].to(tl.float32)
                b_y *= b_z * tl.sigmoid(b_z)
            tl.store(p_y + ((token(s + i, length, reverse) - origin) * channels + o_d), b_y, m_d & real)
        xs, raws, Bs, Cs = next_xs, next_raws, next_Bs, next_Cs
    if i_chunk == chunks - 1:
        tl.store(p_last + i_b * channels * N + o_state, b_h, m_state)


@triton.jit(do_not_specialize=ALIKE)
def backward_kernel(
    p_x, p_dt, p_A, p_B, p_C, p_D, p_z, p_bias, p_lengths, p_saves, p_scratch, p_gy, p_starts,
    p_gx, p_gdt, p_gA, p_gB, p_gC, p_gD, p_gz, p_gbias, p_first,
    programs_before, L, rows, span, chunks, blocks, channels, per_group, N, reverse,
    x_b, x_l, dt_b, dt_l, z_b, z_l, B_b, B_l, B_g, C_b, C_l, C_g,
    HAS_D: tl.constexpr, HAS_Z: tl.constexpr, HAS_BIAS: tl.constexpr, HAS_LENGTHS: tl.constexpr,
    SOFTPLUS: tl.constexpr, SAVED: tl.constexpr,
    EVEN_D: tl.constexpr, EVEN_N: tl.constexpr, BD: tl.constexpr, BN: tl.constexpr, T: tl.constexpr,
):  # fmt: skip
    i_b, i_block, i_chunk, i_g, o_d, m_d, length, start, stop = place(
        tl.program_id(0) + programs_before, L, span, chunks, blocks, per_group, p_lengths, HAS_LENGTHS, EVEN_D, BD
    )
    o_n, m_n = state_axis(N, BN, EVEN_N)
    o_state, m_state = o_n[:, None] * channels + o_d[None, :], m_n[:, None] & m_d[None, :]
    o_scratch = o_n[:, None] * BD + tl.arange(0, BD)[None, :]
    i_row = i_b * chunks + i_chunk
    b_A = tl.load(p_A + o_state, m_state, 0.0) * LOG2_E
    # The gradient of the state behind the step at hand, as later steps have left it.
    b_g = tl.load(p_starts + i_row * channels * N + o_state, m_state, 0.0)
    b_gA = tl.zeros([BN, BD], tl.float32)
    b_gD = tl.zeros([BD], tl.float32)
    b_gbias = tl.zeros([BD], tl.float32)
    b_bias = tl.zeros([BD], tl.float32)
    if HAS_BIAS:
        b_bias = tl.load(p_bias + o_d, m_d, 0.0)
    b_D = tl.zeros([BD], tl.float32)
    if HAS_D:
        b_D = tl.load(p_D + o_d, m_d, 0.0)
    origin = token(start, length, reverse)
    i_o = origin.to(tl.int64)
    p_x += i_b * x_b + i_o * x_l
    p_dt += i_b * dt_b + i_o * dt_l
    p_z += i_b * z_b + i_o * z_l
    p_B += i_b * B_b + i_o * B_l + i_g * B_g
    p_C += i_b * C_b + i_o * C_l + i_g * C_g
    o_row = (i_b * L + i_o) * channels
    p_gy += o_row
    p_gx += o_row
    p_gdt += o_row
    if HAS_Z:
        p_gz += o_row
    p_scratch += tl.program_id(0).to(tl.int64) * (SAVED // T) * BN * BD
    o_part = ((i_block.to(tl.int64) * rows + i_b) * L + i_o) * N
    p_gB += o_part
    p_gC += o_part
    p_saves += i_b * tl.cdiv(L, SAVED) * channels * N

    segments = tl.cdiv(tl.maximum(stop - start, 0), SAVED)
    for segment in range(0, segments):
        begin = start + (segments - 1 - segment) * SAVED
        groups_of_steps = tl.cdiv(tl.minimum(begin + SAVED, stop) - begin, T)
        b_h = tl.load(p_saves + (begin // SAVED).to(tl.int64) * channels * N + o_state, m_state, 0.0)
        xs = load_rows(p_x, begin, origin, length, x_l, o_d, m_d, reverse, T)
        raws = load_rows(p_dt, begin, origin, length, dt_l, o_d, m_d, reverse, T)
        Bs = load_rows(p_B, begin, origin, length, B_l, o_n, m_n, reverse, T)
        for k in range(0, groups_of_steps):
            s = begin + k * T
            tl.store(p_scratch + k * BN * BD + o_scratch, b_h)
            next_xs = load_rows(p_x, s + T, origin, length, x_l, o_d, m_d, reverse, T)
            next_raws = load_rows(p_dt, s + T, origin, length, dt_l, o_d, m_d, reverse, T)
            next_Bs = load_rows(p_B, s + T, origin, length, B_l, o_n, m_n, reverse, T)
            for i in tl.static_range(T):
                b_dt, _ = step_size(raws[i], b_bias, s + i < stop, SOFTPLUS)
                b_x, b_B = xs[i].to(tl.float32), Bs[i].to(tl.float32)
                b_h = tl.exp2(b_dt[None, :] * b_A) * b_h + (b_dt * b_x)[None, :] * b_B[:, None]
            xs, raws, Bs = next_xs, next_raws, next_Bs
        tl.debug_barrier()  # the scratch is written before it is read

        s = begin + (groups_of_steps - 1) * T
        xs = load_rows(p_x, s, origin, length, x_l, o_d, m_d, reverse, T)
        raws = load_rows(p_dt, s, origin, length, dt_l, o_d, m_d, reverse, T)
        gys = load_rows(p_gy, s, origin, length, channels, o_d, m_d, reverse, T)
        for j in range(0, groups_of_steps):
            k = groups_of_steps - 1 - j
            s = begin + k * T
            Bs = load_rows(p_B, s, origin, length, B_l, o_n, m_n, reverse, T)
            Cs = load_rows(p_C, s, origin, length, C_l, o_n, m_n, reverse, T)
            b_before = tl.load(p_scratch + k * BN * BD + o_scratch)
            next_xs = load_rows(p_x, s - T, origin, length, x_l, o_d, m_d, reverse, T)
            next_raws = load_rows(p_dt, s - T, origin, length, dt_l, o_d, m_d, reverse, T)
            next_gys = load_rows(p_gy, s - T, origin, length, channels, o_d, m_d, reverse, T)
            if HAS_Z:
                zs = load_rows(p_z, s, origin, length, z_l, o_d, m_d, reverse, T)
            hs = (b_before,)  # the state before each of the T steps, and after the last
            dts = ()
            slopes = ()
            for i in tl.static_range(T):
                b_dt, b_slope = step_size(raws[i], b_bias, s + i < stop, SOFTPLUS)
                b_a = tl.exp2(b_dt[None, :] * b_A)
                b_h = b_a * hs[i] + (b_dt * xs[i].to(tl.float32))[None, :] * Bs[i].to(tl.float32)[:, None]
                hs = hs + (b_h,)  # noqa: RUF005
                dts = dts + (b_dt,)  # noqa: RUF005
                slopes = slopes + (b_slope,)  # noqa: RUF005
            for i in tl.static_range(T - 1, -1, -1):
                real = s + i < stop
                i_t = token(s + i, length, reverse) - origin
                b_x, b_gy = xs[i].to(tl.float32), tl.where(real, gys[i].to(tl.float32), 0.0)
                b_B, b_C = Bs[i].to(tl.float32), Cs[i].to(tl.float32)
                b_dt = dts[i]
                if HAS_Z:
                    b_z = zs[i].to(tl.float32)
                    b_sigma = tl.sigmoid(b_z)
                    b_y = tl.sum(hs[i + 1] * b_C[:, None], 0) + b_D * b_x
                    b_gz = b_gy * b_y * b_sigma * (1.0 + b_z * (1.0 - b_sigma))
                    tl.store(p_gz + (i_t * channels + o_d), b_gz, m_d & real)
                    b_gy *= b_z * b_sigma
                b_g += b_gy[None, :] * b_C[:, None]
                b_gC = tl.sum(b_gy[None, :] * hs[i + 1], 1)
                b_gB = tl.sum((b_dt * b_x)[None, :] * b_g, 1)
                tl.store(p_gC + (i_t * N + o_n), b_gC, m_n & real)
                tl.store(p_gB + (i_t * N + o_n), b_gB, m_n & real)
                b_gdtx = tl.sum(b_g * b_B[:, None], 0)
                b_g = tl.exp2(b_dt[None, :] * b_A) * b_g
                b_q = b_g * hs[i]
                b_gA += b_dt[None, :] * b_q
                b_gdt = (b_x * b_gdtx + tl.sum(b_q * b_A, 0) * LN_2) * slopes[i]
                tl.store(p_gdt + (i_t * channels + o_d), b_gdt, m_d & real)
                tl.store(p_gx + (i_t * channels + o_d), b_dt * b_gdtx + b_D * b_gy, m_d & real)
                b_gD += b_gy * b_x
                b_gbias += tl.where(real, b_gdt, 0.0)
            xs, raws, gys = next_xs, next_raws, next_gys
    if i_chunk == 0:
        tl.store(p_first + i_b * channels * N + o_state, b_g, m_state)
    tl.store(p_gA + i_row * channels * N + o_state, b_gA, m_state)
    tl.store(p_gD + i_row * channels + o_d, b_gD, m_d)
    tl.store(p_gbias + i_row * channels + o_d, b_gbias, m_d)
