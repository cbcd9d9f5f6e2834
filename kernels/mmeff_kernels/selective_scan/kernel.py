"""The selective scan in Triton: time runs sequentially, the state of a block of channels stays in registers.

States lie in memory as (N, D). A program is one warp. It walks `span` steps of one row along one of K routes, with the
state of BD channels of a group in (BD, BN) numbers, T steps an iteration, whose inputs were asked for one iteration
earlier. `token` alone decides where the route passes: every load and store goes to the token's own place, and nothing
is ever permuted in memory.

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
# ruff: noqa: SIM102 (what a constexpr decides is decided alone, when the kernel is compiled)

import triton
import triton.language as tl

LOG2_E = tl.constexpr(1.4426950408889634)
LN_2 = tl.constexpr(0.6931471805599453)
#: Arguments whose values do not make another kernel, where Triton would compile anew for 1 and for multiples of 16.
ALIKE = ["L", "rows", "total", "span", "chunks", "blocks", "programs_before", "backward", "has_start", "one"]


@triton.jit
def place(
    program, L, rows, span, chunks, blocks, per_group, p_lengths,
    LENGTHS: tl.constexpr, EVEN: tl.constexpr, BD: tl.constexpr,
):  # fmt: skip
    """Of a program: route, row, block of channels, chunk, group; its channels; the row in memory and where in it its
    tokens begin; their number; the first step, and the end. LENGTHS: rows have L tokens (0), a number of their own (1),
    or lie one after the other in one row (2)."""
    i_chunk = program % chunks
    i_block = program // chunks % blocks
    i_kb = program // chunks // blocks
    i_k, i_b = (i_kb // rows).to(tl.int64), (i_kb % rows).to(tl.int64)
    blocks_of_group = tl.cdiv(per_group, BD)
    i_g = i_block // blocks_of_group
    o_g = i_block % blocks_of_group * BD + tl.arange(0, BD)
    m_d = o_g < per_group
    if EVEN:
        m_d = tl.full([BD], True, tl.int1)
    i_r, first, length = i_b, i_b * 0, i_chunk * 0 + L
    if LENGTHS == 1:
        length = tl.load(p_lengths + i_b).to(tl.int32)
    if LENGTHS == 2:
        i_r, first = i_b * 0, tl.load(p_lengths + i_b).to(tl.int64)
        length = (tl.load(p_lengths + i_b + 1) - first).to(tl.int32)
    start = i_chunk * span
    stop = tl.minimum(start + span, length)
    return i_k, i_b, i_block, i_chunk, i_g, i_g * per_group + o_g, m_d, i_r, first, length, start, stop


@triton.jit
def axis(n, BLOCK: tl.constexpr, EVEN: tl.constexpr):
    """Offsets and mask of an axis that one tile covers; EVEN: it has as many entries as the tile."""
    o = tl.arange(0, BLOCK)
    m = o < n
    if EVEN:
        m = tl.full([BLOCK], True, tl.int1)
    return o, m


@triton.jit
def token(s, length, p_table, backward, HAS_TABLE: tl.constexpr):
    """The token that step s reads. Steps outside the row, which loads ahead ask for, read its first or last one."""
    last = tl.maximum(length - 1, 0)
    s = tl.minimum(tl.maximum(s, 0), last)
    if HAS_TABLE:
        return tl.load(p_table + s)
    return tl.where(backward != 0, last - s, s)


@triton.jit
def tokens(s, length, origin, p_table, backward, HAS_TABLE: tl.constexpr, T: tl.constexpr):
    """Those of the steps s to s + T - 1, counted from token `origin`, as a tuple."""
    places = ()
    for i in tl.static_range(T):
        places = places + (token(s + i, length, p_table, backward, HAS_TABLE) - origin,)  # noqa: RUF005
    return places


@triton.jit
def load_rows(p, places, stride, o, m, T: tl.constexpr):
    """What T steps read at `o`, as a tuple: all at once, for memory is far."""
    rows = ()
    for i in tl.static_range(T):
        rows = rows + (tl.load(p + (places[i] * stride + o), m, 0.0),)  # noqa: RUF005
    return rows


@triton.jit
def floats(rows, T: tl.constexpr):
    """Rows in fp32, as a tuple."""
    found = ()
    for i in tl.static_range(T):
        found = found + (rows[i].to(tl.float32),)  # noqa: RUF005
    return found


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
    p_value, p_dt, p_A, p_weight, p_bias, p_lengths, p_table, p_ends, p_totals,
    L, rows, span, chunks, blocks, channels, per_group, N, backward, one,
    value_k, value_b, value_l, dt_k, dt_b, dt_l, weight_k, weight_b, weight_l, weight_g, A_k, bias_k,
    HAS_BIAS: tl.constexpr, LENGTHS: tl.constexpr, HAS_TABLE: tl.constexpr,
    SOFTPLUS: tl.constexpr, ADJOINT: tl.constexpr, EVEN_D: tl.constexpr, EVEN_N: tl.constexpr,
    BD: tl.constexpr, BN: tl.constexpr, T: tl.constexpr,
):  # fmt: skip
    """Each chunk alone, from 0: h = a h + dt x B over its steps; ADJOINT: g = a (g + dy C) from its end to its start.

    Writes what is left at the chunk's other end, and the sum of its dt: its decay is exp(A sum dt).
    """
    i_k, i_b, _block, i_chunk, i_g, o_d, m_d, i_r, first, length, start, stop = place(
        tl.program_id(0), L, rows, span, chunks, blocks, per_group, p_lengths, LENGTHS, EVEN_D, BD
    )
    if i_chunk == (0 if ADJOINT else chunks - 1):
        stop = start  # no chunk starts with what this one ends with
    o_n, m_n = axis(N, BN, EVEN_N)
    # `one` hides from Triton that channels are neighbours: a thread shall hold all states of one, not some of four.
    o_state, m_state = o_d[:, None] * one + o_n[None, :] * channels, m_d[:, None] & m_n[None, :]
    b_A = tl.load(p_A + i_k * A_k + o_state, m_state, 0.0) * LOG2_E
    b_bias = tl.zeros([BD], tl.float32)
    if HAS_BIAS:
        b_bias = tl.load(p_bias + i_k * bias_k + o_d, m_d, 0.0)
    if HAS_TABLE:
        p_table += i_k * L
    reverse = (backward >> i_k) & 1
    origin = token(start, length, p_table, reverse, HAS_TABLE)
    i_o = first + origin
    p_value += i_k * value_k + i_r * value_b + i_o * value_l
    p_dt += i_k * dt_k + i_r * dt_b + i_o * dt_l
    p_weight += i_k * weight_k + i_r * weight_b + i_o * weight_l + i_g * weight_g
    b_h = tl.zeros([BD, BN], tl.float32)
    b_total = tl.zeros([BD], tl.float32)
    groups_of_steps = tl.cdiv(tl.maximum(stop - start, 0), T)
    s = start + (groups_of_steps - 1) * T if ADJOINT else start
    places = tokens(s, length, origin, p_table, reverse, HAS_TABLE, T)
    values = load_rows(p_value, places, value_l, o_d, m_d, T)
    raws = load_rows(p_dt, places, dt_l, o_d, m_d, T)
    weights = load_rows(p_weight, places, weight_l, o_n, m_n, T)
    for _ in range(0, groups_of_steps):
        ahead = s - T if ADJOINT else s + T
        places = tokens(ahead, length, origin, p_table, reverse, HAS_TABLE, T)
        next_values = load_rows(p_value, places, value_l, o_d, m_d, T)
        next_raws = load_rows(p_dt, places, dt_l, o_d, m_d, T)
        next_weights = load_rows(p_weight, places, weight_l, o_n, m_n, T)
        for i in tl.static_range(T - 1 if ADJOINT else 0, -1 if ADJOINT else T, -1 if ADJOINT else 1):
            real = s + i < stop
            b_dt, _ = step_size(raws[i], b_bias, real, SOFTPLUS)
            b_value = values[i].to(tl.float32)
            b_weight = weights[i].to(tl.float32)
            b_total += b_dt
            b_a = tl.exp2(b_dt[:, None] * b_A)
            if ADJOINT:
                b_value = tl.where(real, b_value, 0.0)
                b_h = b_a * (b_h + b_value[:, None] * b_weight[None, :])
            else:
                b_h = b_a * b_h + (b_dt * b_value)[:, None] * b_weight[None, :]
        values, raws, weights = next_values, next_raws, next_weights
        s = ahead
    i_row = (i_k * rows + i_b) * chunks + i_chunk
    tl.store(p_ends + i_row * channels * N + o_state, b_h, m_state)
    tl.store(p_totals + i_row * channels + o_d, b_total, m_d)


@triton.jit(do_not_specialize=ALIKE)
def chain_kernel(
    p_ends, p_totals, p_A, p_first, rows, chunks, channels, N, A_k,
    HAS_FIRST: tl.constexpr, BACKWARD: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """In place, from what chunks end with when they start from 0 to what they start with, one after the other."""
    size = channels * N
    blocks = tl.cdiv(size, BLOCK)
    o = tl.program_id(0) % blocks * BLOCK + tl.arange(0, BLOCK)
    i_kb = (tl.program_id(0) // blocks).to(tl.int64)
    m = o < size
    b_A = tl.load(p_A + i_kb // rows * A_k + o, m, 0.0) * LOG2_E
    b_h = tl.zeros([BLOCK], tl.float32)
    if HAS_FIRST:
        b_h = tl.load(p_first + i_kb * size + o, m, 0.0)
    for j in range(0, chunks):
        i_row = i_kb * chunks + (chunks - 1 - j if BACKWARD else j)
        b_end = tl.load(p_ends + i_row * size + o, m, 0.0)
        b_total = tl.load(p_totals + i_row * channels + o % channels, m, 0.0)
        tl.store(p_ends + i_row * size + o, b_h, m)
        b_h = tl.exp2(b_A * b_total) * b_h + b_end


@triton.jit(do_not_specialize=ALIKE)
def forward_kernel(
    p_x, p_dt, p_A, p_B, p_C, p_D, p_bias, p_lengths, p_table, p_starts, p_y, p_last, p_saves,
    L, rows, total, span, chunks, blocks, channels, per_group, N, backward, has_start, one,
    x_k, x_b, x_l, dt_k, dt_b, dt_l, B_k, B_b, B_l, B_g, C_k, C_b, C_l, C_g, A_k, D_k, bias_k,
    HAS_D: tl.constexpr, HAS_BIAS: tl.constexpr, LENGTHS: tl.constexpr, HAS_TABLE: tl.constexpr,
    SOFTPLUS: tl.constexpr, ONCE: tl.constexpr,
    LAST: tl.constexpr, SAVE: tl.constexpr, SAVED: tl.constexpr,
    EVEN_D: tl.constexpr, EVEN_N: tl.constexpr,
    BD: tl.constexpr, BN: tl.constexpr, T: tl.constexpr,
):  # fmt: skip
    i_k, i_b, _block, i_chunk, i_g, o_d, m_d, i_r, first, length, start, stop = place(
        tl.program_id(0), L, rows, span, chunks, blocks, per_group, p_lengths, LENGTHS, EVEN_D, BD
    )
    i_kb = i_k * rows + i_b
    o_n, m_n = axis(N, BN, EVEN_N)
    o_state, m_state = o_d[:, None] * one + o_n[None, :] * channels, m_d[:, None] & m_n[None, :]
    b_A = tl.load(p_A + i_k * A_k + o_state, m_state, 0.0) * LOG2_E  # exp(v) = exp2(v log2 e)
    m_start = m_state & (has_start != 0)
    b_h = tl.load(p_starts + (i_kb * chunks + i_chunk) * channels * N + o_state, m_start, 0.0)
    b_bias = tl.zeros([BD], tl.float32)
    if HAS_BIAS:
        b_bias = tl.load(p_bias + i_k * bias_k + o_d, m_d, 0.0)
    b_D = tl.zeros([BD], tl.float32)
    if HAS_D:
        b_D = tl.load(p_D + i_k * D_k + o_d, m_d, 0.0)
    if HAS_TABLE:
        p_table += i_k * L
    reverse = (backward >> i_k) & 1
    origin = token(start, length, p_table, reverse, HAS_TABLE)
    i_o = first + origin
    i_y = i_r * L + i_o
    p_x += i_k * x_k + i_r * x_b + i_o * x_l
    p_dt += i_k * dt_k + i_r * dt_b + i_o * dt_l
    p_B += i_k * B_k + i_r * B_b + i_o * B_l + i_g * B_g
    p_C += i_k * C_k + i_r * C_b + i_o * C_l + i_g * C_g
    p_y += (i_k * total + i_y) * channels
    p_saves += (i_kb * tl.cdiv(L, SAVED) + start // SAVED) * channels * N
    places = tokens(start, length, origin, p_table, reverse, HAS_TABLE, T)
    xs = load_rows(p_x, places, x_l, o_d, m_d, T)
    raws = load_rows(p_dt, places, dt_l, o_d, m_d, T)
    Bs = load_rows(p_B, places, B_l, o_n, m_n, T)
    Cs = load_rows(p_C, places, C_l, o_n, m_n, T)
    for s in range(start, stop, T):
        if SAVE:
            if SAVED > T:
                if s % SAVED == 0:
                    tl.store(p_saves + o_state, b_h, m_state)
                    p_saves += channels * N
        next_places = tokens(s + T, length, origin, p_table, reverse, HAS_TABLE, T)
        next_xs = load_rows(p_x, next_places, x_l, o_d, m_d, T)
        next_raws = load_rows(p_dt, next_places, dt_l, o_d, m_d, T)
        next_Bs = load_rows(p_B, next_places, B_l, o_n, m_n, T)
        next_Cs = load_rows(p_C, next_places, C_l, o_n, m_n, T)
        for i in tl.static_range(T):
            real = s + i < stop
            if SAVE:
                if SAVED <= T:
                    if i % SAVED == 0:
                        tl.store(p_saves + o_state, b_h, m_state & real)
                        p_saves += channels * N
            b_x = xs[i].to(tl.float32)
            b_dt, _ = step_size(raws[i], b_bias, real, SOFTPLUS)
            b_u = (b_dt * b_x)[:, None] * Bs[i].to(tl.float32)[None, :]
            b_h = tl.exp2(b_dt[:, None] * b_A) * b_h + b_u
            b_seen = b_h
            if ONCE:  # routes after the first leave out what the first one has seen: the token itself
                b_seen = b_h - tl.where(i_k > 0, 1.0, 0.0) * b_u
            b_y = tl.sum(b_seen * Cs[i].to(tl.float32)[None, :], 1) + b_D * b_x
            tl.store(p_y + (places[i] * channels + o_d), b_y, m_d & real)
        xs, raws, Bs, Cs, places = next_xs, next_raws, next_Bs, next_Cs, next_places
    if LAST:
        if i_chunk == chunks - 1:
            tl.store(p_last + i_kb * channels * N + o_state, b_h, m_state)


@triton.jit(do_not_specialize=ALIKE)
def backward_kernel(
    p_x, p_dt, p_A, p_B, p_C, p_D, p_bias, p_lengths, p_table, p_saves, p_scratch, p_gy, p_starts,
    p_gx, p_gdt, p_gB, p_gC, p_sums, p_first,
    programs_before, L, rows, total, span, chunks, blocks, channels, per_group, N, backward, has_start,
    x_k, x_b, x_l, dt_k, dt_b, dt_l, B_k, B_b, B_l, B_g, C_k, C_b, C_l, C_g, gy_k, A_k, D_k, bias_k,
    HAS_D: tl.constexpr, HAS_BIAS: tl.constexpr, LENGTHS: tl.constexpr, HAS_TABLE: tl.constexpr,
    SOFTPLUS: tl.constexpr, ONCE: tl.constexpr,
    FIRST: tl.constexpr, AGAIN: tl.constexpr, SAVED: tl.constexpr,
    EVEN_D: tl.constexpr, EVEN_N: tl.constexpr,
    BD: tl.constexpr, BN: tl.constexpr, T: tl.constexpr,
):  # fmt: skip
    """Tiles are (BN, BD) here: a thread holds 4 states of 4 channels, so that sums over either cost few shuffles."""
    i_k, i_b, i_block, i_chunk, i_g, o_d, m_d, i_r, first, length, start, stop = place(
        tl.program_id(0) + programs_before, L, rows, span, chunks, blocks, per_group, p_lengths, LENGTHS, EVEN_D, BD
    )
    i_kb = i_k * rows + i_b
    i_row = i_kb * chunks + i_chunk
    o_n, m_n = axis(N, BN, EVEN_N)
    o_state, m_state = o_n[:, None] * channels + o_d[None, :], m_n[:, None] & m_d[None, :]
    o_scratch = o_n[:, None] * BD + tl.arange(0, BD)[None, :]
    b_A = tl.load(p_A + i_k * A_k + o_state, m_state, 0.0) * LOG2_E
    # The gradient of the state behind the step at hand, as later steps have left it.
    b_g = tl.load(p_starts + i_row * channels * N + o_state, m_state & (has_start != 0), 0.0)
    b_gA = tl.zeros([BN, BD], tl.float32)
    b_gD = tl.zeros([BD], tl.float32)
    b_gbias = tl.zeros([BD], tl.float32)
    b_bias = tl.zeros([BD], tl.float32)
    if HAS_BIAS:
        b_bias = tl.load(p_bias + i_k * bias_k + o_d, m_d, 0.0)
    b_D = tl.zeros([BD], tl.float32)
    if HAS_D:
        b_D = tl.load(p_D + i_k * D_k + o_d, m_d, 0.0)
    if HAS_TABLE:
        p_table += i_k * L
    reverse = (backward >> i_k) & 1
    origin = token(start, length, p_table, reverse, HAS_TABLE)
    i_o = first + origin
    i_y = i_r * L + i_o
    p_x += i_k * x_k + i_r * x_b + i_o * x_l
    p_dt += i_k * dt_k + i_r * dt_b + i_o * dt_l
    p_B += i_k * B_k + i_r * B_b + i_o * B_l + i_g * B_g
    p_C += i_k * C_k + i_r * C_b + i_o * C_l + i_g * C_g
    p_gy += i_k * gy_k + i_y * channels
    p_gx += (i_k * total + i_y) * channels
    p_gdt += (i_k * total + i_y) * channels
    o_part = ((i_k * blocks + i_block) * total + i_y) * N
    p_gB += o_part
    p_gC += o_part
    p_scratch += tl.program_id(0).to(tl.int64) * (SAVED // T) * BN * BD
    p_saves += i_kb * tl.cdiv(L, SAVED) * channels * N

    o_near = tl.arange(0, BN * BD // 8) * 8  # one number of every 32 bytes of a state
    b_near = tl.zeros([BN * BD // 8], tl.float32)
    segments = tl.cdiv(tl.maximum(stop - start, 0), SAVED)
    if SAVED == T:  # a state was kept before every group of steps: all is one segment, and nothing is repeated
        segments = tl.minimum(segments, 1)
    for segment in range(0, segments):
        begin = start + (segments - 1 - segment) * SAVED
        end = stop
        if SAVED != T:
            end = tl.minimum(begin + SAVED, stop)
            b_h = tl.load(p_saves + (begin // SAVED).to(tl.int64) * channels * N + o_state, m_state, 0.0)
            places = tokens(begin, length, origin, p_table, reverse, HAS_TABLE, AGAIN)
            xs = floats(load_rows(p_x, places, x_l, o_d, m_d, AGAIN), AGAIN)
            raws = floats(load_rows(p_dt, places, dt_l, o_d, m_d, AGAIN), AGAIN)
            Bs = load_rows(p_B, places, B_l, o_n, m_n, AGAIN)
            for s in range(begin, end, AGAIN):
                tl.store(p_scratch + (s - begin) // T * BN * BD + o_scratch, b_h)
                places = tokens(s + AGAIN, length, origin, p_table, reverse, HAS_TABLE, AGAIN)
                next_xs = load_rows(p_x, places, x_l, o_d, m_d, AGAIN)
                next_raws = load_rows(p_dt, places, dt_l, o_d, m_d, AGAIN)
                next_Bs = load_rows(p_B, places, B_l, o_n, m_n, AGAIN)
                for i in tl.static_range(AGAIN):
                    if i > 0 and i % T == 0:
                        tl.store(p_scratch + (s - begin + i) // T * BN * BD + o_scratch, b_h)
                    b_dt, _ = step_size(raws[i], b_bias, s + i < stop, SOFTPLUS)
                    b_u = (b_dt * xs[i])[None, :] * Bs[i].to(tl.float32)[:, None]
                    b_h = tl.exp2(b_dt[None, :] * b_A) * b_h + b_u
                # Only here, when they have come: a conversion waits for what was asked for.
                xs, raws, Bs = floats(next_xs, AGAIN), floats(next_raws, AGAIN), next_Bs
            tl.debug_barrier()  # the scratch is written before it is read

        groups_of_steps = tl.cdiv(end - begin, T)
        places = tokens(begin + (groups_of_steps - 1) * T, length, origin, p_table, reverse, HAS_TABLE, T)
        xs = floats(load_rows(p_x, places, x_l, o_d, m_d, T), T)
        raws = floats(load_rows(p_dt, places, dt_l, o_d, m_d, T), T)
        gys = floats(load_rows(p_gy, places, channels, o_d, m_d, T), T)
        if SAVED == T:
            some_Bs = load_rows(p_B, places, B_l, o_n, m_n, T)
            some_Cs = load_rows(p_C, places, C_l, o_n, m_n, T)
            p_before = p_saves + (begin // SAVED + groups_of_steps - 1).to(tl.int64) * channels * N
            b_before = tl.load(p_before + o_state, m_state, 0.0)
        for j in range(0, groups_of_steps):
            k = groups_of_steps - 1 - j
            s = begin + k * T
            if SAVED != T:
                some_Bs = load_rows(p_B, places, B_l, o_n, m_n, T)
                some_Cs = load_rows(p_C, places, C_l, o_n, m_n, T)
                b_before = tl.load(p_scratch + k * BN * BD + o_scratch)
            next_places = tokens(s - T, length, origin, p_table, reverse, HAS_TABLE, T)
            next_xs = load_rows(p_x, next_places, x_l, o_d, m_d, T)
            next_raws = load_rows(p_dt, next_places, dt_l, o_d, m_d, T)
            next_gys = load_rows(p_gy, next_places, channels, o_d, m_d, T)
            if SAVED == T:
                next_Bs = load_rows(p_B, next_places, B_l, o_n, m_n, T)
                next_Cs = load_rows(p_C, next_places, C_l, o_n, m_n, T)
                p_before -= tl.where(k > 0, channels * N, 0)
                b_next_before = tl.load(p_before + o_state, m_state, 0.0)
            dts, slopes, decays = (), (), ()
            for i in tl.static_range(T):  # what needs no B first: it comes last
                b_dt, b_slope = step_size(raws[i], b_bias, s + i < stop, SOFTPLUS)
                dts = dts + (b_dt,)  # noqa: RUF005
                slopes = slopes + (b_slope,)  # noqa: RUF005
                decays = decays + (tl.exp2(b_dt[None, :] * b_A),)  # noqa: RUF005
            hs = (b_before,)  # the state before each of the T steps, and after the last
            for i in tl.static_range(T):
                b_u = (dts[i] * xs[i])[None, :] * some_Bs[i].to(tl.float32)[:, None]
                hs = hs + (decays[i] * hs[i] + b_u,)  # noqa: RUF005
            if SAVED != T:
                # Brings the next group's state near, with few registers: a load waits for the other half of the chip.
                b_near = tl.load(p_scratch + tl.maximum(k - 1, 0) * BN * BD + o_near)
            for i in tl.static_range(T - 1, -1, -1):
                real = s + i < stop
                b_x, b_gy = xs[i], tl.where(real, gys[i], 0.0)
                b_B, b_C = some_Bs[i].to(tl.float32), some_Cs[i].to(tl.float32)
                b_dt = dts[i]
                b_own = b_gy[None, :] * b_C[:, None]
                b_g += b_own
                b_gu, b_seen = b_g, hs[i + 1]
                if ONCE:
                    later = tl.where(i_k > 0, 1.0, 0.0)
                    b_gu = b_g - later * b_own
                    b_seen = b_seen - later * (b_dt * b_x)[None, :] * b_B[:, None]
                b_gC = tl.sum(b_gy[None, :] * b_seen, 1)
                b_gB = tl.sum((b_dt * b_x)[None, :] * b_gu, 1)
                tl.store(p_gC + (places[i] * N + o_n), b_gC, m_n & real)
                tl.store(p_gB + (places[i] * N + o_n), b_gB, m_n & real)
                b_gdtx = tl.sum(b_gu * b_B[:, None], 0)
                b_g = decays[i] * b_g
                b_q = b_g * hs[i]
                b_gA += b_dt[None, :] * b_q
                b_gdt = (b_x * b_gdtx + tl.sum(b_q * b_A, 0) * LN_2) * slopes[i]
                tl.store(p_gdt + (places[i] * channels + o_d), b_gdt, m_d & real)
                tl.store(p_gx + (places[i] * channels + o_d), b_dt * b_gdtx + b_D * b_gy, m_d & real)
                b_gD += b_gy * b_x
                b_gbias += tl.where(real, b_gdt, 0.0)
            xs, raws, gys, places = floats(next_xs, T), floats(next_raws, T), floats(next_gys, T), next_places
            if SAVED == T:
                some_Bs, some_Cs, b_before = next_Bs, next_Cs, b_next_before
    tl.store(p_scratch + o_near, b_near, (o_near >= 0) & (L < 0))  # never; but without a use nothing would be loaded
    if FIRST:
        if i_chunk == 0:
            tl.store(p_first + i_kb * channels * N + o_state, b_g, m_state)
    # What this program has summed: N rows of dA, one of dD, one of d bias.
    p_sums += i_row * (N + 2) * channels
    tl.store(p_sums + o_state, b_gA, m_state)
    tl.store(p_sums + N * channels + o_d, b_gD, m_d)
    tl.store(p_sums + (N + 1) * channels + o_d, b_gbias, m_d)
