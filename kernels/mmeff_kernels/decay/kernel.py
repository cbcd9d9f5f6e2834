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

G, E and T are kept times log2(e), as the exponential unit takes them.

A gate whose exp is 0 is a reset. G leaves resets out, for a difference of infinities, or of numbers as large, says
nothing of the gates between, and a weight with a reset between its two ends is 0. Where a head has one gate, R_t is the
last reset up to t, -1 if the chunk has none: there is one between s and t if R_t > s. What the walk along the row
needs of a token comes in one number then, its span: G_t or T - G_t, -inf if a reset lies in it. Where each feature has
its own gates, resets are the bits of one number for each gate and chunk, which takes less reading.
"""

# pyright: reportGeneralTypeIssues=false, reportPossiblyUnboundVariable=false

import triton
import triton.language as tl

from ..tiles import place, product

LOG2_E = tl.constexpr(1.4426950408889634)
#: Numbers whose values do not make another kernel.
ALIKE = ["L", "rows", "chunks", "slots", "tokens", "H"]


@triton.jit
def gates(p_G, o_l, start, length, shift, width, o_g, m_g):
    """G of tokens o_l of the chunk that begins at `start` and of the gates o_g, or E where shift is 1; 0 outside."""
    o_s = o_l - shift
    m = ((o_s >= start) & (o_l < length))[:, None] & m_g[None, :]
    return tl.load(p_G + o_s[:, None] * width + o_g[None, :], m, 0.0)


@triton.jit
def gate(p_G, p_resets, o_l, start, length, shift, width):
    """The same of a head's one gate, and R; beyond the row's end those of its last token."""
    o_s = tl.minimum(o_l - shift, length - 1)
    return tl.load(p_G + o_s * width, o_s >= start, 0.0), tl.load(p_resets + o_s * width, o_s >= start, -1)


@triton.jit
def whole(p_G, p_resets, start, length, width, BC: tl.constexpr):
    """T of a head's one gate, and R of the chunk's last token."""
    last = tl.minimum(start + BC, length) - 1
    return tl.load(p_G + last * width, start < length, 0.0), tl.load(p_resets + last * width, start < length, -1)


@triton.jit
def upto(o_c, shift):
    """The bits of a chunk's tokens, 32 at most, up to o_c, or up to the one before where shift is 1."""
    return ((tl.full(o_c.shape, 1, tl.int32) << o_c) << (1 - shift)) - 1


@triton.jit
def weight(b_x, reset):
    """2 to an exponent; 0 if there is a reset between."""
    return tl.exp2(tl.where(reset, float("-inf"), b_x))


@triton.jit
def larger(a, b):
    return tl.maximum(a, b)


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
    p_g, p_G, p_resets, p_spans, p_lengths, L, rows, chunks, tokens, W,
    FLOOR: tl.constexpr, LENGTHS: tl.constexpr, EACH: tl.constexpr, BC: tl.constexpr, BW: tl.constexpr,
):  # fmt: skip
    """G (directions, tokens, W) of g, within chunks; R alike, and spans (2, directions, tokens, W) from a chunk's first
    token and to its last; with EACH in their place the bits of resets (directions, rows, chunks, W)."""
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
    b_g = tl.where(reset, 0.0, b_g * LOG2_E)
    b_G = tl.cumsum(b_g, 0)
    tl.store(p_G + o, b_G, m)
    if EACH:
        bits = tl.where(reset, (upto(o_c, 0) ^ upto(o_c, 1))[:, None], 0)
        tl.store(p_resets + i_crd.to(tl.int64) * W + o_w, tl.sum(bits, 0), o_w < W)
    else:
        r_G = tl.associative_scan(tl.where(reset, o_c[:, None], -1), 0, larger)
        tl.store(p_resets + o, r_G, m)
        b_until = tl.where(r_G >= 0, float("-inf"), b_G)
        b_since = tl.where(tl.max(r_G, 0)[None, :] > o_c[:, None], float("-inf"), tl.sum(b_g, 0)[None, :] - b_G)
        directions = tl.num_programs(0) // (blocks * chunks * rows)
        tl.store(p_spans + o, b_until, m)
        tl.store(p_spans + directions * tokens.to(tl.int64) * W + o, b_since, m)


@triton.jit(do_not_specialize=ALIKE)
def states_kernel(
    p_k, p_v, p_G, p_resets, p_spans, p_lengths, p_start, p_S, p_end, L, rows, chunks, slots, tokens, H, K, V, scale,
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
    i_gate = (i_direction * UNTIED * tokens + i_r * L + first) * width + (i_h * K if EACH else i_h)
    if EACH:
        p_G += i_gate
        p_resets += (i_direction * UNTIED * rows + i_row) * chunks * width + i_h * K
    else:
        p_whole = p_spans + i_gate
        p_spans += (1 - back) * (1 + UNTIED) * tokens.to(tl.int64) * width + i_gate
    p_S += ((i_direction * slots + slot(i_row, first, L, LENGTHS, BC)) * H + i_h) * K * V
    i_state = ((i_direction * rows + i_row) * H + i_h) * K * V
    b_S = tl.zeros([BK, BV], tl.float32)
    if p_start is not None:
        b_S += tl.load(p_start + i_state + o_S, m_S, 0.0)
    n = tl.cdiv(length, BC)
    if EACH:
        i = tl.where(back == 1, n - 1, 0)
        next_T = tl.load(p_G + (tl.minimum(i * BC + BC, length) - 1) * width + o_k, m_k & (n > 0), 0.0)
        next_resets = tl.load(p_resets + i.to(tl.int64) * width + o_k, m_k & (n > 0), 0)
    for j in range(0, n):
        i = tl.where(back == 1, n - 1 - j, j)
        tl.store(p_S + (i + back).to(tl.int64) * H * K * V + o_S, b_S, m_S)
        start = i * BC
        o_l = start + tl.arange(0, BC)
        m_l = (o_l < length)[:, None]
        b_k = tl.load(p_k + o_l[:, None] * k_l + o_k[None, :], m_l & m_k[None, :], 0.0)
        b_v = tl.load(p_v + o_l[:, None] * v_l + o_v[None, :], m_l & m_v[None, :], 0.0)
        if EACH:
            b_T, resets = next_T, next_resets
            # What a whole chunk decays by is read a chunk ahead: the walk would wait for it.
            ahead, there = i + 1 - 2 * back, m_k & (j + 1 < n)
            next_T = tl.load(p_G + (tl.minimum(ahead * BC + BC, length) - 1) * width + o_k, there, 0.0)
            next_resets = tl.load(p_resets + ahead.to(tl.int64) * width + o_k, there, 0)
            b_X = gates(p_G, o_l, start, length, shift, width, o_k, m_k)
            before = upto(tl.arange(0, BC), shift)
            between = resets[None, :] & tl.where(back == 1, before, ~before)[:, None]
            b_w = weight(tl.where(back == 1, b_X, b_T[None, :] - b_X), between != 0)
            b_S = b_S * weight(b_T, resets != 0)[:, None]
        else:
            b_t = tl.load(p_whole + (tl.minimum(start + BC, length) - 1) * width)
            o_s = o_l - shift
            b_x = tl.load(p_spans + o_s * width, (o_s >= start) & (o_l < length), 0.0)
            b_x = tl.where((o_s < start) & (back == 0), b_t, b_x)  # before the chunk's first token all of it is to come
            b_w = tl.exp2(b_x)[:, None]
            b_S = b_S * tl.exp2(b_t)
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
