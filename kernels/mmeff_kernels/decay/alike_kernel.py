"""Decaying states whose heads have one gate each: what tokens read, and gradients, chunks in parallel.

The letters are those of `kernel.py`. Within a chunk, A = (scale q k^T) * W with W_ts the weight between the two tokens;
both directions are one such matrix, below and above its diagonal.
"""

# pyright: reportGeneralTypeIssues=false, reportPossiblyUnboundVariable=false

import triton
import triton.language as tl

from ..tiles import product
from .kernel import ALIKE, across, chunk_of, gate, weight, whole


@triton.jit
def weights(b_G, r_G, b_E, r_E, o_c, FORWARD: tl.constexpr, BACKWARD: tl.constexpr, DIAGONAL: tl.constexpr):
    """W (BC, BC), from G of the forward and E of the backward direction and R at both. A token is read where it is
    written: on the diagonal W is 1, or DIAGONAL."""
    t, s = o_c[:, None], o_c[None, :]
    if FORWARD and BACKWARD:
        b_x = tl.where(t > s, b_G[:, None] - b_G[None, :], b_E[None, :] - b_E[:, None])
        reads = (r_G[:, None] <= s) & (r_E[None, :] < t)
    elif FORWARD:
        b_x = b_G[:, None] - b_G[None, :]
        reads = (r_G[:, None] <= s) & (s <= t)
    else:
        b_x = b_E[None, :] - b_E[:, None]
        reads = (r_E[None, :] < t) & (t <= s)
    b_W = weight(b_x, ~reads)
    return b_W if DIAGONAL == 1 else tl.where(t == s, DIAGONAL * 1.0, b_W)


@triton.jit(do_not_specialize=ALIKE)
def outputs_kernel(
    p_q, p_k, p_v, p_G, p_resets, p_lengths, p_S, p_o, L, chunks, slots, tokens, H, K, V, scale,
    q_b, q_l, q_h, k_b, k_l, k_h, v_b, v_l, v_h,
    FORWARD: tl.constexpr, BACKWARD: tl.constexpr, DIAGONAL: tl.constexpr, UNTIED: tl.constexpr,
    LENGTHS: tl.constexpr, DOT: tl.constexpr, PRECISION: tl.constexpr,
    BC: tl.constexpr, BK: tl.constexpr, BV: tl.constexpr,
):  # fmt: skip
    """o = A v + what q reads from the states at the chunk's boundaries."""
    i_h, i_r, first, length, start, i_slot = chunk_of(p_lengths, L, chunks, H, LENGTHS, BC)
    o_c, o_k, o_v = tl.arange(0, BC), tl.arange(0, BK), tl.arange(0, BV)
    o_l = start + o_c
    m_l, m_k, m_v = (o_l < length)[:, None], (o_k < K)[None, :], (o_v < V)[None, :]
    m_S, o_S = (o_k < K)[:, None] & m_v & (start < length), o_k[:, None] * V + o_v[None, :]
    p_q += i_r * q_b + first * q_l + i_h * q_h
    p_k += i_r * k_b + first * k_l + i_h * k_h
    p_v += i_r * v_b + first * v_l + i_h * v_h
    i_gate, untied = (i_r * L + first) * H + i_h, UNTIED * tokens.to(tl.int64) * H
    p_G += i_gate
    p_resets += i_gate
    p_o += i_gate * V
    state = (H * K * V).to(tl.int64)  # from a boundary to the next
    p_S += i_slot * state + i_h * K * V
    b_q = tl.load(p_q + o_l[:, None] * q_l + o_k[None, :], m_l & m_k, 0.0)
    b_k = tl.load(p_k + o_l[:, None] * k_l + o_k[None, :], m_l & m_k, 0.0)
    b_v = tl.load(p_v + o_l[:, None] * v_l + o_v[None, :], m_l & m_v, 0.0)
    b_G, r_G = gate(p_G, p_resets, o_l, start, length, 0, H)
    b_E, r_E = gate(p_G + untied, p_resets + untied, o_l, start, length, 1, H)
    b_W = weights(b_G, r_G, b_E, r_E, o_c, FORWARD, BACKWARD, DIAGONAL)
    b_o = product(product(b_q, tl.trans(b_k), DOT, PRECISION) * b_W, b_v, DOT, PRECISION)
    if FORWARD:
        b_S = tl.load(p_S + o_S, m_S, 0.0)
        b_o += product(b_q, b_S, DOT, PRECISION) * weight(b_G, r_G >= 0)[:, None]
    if BACKWARD:
        b_S = tl.load(p_S + (FORWARD * slots + 1) * state + o_S, m_S, 0.0)
        b_T, r_T = whole(p_G + untied, p_resets + untied, start, length, H, BC)
        b_o += product(b_q, b_S, DOT, PRECISION) * weight(b_T - b_E, r_T >= o_c)[:, None]
    # Padding within the row has an o of 0.
    inside = o_l < L if LENGTHS < 2 else o_l < length
    tl.store(p_o + o_l[:, None] * (H * V) + o_v[None, :], tl.where(m_l, b_o * scale, 0.0), inside[:, None] & m_v)


