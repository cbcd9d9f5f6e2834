"""The three-neighbour line scan in Triton, forward and backward.

A program walks the lines of one direction, row of the batch and block of channels. What it takes from the line before
it reads back from global memory, one cell to either side; a barrier stands between the lines. What does not depend on
the line before is loaded one line ahead. Directions are steps from token to token: nothing is flipped or permuted.

What many programs add to is written by each of them apart and summed by torch: no atomics.
"""

# pyright: reportGeneralTypeIssues=false

import triton
import triton.language as tl


@triton.jit
def place(program, H, W, rows, n_blocks, code):
    """Of a program: direction, row and block of channels; of its direction: the token where the first line starts, the
    steps to the next line and the next cell, lines, cells. Two bits of `code` a direction: columns, backwards."""
    i_block = program % n_blocks
    i_b = (program // n_blocks % rows).to(tl.int64)
    i_k = program // n_blocks // rows
    way = ((i_k * 0 + code) >> (2 * i_k)) & 3
    rowwise = way < 2
    lines, cells = tl.where(rowwise, H, W), tl.where(rowwise, W, H)
    to_line, to_cell = tl.where(rowwise, W, 1), tl.where(rowwise, 1, W)
    back = (way & 1) == 1
    first = tl.where(back, (lines - 1) * to_line, 0)
    return i_k.to(tl.int64), i_b, i_block, first, tl.where(back, -to_line, to_line), to_cell, lines, cells


@triton.jit
def tile(p, o_t, o_d, t_l, m):
    """Tokens o_t and channels o_d of a tensor."""
    return tl.load(p + o_t.to(tl.int64)[:, None] * t_l + o_d[None, :], m, 0.0)


@triton.jit
def weight(p, o_t, o_d, t_l, m_t, m_d, SHARED: tl.constexpr):
    """One weight of tokens o_t: (BW, 1) if the channels share it, else (BW, BD)."""
    p += o_t.to(tl.int64)[:, None] * t_l
    # One return: the two differ in their shapes.
    b = tl.load(p, m_t[:, None], 0.0) if SHARED else tl.load(p + o_d[None, :], m_t[:, None] & m_d[None, :], 0.0)
    return b


@triton.jit
def forward_kernel(
    p_x, p_w, p_u, p_D, p_y, p_h, H, W, rows, n_blocks, channels, code,
    x_k, x_b, x_l, w_k, w_b, w_l, w_n, u_k, u_b, u_l, D_k,
    HAS_D: tl.constexpr, SHARED: tl.constexpr, KEEP: tl.constexpr, ONE: tl.constexpr,
    BW: tl.constexpr, BD: tl.constexpr,
):  # fmt: skip
    """y (K, B, H W, D); the states (K, B, H W, D) if KEEP, else those of two lines a program in turn.

    ONE: a tile holds a whole line.
    """
    program = tl.program_id(0)
    i_k, i_b, i_block, first, to_line, to_cell, lines, cells = place(program, H, W, rows, n_blocks, code)
    o_d = i_block * BD + tl.arange(0, BD)
    m_d = o_d < channels
    p_x += i_k * x_k + i_b * x_b
    p_w += i_k * w_k + i_b * w_b
    p_u += i_k * u_k + i_b * u_b
    own = (i_k * rows + i_b) * H * W * channels
    p_y += own
    o_hd = tl.arange(0, BD)
    if KEEP:
        p_h += own
        o_hd = o_d
    else:
        p_h += program.to(tl.int64) * 2 * tl.maximum(lines, cells) * BD
    b_D = tl.zeros([BD], tl.float32)
    if HAS_D:
        b_D = tl.load(p_D + i_k * D_k + o_d, m_d, 0.0)
    n_tiles = (cells + (BW - 1)) // BW
    i_line, i_tile = lines * 0, lines * 0
    o_c = tl.arange(0, BW)
    m_c = o_c < cells
    o_t = first + o_c * to_cell
    m = m_c[:, None] & m_d[None, :]
    b_x, b_u = tile(p_x, o_t, o_d, x_l, m), tile(p_u, o_t, o_d, u_l, m)
    b_wl = weight(p_w, o_t, o_d, w_l, m_c, m_d, SHARED)
    b_wm = weight(p_w + w_n, o_t, o_d, w_l, m_c, m_d, SHARED)
    b_wr = weight(p_w + 2 * w_n, o_t, o_d, w_l, m_c, m_d, SHARED)
    b_h = tl.zeros([BW, BD], tl.float32)
    for _ in range(0, lines * n_tiles):
        # One step ahead: the next tile of this line, or the first of the next.
        i_later, i_then = i_line + 1, i_tile
        if not ONE:
            last = i_tile + 1 == n_tiles
            i_later, i_then = tl.where(last, i_line + 1, i_line), tl.where(last, 0, i_tile + 1)
        o_then = i_then * BW + tl.arange(0, BW)
        m_then = (o_then < cells) & (i_later < lines)
        o_next = first + i_later * to_line + o_then * to_cell
        m_next = m_then[:, None] & m_d[None, :]
        b_x_next, b_u_next = tile(p_x, o_next, o_d, x_l, m_next), tile(p_u, o_next, o_d, u_l, m_next)
        b_wl_next = weight(p_w, o_next, o_d, w_l, m_then, m_d, SHARED)
        b_wm_next = weight(p_w + w_n, o_next, o_d, w_l, m_then, m_d, SHARED)
        b_wr_next = weight(p_w + 2 * w_n, o_next, o_d, w_l, m_then, m_d, SHARED)
        # The line before, as long as there is one.
        o_c = i_tile * BW + tl.arange(0, BW)
        m_c = o_c < cells
        o_t = first + i_line * to_line + o_c * to_cell
        m = m_c[:, None] & m_d[None, :]
        if KEEP:
            o_h, h_l, h_c = o_t, o_t - to_line, to_cell
            s_h = channels
        else:
            o_h, h_l, h_c = (i_line & 1) * cells + o_c, (1 - (i_line & 1)) * cells + o_c, 1
            s_h = BD
        m_was = m & (i_line > 0)
        if not ONE:
            b_h = tile(p_h, h_l, o_hd, s_h, m_was)
        b_before = tile(p_h, h_l - h_c, o_hd, s_h, m_was & (o_c > 0)[:, None])
        b_after = tile(p_h, h_l + h_c, o_hd, s_h, m_was & (o_c + 1 < cells)[:, None])
        b_h = b_x.to(tl.float32) + b_wm.to(tl.float32) * b_h
        b_h += b_wl.to(tl.float32) * b_before + b_wr.to(tl.float32) * b_after
        tl.store(p_h + o_h.to(tl.int64)[:, None] * s_h + o_hd[None, :], b_h, m)
        b_y = b_u.to(tl.float32) * b_h
        if HAS_D:
            b_y += b_D[None, :] * b_x.to(tl.float32)
        tl.store(p_y + o_t.to(tl.int64)[:, None] * channels + o_d[None, :], b_y, m)
        tl.debug_barrier()
        b_x, b_u, b_wl, b_wm, b_wr = b_x_next, b_u_next, b_wl_next, b_wm_next, b_wr_next
        i_line, i_tile = i_later, i_then


@triton.jit
def given(
    p_x, p_w, p_u, p_gy, p_h, o_t, o_c, i_line, lines, cells, to_line, to_cell, o_d, m_d,
    channels, x_l, w_l, w_n, u_l, HAS_D: tl.constexpr, SHARED: tl.constexpr,
):  # fmt: skip
    """What a tile of a line needs beside the gradient of the line after: u, gy, x; the weights by which the states of
    the line after took in these; the three states that each of these took in. Nothing for a line below 0."""
    m_c = (o_c < cells) & (i_line >= 0)
    m = m_c[:, None] & m_d[None, :]
    b_u, b_gy = tile(p_u, o_t, o_d, u_l, m), tile(p_gy, o_t, o_d, channels, m)
    b_x = b_gy
    if HAS_D:
        b_x = tile(p_x, o_t, o_d, x_l, m)
    m_left, m_right = o_c > 0, o_c + 1 < cells
    m_later = m_c & (i_line + 1 < lines)
    o_later = o_t + to_line
    b_wl = weight(p_w, o_later + to_cell, o_d, w_l, m_later & m_right, m_d, SHARED)
    b_wm = weight(p_w + w_n, o_later, o_d, w_l, m_later, m_d, SHARED)
    b_wr = weight(p_w + 2 * w_n, o_later - to_cell, o_d, w_l, m_later & m_left, m_d, SHARED)
    o_was = o_t - to_line
    m_was = m & (i_line > 0)
    b_before = tile(p_h, o_was - to_cell, o_d, channels, m_was & m_left[:, None])
    b_same = tile(p_h, o_was, o_d, channels, m_was)
    b_after = tile(p_h, o_was + to_cell, o_d, channels, m_was & m_right[:, None])
    return b_u, b_gy, b_x, b_wl, b_wm, b_wr, b_before, b_same, b_after


@triton.jit
def backward_kernel(
    p_x, p_w, p_u, p_D, p_gy, p_h, p_g, p_gx, p_gw, p_gu, p_gD, H, W, rows, n_blocks, channels, code,
    x_k, x_b, x_l, w_k, w_b, w_l, w_n, u_k, u_b, u_l, D_k, directions,
    HAS_D: tl.constexpr, SHARED: tl.constexpr, ONE: tl.constexpr, BW: tl.constexpr, BD: tl.constexpr,
):  # fmt: skip
    """gx and gu (K, B, H W, D), gw (K, B, H W, 3, D), or (blocks, K, B, H W, 4) if SHARED, the fourth of no
    meaning; gD (K, B, D).

    p_g holds the gradients of the states of two lines a program in turn.
    """
    program = tl.program_id(0)
    i_k, i_b, i_block, first, to_line, to_cell, lines, cells = place(program, H, W, rows, n_blocks, code)
    o_gd = tl.arange(0, BD)
    o_d = i_block * BD + o_gd
    m_d = o_d < channels
    p_x += i_k * x_k + i_b * x_b
    p_w += i_k * w_k + i_b * w_b
    p_u += i_k * u_k + i_b * u_b
    row = (i_k * rows + i_b) * H * W
    p_gy += i_b * H * W * channels
    p_h += row * channels
    p_gx += row * channels
    p_gu += row * channels
    if SHARED:
        p_gw += (i_block.to(tl.int64) * directions * rows * H * W + row) * 4
    else:
        p_gw += row * 3 * channels
    p_g += program.to(tl.int64) * 2 * tl.maximum(lines, cells) * BD
    b_D = tl.zeros([BD], tl.float32)
    if HAS_D:
        b_D = tl.load(p_D + i_k * D_k + o_d, m_d, 0.0)
    n_tiles = (cells + (BW - 1)) // BW
    i_line, i_tile = lines - 1, lines * 0
    o_c = tl.arange(0, BW)
    o_t = first + i_line * to_line + o_c * to_cell
    b_u, b_gy, b_x, b_wl, b_wm, b_wr, b_before, b_same, b_after = given(
        p_x, p_w, p_u, p_gy, p_h, o_t, o_c, i_line, lines, cells, to_line, to_cell, o_d, m_d,
        channels, x_l, w_l, w_n, u_l, HAS_D, SHARED,
    )  # fmt: skip
    b_h = tile(p_h, o_t, o_d, channels, (o_c < cells)[:, None] & m_d[None, :])
    b_g = tl.zeros([BW, BD], tl.float32)
    b_gD = tl.zeros([BW, BD], tl.float32)
    for _ in range(0, lines * n_tiles):
        i_later, i_then = i_line - 1, i_tile
        if not ONE:
            last = i_tile + 1 == n_tiles
            i_later, i_then = tl.where(last, i_line - 1, i_line), tl.where(last, 0, i_tile + 1)
        o_then = i_then * BW + tl.arange(0, BW)
        o_next = first + i_later * to_line + o_then * to_cell
        b_u_, b_gy_, b_x_, b_wl_, b_wm_, b_wr_, b_before_, b_same_, b_after_ = given(
            p_x, p_w, p_u, p_gy, p_h, o_next, o_then, i_later, lines, cells, to_line, to_cell, o_d, m_d,
            channels, x_l, w_l, w_n, u_l, HAS_D, SHARED,
        )  # fmt: skip
        o_c = i_tile * BW + tl.arange(0, BW)
        m_c = o_c < cells
        o_t = first + i_line * to_line + o_c * to_cell
        m = m_c[:, None] & m_d[None, :]
        o_g, o_was = (i_line & 1) * cells + o_c, (1 - (i_line & 1)) * cells + o_c
        m_was = m & (i_line + 1 < lines)
        if not ONE:
            b_g = tile(p_g, o_was, o_gd, BD, m_was)
            b_h = tile(p_h, o_t, o_d, channels, m)
        b_g_before = tile(p_g, o_was - 1, o_gd, BD, m_was & (o_c > 0)[:, None])
        b_g_after = tile(p_g, o_was + 1, o_gd, BD, m_was & (o_c + 1 < cells)[:, None])
        b_out = b_gy.to(tl.float32)
        b_g = b_u.to(tl.float32) * b_out + b_wm.to(tl.float32) * b_g
        b_g += b_wl.to(tl.float32) * b_g_after + b_wr.to(tl.float32) * b_g_before
        tl.store(p_g + o_g.to(tl.int64)[:, None] * BD + o_gd[None, :], b_g, m)
        o = o_t.to(tl.int64)[:, None] * channels + o_d[None, :]
        tl.store(p_gu + o, b_out * b_h, m)
        b_gx = b_g
        if HAS_D:
            b_gx += b_D[None, :] * b_out
            b_gD += b_out * b_x.to(tl.float32)
        tl.store(p_gx + o, b_gx, m)
        if SHARED:  # the sums take the places of four channels: a tile of the layout of all others
            b_gw = tl.where((o_gd == 1)[None, :], tl.sum(b_g * b_same, 1)[:, None], tl.sum(b_g * b_before, 1)[:, None])
            b_gw = tl.where((o_gd == 2)[None, :], tl.sum(b_g * b_after, 1)[:, None], b_gw)
            tl.store(p_gw + o_t.to(tl.int64)[:, None] * 4 + o_gd[None, :], b_gw, m_c[:, None] & (o_gd < 4)[None, :])
        else:
            o = o_t.to(tl.int64)[:, None] * 3 * channels + o_d[None, :]
            tl.store(p_gw + o, b_g * b_before, m)
            tl.store(p_gw + o + channels, b_g * b_same, m)
            tl.store(p_gw + o + 2 * channels, b_g * b_after, m)
        tl.debug_barrier()
        b_h = b_same
        b_u, b_gy, b_x, b_wl, b_wm, b_wr = b_u_, b_gy_, b_x_, b_wl_, b_wm_, b_wr_
        b_before, b_same, b_after = b_before_, b_same_, b_after_
        i_line, i_tile = i_later, i_then
    if HAS_D:
        tl.store(p_gD + (i_k * rows + i_b) * channels + o_d, tl.sum(b_gD, 0), m_d)
