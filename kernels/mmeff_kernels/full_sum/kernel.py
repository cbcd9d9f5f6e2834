"""Order-free linear attention in Triton: a pass that sums over tokens, and a pass in which each token reads the sum.

A program of `sums_kernel` walks the tokens of a chunk of one row and head, with a block of BK features of the sum S
(K, V) in registers; the chunks' sums are added by torch. A program of `reads_kernel` takes BL tokens. The backward pass
has the same form: `queries_kernel` walks a chunk, writes q's gradient and sums that of S, and in `keys_kernel` each
token reads that sum. Features and rotations are computed where they are needed and never stored.

Rotation: feature k of a rotated pair is phi_k cos + sign_k phi_partner sin, so a tile of features is loaded a second
time at its partners' places, which lie near.
"""

# pyright: reportGeneralTypeIssues=false, reportPossiblyUnboundVariable=false

import triton
import triton.language as tl

from ..tiles import place, product

LOG2_E = tl.constexpr(1.4426950408889634)
#: Numbers whose values do not make another kernel.
ALIKE = ["L", "rows", "span", "chunks", "walk", "walks"]


@triton.jit
def phi(b_x, m, FEATURE: tl.constexpr):
    """The feature map and its derivative, fp32; 0 where the mask is."""
    b_x = b_x.to(tl.float32)
    b_f, b_slope = b_x, b_x * 0.0 + 1.0
    if FEATURE == 0:
        b_e = tl.exp2(tl.minimum(b_x, 0.0) * LOG2_E)
        b_f, b_slope = tl.where(b_x > 0, b_x + 1.0, b_e), b_e
    if FEATURE == 1:
        b_f, b_slope = tl.maximum(b_x, 0.0), tl.where(b_x > 0, 1.0, 0.0)
    return tl.where(m, b_f, 0.0), b_slope


@triton.jit
def pairs(o_k, K):
    """Of rotated features: their partners in the pair, the pair's number, and the sign of the partner's part."""
    half = K // 2
    first = o_k < half
    return tl.where(first, o_k + half, o_k - half), tl.where(first, o_k, o_k - half), tl.where(first, -1.0, 1.0)


