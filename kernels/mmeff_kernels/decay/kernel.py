"""States that decay, in Triton: sums of gates within chunks, and the states that chunks meet.

Rows are cut into chunks of BC tokens. Within a chunk G_t is the sum of g from its first token up to t, and E_t without
g_t. Between the tokens of a chunk, outputs and gradients are products of tiles, chunks in parallel (`alike_kernel`
where a head has one gate, `apart_kernel` where each feature has its own); what comes from other chunks is read from the
state at the chunk's boundary, which `states_kernel` leaves there on its walk along the row. The gradients of states
obey the same recurrence from the other end, with q and do in place of k and v.

Weights, with T the sum over the whole chunk; none of the exponents is positive:

    forward   token s leaves exp(T - G_s), token t reads exp(G_t), and between the two exp(G_t - G_s), s < t
    backward  token s leaves exp(E_s), token t reads exp(T - E_t), and between the two exp(E_s - E_t), s > t

If tokens read a state before it decays (RWKV), t reads with E where G stands, and with G where E stands.

A gate whose exp is 0 is a reset. G leaves resets out, for a difference of infinities, or of numbers as large, says
nothing of the gates between; they are the bits of one number for each gate and chunk, and a weight with one of them
between its two ends is 0.
"""

# pyright: reportGeneralTypeIssues=false, reportPossiblyUnboundVariable=false

import triton
import triton.language as tl

from ..tiles import place, product

#: Numbers whose values do not make another kernel.
ALIKE = ["L", "rows", "chunks", "slots", "tokens", "H"]


@triton.jit
def gates(p_G, o_l, start, length, shift, width, o_g, m_g):
    """G of tokens o_l of the chunk that begins at `start` and of the gates o_g, or E where shift is 1; 0 outside."""
    o_s = o_l - shift
    m = ((o_s >= start) & (o_l < length))[:, None] & m_g[None, :]
    return tl.load(p_G + o_s[:, None] * width + o_g[None, :], m, 0.0)


@triton.jit
def gate(p_G, o_l, start, length, shift, width):
    """The same of a head's one gate."""
    o_s = o_l - shift
    return tl.load(p_G + o_s * width, (o_s >= start) & (o_l < length), 0.0)


@triton.jit
def upto(o_c, shift, BC: tl.constexpr):
    """The bits of a chunk's tokens up to o_c, or up to the one before where shift is 1."""
    one = tl.full(o_c.shape, 1, tl.int64 if BC > 32 else tl.int32)
    return ((one << o_c) << (1 - shift)) - 1


@triton.jit
def weight(b_x, resets):
    """exp of an exponent; 0 if there are resets between."""
    return tl.where(resets != 0, 0.0, tl.exp(b_x))


@triton.jit
def slot(i_row, first, L, LENGTHS: tl.constexpr, BC: tl.constexpr):
    """Where the states at the boundaries of a row's chunks begin: boundary b lies before chunk b."""
    if LENGTHS == 2:
        return first // BC + 2 * i_row
    return i_row * (tl.cdiv(L, BC) + 1)


