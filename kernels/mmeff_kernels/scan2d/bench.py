"""Time cross-scans on this machine: python -m mmeff_kernels.scan2d.bench [--runs 20]

VMamba's four routes with parameters of their own, bias and softplus, at the sizes of VMamba-T's stages: `cross_scan`,
which reads x and what is projected from it in place, and the copying form, which permutes them for each route and
calls the selective scan. bf16 on CUDA, fp32 on the CPU at a batch of 2; ms of the device's own time, forward; with
backward, and on CUDA the peak memory of both beyond the inputs. Medians, quartiles in brackets.
"""

from collections.abc import Callable
from statistics import median

import torch
from torch import Tensor

from ..selective_scan import selective_scan
from ..timing import banner, own_milliseconds, parser, peak_mib, show
from .op import cross_scan
from .orders import CROSS, table

#: (B, H, W, D, N): VMamba-T's stages at a batch of 64, and the first with 16 states.
CUDA_SHAPES = (
    (64, 56, 56, 96, 1),
    (64, 28, 28, 192, 1),
    (64, 14, 14, 384, 1),
    (64, 7, 7, 768, 1),
    (64, 56, 56, 96, 16),
)
CPU_SHAPES = ((2, 56, 56, 96, 1), (2, 14, 14, 384, 1))
Inputs = tuple[Tensor, ...]


def inputs(shape: tuple[int, ...], device: torch.device) -> Inputs:
    """x, dt, A, B, C, D, bias: Mamba's ranges at initialisation."""
    rows, H, W, channels, N = shape
    K, L, dtype = len(CROSS), H * W, torch.bfloat16 if device.type == "cuda" else torch.float32
    generator = torch.Generator().manual_seed(0)

    def draw(*size: int) -> Tensor:
        return torch.randn(size, generator=generator).to(dtype)

    A = -torch.arange(1, N + 1, dtype=torch.float32).repeat(K, channels, 1)
    bias = (10 ** (2 * torch.rand(K, channels, generator=generator) - 3)).expm1().log()
    drawn = (
        draw(rows, L, channels), draw(K, rows, L, channels) / 10, A, draw(K, rows, L, 1, N), draw(K, rows, L, 1, N),
        torch.ones(K, channels), bias,
    )  # fmt: skip
    return tuple(tensor.to(device).requires_grad_() for tensor in drawn)


def in_place(given: Inputs, grid: tuple[int, int]) -> Tensor:
    x, dt, A, B, C, D, bias = given
    return cross_scan(x, dt, A, B, C, D, grid=grid, dt_bias=bias, dt_softplus=True)


def copying(given: Inputs, grid: tuple[int, int]) -> Tensor:
    x, dt, A, B, C, D, bias = given
    y = torch.zeros_like(x)
    for k, order in enumerate(table(CROSS, *grid, x.device).long()):
        met = (x[:, order], dt[k][:, order], A[k], B[k][:, order], C[k][:, order], D[k])
        y = y + selective_scan(*met, dt_bias=bias[k], dt_softplus=True)[:, order.argsort()]
    return y


def main() -> None:
    args = parser(__doc__).parse_args()
    device = torch.device(args.device)
    print(banner(device))
    print(f"{'(B, H, W, D, N)':24} {'':10} {'forward':>8} {'with backward':>28}   MiB")
    for shape in CUDA_SHAPES if device.type == "cuda" else CPU_SHAPES:
        given, grid = inputs(shape, device), shape[1:3]
        for label, scan in (("in place", in_place), ("copying", copying)):
            alone, both = passes(scan, given, (grid[0], grid[1]))
            own = median(own_milliseconds(alone, args.runs, device))
            whole = show(own_milliseconds(both, args.runs, device))
            memory = f"{peak_mib(both):5.0f}" if device.type == "cuda" else ""
            print(f"{shape!s:24} {label:10} {own:8.3f} {whole:>28} {memory}", flush=True)


def passes(
    scan: Callable[[Inputs, tuple[int, int]], Tensor], given: Inputs, grid: tuple[int, int]
) -> tuple[Callable[[], Tensor], Callable[[], Inputs]]:
    """A forward pass alone, and one with its backward pass."""
    alone = torch.no_grad()(lambda: scan(given, grid))
    weight = torch.ones_like(alone())
    return alone, lambda: torch.autograd.grad(scan(given, grid), given, weight)


if __name__ == "__main__":
    main()
