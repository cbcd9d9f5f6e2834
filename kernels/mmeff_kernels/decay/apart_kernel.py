"""Decaying states whose features have gates of their own: what tokens read, and gradients, chunks in parallel.

The letters are those of `kernel.py`. Within a chunk the weight of a pair differs from feature to feature, so it must be
part of q and of k before their product; exp(G_t) and exp(-G_s) alone would overflow. They are split at a token between
the two: a chunk is halved, with M = G at the end of its first half, and a token t of the second half reads from s of the
first with exp(G_t - M) exp(M - G_s), no exponent positive; then each half is halved, and so on to single tokens. The
other direction's pairs lie in the other triangle of the same product: exp(E_s - M) exp(M - E_t).
"""

# pyright: reportGeneralTypeIssues=false, reportPossiblyUnboundVariable=false

import triton
import triton.language as tl

from ..tiles import place, product
from .kernel import ALIKE, across, gates, slot, suffix_sums


@triton.jit
def halves(
    p_G, p_back, b_R, b_G, b_E, b_Q, o_c, half, start, length, width, o_k, m_k,
    FORWARD: tl.constexpr, BACKWARD: tl.constexpr,
):  # fmt: skip
    """Of blocks of 2 `half` tokens: factors of q and of k, whether a token is in a second half, and the pairs that the
    factors serve."""
    second = (o_c % (2 * half)) >= half
    o_m = tl.minimum(start + o_c // (2 * half) * (2 * half) + half, length) - 1
    b_M = gates(p_G, o_m, start, length, 0, width, o_k, m_k)
    b_N = gates(p_back, o_m, start, length, 0, width, o_k, m_k)
    b_fq = tl.exp(tl.minimum(tl.where(second[:, None], b_R - b_M, b_N - b_Q), 0.0))
    b_fk = tl.exp(tl.minimum(tl.where(second[:, None], b_E - b_N, b_M - b_G), 0.0))
    together = (o_c // (2 * half))[:, None] == (o_c // (2 * half))[None, :]
    pairs = together & (second[:, None] != second[None, :])
    if not BACKWARD:
        pairs = pairs & second[:, None]
    if not FORWARD:
        pairs = pairs & second[None, :]
    return b_fq, b_fk, second[:, None], pairs


@triton.jit(do_not_specialize=ALIKE)
def outputs_kernel(
    p_q, p_k, p_v, p_G, p_bonus, p_lengths, p_S, p_o, L, chunks, slots, tokens, H, K, V, scale,
    q_b, q_l, q_h, k_b, k_l, k_h, v_b, v_l, v_h,
    FORWARD: tl.constexpr, BACKWARD: tl.constexpr, DIAGONAL: tl.constexpr, UNTIED: tl.constexpr,
    LENGTHS: tl.constexpr, DOT: tl.constexpr, PRECISION: tl.constexpr,
    BC: tl.constexpr, LEVELS: tl.constexpr, BK: tl.constexpr, BV: tl.constexpr,
):  # fmt: skip
    """o = A v + what q reads from the states at the chunk's boundaries."""
    i_h, i_cr = tl.program_id(0) % H, tl.program_id(0) // H
    i_chunk, i_row = i_cr % chunks, (i_cr // chunks).to(tl.int64)
    i_r, first, length = place(i_row, p_lengths, L, LENGTHS)
    o_c, o_k, o_v = tl.arange(0, BC), tl.arange(0, BK), tl.arange(0, BV)
    start = i_chunk * BC
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
    p_S += (slot(i_row, first, L, LENGTHS, BC) + i_chunk) * state + i_h * K * V
    b_q = tl.load(p_q + o_l[:, None] * q_l + o_k[None, :], m_l & m_k[None, :], 0.0).to(tl.float32)
    b_k = tl.load(p_k + o_l[:, None] * k_l + o_k[None, :], m_l & m_k[None, :], 0.0).to(tl.float32)
    b_v = tl.load(p_v + o_l[:, None] * v_l + o_v[None, :], m_l & m_v, 0.0)
    before = 0 if p_bonus is None else 1
    b_G, b_R = gates(p_G, o_l, start, length, 0, width, o_k, m_k), gates(p_G, o_l, start, length, before, width, o_k, m_k)
    b_E = gates(p_back, o_l, start, length, 1, width, o_k, m_k)
    b_Q = gates(p_back, o_l, start, length, 1 - before, width, o_k, m_k)
    b_own = b_q * b_k
    if p_bonus is not None:
        b_own *= tl.load(p_bonus + i_h * K + o_k, m_k, 0.0)[None, :]
    b_A = tl.where(o_c[:, None] == o_c[None, :], DIAGONAL * tl.sum(b_own, 1)[:, None], 0.0)
    for level in range(LEVELS):
        b_fq, b_fk, _, pairs = halves(
            p_G, p_back, b_R, b_G, b_E, b_Q, o_c, BC >> (level + 1), start, length, width, o_k, m_k, FORWARD, BACKWARD
        )
        b_A += tl.where(pairs, product(b_q * b_fq, tl.trans(b_k * b_fk), DOT, PRECISION), 0.0)
    b_o = product(b_A, b_v, DOT, PRECISION)
    if FORWARD:
        b_S = tl.load(p_S + o_S, m_S, 0.0)
        b_o += product(b_q * tl.exp(b_R), b_S, DOT, PRECISION)
    if BACKWARD:
        b_S = tl.load(p_S + (FORWARD * slots + 1) * state + o_S, m_S, 0.0)
        b_T = tl.load(p_back + (tl.minimum(start + BC, length) - 1) * width + o_k, m_k & (start < length), 0.0)
        b_o += product(b_q * tl.exp(b_T[None, :] - b_Q), b_S, DOT, PRECISION)
    # Padding within the row has an o of 0.
    inside = o_l < L if LENGTHS < 2 else o_l < length
    tl.store(p_o + o_l[:, None] * (H * V) + o_v[None, :], tl.where(m_l, b_o * scale, 0.0), inside[:, None] & m_v)


@triton.jit(do_not_specialize=ALIKE)
def gradients_kernel(
    p_q, p_k, p_v, p_G, p_bonus, p_lengths, p_do, p_S, p_dS, p_dq, p_dk, p_dv, p_dg, p_dbonus,
    L, chunks, slots, tokens, H, K, V, scale,
    q_b, q_l, q_h, k_b, k_l, k_h, v_b, v_l, v_h,
    FORWARD: tl.constexpr, BACKWARD: tl.constexpr, DIAGONAL: tl.constexpr, UNTIED: tl.constexpr,
    LENGTHS: tl.constexpr, DOT: tl.constexpr, PRECISION: tl.constexpr,
    BC: tl.constexpr, LEVELS: tl.constexpr, BK: tl.constexpr, BV: tl.constexpr,
):  # fmt: skip
    """Gradients of q, k, v, g, and the bonus (rows, chunks, H, K), g's as in `alike_kernel`, for each feature. Of what
    a token reads before its own gate, that gate has no part."""
    i_h, i_cr = tl.program_id(0) % H, tl.program_id(0) // H
    i_chunk, i_row = i_cr % chunks, (i_cr // chunks).to(tl.int64)
    i_r, first, length = place(i_row, p_lengths, L, LENGTHS)
    o_c, o_k, o_v = tl.arange(0, BC), tl.arange(0, BK), tl.arange(0, BV)
    start = i_chunk * BC
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
    i_S = (slot(i_row, first, L, LENGTHS, BC) + i_chunk) * state + i_h * K * V
    p_S += i_S
    p_dS += i_S
    o_q, o_o = o_l[:, None] * width + o_k[None, :], o_l[:, None] * (H * V) + o_v[None, :]
    m_q = m_l & m_k[None, :]
    b_q = tl.load(p_q + o_l[:, None] * q_l + o_k[None, :], m_q, 0.0).to(tl.float32)
    b_k = tl.load(p_k + o_l[:, None] * k_l + o_k[None, :], m_q, 0.0).to(tl.float32)
    b_v = tl.load(p_v + o_l[:, None] * v_l + o_v[None, :], m_l & m_v, 0.0)
    b_do = tl.load(p_do + i_o * V + o_o, m_l & m_v, 0.0)
    before = 0 if p_bonus is None else 1
    b_G, b_R = gates(p_G, o_l, start, length, 0, width, o_k, m_k), gates(p_G, o_l, start, length, before, width, o_k, m_k)
    b_E = gates(p_back, o_l, start, length, 1, width, o_k, m_k)
    b_Q = gates(p_back, o_l, start, length, 1 - before, width, o_k, m_k)
    b_dA = product(b_do, tl.trans(b_v), DOT, PRECISION) * scale
    own = o_c[:, None] == o_c[None, :]
    b_dq = DIAGONAL * tl.sum(tl.where(own, b_dA, 0.0), 1)[:, None] + tl.zeros([BC, BK], tl.float32)
    b_dk = b_dq * b_q
    b_dq *= b_k
    b_own = b_q * b_k
    if p_bonus is not None:
        i_b = (i_cr.to(tl.int64) * H + i_h) * K
        tl.store(p_dbonus + i_b + o_k, tl.sum(b_dq * b_q, 0), m_k)
        b_u = tl.load(p_bonus + i_h * K + o_k, m_k, 0.0)[None, :]
        b_dq *= b_u
        b_dk *= b_u
        b_own *= b_u
    b_A = tl.where(own, DIAGONAL * tl.sum(b_own, 1)[:, None], 0.0)
    # What a token reads less what is read from it, and the former alone, of either direction.
    b_x, b_y = tl.zeros([BC, BK], tl.float32), tl.zeros([BC, BK], tl.float32)
    b_xr, b_yr = b_x, b_y
    for level in range(LEVELS):
        b_fq, b_fk, second, pairs = halves(
            p_G, p_back, b_R, b_G, b_E, b_Q, o_c, BC >> (level + 1), start, length, width, o_k, m_k, FORWARD, BACKWARD
        )
        b_qf, b_kf = b_q * b_fq, b_k * b_fk
        b_A += tl.where(pairs, product(b_qf, tl.trans(b_kf), DOT, PRECISION), 0.0)
        b_dAp = tl.where(pairs, b_dA, 0.0)
        b_dqf = product(b_dAp, b_kf, DOT, PRECISION)
        b_dkf = product(tl.trans(b_dAp), b_qf, DOT, PRECISION)
        b_dq += b_dqf * b_fq
        b_dk += b_dkf * b_fk
        b_read, b_written = b_dqf * b_qf, b_dkf * b_kf
        b_x += tl.where(second, b_read, -b_written)
        b_y += tl.where(second, -b_written, b_read)
        if p_bonus is not None:
            b_xr += tl.where(second, b_read, 0.0)
            b_yr += tl.where(second, 0.0, b_read)
    b_dv = product(tl.trans(b_A * scale), b_do, DOT, PRECISION)
    last = (tl.minimum(start + BC, length) - 1) * width + o_k
    b_dg = tl.zeros([BC, BK], tl.float32)
    if FORWARD:
        b_T = tl.load(p_G + last, m_k & (start < length), 0.0)[None, :]
        b_dqS, b_dkS, b_dvS, b_left = across(
            p_S, p_S + state, p_dS + state, o_S, m_S, b_q, b_k, b_v, b_do, tl.exp(b_R) * scale, tl.exp(b_T - b_G),
            DOT, PRECISION,
        )  # fmt: skip
        b_dq += b_dqS
        b_dk += b_dkS
        b_dv += b_dvS
        b_x += b_q * b_dqS - b_k * b_dkS
        b_dg += suffix_sums(b_x) + b_left[None, :]
        if p_bonus is not None:
            b_dg -= b_xr + b_q * b_dqS
        if UNTIED:
            tl.store(p_dg + o_q, b_dg, m_q)
            b_dg = tl.zeros([BC, BK], tl.float32)
            p_dg += tokens.to(tl.int64) * width
    if BACKWARD:
        p_S += FORWARD * slots * state
        p_dS += FORWARD * slots * state
        b_T = tl.load(p_back + last, m_k & (start < length), 0.0)[None, :]
        b_dqS, b_dkS, b_dvS, b_left = across(
            p_S + state, p_S, p_dS, o_S, m_S, b_q, b_k, b_v, b_do, tl.exp(b_T - b_Q) * scale, tl.exp(b_E),
            DOT, PRECISION,
        )  # fmt: skip
        b_dq += b_dqS
        b_dk += b_dkS
        b_dv += b_dvS
        b_y += b_q * b_dqS - b_k * b_dkS
        b_dg += tl.cumsum(b_y, 0) + b_left[None, :]
        if p_bonus is not None:
            b_dg -= b_yr + b_q * b_dqS
    tl.store(p_dg + o_q, b_dg, m_q)
    tl.store(p_dq + i_o * K + o_q, b_dq, m_q)
    tl.store(p_dk + i_o * K + o_q, b_dk, m_q)
    tl.store(p_dv + i_o * V + o_o, b_dv, m_l & m_v)
