"""Decaying states whose features have gates of their own: what tokens read, and gradients, chunks in parallel.

The letters are those of `kernel.py`. Within a chunk the weight of a pair differs from feature to feature, so it must be
part of q and of k before their product; exp(G_t) and exp(-G_s) alone would overflow. They are split at a token between
the two: a chunk is halved, with M = G at the end of its first half, and a token t of the second half reads from s of
the first with exp(G_t - M) exp(M - G_s), no exponent positive; then each half is halved, and so on to single tokens.
The other direction's pairs lie in the other triangle of the same product: exp(E_s - M) exp(M - E_t).
"""

# pyright: reportGeneralTypeIssues=false, reportPossiblyUnboundVariable=false

import triton
import triton.language as tl

from ..tiles import product
from .kernel import ALIKE, across, chunk_of, gates, upto, weight


@triton.jit
def resets_of(p_resets, i_direction, i_h, H, K, o_k, m_k):
    """The resets of a program's chunk in one direction, for each feature."""
    chunk = i_direction * (tl.num_programs(0) // H) + tl.program_id(0) // H
    return tl.load(p_resets + (chunk.to(tl.int64) * H + i_h) * K + o_k, m_k, 0)


@triton.jit
def halves(
    p_G, p_back, resets, resets_back, o_c, half, start, length, width, o_k, m_k,
    FORWARD: tl.constexpr, BACKWARD: tl.constexpr, BEFORE: tl.constexpr,
):  # fmt: skip
    """Of blocks of 2 `half` tokens: factors of q and of k, whether a token is in a second half, and the pairs that the
    factors serve."""
    o_l, block = start + o_c, o_c // (2 * half)
    second = (o_c % (2 * half)) >= half
    o_m = tl.minimum(start + block * (2 * half) + half, length) - 1
    b_M = gates(p_G, o_m, start, length, 0, width, o_k, m_k)
    b_N = gates(p_back, o_m, start, length, 0, width, o_k, m_k)
    b_R = gates(p_G, o_l, start, length, BEFORE, width, o_k, m_k)
    b_G = gates(p_G, o_l, start, length, 0, width, o_k, m_k)
    b_Q = gates(p_back, o_l, start, length, 1 - BEFORE, width, o_k, m_k)
    b_E = gates(p_back, o_l, start, length, 1, width, o_k, m_k)
    # Resets between a token and the middle.
    middle = upto(block * (2 * half) + half, 1)
    of_q = (upto(o_c, tl.where(second, BEFORE, 1 - BEFORE)) ^ middle)[:, None]
    of_k = (upto(o_c, tl.where(second, 1, 0)) ^ middle)[:, None]
    of_q &= tl.where(second[:, None], resets[None, :], resets_back[None, :])
    of_k &= tl.where(second[:, None], resets_back[None, :], resets[None, :])
    b_fq = weight(tl.minimum(tl.where(second[:, None], b_R - b_M, b_N - b_Q), 0.0), of_q != 0)
    b_fk = weight(tl.minimum(tl.where(second[:, None], b_E - b_N, b_M - b_G), 0.0), of_k != 0)
    pairs = (block[:, None] == block[None, :]) & (second[:, None] != second[None, :])
    if not BACKWARD:
        pairs = pairs & second[:, None]
    if not FORWARD:
        pairs = pairs & second[None, :]
    return b_fq, b_fk, second, pairs


@triton.jit(do_not_specialize=ALIKE)
def outputs_kernel(
    p_q, p_k, p_v, p_G, p_resets, p_bonus, p_lengths, p_S, p_o, L, chunks, slots, tokens, H, K, V, scale,
    q_b, q_l, q_h, k_b, k_l, k_h, v_b, v_l, v_h,
    FORWARD: tl.constexpr, BACKWARD: tl.constexpr, DIAGONAL: tl.constexpr, UNTIED: tl.constexpr,
    LENGTHS: tl.constexpr, DOT: tl.constexpr, PRECISION: tl.constexpr,
    BC: tl.constexpr, LEVELS: tl.constexpr, BK: tl.constexpr, BV: tl.constexpr,
):  # fmt: skip
    """o = A v + what q reads from the states at the chunk's boundaries."""
    i_h, i_r, first, length, start, i_slot = chunk_of(p_lengths, L, chunks, H, LENGTHS, BC)
    o_c, o_k, o_v = tl.arange(0, BC), tl.arange(0, BK), tl.arange(0, BV)
    o_l, width = start + o_c, H * K
    m_l, m_k, m_v = (o_l < length)[:, None], o_k < K, (o_v < V)[None, :]
    m_S, o_S = m_k[:, None] & m_v & (start < length), o_k[:, None] * V + o_v[None, :]
    p_q += i_r * q_b + first * q_l + i_h * q_h
    p_k += i_r * k_b + first * k_l + i_h * k_h
    p_v += i_r * v_b + first * v_l + i_h * v_h
    p_G += (i_r * L + first) * width + i_h * K
    p_back = p_G + UNTIED * tokens.to(tl.int64) * width
    p_o += ((i_r * L + first) * H + i_h) * V
    state = (width * V).to(tl.int64)  # from a boundary to the next
    p_S += i_slot * state + i_h * K * V
    b_q = tl.load(p_q + o_l[:, None] * q_l + o_k[None, :], m_l & m_k[None, :], 0.0).to(tl.float32)
    b_k = tl.load(p_k + o_l[:, None] * k_l + o_k[None, :], m_l & m_k[None, :], 0.0).to(tl.float32)
    b_v = tl.load(p_v + o_l[:, None] * v_l + o_v[None, :], m_l & m_v, 0.0)
    BEFORE: tl.constexpr = 0 if p_bonus is None else 1
    b_own = b_q * b_k
    if p_bonus is not None:
        b_own *= tl.load(p_bonus + i_h * K + o_k, m_k, 0.0)[None, :]
    b_A = tl.where(o_c[:, None] == o_c[None, :], DIAGONAL * tl.sum(b_own, 1)[:, None], 0.0)
    resets = resets_of(p_resets, 0, i_h, H, K, o_k, m_k)
    resets_back = resets_of(p_resets, UNTIED, i_h, H, K, o_k, m_k)
    for level in range(LEVELS):
        b_fq, b_fk, _, pairs = halves(
            p_G, p_back, resets, resets_back, o_c, BC >> (level + 1), start, length, width, o_k, m_k,
            FORWARD, BACKWARD, BEFORE,
        )  # fmt: skip
        b_A += tl.where(pairs, product(b_q * b_fq, tl.trans(b_k * b_fk), DOT, PRECISION), 0.0)
    b_o = product(b_A, b_v, DOT, PRECISION)
    if FORWARD:
        b_S = tl.load(p_S + o_S, m_S, 0.0)
        b_R = gates(p_G, o_l, start, length, BEFORE, width, o_k, m_k)
        b_w = weight(b_R, (resets[None, :] & upto(o_c, BEFORE)[:, None]) != 0)
        b_o += product(b_q * b_w, b_S, DOT, PRECISION)
    if BACKWARD:
        b_S = tl.load(p_S + (FORWARD * slots + 1) * state + o_S, m_S, 0.0)
        b_T = tl.load(p_back + (tl.minimum(start + BC, length) - 1) * width + o_k, m_k & (start < length), 0.0)
        b_Q = gates(p_back, o_l, start, length, 1 - BEFORE, width, o_k, m_k)
        between = resets_back[None, :] & ~upto(o_c, 1 - BEFORE)[:, None]
        b_w = weight(b_T[None, :] - b_Q, between != 0)
        b_o += product(b_q * b_w, b_S, DOT, PRECISION)
    # Padding within the row has an o of 0.
    inside = o_l < L if LENGTHS < 2 else o_l < length
    tl.store(p_o + o_l[:, None] * (H * V) + o_v[None, :], tl.where(m_l, b_o * scale, 0.0), inside[:, None] & m_v)


@triton.jit(do_not_specialize=ALIKE)
def gradients_kernel(
    p_q, p_k, p_v, p_G, p_resets, p_bonus, p_lengths, p_do, p_S, p_dS, p_dq, p_dk, p_dv, p_dg, p_dbonus,
    L, chunks, slots, tokens, H, K, V, scale,
    q_b, q_l, q_h, k_b, k_l, k_h, v_b, v_l, v_h,
    FORWARD: tl.constexpr, BACKWARD: tl.constexpr, DIAGONAL: tl.constexpr, UNTIED: tl.constexpr,
    LENGTHS: tl.constexpr, DOT: tl.constexpr, PRECISION: tl.constexpr,
    BC: tl.constexpr, LEVELS: tl.constexpr, BK: tl.constexpr, BV: tl.constexpr,
):  # fmt: skip
    """Gradients of q, k, v, g, and the bonus (rows, chunks, H, K), g's as in `alike_kernel`, for each feature. Of what
    a token reads before its own gate, that gate has no part."""
    i_h, i_r, first, length, start, i_slot = chunk_of(p_lengths, L, chunks, H, LENGTHS, BC)
    o_c, o_k, o_v = tl.arange(0, BC), tl.arange(0, BK), tl.arange(0, BV)
    o_l, width = start + o_c, H * K
    m_l, m_k, m_v = (o_l < length)[:, None], o_k < K, (o_v < V)[None, :]
    m_S, o_S = m_k[:, None] & m_v & (start < length), o_k[:, None] * V + o_v[None, :]
    p_q += i_r * q_b + first * q_l + i_h * q_h
    p_k += i_r * k_b + first * k_l + i_h * k_h
    p_v += i_r * v_b + first * v_l + i_h * v_h
    i_o = (i_r * L + first) * H + i_h
    p_G += i_o * K
    p_dg += i_o * K
    p_back = p_G + UNTIED * tokens.to(tl.int64) * width
    state = (width * V).to(tl.int64)  # from a boundary to the next
    i_S = i_slot * state + i_h * K * V
    p_S += i_S
    p_dS += i_S
    o_q, o_o = o_l[:, None] * width + o_k[None, :], o_l[:, None] * (H * V) + o_v[None, :]
    m_q = m_l & m_k[None, :]
    b_q = tl.load(p_q + o_l[:, None] * q_l + o_k[None, :], m_q, 0.0).to(tl.float32)
    b_k = tl.load(p_k + o_l[:, None] * k_l + o_k[None, :], m_q, 0.0).to(tl.float32)
    b_v = tl.load(p_v + o_l[:, None] * v_l + o_v[None, :], m_l & m_v, 0.0)
    b_do = tl.load(p_do + i_o * V + o_o, m_l & m_v, 0.0)
    BEFORE: tl.constexpr = 0 if p_bonus is None else 1
    # Whether a gate o_c[:, None] lies between token o_c[None, :] and all that come later, or earlier, in its direction.
    until, since = o_c[None, :] >= o_c[:, None] + BEFORE, o_c[None, :] < o_c[:, None]
    until_back, since_back = o_c[None, :] <= o_c[:, None] - BEFORE, o_c[None, :] > o_c[:, None]
    b_dA = product(b_do, tl.trans(b_v), DOT, PRECISION) * scale
    b_A = tl.zeros([BC, BC], tl.float32)
    b_dq, b_dk = tl.zeros([BC, BK], tl.float32), tl.zeros([BC, BK], tl.float32)
    b_dg, b_dg_back = tl.zeros([BC, BK], tl.float32), tl.zeros([BC, BK], tl.float32)
    resets = resets_of(p_resets, 0, i_h, H, K, o_k, m_k)
    resets_back = resets_of(p_resets, UNTIED, i_h, H, K, o_k, m_k)
    for level in range(LEVELS):
        half = BC >> (level + 1)
        b_fq, b_fk, second, pairs = halves(
            p_G, p_back, resets, resets_back, o_c, half, start, length, width, o_k, m_k,
            FORWARD, BACKWARD, BEFORE,
        )  # fmt: skip
        b_qf, b_kf = b_q * b_fq, b_k * b_fk
        b_A += tl.where(pairs, product(b_qf, tl.trans(b_kf), DOT, PRECISION), 0.0)
        b_dAp = tl.where(pairs, b_dA, 0.0)
        b_dqf = product(b_dAp, b_kf, DOT, PRECISION)
        b_dkf = product(tl.trans(b_dAp), b_qf, DOT, PRECISION)
        b_dq += b_dqf * b_fq
        b_dk += b_dkf * b_fk
        b_dqf *= b_qf
        b_dkf *= b_kf
        # In each half alone, for the other's tokens all lie beyond.
        beside = (o_c // half)[:, None] == (o_c // half)[None, :]
        if FORWARD:
            gated = tl.where(beside & tl.where(second[:, None], until, since), 1.0, 0.0)
            b_dg += product(gated, tl.where(second[:, None], b_dqf, b_dkf), DOT, PRECISION)
        if BACKWARD:
            gated = tl.where(beside & tl.where(second[:, None], since_back, until_back), 1.0, 0.0)
            b_gated = product(gated, tl.where(second[:, None], b_dkf, b_dqf), DOT, PRECISION)
            if UNTIED:
                b_dg_back += b_gated
            else:
                b_dg += b_gated
    # A token's own input.
    own = o_c[:, None] == o_c[None, :]
    b_u = tl.full([1, BK], DIAGONAL, tl.float32)
    b_own = tl.sum(tl.where(own, b_dA, 0.0), 1)[:, None]
    if p_bonus is not None:
        i_b = tl.program_id(0).to(tl.int64) * K
        tl.store(p_dbonus + i_b + o_k, tl.sum(DIAGONAL * b_own * b_q * b_k, 0), m_k)
        b_u *= tl.load(p_bonus + i_h * K + o_k, m_k, 0.0)[None, :]
    b_dq += b_own * b_u * b_k
    b_dk += b_own * b_u * b_q
    b_A += tl.where(own, tl.sum(b_q * b_k * b_u, 1)[:, None], 0.0)
    b_dv = product(tl.trans(b_A * scale), b_do, DOT, PRECISION)
    for i in range(FORWARD + BACKWARD):
        back = i + 1 - FORWARD
        p_gates = p_G + i * UNTIED * tokens.to(tl.int64) * width
        b_X = gates(p_gates, o_l, start, length, tl.where(back == 1, 1 - BEFORE, BEFORE), width, o_k, m_k)
        b_Y = gates(p_gates, o_l, start, length, back, width, o_k, m_k)
        b_T = tl.load(p_gates + (tl.minimum(start + BC, length) - 1) * width + o_k, m_k & (start < length), 0.0)
        between = tl.where(back == 1, resets_back, resets)
        before_q, before_k = upto(o_c, tl.where(back == 1, 1 - BEFORE, BEFORE)), upto(o_c, back)
        of_q = between[None, :] & tl.where(back == 1, ~before_q, before_q)[:, None]
        of_k = between[None, :] & tl.where(back == 1, before_k, ~before_k)[:, None]
        b_reads = weight(tl.where(back == 1, b_T[None, :] - b_X, b_X), of_q != 0) * scale
        b_leaves = weight(tl.where(back == 1, b_Y, b_T[None, :] - b_Y), of_k != 0)
        b_dqS, b_dkS, b_dvS, b_through = across(
            p_S + (i * slots + back) * state, p_dS + (i * slots + 1 - back) * state, o_S, m_S, b_q, b_k, b_v, b_do,
            b_reads, b_leaves, DOT, PRECISION,
        )  # fmt: skip
        b_dq += b_dqS
        b_dk += b_dkS
        b_dv += b_dvS
        read, written = tl.where(back == 1, until_back, until), tl.where(back == 1, since_back, since)
        b_gated = product(tl.where(read, 1.0, 0.0), b_q * b_dqS, DOT, PRECISION)
        b_gated += product(tl.where(written, 1.0, 0.0), b_k * b_dkS, DOT, PRECISION)
        b_gated += (b_through * weight(b_T, between != 0))[None, :]
        if UNTIED:
            b_dg += tl.where(back == 1, 0.0, b_gated)
            b_dg_back += tl.where(back == 1, b_gated, 0.0)
        else:
            b_dg += b_gated
    own_bit = (upto(o_c, 0) ^ upto(o_c, 1))[:, None]
    tl.store(p_dg + o_q, tl.where((own_bit & resets[None, :]) != 0, 0.0, b_dg), m_q)
    if UNTIED:
        b_dg_back = tl.where((own_bit & resets_back[None, :]) != 0, 0.0, b_dg_back)
        tl.store(p_dg + tokens.to(tl.int64) * width + o_q, b_dg_back, m_q)
    tl.store(p_dq + i_o * K + o_q, b_dq, m_q)
    tl.store(p_dk + i_o * K + o_q, b_dk, m_q)
    tl.store(p_dv + i_o * V + o_o, b_dv, m_l & m_v)
