"""Recurrences of two dimensions in Triton, from a corner of the grid.

A program is one warp. It walks one corner's recurrence over one grid with the state of BD channels, BN numbers each,
in registers. The grid is cut into strips of S columns. Within a strip the program goes from row to row with the states
of S columns in registers, and within a row from column to column, so each token's two predecessors are at hand; what
leaves a row of a strip at its far side waits in memory (`edges`) until the next strip comes to that row.

The forward pass keeps those edges, and before every BAND-th row the states of a strip's columns (`tops`). The backward
pass goes through strips and bands from the end: it repeats a band, leaving the states before each row in a scratch of
the program's own, then goes through the band's rows from the end. What a program can only sum over its own channels
(dB, dC) or its own tokens (dA, dD, d bias) goes to a buffer of its own and is summed by torch: no atomics.

"Left" is the neighbour that the walk along a row meets first, "top" that of the row before, whatever the corner.
"""

# pyright: reportGeneralTypeIssues=false, reportPossiblyUnboundVariable=false
# ruff: noqa: SIM102, RUF005 (what a constexpr decides is decided alone; Triton's tuples grow by addition)

import triton
import triton.language as tl

from ..selective_scan.kernel import LN_2, LOG2_E, axis, load_rows, step_size

#: Arguments whose values do not make another kernel.
ALIKE = ["H", "W", "rows", "blocks", "programs_before", "turned_rows", "turned_columns", "one"]


