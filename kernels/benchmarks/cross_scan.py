"""Cross-scans: VMamba's four routes with parameters of their own, bias and softplus, at the sizes of VMamba-T's stages.

`cross_scan`, which reads x and what is projected from it in place, and the copying form, which permutes them for each
route and calls the selective scan.
"""

from collections.abc import Iterator
from functools import partial

import torch
from torch import Tensor

from benchmarks.driver import Case, kind_of
from mmeff_kernels.scan2d import CROSS, cross_scan, table
from mmeff_kernels.selective_scan import selective_scan

#: (B, H, W, D, N): VMamba-T's stages at a batch of 64, and the first with 16 states.
CUDA_SHAPES = (
    (64, 56, 56, 96, 1), (64, 28, 28, 192, 1), (64, 14, 14, 384, 1), (64, 7, 7, 768, 1), (64, 56, 56, 96, 16),
)  # fmt: skip
CPU_SHAPES = ((2, 56, 56, 96, 1), (2, 14, 14, 384, 1))
Shape = tuple[int, int, int, int, int]


def inputs(shape: Shape, device: torch.device) -> tuple[Tensor, ...]:
    """x, dt, A, B, C, D, bias: Mamba's ranges at initialisation."""
    rows, H, W, channels, N = shape
    K, L = len(CROSS), H * W
    generator = torch.Generator().manual_seed(0)

    def draw(*size: int) -> Tensor:
        return torch.randn(size, generator=generator).to(kind_of(device))

    A = -torch.arange(1, N + 1, dtype=torch.float32).repeat(K, channels, 1)
    bias = (10 ** (2 * torch.rand(K, channels, generator=generator) - 3)).expm1().log()
    drawn = (
        draw(rows, L, channels), draw(K, rows, L, channels) / 10, A, draw(K, rows, L, 1, N), draw(K, rows, L, 1, N),
        torch.ones(K, channels), bias,
    )  # fmt: skip
    return tuple(tensor.to(device).requires_grad_() for tensor in drawn)


def in_place(*given: Tensor, grid: tuple[int, int]) -> Tensor:
    x, dt, A, B, C, D, bias = given
    return cross_scan(x, dt, A, B, C, D, grid=grid, dt_bias=bias, dt_softplus=True)


def copying(*given: Tensor, grid: tuple[int, int]) -> Tensor:
    x, dt, A, B, C, D, bias = given
    y = torch.zeros_like(x)
    for k, order in enumerate(table(CROSS, *grid, x.device).long()):
        met = (x[:, order], dt[k][:, order], A[k], B[k][:, order], C[k][:, order], D[k])
        y = y + selective_scan(*met, dt_bias=bias[k], dt_softplus=True)[:, order.argsort()]
    return y


def cases(shape: Shape, device: torch.device) -> Iterator[Case]:
    given, grid = inputs(shape, device), (shape[1], shape[2])
    yield Case("in place", given, partial(in_place, grid=grid))
    yield Case("copying", given, partial(copying, grid=grid))
