"""Layer normalisation in Triton: a program holds whole rows; statistics are computed again in the backward pass.

A residual branch can be added before, and its gradient comes out of the same passes. The sums over rows for weight and
bias stay in a program's registers and are summed by torch: no atomics.
"""

# pyright: reportGeneralTypeIssues=false

from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from ..first_order import first_order
from ..launcher import Launcher

#: Numbers of a tile of rows, and the programs of a backward pass at most: eight for each multiprocessor of an H200.
TILE, PROGRAMS = 2048, 1056


@triton.jit
def places(i_row, rows, channels, BR: tl.constexpr, BD: tl.constexpr):
    """Offsets and mask of rows i_row to i_row + BR - 1; channels, and which of them there are."""
    o_r, o_d = i_row + tl.arange(0, BR), tl.arange(0, BD)
    m_d = o_d < channels
    return o_r[:, None].to(tl.int64) * channels + o_d[None, :], (o_r < rows)[:, None] & m_d[None, :], o_d, m_d


@triton.jit
def normalised(b_x, m_d, channels, eps):
    """(x - mean) / std, and 1 / std."""
    b_x = tl.where(m_d[None, :], b_x - (tl.sum(b_x, 1) / channels)[:, None], 0.0)
    b_rstd = tl.rsqrt(tl.sum(b_x * b_x, 1) / channels + eps)
    return b_x * b_rstd[:, None], b_rstd


@triton.jit
def forward_kernel(
    p_x, p_branch, p_weight, p_bias, p_sum, p_y, rows, channels, eps, ADD: tl.constexpr, BR: tl.constexpr,
    BD: tl.constexpr,
):  # fmt: skip
    o, m, o_d, m_d = places(tl.program_id(0) * BR, rows, channels, BR, BD)
    b_x = tl.load(p_x + o, m, 0.0).to(tl.float32)
    if ADD:
        b_x += tl.load(p_branch + o, m, 0.0).to(tl.float32)
        tl.store(p_sum + o, b_x, m)
    b_n, _ = normalised(b_x, m_d, channels, eps)
    b_weight, b_bias = tl.load(p_weight + o_d, m_d, 0.0), tl.load(p_bias + o_d, m_d, 0.0)
    tl.store(p_y + o, b_n * b_weight[None, :] + b_bias[None, :], m)


@triton.jit
def backward_kernel(
    p_x, p_weight, p_gy, p_gsum, p_gx, p_gbranch, p_sums, rows, tiles, channels, eps, ADD: tl.constexpr,
    BR: tl.constexpr, BD: tl.constexpr,
):  # fmt: skip
    """gx, and for each program the sums of gy times what was normalised, and of gy, over its `tiles` tiles of rows.
    ADD: x is the sum, of which the norm is not the only reader (gsum); its gradient is the branch's too."""
    b_gweight = tl.zeros([BR, BD], tl.float32)
    b_gbias = tl.zeros([BR, BD], tl.float32)
    o_d = tl.arange(0, BD)
    b_weight = tl.load(p_weight + o_d, o_d < channels, 0.0)
    for tile in range(0, tiles):
        o, m, _, m_d = places((tl.program_id(0) * tiles + tile) * BR, rows, channels, BR, BD)
        b_gy = tl.load(p_gy + o, m, 0.0).to(tl.float32)
        b_n, b_rstd = normalised(tl.load(p_x + o, m, 0.0).to(tl.float32), m_d, channels, eps)
        b_gweight += b_gy * b_n
        b_gbias += b_gy
        b_gn = b_gy * b_weight[None, :]
        b_mean, b_along = tl.sum(b_gn, 1) / channels, tl.sum(b_gn * b_n, 1) / channels
        b_gx = (b_gn - b_mean[:, None] - b_n * b_along[:, None]) * b_rstd[:, None]
        if ADD:
            b_gx += tl.load(p_gsum + o, m, 0.0).to(tl.float32)
            tl.store(p_gbranch + o, b_gx, m)
        tl.store(p_gx + o, b_gx, m)
    p_sums += tl.program_id(0) * 2 * channels
    tl.store(p_sums + o_d, tl.sum(b_gweight, 0), o_d < channels)
    tl.store(p_sums + channels + o_d, tl.sum(b_gbias, 0), o_d < channels)


