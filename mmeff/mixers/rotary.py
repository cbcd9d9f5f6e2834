"""Rotary position embedding over grids of any number of axes."""

import torch
from torch import Tensor

from mmeff_kernels.kept import kept


def rotate(x: Tensor, grid: tuple[int, ...], base: float = 10_000.0) -> Tensor:
    """Rotate pairs of features by angles that grow with the position: q_i^T k_j depends on i - j alone.

    x (B, H, L, K), prod(grid) == L. The K / 2 pairs are split between the axes of the grid, the first axes taking one
    more where they do not divide; pair m of M on an axis turns by position * base^(-m / M). An odd last feature stays.

    Source: Su et al., RoFormer, arXiv 2104.09864, eq. 15; split by axes as in arXiv 2403.13298, section 3.1.
    """
    pairs = x.shape[-1] // 2
    cos, sin = rotation(grid, pairs, x.dtype, x.device, base)
    real, imaginary, rest = x.split([pairs, pairs, x.shape[-1] - 2 * pairs], dim=-1)
    return torch.cat([real * cos - imaginary * sin, real * sin + imaginary * cos, rest], dim=-1)


def rotation_of(x: Tensor, grid: tuple[int, ...]) -> tuple[Tensor, Tensor]:
    """cos and sin (L, K / 2) for queries or keys x (..., K) on a grid: fp32 at least, but fp16 for bf16, whose products
    keep 8 bits of what is rotated where fp16 has 11. Kernels wait for half as many bytes."""
    dtype = torch.float16 if x.dtype == torch.bfloat16 else torch.promote_types(x.dtype, torch.float32)
    return rotation(grid, x.shape[-1] // 2, dtype, x.device)


@kept
def rotation(
    grid: tuple[int, ...], pairs: int, dtype: torch.dtype, device: torch.device, base: float = 10_000.0
) -> tuple[Tensor, Tensor]:
    """cos and sin (L, pairs) of the angles of `rotate`, computed in fp64, once for a grid."""
    axes = torch.meshgrid(*(torch.arange(size, dtype=torch.float64) for size in grid), indexing="ij")
    angles = []
    for i, position in enumerate(axes):
        M = pairs // len(grid) + (i < pairs % len(grid))
        frequency = base ** (-torch.arange(M, dtype=torch.float64) / max(M, 1))
        angles.append(position.reshape(-1, 1) * frequency)
    table = torch.cat(angles, dim=1)
    return table.cos().to(device, dtype), table.sin().to(device, dtype)
