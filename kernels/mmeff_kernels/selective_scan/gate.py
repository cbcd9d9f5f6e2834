"""What follows the scans of several routes: their sum times silu(z), in one pass forward and one backward."""

# pyright: reportGeneralTypeIssues=false

import torch
import triton
import triton.language as tl
from torch import Tensor

from ..launcher import Launcher


@triton.jit
def is_real(i_row, p_lengths, L, HAS_LENGTHS: tl.constexpr):
    """Whether row i_row of (B L, D) is a token, not padding."""
    real = i_row >= 0
    if HAS_LENGTHS:
        real = i_row % L < tl.load(p_lengths + i_row // L)
    return real


@triton.jit
def forward_kernel(
    p_y, p_z, p_lengths, p_total, p_out, size, L, channels, z_l,
    HAS_LENGTHS: tl.constexpr, K: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    i_row = tl.program_id(0).to(tl.int64)
    real = is_real(i_row, p_lengths, L, HAS_LENGTHS)
    for start in range(0, channels, BLOCK):
        o = start + tl.arange(0, BLOCK)
        m = o < channels
        b_total = tl.zeros([BLOCK], tl.float32)
        for k in tl.static_range(K):
            b_total += tl.load(p_y + k * size + i_row * channels + o, m, 0.0).to(tl.float32)
        b_z = tl.load(p_z + i_row * z_l + o, m & real, 0.0).to(tl.float32)
        if K > 1:
            tl.store(p_total + i_row * channels + o, b_total, m)
        tl.store(p_out + i_row * channels + o, b_total * b_z * tl.sigmoid(b_z), m)


@triton.jit
def backward_kernel(
    p_total, p_z, p_lengths, p_g, p_gy, p_gz, L, channels, z_l, HAS_LENGTHS: tl.constexpr, BLOCK: tl.constexpr
):
    i_row = tl.program_id(0).to(tl.int64)
    real = is_real(i_row, p_lengths, L, HAS_LENGTHS)
    for start in range(0, channels, BLOCK):
        o = start + tl.arange(0, BLOCK)
        m = o < channels
        b_total = tl.load(p_total + i_row * channels + o, m, 0.0).to(tl.float32)
        b_z = tl.load(p_z + i_row * z_l + o, m & real, 0.0).to(tl.float32)
        b_g = tl.load(p_g + i_row * channels + o, m & real, 0.0).to(tl.float32)
        b_sigma = tl.sigmoid(b_z)
        tl.store(p_gy + i_row * channels + o, b_g * b_z * b_sigma, m)
        tl.store(p_gz + i_row * channels + o, b_g * b_total * b_sigma * (1.0 + b_z * (1.0 - b_sigma)), m)


_forward, _backward = Launcher(forward_kernel), Launcher(backward_kernel)


def gated_sum(y: Tensor, z: Tensor, lengths: Tensor | None) -> tuple[Tensor, Tensor]:
    """y (K, B, L, D), z (B, L, D), lengths (B,) or None -> silu(z) sum_k y_k, and the sum, (B, L, D) in y's type,
    computed in fp32. Where lengths end y must be 0, and z is not read."""
    z = z.flatten(0, 1)  # of a slice of a projection's output a view
    routes, _, L, channels = y.shape
    total, out = y[0] if routes == 1 else torch.empty_like(y[0]), torch.empty_like(y[0])
    _forward(
        len(z),
        {"p_y": y, "p_z": z, "p_lengths": lengths, "p_total": total, "p_out": out},
        {"size": out.numel(), "L": L, "channels": channels, "z_l": z.stride(0)},
        {"HAS_LENGTHS": lengths is not None, "K": routes, "BLOCK": _block(channels), "num_warps": 1},
    )
    return out, total


def gated_sum_gradients(g: Tensor, total: Tensor, z: Tensor, lengths: Tensor | None) -> tuple[Tensor, Tensor]:
    """Of each y_k, in fp32: sums over all tokens are taken of it; and of z."""
    gy, gz = torch.empty_like(total, dtype=torch.float32), torch.empty(z.shape, dtype=z.dtype, device=z.device)
    z, (L, channels) = z.flatten(0, 1), total.shape[1:]
    _backward(
        len(z),
        {"p_total": total, "p_z": z, "p_lengths": lengths, "p_g": g.contiguous(), "p_gy": gy, "p_gz": gz},
        {"L": L, "channels": channels, "z_l": z.stride(0)},
        {"HAS_LENGTHS": lengths is not None, "BLOCK": _block(channels), "num_warps": 1},
    )
    return gy, gz


def _block(channels: int) -> int:
    return min(512, 1 << (channels - 1).bit_length())