@triton.jit(do_not_specialize=ALIKE)
def gradients_kernel(
    p_q, p_k, p_v, p_G, p_resets, p_lengths, p_do, p_S, p_dS, p_dq, p_dk, p_dv, p_dg,
    L, chunks, slots, tokens, H, K, V, scale,
    q_b, q_l, q_h, k_b, k_l, k_h, v_b, v_l, v_h,
    FORWARD: tl.constexpr, BACKWARD: tl.constexpr, DIAGONAL: tl.constexpr, UNTIED: tl.constexpr,
    LENGTHS: tl.constexpr, DOT: tl.constexpr, PRECISION: tl.constexpr,
    BC: tl.constexpr, BK: tl.constexpr, BV: tl.constexpr,
):  # fmt: skip
    """Gradients of q, k, v and g. A gate has a part in every pair of tokens on either side of it, of which the one
    reads from the other, and its gradient is the sum over them of what is read times its gradient. Pairs within the
    chunk: a difference of sums over the rows and columns of their matrix. Pairs with tokens elsewhere: sums of what
    tokens beyond the gate read, of what those before it wrote, and of what passes through the chunk."""
    i_h, i_r, first, length, start, i_slot = chunk_of(p_lengths, L, chunks, H, LENGTHS, BC)
    o_c, o_k, o_v = tl.arange(0, BC), tl.arange(0, BK), tl.arange(0, BV)
    o_l = start + o_c
    m_l, m_k, m_v = (o_l < length)[:, None], (o_k < K)[None, :], (o_v < V)[None, :]
    m_S, o_S = (o_k < K)[:, None] & m_v & (start < length), o_k[:, None] * V + o_v[None, :]
    p_q += i_r * q_b + first * q_l + i_h * q_h
    p_k += i_r * k_b + first * k_l + i_h * k_h
    p_v += i_r * v_b + first * v_l + i_h * v_h
    i_o, untied = (i_r * L + first) * H + i_h, UNTIED * tokens.to(tl.int64) * H
    p_G += i_o
    p_resets += i_o
    state = (H * K * V).to(tl.int64)  # from a boundary to the next
    i_S = i_slot * state + i_h * K * V
    p_S += i_S
    p_dS += i_S
    p_dg += i_o
    o_o = o_l[:, None] * (H * V) + o_v[None, :]
    b_q = tl.load(p_q + o_l[:, None] * q_l + o_k[None, :], m_l & m_k, 0.0)
    b_k = tl.load(p_k + o_l[:, None] * k_l + o_k[None, :], m_l & m_k, 0.0)
    b_v = tl.load(p_v + o_l[:, None] * v_l + o_v[None, :], m_l & m_v, 0.0)
    b_do = tl.load(p_do + i_o * V + o_o, m_l & m_v, 0.0)
    b_G, r_G = gate(p_G, p_resets, o_l, start, length, 0, H)
    b_E, r_E = gate(p_G + untied, p_resets + untied, o_l, start, length, 1, H)
    b_W = weights(b_G, r_G, b_E, r_E, o_c, FORWARD, BACKWARD, DIAGONAL) * scale
    b_A = product(b_q, tl.trans(b_k), DOT, PRECISION) * b_W
    b_dA = product(b_do, tl.trans(b_v), DOT, PRECISION)
    b_dv = product(tl.trans(b_A), b_do, DOT, PRECISION)
    b_x = b_A * b_dA
    later = o_c[:, None] > o_c[None, :]
    b_pairs = tl.where(later, b_x, 0.0)
    b_sum = tl.sum(b_pairs, 1) - tl.sum(b_pairs, 0)
    b_pairs = tl.where(o_c[:, None] < o_c[None, :], b_x, 0.0)
    b_sum_back = tl.sum(b_pairs, 1) - tl.sum(b_pairs, 0)
    b_dA *= b_W
    b_dq = product(b_dA, b_k, DOT, PRECISION)
    b_dk = product(tl.trans(b_dA), b_q, DOT, PRECISION)
    b_dg = tl.zeros([BC], tl.float32)
    for i in tl.static_range(FORWARD + BACKWARD):
        back = i + 1 - FORWARD
        b_X, r_X = gate(p_G + i * untied, p_resets + i * untied, o_l, start, length, back, H)
        b_T, r_T = whole(p_G + i * untied, p_resets + i * untied, start, length, H, BC)
        b_until, b_rest = weight(b_X, r_X >= 0), weight(b_T - b_X, r_T > o_c - back)
        b_reads, b_leaves = tl.where(back == 1, b_rest, b_until), tl.where(back == 1, b_until, b_rest)
        b_dqS, b_dkS, b_dvS, b_through = across(
            p_S + (i * slots + back) * state, p_dS + (i * slots + 1 - back) * state, o_S, m_S, b_q, b_k, b_v, b_do,
            (b_reads * scale)[:, None], b_leaves[:, None], DOT, PRECISION,
        )  # fmt: skip
        b_dq += b_dqS
        b_dk += b_dkS
        b_dv += b_dvS
        b_read, b_written = tl.sum(b_q * b_dqS, 1), tl.sum(b_k * b_dkS, 1)
        b_read += tl.where(back == 1, b_sum_back, b_sum)
        b_early, b_late = tl.where(back == 1, b_read, b_written), tl.where(back == 1, b_written, b_read)
        b_gated = tl.cumsum(b_early, 0) + tl.sum(b_late) - tl.cumsum(b_late, 0) + b_late - b_written
        b_gated += tl.sum(b_through) * weight(b_T, r_T >= 0)
        _, r_own = gate(p_G + i * untied, p_resets + i * untied, o_l, start, length, 0, H)
        b_gated = tl.where(r_own == o_c, 0.0, b_gated)
        if UNTIED:
            tl.store(p_dg + i * untied + o_l * H, b_gated, o_l < length)
        b_dg += b_gated
    if not UNTIED:
        tl.store(p_dg + o_l * H, b_dg, o_l < length)
    tl.store(p_dq + i_o * K + o_l[:, None] * (H * K) + o_k[None, :], b_dq, m_l & m_k)
    tl.store(p_dk + i_o * K + o_l[:, None] * (H * K) + o_k[None, :], b_dk, m_l & m_k)
    tl.store(p_dv + i_o * V + o_o, b_dv, m_l & m_v)
