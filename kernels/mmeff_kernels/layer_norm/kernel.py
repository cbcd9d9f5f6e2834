"""Layer normalisation in Triton: a program holds whole rows; statistics are computed again in the backward pass.

The sums over rows for weight and bias stay in a program's registers and are summed by torch: no atomics.
"""

# pyright: reportGeneralTypeIssues=false

from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor
from torch.autograd.function import once_differentiable

from ..launcher import Launcher

#: Numbers of a tile of rows, and the programs of a backward pass at most: eight for each multiprocessor of an H200.
TILE, PROGRAMS = 2048, 1056


@triton.jit
def normalised(p_x, i_row, rows, channels, eps, BR: tl.constexpr, BD: tl.constexpr):
    """Rows i_row to i_row + BR - 1 of x, (x - mean) / std, and 1 / std; offsets and mask."""
    o_r, o_d = i_row + tl.arange(0, BR), tl.arange(0, BD)
    m_d = o_d < channels
    m = (o_r < rows)[:, None] & m_d[None, :]
    o = o_r[:, None].to(tl.int64) * channels + o_d[None, :]
    b_x = tl.load(p_x + o, m, 0.0).to(tl.float32)
    b_x = tl.where(m_d[None, :], b_x - (tl.sum(b_x, 1) / channels)[:, None], 0.0)
    b_rstd = tl.rsqrt(tl.sum(b_x * b_x, 1) / channels + eps)
    return b_x * b_rstd[:, None], b_rstd, o, o_d, m_d, m


@triton.jit
def forward_kernel(p_x, p_weight, p_bias, p_y, rows, channels, eps, BR: tl.constexpr, BD: tl.constexpr):
    b_n, _, o, o_d, m_d, m = normalised(p_x, tl.program_id(0) * BR, rows, channels, eps, BR, BD)
    b_weight, b_bias = tl.load(p_weight + o_d, m_d, 0.0), tl.load(p_bias + o_d, m_d, 0.0)
    tl.store(p_y + o, b_n * b_weight[None, :] + b_bias[None, :], m)


@triton.jit
def backward_kernel(
    p_x, p_weight, p_gy, p_gx, p_sums, rows, tiles, channels, eps, BR: tl.constexpr, BD: tl.constexpr
):  # fmt: skip
    """gx, and for each program the sums of gy times what was normalised, and of gy, over its `tiles` tiles of rows."""
    b_gweight = tl.zeros([BR, BD], tl.float32)
    b_gbias = tl.zeros([BR, BD], tl.float32)
    o_d = tl.arange(0, BD)
    b_weight = tl.load(p_weight + o_d, o_d < channels, 0.0)
    for tile in range(0, tiles):
        i_row = (tl.program_id(0) * tiles + tile) * BR
        b_n, b_rstd, o, _, _, m = normalised(p_x, i_row, rows, channels, eps, BR, BD)
        b_gy = tl.load(p_gy + o, m, 0.0).to(tl.float32)
        b_gweight += b_gy * b_n
        b_gbias += b_gy
        b_gn = b_gy * b_weight[None, :]
        b_mean, b_along = tl.sum(b_gn, 1) / channels, tl.sum(b_gn * b_n, 1) / channels
        tl.store(p_gx + o, (b_gn - b_mean[:, None] - b_n * b_along[:, None]) * b_rstd[:, None], m)
    p_sums += tl.program_id(0) * 2 * channels
    tl.store(p_sums + o_d, tl.sum(b_gweight, 0), o_d < channels)
    tl.store(p_sums + channels + o_d, tl.sum(b_gbias, 0), o_d < channels)


_forward, _backward = Launcher(forward_kernel), Launcher(backward_kernel)


class LayerNorm(torch.autograd.Function):
    """x (M, D), weight and bias (D,) fp32 -> (M, D) of the type asked for; computed in fp32."""

    @staticmethod
    def forward(  # pyright: ignore[reportIncompatibleMethodOverride]
        ctx: Any, x: Tensor, weight: Tensor, bias: Tensor, eps: float, dtype: torch.dtype
    ) -> Tensor:
        x, weight, bias = x.contiguous(), weight.contiguous(), bias.contiguous()
        rows, channels = x.shape
        y = torch.empty(x.shape, dtype=dtype, device=x.device)
        BR, BD = _tile(channels)
        _forward(
            -(-rows // BR),
            {"p_x": x, "p_weight": weight, "p_bias": bias, "p_y": y},
            {"rows": rows, "channels": channels},
            {"eps": eps, "BR": BR, "BD": BD, "num_warps": 4},
        )
        ctx.save_for_backward(x, weight)
        ctx.eps = eps
        return y

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gy: Tensor) -> tuple[Tensor | None, ...]:  # pyright: ignore[reportIncompatibleMethodOverride]
        x, weight = ctx.saved_tensors
        rows, channels = x.shape
        BR, BD = _tile(channels)
        tiles = max(1, -(-rows // (BR * PROGRAMS)))
        programs = -(-rows // (BR * tiles))
        gx, sums = torch.empty_like(x), weight.new_empty(programs, 2, channels)
        _backward(
            programs,
            {"p_x": x, "p_weight": weight, "p_gy": gy.contiguous(), "p_gx": gx, "p_sums": sums},
            {"rows": rows, "tiles": tiles, "channels": channels},
            {"eps": ctx.eps, "BR": BR, "BD": BD, "num_warps": 4},
        )
        gweight, gbias = sums.sum(0)
        return gx, gweight, gbias, None, None


def _tile(channels: int) -> tuple[int, int]:
    BD = 1 << (channels - 1).bit_length()
    return max(1, TILE // BD), BD