@triton.jit
def place(program, rows, blocks, channels, EVEN: tl.constexpr, BD: tl.constexpr):
    """Of a program: corner, row of the batch, block of channels; its channels and which of them there are."""
    i_block = program % blocks
    i_kb = (program // blocks).to(tl.int64)
    o_d = i_block * BD + tl.arange(0, BD)
    m_d = o_d < channels
    if EVEN:
        m_d = tl.full([BD], True, tl.int1)
    return i_kb // rows, i_kb % rows, i_block, o_d, m_d


@triton.jit
def tokens(i, j, H, W, up, back, S: tl.constexpr):
    """Places of S tokens of the i-th row that is met, from the j-th on, as a tuple; outside, the last there is."""
    row = tl.minimum(tl.maximum(i, 0), H - 1)
    row = tl.where(up != 0, H - 1 - row, row)
    places = ()
    for s in tl.static_range(S):
        column = tl.minimum(j + s, W - 1)
        places = places + (row * W + tl.where(back != 0, W - 1 - column, column),)
    return places


@triton.jit
def read_row(
    i, j, H, W, up, back, p_x, p_dt, p_B, p_dt_top, p_B_top, x_l, dt_l, B_l, dt_top_l, B_top_l, o_d, m_d, o_n, m_n,
    WAVEFRONT: tl.constexpr, S: tl.constexpr,
):  # fmt: skip
    """Of S tokens of a row: places, x, dt, B, and dt and B of the top, which are the same if there is one axis."""
    places = tokens(i, j, H, W, up, back, S)
    xs = load_rows(p_x, places, x_l, o_d, m_d, S)
    raws = load_rows(p_dt, places, dt_l, o_d, m_d, S)
    Bs = load_rows(p_B, places, B_l, o_n, m_n, S)
    raws_top, Bs_top = raws, Bs
    if WAVEFRONT:
        raws_top = load_rows(p_dt_top, places, dt_top_l, o_d, m_d, S)
        Bs_top = load_rows(p_B_top, places, B_top_l, o_n, m_n, S)
    return places, xs, raws, Bs, raws_top, Bs_top


@triton.jit
def of_channels(v, BY_STATE: tl.constexpr):
    return v[None, :] if BY_STATE else v[:, None]


@triton.jit
def of_states(v, BY_STATE: tl.constexpr):
    return v.to(tl.float32)[:, None] if BY_STATE else v.to(tl.float32)[None, :]


@triton.jit
def step(
    x, raw, B, raw_top, B_top, b_A, b_A_top, b_bias, b_bias_top, b_left, b_top, inside,
    SOFTPLUS: tl.constexpr, WAVEFRONT: tl.constexpr, BY_STATE: tl.constexpr,
):  # fmt: skip
    """What a token leaves to its right, and its state; from what has come from its left, and the state above it."""
    b_x = x.to(tl.float32)
    b_dt, _ = step_size(raw, b_bias, inside, SOFTPLUS)
    b_u = of_channels(b_dt * b_x, BY_STATE) * of_states(B, BY_STATE)
    b_a = tl.exp2(of_channels(b_dt, BY_STATE) * b_A)
    if WAVEFRONT:
        b_dt, _ = step_size(raw_top, b_bias_top, inside, SOFTPLUS)
        b_u += of_channels(b_dt * b_x, BY_STATE) * of_states(B_top, BY_STATE)
        b_left = 0.5 * (b_a * b_left + (tl.exp2(of_channels(b_dt, BY_STATE) * b_A_top) * b_top + b_u))
        b_h = b_left
    else:
        b_left = b_a * b_left + b_u
        b_h = b_a * b_top + b_left
    return b_left, b_h


@triton.jit(do_not_specialize=ALIKE)
def forward_kernel(
    p_x, p_dt, p_A, p_B, p_C, p_D, p_bias, p_dt_top, p_A_top, p_B_top, p_bias_top, p_y, p_edges, p_tops,
    H, W, rows, blocks, channels, N, turned_rows, turned_columns, one,
    x_k, x_b, x_l, dt_k, dt_b, dt_l, B_k, B_b, B_l, C_k, C_b, C_l, A_k, D_k, bias_k,
    dt_top_k, dt_top_b, dt_top_l, B_top_k, B_top_b, B_top_l, A_top_k, bias_top_k,
    HAS_D: tl.constexpr, HAS_BIAS: tl.constexpr, SOFTPLUS: tl.constexpr, WAVEFRONT: tl.constexpr, SAVE: tl.constexpr,
    BAND: tl.constexpr, EVEN_D: tl.constexpr, EVEN_N: tl.constexpr, BD: tl.constexpr, BN: tl.constexpr, S: tl.constexpr,
):  # fmt: skip
    program = tl.program_id(0)
    i_k, i_b, _block, o_d, m_d = place(program, rows, blocks, channels, EVEN_D, BD)
    o_n, m_n = axis(N, BN, EVEN_N)
    # `one` hides from Triton that channels are neighbours: a thread shall hold the states of few channels.
    o_state, m_state = o_d[:, None] * one + o_n[None, :] * channels, m_d[:, None] & m_n[None, :]
    o_tile = tl.arange(0, BD)[:, None] * one + o_n[None, :] * BD
    b_A = tl.load(p_A + i_k * A_k + o_state, m_state, 0.0) * LOG2_E
    b_bias, b_D = tl.zeros([BD], tl.float32), tl.zeros([BD], tl.float32)
    if HAS_BIAS:
        b_bias = tl.load(p_bias + i_k * bias_k + o_d, m_d, 0.0)
    if HAS_D:
        b_D = tl.load(p_D + i_k * D_k + o_d, m_d, 0.0)
    up, back = (turned_rows >> i_k) & 1, (turned_columns >> i_k) & 1
    p_x += i_k * x_k + i_b * x_b
    p_dt += i_k * dt_k + i_b * dt_b
    p_B += i_k * B_k + i_b * B_b
    p_C += i_k * C_k + i_b * C_b
    p_y += (i_k * rows + i_b) * H * W * channels
    b_A_top, b_bias_top = b_A, b_bias
    if WAVEFRONT:
        b_A_top = tl.load(p_A_top + i_k * A_top_k + o_state, m_state, 0.0) * LOG2_E
        if HAS_BIAS:
            b_bias_top = tl.load(p_bias_top + i_k * bias_top_k + o_d, m_d, 0.0)
        p_dt_top += i_k * dt_top_k + i_b * dt_top_b
        p_B_top += i_k * B_top_k + i_b * B_top_b
    strips, bands = tl.cdiv(W, S), tl.cdiv(H, BAND)
    line = BN * BD
    p_edges += program.to(tl.int64) * H * line * (strips if SAVE else 1)
    p_tops += program.to(tl.int64) * strips * bands * S * line
    for strip in range(0, strips):
        j = strip * S
        hs = ()
        for _s in tl.static_range(S):
            hs = hs + (tl.zeros([BD, BN], tl.float32),)
        places, xs, raws, Bs, raws_top, Bs_top = read_row(
            0, j, H, W, up, back, p_x, p_dt, p_B, p_dt_top, p_B_top, x_l, dt_l, B_l, dt_top_l, B_top_l,
            o_d, m_d, o_n, m_n, WAVEFRONT, S,
        )  # fmt: skip
        Cs = load_rows(p_C, places, C_l, o_n, m_n, S)
        p_come = p_edges - (H * line if SAVE else 0)  # what the strip before has left
        m_come = (o_tile >= 0) & (strip > 0)
        b_come = tl.load(p_come + o_tile, m_come, 0.0)
        for i in range(0, H):
            if SAVE:
                if i % BAND == 0:
                    for s in tl.static_range(S):
                        tl.store(p_tops + s * line + o_tile, hs[s])
                    p_tops += S * line
            next_places, next_xs, next_raws, next_Bs, next_raws_top, next_Bs_top = read_row(
                i + 1, j, H, W, up, back, p_x, p_dt, p_B, p_dt_top, p_B_top, x_l, dt_l, B_l, dt_top_l, B_top_l,
                o_d, m_d, o_n, m_n, WAVEFRONT, S,
            )  # fmt: skip
            next_Cs = load_rows(p_C, next_places, C_l, o_n, m_n, S)
            b_next_come = tl.load(p_come + tl.minimum(i + 1, H - 1) * line + o_tile, m_come, 0.0)
            b_left = b_come
            new = ()
            for s in tl.static_range(S):
                inside = j + s < W
                b_left, b_h = step(
                    xs[s], raws[s], Bs[s], raws_top[s], Bs_top[s], b_A, b_A_top, b_bias, b_bias_top, b_left, hs[s],
                    inside, SOFTPLUS, WAVEFRONT, False,
                )  # fmt: skip
                b_y = tl.sum(b_h * of_states(Cs[s], False), 1) + b_D * xs[s].to(tl.float32)
                tl.store(p_y + (places[s] * channels + o_d), b_y, m_d & inside)
                new = new + (b_h,)
            tl.store(p_edges + i * line + o_tile, b_left)
            hs = new
            xs, raws, Bs, Cs, places, b_come = next_xs, next_raws, next_Bs, next_Cs, next_places, b_next_come
            raws_top, Bs_top = next_raws_top, next_Bs_top
        if SAVE:
            p_edges += H * line
        tl.debug_barrier()  # what this strip leaves is written before the next one reads it


@triton.jit(do_not_specialize=ALIKE)
def backward_kernel(
    p_x, p_dt, p_A, p_B, p_C, p_D, p_bias, p_dt_top, p_A_top, p_B_top, p_bias_top, p_edges, p_tops, p_gy,
    p_scratch, p_right, p_gx, p_gdt, p_gB, p_gC, p_sums, p_gdt_top, p_gB_top, p_sums_top,
    programs_before, H, W, rows, blocks, channels, N, turned_rows, turned_columns,
    x_k, x_b, x_l, dt_k, dt_b, dt_l, B_k, B_b, B_l, C_k, C_b, C_l, A_k, D_k, bias_k,
    dt_top_k, dt_top_b, dt_top_l, B_top_k, B_top_b, B_top_l, A_top_k, bias_top_k,
    HAS_D: tl.constexpr, HAS_BIAS: tl.constexpr, SOFTPLUS: tl.constexpr, WAVEFRONT: tl.constexpr,
    BAND: tl.constexpr, EVEN_D: tl.constexpr, EVEN_N: tl.constexpr, BD: tl.constexpr, BN: tl.constexpr, S: tl.constexpr,
):  # fmt: skip
    """Tiles are (BN, BD) here, for sums over either."""
    program = tl.program_id(0) + programs_before
    i_k, i_b, i_block, o_d, m_d = place(program, rows, blocks, channels, EVEN_D, BD)
    o_n, m_n = axis(N, BN, EVEN_N)
    o_state, m_state = o_n[:, None] * channels + o_d[None, :], m_n[:, None] & m_d[None, :]
    o_tile = o_n[:, None] * BD + tl.arange(0, BD)[None, :]
    b_A = tl.load(p_A + i_k * A_k + o_state, m_state, 0.0) * LOG2_E
    b_bias, b_D = tl.zeros([BD], tl.float32), tl.zeros([BD], tl.float32)
    if HAS_BIAS:
        b_bias = tl.load(p_bias + i_k * bias_k + o_d, m_d, 0.0)
    if HAS_D:
        b_D = tl.load(p_D + i_k * D_k + o_d, m_d, 0.0)
    up, back = (turned_rows >> i_k) & 1, (turned_columns >> i_k) & 1
    o_grid = (i_k * rows + i_b) * H * W
    o_part = ((i_k * blocks + i_block) * rows + i_b) * H * W * N
    p_x += i_k * x_k + i_b * x_b
    p_dt += i_k * dt_k + i_b * dt_b
    p_B += i_k * B_k + i_b * B_b
    p_C += i_k * C_k + i_b * C_b
    p_gy += i_b * H * W * channels
    p_gx += o_grid * channels
    p_gdt += o_grid * channels
    p_gB += o_part
    p_gC += o_part
    b_gA = tl.zeros([BN, BD], tl.float32)
    b_gD, b_gbias = tl.zeros([BD], tl.float32), tl.zeros([BD], tl.float32)
    b_A_top, b_bias_top = b_A, b_bias
    if WAVEFRONT:
        b_A_top = tl.load(p_A_top + i_k * A_top_k + o_state, m_state, 0.0) * LOG2_E
        if HAS_BIAS:
            b_bias_top = tl.load(p_bias_top + i_k * bias_top_k + o_d, m_d, 0.0)
        p_dt_top += i_k * dt_top_k + i_b * dt_top_b
        p_B_top += i_k * B_top_k + i_b * B_top_b
        p_gdt_top += o_grid * channels
        p_gB_top += o_part
        b_gA_top, b_gbias_top = tl.zeros([BN, BD], tl.float32), tl.zeros([BD], tl.float32)
    strips, bands = tl.cdiv(W, S), tl.cdiv(H, BAND)
    line = BN * BD
    p_edges += program.to(tl.int64) * strips * H * line
    p_tops += program.to(tl.int64) * strips * bands * S * line
    p_scratch += tl.program_id(0).to(tl.int64) * BAND * S * line
    p_right += tl.program_id(0).to(tl.int64) * H * line
    for walked in range(0, strips):
        strip = strips - 1 - walked
        j = strip * S
        p_come = p_edges + (strip - 1).to(tl.int64) * H * line
        m_come, m_right = (o_tile >= 0) & (strip > 0), (o_tile >= 0) & (walked > 0)
        gs = ()  # of the state below a column's token, as the row below has left it
        for _s in tl.static_range(S):
            gs = gs + (tl.zeros([BN, BD], tl.float32),)
        for walked_bands in range(0, bands):
            band = bands - 1 - walked_bands
            begin = band * BAND
            end = tl.minimum(begin + BAND, H)
            hs = ()
            for s in tl.static_range(S):
                hs = hs + (tl.load(p_tops + ((strip * bands + band) * S + s).to(tl.int64) * line + o_tile),)
                tl.store(p_scratch + s * line + o_tile, hs[s])
            places, xs, raws, Bs, raws_top, Bs_top = read_row(
                begin, j, H, W, up, back, p_x, p_dt, p_B, p_dt_top, p_B_top, x_l, dt_l, B_l, dt_top_l, B_top_l,
                o_d, m_d, o_n, m_n, WAVEFRONT, S,
            )  # fmt: skip
            b_left = tl.load(p_come + begin * line + o_tile, m_come, 0.0)
            for i in range(begin, end - 1):
                places, next_xs, next_raws, next_Bs, next_raws_top, next_Bs_top = read_row(
                    i + 1, j, H, W, up, back, p_x, p_dt, p_B, p_dt_top, p_B_top, x_l, dt_l, B_l, dt_top_l, B_top_l,
                    o_d, m_d, o_n, m_n, WAVEFRONT, S,
                )  # fmt: skip
                b_next_left = tl.load(p_come + (i + 1) * line + o_tile, m_come, 0.0)
                new = ()
                for s in tl.static_range(S):
                    b_left, b_h = step(
                        xs[s], raws[s], Bs[s], raws_top[s], Bs_top[s], b_A, b_A_top, b_bias, b_bias_top, b_left, hs[s],
                        j + s < W, SOFTPLUS, WAVEFRONT, True,
                    )  # fmt: skip
                    tl.store(p_scratch + ((i + 1 - begin) * S + s) * line + o_tile, b_h)
                    new = new + (b_h,)
                hs = new
                xs, raws, Bs, b_left = next_xs, next_raws, next_Bs, b_next_left
                raws_top, Bs_top = next_raws_top, next_Bs_top
            tl.debug_barrier()  # the scratch is written before it is read

            places, xs, raws, Bs, raws_top, Bs_top = read_row(
                end - 1, j, H, W, up, back, p_x, p_dt, p_B, p_dt_top, p_B_top, x_l, dt_l, B_l, dt_top_l, B_top_l,
                o_d, m_d, o_n, m_n, WAVEFRONT, S,
            )  # fmt: skip
            Cs = load_rows(p_C, places, C_l, o_n, m_n, S)
            gys = load_rows(p_gy, places, channels, o_d, m_d, S)
            b_right = tl.load(p_right + (end - 1) * line + o_tile, m_right, 0.0)
            b_left = tl.load(p_come + (end - 1) * line + o_tile, m_come, 0.0)
            for walked_rows in range(0, end - begin):
                i = end - 1 - walked_rows
                tops = ()  # the states above this row, for its end: stores lie between, which loads do not pass
                for s in tl.static_range(S):
                    tops = tops + (tl.load(p_scratch + ((i - begin) * S + s) * line + o_tile),)
                next_places, next_xs, next_raws, next_Bs, next_raws_top, next_Bs_top = read_row(
                    i - 1, j, H, W, up, back, p_x, p_dt, p_B, p_dt_top, p_B_top, x_l, dt_l, B_l, dt_top_l, B_top_l,
                    o_d, m_d, o_n, m_n, WAVEFRONT, S,
                )  # fmt: skip
                next_Cs = load_rows(p_C, next_places, C_l, o_n, m_n, S)
                next_gys = load_rows(p_gy, next_places, channels, o_d, m_d, S)
                before = tl.maximum(i - 1, 0) * line
                b_next_right = tl.load(p_right + before + o_tile, m_right, 0.0)
                b_next_left = tl.load(p_come + before + o_tile, m_come, 0.0)
                lefts = (b_left,)  # before each of the S tokens, and after the last
                for s in tl.static_range(S):
                    b_left, _h = step(
                        xs[s], raws[s], Bs[s], raws_top[s], Bs_top[s], b_A, b_A_top, b_bias, b_bias_top, b_left,
                        tops[s], j + s < W, SOFTPLUS, WAVEFRONT, True,
                    )  # fmt: skip
                    lefts = lefts + (b_left,)
                above = ()
                for s in tl.static_range(S - 1, -1, -1):
                    inside = j + s < W
                    b_x, b_gy = xs[s].to(tl.float32), tl.where(inside, gys[s].to(tl.float32), 0.0)
                    b_B, b_C = Bs[s].to(tl.float32), Cs[s].to(tl.float32)
                    b_dt, b_slope = step_size(raws[s], b_bias, inside, SOFTPLUS)
                    b_a = tl.exp2(b_dt[None, :] * b_A)
                    b_top = tops[s]
                    b_g = b_gy[None, :] * b_C[:, None] + gs[s]
                    if WAVEFRONT:
                        b_h = lefts[s + 1]
                        b_gu = 0.5 * (b_g + b_right)
                        b_dt_top, b_slope_top = step_size(raws_top[s], b_bias_top, inside, SOFTPLUS)
                        b_above = tl.exp2(b_dt_top[None, :] * b_A_top) * b_gu
                        b_right = b_a * b_gu
                        b_q_top = b_above * b_top
                        b_gA_top += b_dt_top[None, :] * b_q_top
                        b_gdtx_top = tl.sum(b_gu * Bs_top[s].to(tl.float32)[:, None], 0)
                        b_gdt = (b_x * b_gdtx_top + tl.sum(b_q_top * b_A_top, 0) * LN_2) * b_slope_top
                        tl.store(p_gdt_top + (places[s] * channels + o_d), b_gdt, m_d & inside)
                        b_gbias_top += tl.where(inside, b_gdt, 0.0)
                        b_gB = tl.sum((b_dt_top * b_x)[None, :] * b_gu, 1)
                        tl.store(p_gB_top + (places[s] * N + o_n), b_gB, m_n & inside)
                        b_q = b_right * lefts[s]
                    else:
                        b_h = b_a * b_top + lefts[s + 1]
                        b_gu = b_g + b_right
                        b_above = b_a * b_g
                        b_right = b_a * b_gu
                        b_q = b_right * lefts[s] + b_above * b_top
                    above = (b_above,) + above
                    b_gC = tl.sum(b_gy[None, :] * b_h, 1)
                    b_gB = tl.sum((b_dt * b_x)[None, :] * b_gu, 1)
                    tl.store(p_gC + (places[s] * N + o_n), b_gC, m_n & inside)
                    tl.store(p_gB + (places[s] * N + o_n), b_gB, m_n & inside)
                    b_gdtx = tl.sum(b_gu * b_B[:, None], 0)
                    b_gA += b_dt[None, :] * b_q
                    b_gdt = (b_x * b_gdtx + tl.sum(b_q * b_A, 0) * LN_2) * b_slope
                    tl.store(p_gdt + (places[s] * channels + o_d), b_gdt, m_d & inside)
                    b_gx = b_dt * b_gdtx + b_D * b_gy
                    if WAVEFRONT:
                        b_gx += b_dt_top * b_gdtx_top
                    tl.store(p_gx + (places[s] * channels + o_d), b_gx, m_d & inside)
                    b_gD += b_gy * b_x
                    b_gbias += tl.where(inside, b_gdt, 0.0)
                gs = above
                tl.store(p_right + i * line + o_tile, b_right)
                xs, raws, Bs, Cs, gys, places = next_xs, next_raws, next_Bs, next_Cs, next_gys, next_places
                b_right, b_left, raws_top, Bs_top = b_next_right, b_next_left, next_raws_top, next_Bs_top
            tl.debug_barrier()  # the scratch is read before the next band writes it
    # What this program has summed: N rows of dA, one of dD, one of d bias.
    p_sums += (i_k * rows + i_b) * (N + 2) * channels
    tl.store(p_sums + o_state, b_gA, m_state)
    tl.store(p_sums + N * channels + o_d, b_gD, m_d)
    tl.store(p_sums + (N + 1) * channels + o_d, b_gbias, m_d)
    if WAVEFRONT:
        p_sums_top += (i_k * rows + i_b) * (N + 2) * channels
        tl.store(p_sums_top + o_state, b_gA_top, m_state)
        tl.store(p_sums_top + (N + 1) * channels + o_d, b_gbias_top, m_d)