_forward, _backward = Launcher(forward_kernel), Launcher(backward_kernel)


def normalise(
    x: Tensor, branch: Tensor | None, weight: Tensor, bias: Tensor, eps: float, dtype: torch.dtype
) -> tuple[Tensor, Tensor]:
    """x + branch (x itself if there is none) and its norm y, of contiguous tensors."""
    s = x if branch is None else torch.empty_like(x)
    y = torch.empty(x.shape, dtype=dtype, device=x.device)
    rows, channels, BR, BD = _tiles(x)
    _forward(
        -(-rows // BR),
        {"p_x": x, "p_branch": branch, "p_weight": weight, "p_bias": bias, "p_sum": s, "p_y": y},
        {"rows": rows, "channels": channels},
        {"eps": eps, "ADD": branch is not None, "BR": BR, "BD": BD, "num_warps": 4},
    )
    return s, y


class LayerNorm(torch.autograd.Function):
    """x (..., D), weight and bias (D,) fp32 -> y (..., D) of the type asked for; computed in fp32."""

    @staticmethod
    def forward(  # pyright: ignore[reportIncompatibleMethodOverride]
        ctx: Any, x: Tensor, weight: Tensor, bias: Tensor, eps: float, dtype: torch.dtype
    ) -> Tensor:
        _, y = normalise(x, None, weight, bias, eps, dtype)
        ctx.save_for_backward(x, weight)
        ctx.eps = eps
        return y

    @staticmethod
    @first_order("layer_norm", second="torch")
    def backward(ctx: Any, gy: Tensor) -> tuple[Tensor | None, ...]:  # pyright: ignore[reportIncompatibleMethodOverride]
        x, weight = ctx.saved_tensors
        gx, _, gweight, gbias = _gradients(x, weight, gy, None, None, ctx.eps)
        return gx, gweight, gbias, None, None


class AddLayerNorm(torch.autograd.Function):
    """x and branch (..., D), weight and bias (D,) fp32 -> x + branch in x's type, y (..., D) of the type asked for."""

    @staticmethod
    def forward(  # pyright: ignore[reportIncompatibleMethodOverride]
        ctx: Any, x: Tensor, branch: Tensor, weight: Tensor, bias: Tensor, eps: float, dtype: torch.dtype
    ) -> tuple[Tensor, Tensor]:
        s, y = normalise(x, branch, weight, bias, eps, dtype)
        ctx.save_for_backward(s, weight)
        ctx.eps, ctx.narrow = eps, branch.dtype
        return s, y

    @staticmethod
    @first_order("add_layer_norm", second="torch")
    def backward(ctx: Any, gs: Tensor, gy: Tensor) -> tuple[Tensor | None, ...]:  # pyright: ignore[reportIncompatibleMethodOverride]
        s, weight = ctx.saved_tensors
        return *_gradients(s, weight, gy, gs.contiguous(), ctx.narrow, ctx.eps), None, None


def _gradients(
    s: Tensor, weight: Tensor, gy: Tensor, gs: Tensor | None, narrow: torch.dtype | None, eps: float
) -> tuple[Tensor | None, ...]:
    """Of x, of the branch (in the type `narrow`, None if there is none), of weight and of bias."""
    rows, channels, BR, BD = _tiles(s)
    tiles = max(1, -(-rows // (BR * PROGRAMS)))
    programs = -(-rows // (BR * tiles))
    gx, sums = torch.empty_like(s), weight.new_empty(programs, 2, channels)
    gbranch = None if narrow is None else torch.empty_like(s, dtype=narrow)
    gy = gy.contiguous()
    _backward(
        programs,
        {"p_x": s, "p_weight": weight, "p_gy": gy, "p_gsum": gs, "p_gx": gx, "p_gbranch": gbranch, "p_sums": sums},
        {"rows": rows, "tiles": tiles, "channels": channels},
        {"eps": eps, "ADD": gs is not None, "BR": BR, "BD": BD, "num_warps": 4},
    )
    return gx, gbranch, *sums.sum(0)


def _tiles(x: Tensor) -> tuple[int, int, int, int]:
    """Rows and channels of x (..., D), and of a tile."""
    channels = x.shape[-1]
    BD = 1 << (channels - 1).bit_length()
    return x.numel() // channels, channels, max(1, TILE // BD), BD
