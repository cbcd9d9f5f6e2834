"""The short convolution in Triton, channels last. Every direction reads the same x in place; padding is not read.

The backward pass has two kernels: one repeats the output before its SiLU and leaves the gradient g of that, with its
sums for weight and bias over a run of tokens; the other gathers dx from the g of all directions. No atomics.
"""

# pyright: reportGeneralTypeIssues=false

from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from ..first_order import first_order
from ..launcher import Launcher

#: Tokens and channels of a tile.
BL, BD = 16, 128
#: Tokens of a tile of the backward pass, whose sums stay in registers, and tiles that a program goes over.
BL_SUMS, TILES = 8, 16


@triton.jit
def place(program, p_lengths, L, n_runs, n_blocks, rows, HAS_LENGTHS: tl.constexpr):
    """Of a program: its run of tokens, block of channels, row and direction, and the row's length."""
    i_run = program % n_runs
    i_block = program // n_runs % n_blocks
    i_b = (program // n_runs // n_blocks % rows).to(tl.int64)
    i_k = (program // n_runs // n_blocks // rows).to(tl.int64)
    length = i_run * 0 + L
    if HAS_LENGTHS:
        length = tl.load(p_lengths + i_b).to(tl.int32)
    return i_run, i_block, i_b, i_k, length


@triton.jit
def weights(p_w, o_d, m_d, WIDTH: tl.constexpr):
    """The WIDTH weights of channels o_d, as a tuple."""
    found = ()
    for w in tl.static_range(WIDTH):
        found = found + (tl.load(p_w + o_d * WIDTH + w, m_d, 0.0),)  # noqa: RUF005
    return found


@triton.jit
def neighbours(p_x, o_l, o_d, m_d, length, x_l, first, step, WIDTH: tl.constexpr):
    """What the WIDTH weights of tokens o_l meet: x[l + first + step w] of channels o_d, (BL, BD) each, as a tuple."""
    found = ()
    for w in tl.static_range(WIDTH):
        o_t = o_l + (first + step * w)
        m = ((o_t >= 0) & (o_t < length))[:, None] & m_d[None, :]
        b_x = tl.load(p_x + o_t[:, None].to(tl.int64) * x_l + o_d[None, :], m, 0.0)
        found = found + (b_x.to(tl.float32),)  # noqa: RUF005
    return found


@triton.jit
def forward_kernel(
    p_x, p_w, p_bias, p_lengths, p_sides, p_y, L, rows, n_runs, n_blocks, channels, x_b, x_l,
    HAS_BIAS: tl.constexpr, HAS_LENGTHS: tl.constexpr, SILU: tl.constexpr, WIDTH: tl.constexpr,
    BL: tl.constexpr, BD: tl.constexpr,
):  # fmt: skip
    i_run, i_block, i_b, i_k, length = place(tl.program_id(0), p_lengths, L, n_runs, n_blocks, rows, HAS_LENGTHS)
    o_l, o_d = i_run * BL + tl.arange(0, BL), i_block * BD + tl.arange(0, BD)
    m_d = o_d < channels
    b_bias = tl.zeros([BD], tl.float32)
    if HAS_BIAS:
        b_bias = tl.load(p_bias + i_k * channels + o_d, m_d, 0.0)
    first, step = tl.load(p_sides + 2 * i_k), tl.load(p_sides + 2 * i_k + 1)
    ws = weights(p_w + i_k * channels * WIDTH, o_d, m_d, WIDTH)
    xs = neighbours(p_x + i_b * x_b, o_l, o_d, m_d, length, x_l, first, step, WIDTH)
    b_y = tl.zeros([BL, BD], tl.float32) + b_bias[None, :]
    for w in tl.static_range(WIDTH):
        b_y += ws[w][None, :] * xs[w]
    if SILU:
        b_y *= tl.sigmoid(b_y)
    b_y = tl.where((o_l < length)[:, None], b_y, 0.0)
    o_y = ((i_k * rows + i_b) * L + o_l[:, None]) * channels + o_d[None, :]
    tl.store(p_y + o_y, b_y, (o_l < L)[:, None] & m_d[None, :])


@triton.jit
def backward_kernel(
    p_x, p_w, p_bias, p_lengths, p_sides, p_gy, p_g, p_sums, L, rows, n_runs, n_blocks, channels, x_b, x_l,
    HAS_BIAS: tl.constexpr, HAS_LENGTHS: tl.constexpr, SILU: tl.constexpr, WIDTH: tl.constexpr,
    BL: tl.constexpr, BD: tl.constexpr, TILES: tl.constexpr,
):  # fmt: skip
    """g (K, B, L, D), and for each run of TILES tiles the sums of g x for each of the WIDTH weights, and of g."""
    i_run, i_block, i_b, i_k, length = place(tl.program_id(0), p_lengths, L, n_runs, n_blocks, rows, HAS_LENGTHS)
    o_d = i_block * BD + tl.arange(0, BD)
    m_d = o_d < channels
    b_bias = tl.zeros([BD], tl.float32)
    if HAS_BIAS:
        b_bias = tl.load(p_bias + i_k * channels + o_d, m_d, 0.0)
    first, step = tl.load(p_sides + 2 * i_k), tl.load(p_sides + 2 * i_k + 1)
    ws = weights(p_w + i_k * channels * WIDTH, o_d, m_d, WIDTH)
    p_x += i_b * x_b
    b_gbias = tl.zeros([BL, BD], tl.float32)
    b_gws = ()
    for _ in tl.static_range(WIDTH):
        b_gws = b_gws + (tl.zeros([BL, BD], tl.float32),)  # noqa: RUF005
    for tile in range(0, TILES):
        o_l = (i_run * TILES + tile) * BL + tl.arange(0, BL)
        m = (o_l < length)[:, None] & m_d[None, :]
        o_y = ((i_k * rows + i_b) * L + o_l[:, None]) * channels + o_d[None, :]
        b_g = tl.load(p_gy + o_y, m, 0.0).to(tl.float32)
        xs = neighbours(p_x, o_l, o_d, m_d, length, x_l, first, step, WIDTH)
        if SILU:
            b_y = tl.zeros([BL, BD], tl.float32) + b_bias[None, :]
            for w in tl.static_range(WIDTH):
                b_y += ws[w][None, :] * xs[w]
            b_sigma = tl.sigmoid(b_y)
            b_g *= b_sigma * (1.0 + b_y * (1.0 - b_sigma))
        tl.store(p_g + o_y, b_g, (o_l < L)[:, None] & m_d[None, :])
        b_gbias += b_g
        sums = ()
        for w in tl.static_range(WIDTH):
            sums = sums + (b_gws[w] + b_g * xs[w],)  # noqa: RUF005
        b_gws = sums
    # Summed over tokens only now: that takes all warps of the program.
    p_sums += ((i_k * rows + i_b) * n_runs + i_run) * (WIDTH + 1) * channels
    for w in tl.static_range(WIDTH):
        tl.store(p_sums + w * channels + o_d, tl.sum(b_gws[w], 0), m_d)
    tl.store(p_sums + WIDTH * channels + o_d, tl.sum(b_gbias, 0), m_d)


@triton.jit
def gather_kernel(
    p_g, p_w, p_lengths, p_sides, p_gx, L, rows, n_runs, n_blocks, channels,
    HAS_LENGTHS: tl.constexpr, K: tl.constexpr, WIDTH: tl.constexpr, BL: tl.constexpr, BD: tl.constexpr,
):  # fmt: skip
    """dx[t] = sum over directions and weights of weight_w g[t - first - step w]."""
    i_run, i_block, i_b, _k, length = place(tl.program_id(0), p_lengths, L, n_runs, n_blocks, rows, HAS_LENGTHS)
    o_l, o_d = i_run * BL + tl.arange(0, BL), i_block * BD + tl.arange(0, BD)
    m_d = o_d < channels
    b_gx = tl.zeros([BL, BD], tl.float32)
    for k in tl.static_range(K):
        first, step = tl.load(p_sides + 2 * k), tl.load(p_sides + 2 * k + 1)
        for w in tl.static_range(WIDTH):
            o_t = o_l - (first + step * w)
            m = ((o_t >= 0) & (o_t < length) & (o_l < length))[:, None] & m_d[None, :]
            o_g = ((k * rows + i_b) * L + o_t[:, None]) * channels + o_d[None, :]
            b_w = tl.load(p_w + (k * channels + o_d) * WIDTH + w, m_d, 0.0)
            b_gx += tl.load(p_g + o_g, m, 0.0).to(tl.float32) * b_w[None, :]
    o_x = (i_b * L + o_l[:, None]) * channels + o_d[None, :]
    tl.store(p_gx + o_x, b_gx, (o_l < L)[:, None] & m_d[None, :])


_forward, _backward, _gather = Launcher(forward_kernel), Launcher(backward_kernel), Launcher(gather_kernel)


class ShortConv(torch.autograd.Function):
    """x (B, L, D), weight (K, D, W) and bias (K, D) fp32, sides (K, 2) int32, lengths (B,) -> (K, B, L, D) in x's type.

    Channels and taps innermost.

    sides: of each direction the first token that weight 0 reads, from the own one, and the step to the next, 1 or -1.
    """

    @staticmethod
    def forward(  # pyright: ignore[reportIncompatibleMethodOverride]
        ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None, lengths: Tensor | None, sides: Tensor, silu: bool
    ) -> Tensor:
        rows, L, channels = x.shape
        K, _, width = weight.shape
        runs, blocks = -(-L // BL), -(-channels // BD)
        y = torch.empty(K, rows, L, channels, dtype=x.dtype, device=x.device)
        _forward(
            K * rows * blocks * runs,
            {"p_x": x, "p_w": weight, "p_bias": bias, "p_lengths": lengths, "p_sides": sides, "p_y": y},
            _numbers(x, runs, blocks),
            {**_options(bias, lengths, silu, width), "num_warps": 4},
        )
        ctx.save_for_backward(x, weight, bias, lengths, sides)
        ctx.silu = silu
        return y

    @staticmethod
    @first_order("short_conv", second="torch")
    def backward(ctx: Any, gy: Tensor) -> tuple[Tensor | None, ...]:  # pyright: ignore[reportIncompatibleMethodOverride]
        x, weight, bias, lengths, sides = ctx.saved_tensors
        rows, L, channels = x.shape
        K, _, width = weight.shape
        blocks, runs = -(-channels // BD), -(-L // (BL_SUMS * TILES))
        g = torch.empty(gy.shape, dtype=gy.dtype, device=gy.device)
        gx = torch.empty(x.shape, dtype=x.dtype, device=x.device)
        sums = weight.new_empty(K, rows * runs, width + 1, channels)
        _backward(
            K * rows * blocks * runs,
            {
                "p_x": x, "p_w": weight, "p_bias": bias, "p_lengths": lengths, "p_sides": sides,
                "p_gy": gy.contiguous(), "p_g": g, "p_sums": sums,
            },
            _numbers(x, runs, blocks),
            {**_options(bias, lengths, ctx.silu, width), "BL": BL_SUMS, "TILES": TILES, "num_warps": 4},
        )  # fmt: skip
        runs = -(-L // BL)
        _gather(
            rows * blocks * runs,
            {"p_g": g, "p_w": weight, "p_lengths": lengths, "p_sides": sides, "p_gx": gx},
            {"L": L, "rows": rows, "n_runs": runs, "n_blocks": blocks, "channels": channels},
            {"HAS_LENGTHS": lengths is not None, "K": K, "WIDTH": width, "BL": BL, "BD": BD, "num_warps": 4},
        )
        total = sums.sum(1)
        return gx, total[:, :width].mT, None if bias is None else total[:, width], None, None, None


def _numbers(x: Tensor, runs: int, blocks: int) -> dict[str, int]:
    rows, L, channels = x.shape
    return {
        "L": L, "rows": rows, "n_runs": runs, "n_blocks": blocks, "channels": channels,
        "x_b": x.stride(0), "x_l": x.stride(1),
    }  # fmt: skip


def _options(bias: Tensor | None, lengths: Tensor | None, silu: bool, width: int) -> dict[str, Any]:
    return {
        "HAS_BIAS": bias is not None, "HAS_LENGTHS": lengths is not None, "SILU": silu, "WIDTH": width,
        "BL": BL, "BD": BD,
    }  # fmt: skip