@triton.jit
def features(p_x, p_cos, p_sin, o_l, x_l, o_k, K, m, FEATURE: tl.constexpr, ROTATE: tl.constexpr):
    """phi, its derivative, phi rotated, and the cos and signed sin of the rotation, of tokens o_l and features o_k."""
    b_f, b_slope = phi(tl.load(p_x + o_l[:, None] * x_l + o_k[None, :], m, 0.0), m, FEATURE)
    b_turned, b_cos, b_sin = b_f, b_f, b_f
    if ROTATE:
        o_partner, o_pair, b_sign = pairs(o_k, K)
        o_table = o_l[:, None] * (K // 2) + o_pair[None, :]
        b_cos, b_sin = tl.load(p_cos + o_table, m, 0.0), tl.load(p_sin + o_table, m, 0.0) * b_sign[None, :]
        b_partner, _ = phi(tl.load(p_x + o_l[:, None] * x_l + o_partner[None, :], m, 0.0), m, FEATURE)
        b_turned = b_f * b_cos + b_partner * b_sin
    return b_f, b_slope, b_turned, b_cos, b_sin


@triton.jit(do_not_specialize=ALIKE)
def sums_kernel(
    p_k, p_v, p_cos, p_sin, p_lengths, p_S, p_z, L, rows, span, chunks, H, K, V,
    k_b, k_l, k_h, v_b, v_l, v_h,
    FEATURE: tl.constexpr, ROTATE: tl.constexpr, LENGTHS: tl.constexpr,
    DOT: tl.constexpr, PRECISION: tl.constexpr, BL: tl.constexpr, BK: tl.constexpr, BV: tl.constexpr,
):  # fmt: skip
    """S (chunks, rows, H, K, V) += r(phi(k))^T v, z (chunks, rows, H, K) += phi(k), each program over its chunk."""
    blocks = tl.cdiv(K, BK)
    i_block, i_rh = tl.program_id(0) % blocks, tl.program_id(0) // blocks
    i_chunk, i_row, i_h = i_rh // (rows * H), (i_rh // H % rows).to(tl.int64), (i_rh % H).to(tl.int64)
    i_r, first, length = place(i_row, p_lengths, L, LENGTHS)
    o_k, o_v = i_block * BK + tl.arange(0, BK), tl.arange(0, BV)
    m_k, m_v = o_k < K, o_v < V
    p_k += i_r * k_b + first * k_l + i_h * k_h
    if ROTATE:
        p_cos += first * (K // 2)
        p_sin += first * (K // 2)
    p_v += i_r * v_b + first * v_l + i_h * v_h
    b_S, b_z = tl.zeros([BK, BV], tl.float32), tl.zeros([BK], tl.float32)
    start = i_chunk * span
    for s in range(start, tl.minimum(start + span, length), BL):
        o_l = s + tl.arange(0, BL)
        m_l = (o_l < length)[:, None]
        b_f, _, b_turned, _, _ = features(p_k, p_cos, p_sin, o_l, k_l, o_k, K, m_l & m_k[None, :], FEATURE, ROTATE)
        b_v = tl.load(p_v + o_l[:, None] * v_l + o_v[None, :], m_l & m_v[None, :], 0.0)
        b_S += product(tl.trans(b_turned), b_v, DOT, PRECISION)
        b_z += tl.sum(b_f, 0)
    i_out = i_rh.to(tl.int64) * K
    tl.store(p_S + (i_out + o_k)[:, None] * V + o_v[None, :], b_S, m_k[:, None] & m_v[None, :])
    tl.store(p_z + i_out + o_k, b_z, m_k)


@triton.jit
def read(
    p_q, p_cos, p_sin, o_l, q_l, o_k, K, m, b_S, b_z,
    FEATURE: tl.constexpr, ROTATE: tl.constexpr, DOT: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """What tokens read of a block of features: the numerator and the denominator."""
    b_f, _, b_turned, _, _ = features(p_q, p_cos, p_sin, o_l, q_l, o_k, K, m, FEATURE, ROTATE)
    return product(b_turned, b_S, DOT, PRECISION), tl.sum(b_f * b_z[None, :], 1)


@triton.jit(do_not_specialize=ALIKE)
def reads_kernel(
    p_q, p_cos, p_sin, p_lengths, p_S, p_z, p_o, p_w, L, walk, walks, H, K, V, scale, eps,
    q_b, q_l, q_h,
    FEATURE: tl.constexpr, ROTATE: tl.constexpr, LENGTHS: tl.constexpr, NORMALIZE: tl.constexpr,
    DOT: tl.constexpr, PRECISION: tl.constexpr, BL: tl.constexpr, BK: tl.constexpr, BV: tl.constexpr,
    ONE: tl.constexpr,
):  # fmt: skip
    """o = scale r(phi(q))^T S / w, w = phi(q)^T z + eps. ONE: all features are in one block, kept in registers."""
    i_walk, i_rh = tl.program_id(0) % walks, tl.program_id(0) // walks
    i_row, i_h = (i_rh // H).to(tl.int64), (i_rh % H).to(tl.int64)
    i_r, first, length = place(i_row, p_lengths, L, LENGTHS)
    o_k, o_v = tl.arange(0, BK), tl.arange(0, BV)
    m_v = o_v < V
    p_q += i_r * q_b + first * q_l + i_h * q_h
    if ROTATE:
        p_cos += first * (K // 2)
        p_sin += first * (K // 2)
    p_S += i_rh.to(tl.int64) * K * V
    p_z += i_rh.to(tl.int64) * K
    i_o = (i_r * L + first) * H + i_h
    if ONE:
        b_S = tl.load(p_S + o_k[:, None] * V + o_v[None, :], (o_k < K)[:, None] & m_v[None, :], 0.0).to(DOT)
        b_z = tl.load(p_z + o_k, o_k < K, 0.0)
    start = i_walk * walk
    # Padding within the row has an o of 0.
    end = tl.minimum(start + walk, L if LENGTHS < 2 else length)
    for s in range(start, end, BL):
        o_l = s + tl.arange(0, BL)
        m_l = (o_l < length)[:, None]
        if ONE:
            b_n, b_w = read(
                p_q, p_cos, p_sin, o_l, q_l, o_k, K, m_l & (o_k < K)[None, :], b_S, b_z, FEATURE, ROTATE, DOT, PRECISION
            )
        else:
            b_n, b_w = tl.zeros([BL, BV], tl.float32), tl.zeros([BL], tl.float32)
            for block in range(0, K, BK):
                o_b = block + o_k
                m_b = o_b < K
                b_S = tl.load(p_S + o_b[:, None] * V + o_v[None, :], m_b[:, None] & m_v[None, :], 0.0)
                b_z = tl.load(p_z + o_b, m_b, 0.0)
                b_part, b_share = read(
                    p_q, p_cos, p_sin, o_l, q_l, o_b, K, m_l & m_b[None, :], b_S, b_z, FEATURE, ROTATE, DOT, PRECISION
                )
                b_n += b_part
                b_w += b_share
        b_n *= scale
        if NORMALIZE:
            b_w += eps
            b_n = b_n / b_w[:, None]
            tl.store(p_w + i_o + o_l * H, b_w, o_l < length)
        o_o = o_l[:, None] * (H * V) + o_v[None, :]
        tl.store(p_o + i_o * V + o_o, tl.where(m_l, b_n, 0.0), (o_l < end)[:, None] & m_v[None, :])


@triton.jit
def turned_back(b_g, b_S, b_a, b_cos, b_sin, ROTATE: tl.constexpr, DOT: tl.constexpr, PRECISION: tl.constexpr):
    """The gradient of phi, from that of its rotated form, a S^T: the inverse rotation takes the partners' part from a
    product with the partners' rows of S."""
    if ROTATE:
        b_g = b_g * b_cos - product(b_a, tl.trans(b_S), DOT, PRECISION) * b_sin
    return b_g


@triton.jit(do_not_specialize=ALIKE)
def queries_kernel(
    p_q, p_cos, p_sin, p_lengths, p_S, p_z, p_o, p_w, p_do, p_dq, p_dS, p_dz, L, rows, span, chunks, H, K, V, scale,
    q_b, q_l, q_h,
    FEATURE: tl.constexpr, ROTATE: tl.constexpr, LENGTHS: tl.constexpr, NORMALIZE: tl.constexpr,
    DOT: tl.constexpr, PRECISION: tl.constexpr, BL: tl.constexpr, BK: tl.constexpr, BV: tl.constexpr,
):  # fmt: skip
    """With dn = scale do / w and dw = -do o / w: q's gradient from S dn and dw z, and the sums dS of r(phi(q)) dn^T and
    dz of dw phi(q), each program over its chunk."""
    blocks = tl.cdiv(K, BK)
    i_block, i_crh = tl.program_id(0) % blocks, tl.program_id(0) // blocks
    i_chunk, i_rh = i_crh // (rows * H), i_crh % (rows * H)
    i_row, i_h = (i_rh // H).to(tl.int64), (i_rh % H).to(tl.int64)
    i_r, first, length = place(i_row, p_lengths, L, LENGTHS)
    o_k, o_v = i_block * BK + tl.arange(0, BK), tl.arange(0, BV)
    m_k, m_v = o_k < K, o_v < V
    m_S = m_k[:, None] & m_v[None, :]
    p_q += i_r * q_b + first * q_l + i_h * q_h
    if ROTATE:
        p_cos += first * (K // 2)
        p_sin += first * (K // 2)
    p_S += i_rh.to(tl.int64) * K * V
    o_S = o_k[:, None] * V + o_v[None, :]
    o_partner, _, _ = pairs(o_k, K)
    b_S = tl.load(p_S + o_S, m_S, 0.0)
    b_z = tl.zeros([BK], tl.float32)
    if NORMALIZE:
        b_z = tl.load(p_z + i_rh.to(tl.int64) * K + o_k, m_k, 0.0)
    b_dS, b_dz = tl.zeros([BK, BV], tl.float32), tl.zeros([BK], tl.float32)
    i_o = (i_r * L + first) * H + i_h
    p_o += i_o * V
    p_do += i_o * V
    p_dq += i_o * K
    p_w += i_o
    start = i_chunk * span
    for s in range(start, tl.minimum(start + span, length), BL):
        o_l = s + tl.arange(0, BL)
        m_l = (o_l < length)[:, None]
        m = m_l & m_k[None, :]
        b_f, b_slope, b_turned, b_cos, b_sin = features(p_q, p_cos, p_sin, o_l, q_l, o_k, K, m, FEATURE, ROTATE)
        o_o = o_l[:, None] * (H * V) + o_v[None, :]
        b_dn = tl.load(p_do + o_o, m_l & m_v[None, :], 0.0).to(tl.float32)
        b_dw = tl.zeros([BL], tl.float32)
        if NORMALIZE:
            b_w = tl.load(p_w + o_l * H, o_l < length, 1.0)
            b_dw = -tl.sum(b_dn * tl.load(p_o + o_o, m_l & m_v[None, :], 0.0).to(tl.float32), 1) / b_w
            b_dn = b_dn / b_w[:, None]
        b_dn *= scale
        b_df = product(b_dn, tl.trans(b_S), DOT, PRECISION)
        b_partner = b_S
        if ROTATE:
            b_partner = tl.load(p_S + o_partner[:, None] * V + o_v[None, :], m_S, 0.0)
        b_df = turned_back(b_df, b_partner, b_dn, b_cos, b_sin, ROTATE, DOT, PRECISION)
        if NORMALIZE:
            b_df += b_dw[:, None] * b_z[None, :]
            b_dz += tl.sum(b_f * b_dw[:, None], 0)
        tl.store(p_dq + o_l[:, None] * (H * K) + o_k[None, :], b_df * b_slope, m)
        b_dS += product(tl.trans(b_turned), b_dn, DOT, PRECISION)
    i_out = i_crh.to(tl.int64) * K
    tl.store(p_dS + (i_out + o_k)[:, None] * V + o_v[None, :], b_dS, m_S)
    tl.store(p_dz + i_out + o_k, b_dz, m_k)


@triton.jit
def written(
    p_k, p_cos, p_sin, p_dk, o_l, k_l, o_k, H, K, m, b_v, b_dS, b_partner, b_dz,
    FEATURE: tl.constexpr, ROTATE: tl.constexpr, DOT: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """By what tokens wrote into a block of features: k's gradient, stored, and their part of v's."""
    _, b_slope, b_turned, b_cos, b_sin = features(p_k, p_cos, p_sin, o_l, k_l, o_k, K, m, FEATURE, ROTATE)
    b_df = product(b_v, tl.trans(b_dS), DOT, PRECISION)
    b_df = turned_back(b_df, b_partner, b_v, b_cos, b_sin, ROTATE, DOT, PRECISION) + b_dz[None, :]
    tl.store(p_dk + o_l[:, None] * (H * K) + o_k[None, :], b_df * b_slope, m)
    return product(b_turned, b_dS, DOT, PRECISION)


@triton.jit
def gradients(p_dS, p_dz, o_k, K, V, o_v, ROTATE: tl.constexpr):
    """Of S and z: a block of features, and their partners' rows of S."""
    m_k = o_k < K
    m = m_k[:, None] & (o_v < V)[None, :]
    b_dS = tl.load(p_dS + o_k[:, None] * V + o_v[None, :], m, 0.0)
    b_partner = b_dS
    if ROTATE:
        o_partner, _, _ = pairs(o_k, K)
        b_partner = tl.load(p_dS + o_partner[:, None] * V + o_v[None, :], m, 0.0)
    return b_dS, b_partner, tl.load(p_dz + o_k, m_k, 0.0)


@triton.jit(do_not_specialize=ALIKE)
def keys_kernel(
    p_k, p_v, p_cos, p_sin, p_lengths, p_dS, p_dz, p_dk, p_dv, L, walk, walks, H, K, V,
    k_b, k_l, k_h, v_b, v_l, v_h,
    FEATURE: tl.constexpr, ROTATE: tl.constexpr, LENGTHS: tl.constexpr,
    DOT: tl.constexpr, PRECISION: tl.constexpr, BL: tl.constexpr, BK: tl.constexpr, BV: tl.constexpr,
    ONE: tl.constexpr,
):  # fmt: skip
    """dv = dS^T r(phi(k)), and k's gradient from dS v and dz. ONE: as in `reads_kernel`."""
    i_walk, i_rh = tl.program_id(0) % walks, tl.program_id(0) // walks
    i_row, i_h = (i_rh // H).to(tl.int64), (i_rh % H).to(tl.int64)
    i_r, first, length = place(i_row, p_lengths, L, LENGTHS)
    o_k, o_v = tl.arange(0, BK), tl.arange(0, BV)
    m_v = (o_v < V)[None, :]
    p_k += i_r * k_b + first * k_l + i_h * k_h
    p_v += i_r * v_b + first * v_l + i_h * v_h
    if ROTATE:
        p_cos += first * (K // 2)
        p_sin += first * (K // 2)
    p_dS += i_rh.to(tl.int64) * K * V
    p_dz += i_rh.to(tl.int64) * K
    i_o = (i_r * L + first) * H + i_h
    p_dk += i_o * K
    if ONE:
        b_dS, b_partner, b_dz = gradients(p_dS, p_dz, o_k, K, V, o_v, ROTATE)
    start = i_walk * walk
    for s in range(start, tl.minimum(start + walk, length), BL):
        o_l = s + tl.arange(0, BL)
        m_l = (o_l < length)[:, None]
        b_v = tl.load(p_v + o_l[:, None] * v_l + o_v[None, :], m_l & m_v, 0.0)
        if ONE:
            b_dv = written(
                p_k, p_cos, p_sin, p_dk, o_l, k_l, o_k, H, K, m_l & (o_k < K)[None, :], b_v, b_dS, b_partner, b_dz,
                FEATURE, ROTATE, DOT, PRECISION,
            )  # fmt: skip
        else:
            b_dv = tl.zeros([BL, BV], tl.float32)
            for block in range(0, K, BK):
                o_b = block + o_k
                b_dS, b_partner, b_dz = gradients(p_dS, p_dz, o_b, K, V, o_v, ROTATE)
                b_dv += written(
                    p_k, p_cos, p_sin, p_dk, o_l, k_l, o_b, H, K, m_l & (o_b < K)[None, :], b_v, b_dS, b_partner, b_dz,
                    FEATURE, ROTATE, DOT, PRECISION,
                )  # fmt: skip
        tl.store(p_dv + i_o * V + o_l[:, None] * (H * V) + o_v[None, :], b_dv, m_l & m_v)
