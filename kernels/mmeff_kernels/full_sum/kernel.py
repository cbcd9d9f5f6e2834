"""Order-free linear attention in Triton: a pass that sums over tokens, and a pass in which each token reads the sum.

A program of `sums_kernel` walks the tokens of a chunk of one row and head, with a block of BK features of the sum S
(K, V) in registers; the chunks' sums are added by torch. A program of `reads_kernel` walks a part of a row. The
backward pass has the same form: `queries_kernel` walks a chunk, writes q's gradient and sums that of S, and in
`keys_kernel` each token reads that sum. Features and rotations are computed where they are needed and never stored. Of
each row and head S (K, V) and after it z (K,) lie in one tensor `sums`.

With a rotation a block holds BK / 2 pairs: all first features, then all partners. Both halves are loaded as tiles of
their own, computed side by side and joined for the products alone.
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
def joined(b_left, b_right):
    """Two tiles side by side."""
    b_pairs = tl.permute(tl.join(b_left, b_right), [0, 2, 1])
    return tl.reshape(b_pairs, [b_left.shape[0], 2 * b_left.shape[1]])


@triton.jit
def halves(b_x):
    """The left and the right half of a tile."""
    b_pairs = tl.reshape(b_x, [b_x.shape[0], 2, b_x.shape[1] // 2])
    return tl.split(tl.permute(b_pairs, [0, 2, 1]))


@triton.jit
def columns(i_block, K, ROTATE: tl.constexpr, BK: tl.constexpr):
    """Of a block: its features and which of them there are; what to load, which of that there is, and how far partners
    lie from it."""
    if ROTATE:
        BH: tl.constexpr = BK // 2
        half = K // 2
        o_k, o_x = tl.arange(0, BK), i_block * BH + tl.arange(0, BH)
        o_pair = i_block * BH + o_k % BH
        return o_k // BH * half + o_pair, o_pair < half, o_x, o_x < half, half
    else:
        o_k = i_block * BK + tl.arange(0, BK)
        return o_k, o_k < K, o_k, o_k < K, 0


@triton.jit
def features(
    p_x, p_cos, p_sin, o_l, x_l, o_x, half, m, FEATURE: tl.constexpr, ROTATE: tl.constexpr,
):  # fmt: skip
    """Of tokens o_l: phi and its derivative at features o_x and at their partners, and the rotation's cos and sin.
    Without a rotation there are no partners, and the last four are not to be used."""
    p_x += o_l[:, None] * x_l + o_x[None, :]
    b_f, b_slope = phi(tl.load(p_x, m, 0.0), m, FEATURE)
    b_partner, b_other, b_cos, b_sin = b_f, b_slope, b_f, b_f
    if ROTATE:
        b_partner, b_other = phi(tl.load(p_x + half, m, 0.0), m, FEATURE)
        o_table = o_l[:, None] * half + o_x[None, :]
        b_cos = tl.load(p_cos + o_table, m, 0.0).to(tl.float32)
        b_sin = tl.load(p_sin + o_table, m, 0.0).to(tl.float32)
    return b_f, b_slope, b_partner, b_other, b_cos, b_sin


@triton.jit
def turned(b_f, b_partner, b_cos, b_sin, ROTATE: tl.constexpr, DOT: tl.constexpr):
    """Features as the products take them: rotated, both halves in one tile."""
    if ROTATE:
        b_left, b_right = b_f * b_cos - b_partner * b_sin, b_f * b_sin + b_partner * b_cos
        return joined(b_left.to(DOT), b_right.to(DOT))
    else:
        return b_f.to(DOT)


@triton.jit
def turned_back(b_g, b_cos, b_sin, ROTATE: tl.constexpr):
    """The gradients of features and of their partners, from that of what `turned` gave."""
    if ROTATE:
        b_left, b_right = halves(b_g)
        return b_left * b_cos + b_right * b_sin, b_right * b_cos - b_left * b_sin
    else:
        return b_g, b_g


@triton.jit
def load_sums(p_sums, o_k, m_k, o_x, m_x, half, K, V, o_v, ROTATE: tl.constexpr):
    """A block of S, and of z at the features that are loaded and at their partners."""
    b_S = tl.load(p_sums + o_k[:, None] * V + o_v[None, :], m_k[:, None] & (o_v < V)[None, :], 0.0)
    p_sums += K * V + o_x
    b_z = tl.load(p_sums, m_x, 0.0)
    b_partner = b_z
    if ROTATE:
        b_partner = tl.load(p_sums + half, m_x, 0.0)
    return b_S, b_z, b_partner


@triton.jit
def store_z(p_z, o_x, m_x, half, b_z, b_other, ROTATE: tl.constexpr):
    tl.store(p_z + o_x, b_z, m_x)
    if ROTATE:
        tl.store(p_z + half + o_x, b_other, m_x)


@triton.jit(do_not_specialize=ALIKE)
def sums_kernel(
    p_k, p_v, p_cos, p_sin, p_lengths, p_sums, L, rows, span, chunks, H, K, V,
    k_b, k_l, k_h, v_b, v_l, v_h,
    FEATURE: tl.constexpr, ROTATE: tl.constexpr, LENGTHS: tl.constexpr,
    DOT: tl.constexpr, PRECISION: tl.constexpr, BL: tl.constexpr, BK: tl.constexpr, BV: tl.constexpr,
):  # fmt: skip
    """S += r(phi(k))^T v, z += phi(k), each program over its chunk: sums (chunks, rows, H, K (V + 1))."""
    blocks = tl.cdiv(K, BK)
    i_block, i_rh = tl.program_id(0) % blocks, tl.program_id(0) // blocks
    i_chunk, i_row, i_h = i_rh // (rows * H), (i_rh // H % rows).to(tl.int64), (i_rh % H).to(tl.int64)
    i_r, first, length = place(i_row, p_lengths, L, LENGTHS)
    o_k, m_k, o_x, m_x, half = columns(i_block, K, ROTATE, BK)
    o_v = tl.arange(0, BV)
    m_v = o_v < V
    p_k += i_r * k_b + first * k_l + i_h * k_h
    p_v += i_r * v_b + first * v_l + i_h * v_h
    if ROTATE:
        p_cos += first * half
        p_sin += first * half
    b_S = tl.zeros([BK, BV], tl.float32)
    b_z, b_z_partner = tl.zeros([o_x.shape[0]], tl.float32), tl.zeros([o_x.shape[0]], tl.float32)
    start = i_chunk * span
    for s in range(start, tl.minimum(start + span, length), BL):
        o_l = s + tl.arange(0, BL)
        m_l = (o_l < length)[:, None]
        b_f, _, b_partner, _, b_cos, b_sin = features(
            p_k, p_cos, p_sin, o_l, k_l, o_x, half, m_l & m_x[None, :], FEATURE, ROTATE
        )
        b_v = tl.load(p_v + o_l[:, None] * v_l + o_v[None, :], m_l & m_v[None, :], 0.0)
        b_S += product(tl.trans(turned(b_f, b_partner, b_cos, b_sin, ROTATE, DOT)), b_v, DOT, PRECISION)
        b_z += tl.sum(b_f, 0)
        if ROTATE:
            b_z_partner += tl.sum(b_partner, 0)
    p_sums += i_rh.to(tl.int64) * K * (V + 1)
    tl.store(p_sums + o_k[:, None] * V + o_v[None, :], b_S, m_k[:, None] & m_v[None, :])
    store_z(p_sums + K * V, o_x, m_x, half, b_z, b_z_partner, ROTATE)


@triton.jit
def read(
    p_q, p_cos, p_sin, o_l, q_l, o_x, half, m, b_S, b_z, b_z_partner,
    FEATURE: tl.constexpr, ROTATE: tl.constexpr, DOT: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """What tokens read of a block of features: the numerator and the denominator."""
    b_f, _, b_partner, _, b_cos, b_sin = features(p_q, p_cos, p_sin, o_l, q_l, o_x, half, m, FEATURE, ROTATE)
    b_n = product(turned(b_f, b_partner, b_cos, b_sin, ROTATE, DOT), b_S, DOT, PRECISION)
    b_w = b_f * b_z[None, :]
    if ROTATE:
        b_w += b_partner * b_z_partner[None, :]
    return b_n, tl.sum(b_w, 1)


@triton.jit(do_not_specialize=ALIKE)
def reads_kernel(
    p_q, p_cos, p_sin, p_lengths, p_sums, p_o, p_w, L, walk, walks, H, K, V, scale, eps,
    q_b, q_l, q_h,
    FEATURE: tl.constexpr, ROTATE: tl.constexpr, LENGTHS: tl.constexpr, NORMALIZE: tl.constexpr,
    DOT: tl.constexpr, PRECISION: tl.constexpr, BL: tl.constexpr, BK: tl.constexpr, BV: tl.constexpr,
    ONE: tl.constexpr,
):  # fmt: skip
    """o = scale r(phi(q))^T S / w, w = phi(q)^T z + eps. ONE: all features are in one block, kept in registers."""
    i_walk, i_rh = tl.program_id(0) % walks, tl.program_id(0) // walks
    i_row, i_h = (i_rh // H).to(tl.int64), (i_rh % H).to(tl.int64)
    i_r, first, length = place(i_row, p_lengths, L, LENGTHS)
    o_v = tl.arange(0, BV)
    m_v = o_v < V
    p_q += i_r * q_b + first * q_l + i_h * q_h
    if ROTATE:
        p_cos += first * (K // 2)
        p_sin += first * (K // 2)
    p_sums += i_rh.to(tl.int64) * K * (V + 1)
    i_o = (i_r * L + first) * H + i_h
    if ONE:
        o_k, m_k, o_x, m_x, half = columns(0, K, ROTATE, BK)
        b_S, b_z, b_z_partner = load_sums(p_sums, o_k, m_k, o_x, m_x, half, K, V, o_v, ROTATE)
        b_S = b_S.to(DOT)
    start = i_walk * walk
    # Padding within the row has an o of 0.
    end = tl.minimum(start + walk, L if LENGTHS < 2 else length)
    for s in range(start, end, BL):
        o_l = s + tl.arange(0, BL)
        m_l = (o_l < length)[:, None]
        if ONE:
            b_n, b_w = read(
                p_q, p_cos, p_sin, o_l, q_l, o_x, half, m_l & m_x[None, :], b_S, b_z, b_z_partner,
                FEATURE, ROTATE, DOT, PRECISION,
            )  # fmt: skip
        else:
            b_n, b_w = tl.zeros([BL, BV], tl.float32), tl.zeros([BL], tl.float32)
            for i_block in range(0, tl.cdiv(K, BK)):
                o_k, m_k, o_x, m_x, half = columns(i_block, K, ROTATE, BK)
                b_S, b_z, b_z_partner = load_sums(p_sums, o_k, m_k, o_x, m_x, half, K, V, o_v, ROTATE)
                b_part, b_share = read(
                    p_q, p_cos, p_sin, o_l, q_l, o_x, half, m_l & m_x[None, :], b_S, b_z, b_z_partner,
                    FEATURE, ROTATE, DOT, PRECISION,
                )  # fmt: skip
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
def store_gradient(p_dx, o_l, d_l, o_x, half, m, b_df, b_partner, b_slope, b_other, ROTATE: tl.constexpr):
    """Of q or k, from those of features and of their partners."""
    p_dx += o_l[:, None] * d_l + o_x[None, :]
    tl.store(p_dx, b_df * b_slope, m)
    if ROTATE:
        tl.store(p_dx + half, b_partner * b_other, m)


@triton.jit(do_not_specialize=ALIKE)
def queries_kernel(
    p_q, p_cos, p_sin, p_lengths, p_sums, p_o, p_w, p_do, p_dq, p_dsums, L, rows, span, chunks, H, K, V, scale,
    q_b, q_l, q_h, d_b, d_l,
    FEATURE: tl.constexpr, ROTATE: tl.constexpr, LENGTHS: tl.constexpr, NORMALIZE: tl.constexpr,
    DOT: tl.constexpr, PRECISION: tl.constexpr, BL: tl.constexpr, BK: tl.constexpr, BV: tl.constexpr,
    ONE: tl.constexpr,
):  # fmt: skip
    """With dn = scale do / w and dw = -do o / w: q's gradient from S dn and dw z, and the sums dS of r(phi(q)) dn^T and
    dz of dw phi(q), each program over its chunk. ONE: all features are in the block, so that do o = phi(q)^T S dn tells
    dw without o."""
    blocks = tl.cdiv(K, BK)
    i_block, i_crh = tl.program_id(0) % blocks, tl.program_id(0) // blocks
    i_chunk, i_rh = i_crh // (rows * H), i_crh % (rows * H)
    i_row, i_h = (i_rh // H).to(tl.int64), (i_rh % H).to(tl.int64)
    i_r, first, length = place(i_row, p_lengths, L, LENGTHS)
    o_k, m_k, o_x, m_x, half = columns(i_block, K, ROTATE, BK)
    o_v = tl.arange(0, BV)
    m_v = o_v < V
    p_q += i_r * q_b + first * q_l + i_h * q_h
    p_dq += i_r * d_b + first * d_l + i_h * K
    if ROTATE:
        p_cos += first * half
        p_sin += first * half
    p_sums += i_rh.to(tl.int64) * K * (V + 1)
    b_S, b_z, b_z_partner = load_sums(p_sums, o_k, m_k, o_x, m_x, half, K, V, o_v, ROTATE)
    b_S = b_S.to(DOT)
    b_dS = tl.zeros([BK, BV], tl.float32)
    b_dz, b_dz_partner = tl.zeros([o_x.shape[0]], tl.float32), tl.zeros([o_x.shape[0]], tl.float32)
    i_o = (i_r * L + first) * H + i_h
    p_o += i_o * V
    p_do += i_o * V
    p_w += i_o
    start = i_chunk * span
    for s in range(start, tl.minimum(start + span, length), BL):
        o_l = s + tl.arange(0, BL)
        m_l = (o_l < length)[:, None]
        m = m_l & m_x[None, :]
        o_o = o_l[:, None] * (H * V) + o_v[None, :]
        b_do = tl.load(p_do + o_o, m_l & m_v[None, :], 0.0)
        b_f, b_slope, b_partner, b_other, b_cos, b_sin = features(
            p_q, p_cos, p_sin, o_l, q_l, o_x, half, m, FEATURE, ROTATE
        )
        b_share = tl.zeros([BL], tl.float32) + scale  # dn = do * share
        if NORMALIZE:
            b_w = tl.load(p_w + o_l * H, o_l < length, 1.0)
            b_share = scale / b_w
        b_df, b_df_partner = turned_back(
            product(b_do, tl.trans(b_S), DOT, PRECISION) * b_share[:, None], b_cos, b_sin, ROTATE
        )
        if NORMALIZE:
            if ONE:
                b_along = b_f * b_df
                if ROTATE:
                    b_along += b_partner * b_df_partner
            else:
                b_along = b_do.to(tl.float32) * tl.load(p_o + o_o, m_l & m_v[None, :], 0.0).to(tl.float32)
            b_dw = -tl.sum(b_along, 1) / b_w
            b_df += b_dw[:, None] * b_z[None, :]
            b_dz += tl.sum(b_f * b_dw[:, None], 0)
            if ROTATE:
                b_df_partner += b_dw[:, None] * b_z_partner[None, :]
                b_dz_partner += tl.sum(b_partner * b_dw[:, None], 0)
        store_gradient(p_dq, o_l, d_l, o_x, half, m, b_df, b_df_partner, b_slope, b_other, ROTATE)
        b_turned = turned(b_f * b_share[:, None], b_partner * b_share[:, None], b_cos, b_sin, ROTATE, DOT)
        b_dS += product(tl.trans(b_turned), b_do, DOT, PRECISION)
    p_dsums += i_crh.to(tl.int64) * K * (V + 1)
    tl.store(p_dsums + o_k[:, None] * V + o_v[None, :], b_dS, m_k[:, None] & m_v[None, :])
    store_z(p_dsums + K * V, o_x, m_x, half, b_dz, b_dz_partner, ROTATE)


@triton.jit
def written(
    p_k, p_cos, p_sin, p_dk, o_l, k_l, d_l, o_x, half, m, b_v, b_dS, b_dz, b_dz_partner,
    FEATURE: tl.constexpr, ROTATE: tl.constexpr, DOT: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """By what tokens wrote into a block of features: k's gradient, stored, and their part of v's."""
    b_f, b_slope, b_partner, b_other, b_cos, b_sin = features(
        p_k, p_cos, p_sin, o_l, k_l, o_x, half, m, FEATURE, ROTATE
    )
    b_df, b_df_partner = turned_back(product(b_v, tl.trans(b_dS), DOT, PRECISION), b_cos, b_sin, ROTATE)
    b_df += b_dz[None, :]
    b_df_partner += b_dz_partner[None, :]
    store_gradient(p_dk, o_l, d_l, o_x, half, m, b_df, b_df_partner, b_slope, b_other, ROTATE)
    return product(turned(b_f, b_partner, b_cos, b_sin, ROTATE, DOT), b_dS, DOT, PRECISION)


@triton.jit(do_not_specialize=ALIKE)
def keys_kernel(
    p_k, p_v, p_cos, p_sin, p_lengths, p_dsums, p_dk, p_dv, L, walk, walks, H, K, V,
    k_b, k_l, k_h, v_b, v_l, v_h, d_b, d_l,
    FEATURE: tl.constexpr, ROTATE: tl.constexpr, LENGTHS: tl.constexpr,
    DOT: tl.constexpr, PRECISION: tl.constexpr, BL: tl.constexpr, BK: tl.constexpr, BV: tl.constexpr,
    ONE: tl.constexpr,
):  # fmt: skip
    """dv = dS^T r(phi(k)), and k's gradient from dS v and dz. ONE: as in `reads_kernel`."""
    i_walk, i_rh = tl.program_id(0) % walks, tl.program_id(0) // walks
    i_row, i_h = (i_rh // H).to(tl.int64), (i_rh % H).to(tl.int64)
    i_r, first, length = place(i_row, p_lengths, L, LENGTHS)
    o_v = tl.arange(0, BV)
    m_v = (o_v < V)[None, :]
    p_k += i_r * k_b + first * k_l + i_h * k_h
    p_v += i_r * v_b + first * v_l + i_h * v_h
    p_dk += i_r * d_b + first * d_l + i_h * K
    p_dv += i_r * d_b + first * d_l + i_h * V
    if ROTATE:
        p_cos += first * (K // 2)
        p_sin += first * (K // 2)
    p_dsums += i_rh.to(tl.int64) * K * (V + 1)
    if ONE:
        o_k, m_k, o_x, m_x, half = columns(0, K, ROTATE, BK)
        b_dS, b_dz, b_dz_partner = load_sums(p_dsums, o_k, m_k, o_x, m_x, half, K, V, o_v, ROTATE)
        b_dS = b_dS.to(DOT)
    start = i_walk * walk
    for s in range(start, tl.minimum(start + walk, length), BL):
        o_l = s + tl.arange(0, BL)
        m_l = (o_l < length)[:, None]
        b_v = tl.load(p_v + o_l[:, None] * v_l + o_v[None, :], m_l & m_v, 0.0)
        if ONE:
            b_dv = written(
                p_k, p_cos, p_sin, p_dk, o_l, k_l, d_l, o_x, half, m_l & m_x[None, :], b_v, b_dS, b_dz, b_dz_partner,
                FEATURE, ROTATE, DOT, PRECISION,
            )  # fmt: skip
        else:
            b_dv = tl.zeros([BL, BV], tl.float32)
            for i_block in range(0, tl.cdiv(K, BK)):
                o_k, m_k, o_x, m_x, half = columns(i_block, K, ROTATE, BK)
                b_dS, b_dz, b_dz_partner = load_sums(p_dsums, o_k, m_k, o_x, m_x, half, K, V, o_v, ROTATE)
                b_dv += written(
                    p_k, p_cos, p_sin, p_dk, o_l, k_l, d_l, o_x, half, m_l & m_x[None, :], b_v,
                    b_dS, b_dz, b_dz_partner, FEATURE, ROTATE, DOT, PRECISION,
                )  # fmt: skip
        tl.store(p_dv + o_l[:, None] * d_l + o_v[None, :], b_dv, m_l & m_v)