@triton.jit
def chunk_of(p_lengths, L, chunks, H, LENGTHS: tl.constexpr, BC: tl.constexpr):
    """Of a program: its head, the row in memory and where in it its tokens begin, their number, the first of its chunk,
    and the boundary before it."""
    i_h, i_chunk = (tl.program_id(0) % H).to(tl.int64), tl.program_id(0) // H % chunks
    i_row = (tl.program_id(0) // H // chunks).to(tl.int64)
    i_r, first, length = place(i_row, p_lengths, L, LENGTHS)
    return i_h, i_r, first, length, i_chunk * BC, slot(i_row, first, L, LENGTHS, BC) + i_chunk


@triton.jit(do_not_specialize=ALIKE)
def gate_sums_kernel(
    p_g, p_G, p_resets, p_lengths, L, rows, chunks, tokens, W,
    FLOOR: tl.constexpr, LENGTHS: tl.constexpr, BC: tl.constexpr, BW: tl.constexpr,
):  # fmt: skip
    """G (directions, tokens, W) of g, within chunks, and the resets (directions, rows, chunks, W)."""
    blocks = tl.cdiv(W, BW)
    i_block, i_crd = tl.program_id(0) % blocks, tl.program_id(0) // blocks
    i_chunk, i_rd = i_crd % chunks, i_crd // chunks
    i_row, i_direction = (i_rd % rows).to(tl.int64), (i_rd // rows).to(tl.int64)
    i_r, first, length = place(i_row, p_lengths, L, LENGTHS)
    o_c, o_w = tl.arange(0, BC), i_block * BW + tl.arange(0, BW)
    o_l = i_chunk * BC + o_c
    m = (o_l < length)[:, None] & (o_w < W)[None, :]
    o = (i_direction * tokens + i_r * L + first) * W + o_l[:, None] * W + o_w[None, :]
    b_g = tl.load(p_g + o, m, 0.0).to(tl.float32)
    reset = b_g <= FLOOR
    tl.store(p_G + o, tl.cumsum(tl.where(reset, 0.0, b_g), 0), m)
    bits = tl.where(reset, (upto(o_c, 0, BC) ^ upto(o_c, 1, BC))[:, None], 0)
    tl.store(p_resets + i_crd.to(tl.int64) * W + o_w, tl.sum(bits, 0), o_w < W)


@triton.jit(do_not_specialize=ALIKE)
def states_kernel(
    p_k, p_v, p_G, p_resets, p_lengths, p_start, p_S, p_end, L, rows, chunks, slots, tokens, H, K, V, scale,
    k_b, k_l, k_h, v_b, v_l, v_h,
    FIRST: tl.constexpr, ADJOINT: tl.constexpr, BEFORE: tl.constexpr, EACH: tl.constexpr, UNTIED: tl.constexpr,
    LENGTHS: tl.constexpr, DOT: tl.constexpr, PRECISION: tl.constexpr,
    BC: tl.constexpr, BK: tl.constexpr, BV: tl.constexpr,
):  # fmt: skip
    """The states S (directions, slots, H, K, V) at every boundary of chunks, each program along a row in one direction;
    ADJOINT: their gradients, along the row the other way, of q and do."""
    blocks_v, blocks_k = tl.cdiv(V, BV), tl.cdiv(K, BK)
    i_v, i_khrd = tl.program_id(0) % blocks_v, tl.program_id(0) // blocks_v
    i_k, i_hrd = i_khrd % blocks_k, i_khrd // blocks_k
    i_h, i_rd = (i_hrd % H).to(tl.int64), i_hrd // H
    i_row, i_direction = (i_rd % rows).to(tl.int64), (i_rd // rows).to(tl.int64)
    i_r, first, length = place(i_row, p_lengths, L, LENGTHS)
    back = (i_rd // rows + FIRST) ^ ADJOINT
    # Walking forward, weights are of T - X, backward of X.
    shift = 1 - (back ^ (BEFORE if ADJOINT else 1))
    o_k, o_v = i_k * BK + tl.arange(0, BK), i_v * BV + tl.arange(0, BV)
    m_k, m_v = o_k < K, o_v < V
    m_S = m_k[:, None] & m_v[None, :]
    o_S = o_k[:, None] * V + o_v[None, :]
    p_k += i_r * k_b + first * k_l + i_h * k_h
    p_v += i_r * v_b + first * v_l + i_h * v_h
    width = H * K if EACH else H
    p_G += (i_direction * UNTIED * tokens + i_r * L + first) * width + (i_h * K if EACH else i_h)
    p_resets += (i_direction * UNTIED * rows + i_row) * chunks * width + (i_h * K if EACH else i_h)
    p_S += ((i_direction * slots + slot(i_row, first, L, LENGTHS, BC)) * H + i_h) * K * V
    i_state = ((i_direction * rows + i_row) * H + i_h) * K * V
    b_S = tl.zeros([BK, BV], tl.float32)
    if p_start is not None:
        b_S += tl.load(p_start + i_state + o_S, m_S, 0.0)
    n = tl.cdiv(length, BC)
    for j in range(0, n):
        i = tl.where(back == 1, n - 1 - j, j)
        tl.store(p_S + (i + back).to(tl.int64) * H * K * V + o_S, b_S, m_S)
        start = i * BC
        o_l = start + tl.arange(0, BC)
        m_l = (o_l < length)[:, None]
        last = tl.minimum(start + BC, length) - 1
        before = upto(tl.arange(0, BC), shift, BC)
        between = tl.where(back == 1, before, ~before)
        b_k = tl.load(p_k + o_l[:, None] * k_l + o_k[None, :], m_l & m_k[None, :], 0.0)
        b_v = tl.load(p_v + o_l[:, None] * v_l + o_v[None, :], m_l & m_v[None, :], 0.0)
        if EACH:
            b_X = gates(p_G, o_l, start, length, shift, width, o_k, m_k)
            b_T = tl.load(p_G + last * width + o_k, m_k, 0.0)
            resets = tl.load(p_resets + i.to(tl.int64) * width + o_k, m_k, 0)
            b_w = weight(tl.where(back == 1, b_X, b_T[None, :] - b_X), resets[None, :] & between[:, None])
            b_S = b_S * weight(b_T, resets)[:, None]
        else:
            b_x = gate(p_G, o_l, start, length, shift, width)
            b_t = tl.load(p_G + last * width)
            resets = tl.load(p_resets + i.to(tl.int64) * width)
            b_w = weight(tl.where(back == 1, b_x, b_t - b_x), resets & between)[:, None]
            b_S = b_S * weight(b_t, resets)
        b_S += product(tl.trans(b_k.to(tl.float32) * (b_w * scale)), b_v, DOT, PRECISION)
    tl.store(p_S + tl.where(back == 1, 0, n).to(tl.int64) * H * K * V + o_S, b_S, m_S)
    if p_end is not None:
        tl.store(p_end + i_state + o_S, b_S, m_S)


@triton.jit
def across(
    p_met, p_dleft, o_S, m_S, b_q, b_k, b_v, b_do, b_reads, b_leaves, DOT: tl.constexpr, PRECISION: tl.constexpr
):
    """Gradients of q, k, v by the states at a chunk's boundaries: the one that it meets, which tokens read, and the one
    that it leaves, in which they write. Also the sum over values of the one times the other's gradient, (BK,)."""
    b_S, b_dS = tl.load(p_met + o_S, m_S, 0.0), tl.load(p_dleft + o_S, m_S, 0.0)
    b_dq = product(b_do, tl.trans(b_S), DOT, PRECISION) * b_reads
    b_dk = product(b_v, tl.trans(b_dS), DOT, PRECISION) * b_leaves
    b_dv = product(b_k.to(tl.float32) * b_leaves, b_dS, DOT, PRECISION)
    return b_dq, b_dk, b_dv, tl.sum(b_S.to(tl.float32) * b_dS.to(tl.float32), 1)
