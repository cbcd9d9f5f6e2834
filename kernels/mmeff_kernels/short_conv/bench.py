"""Time the short convolution on this machine: python -m mmeff_kernels.short_conv.bench [--runs 20]

Two directions of width 4 with bias and SiLU, as a bidirectional Mamba layer takes them, and a centred one of width 3:
this package's kernels (on CUDA) and torch's own convolution. Over grids, 3 x 3 with SiLU: torch's alone, with the
channels first or last in memory. bf16 on CUDA, fp32 on the CPU; medians with quartiles.
"""

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from ..timing import banner, own_milliseconds, parser, show
from .op import Side, short_conv

#: (B, L, D): Vim-T at 224, 512 and 1248 pixels; on the CPU at a batch of 8.
CUDA_SHAPES = ((128, 196, 384), (32, 1024, 384), (8, 6084, 384))
CPU_SHAPES = ((8, 197, 384),)
#: (B, H, W, D): VMamba-T's first three stages at a batch of 64; on the CPU at 4.
CUDA_GRIDS = ((64, 56, 56, 192), (64, 28, 28, 384), (64, 14, 14, 768))
CPU_GRIDS = ((4, 28, 28, 384),)
FORMS: tuple[tuple[tuple[Side, ...], int], ...] = ((("causal", "anticausal"), 4), (("centred",), 3))


def main() -> None:
    args = parser(__doc__).parse_args()
    device = torch.device(args.device)
    cuda = device.type == "cuda"
    print(banner(device))
    for shape in CUDA_SHAPES if cuda else CPU_SHAPES:
        for sides, width in FORMS:
            x = torch.randn(shape, device=device, dtype=torch.bfloat16 if cuda else torch.float32)
            weight, bias = torch.randn(len(sides), shape[2], width), torch.randn(len(sides), shape[2])
            leaves = [t.to(device).requires_grad_() for t in (x, weight, bias)]
            for impl in ("triton", "torch") if cuda else ("torch",):
                label = f"{shape!s:18} {'+'.join(sides):18} {impl:7}"
                line(label, forward_and_backward(leaves, sides, impl), args.runs)
    for grid in CUDA_GRIDS if cuda else CPU_GRIDS:
        for order in ("channels first", "channels last"):
            label = f"{grid!s:18} 3 x 3, {order:14}  torch  "
            line(label, over_a_grid(grid, order == "channels last", device), args.runs)


def line(label: str, run: Callable[[], tuple[Tensor, ...]], runs: int) -> None:
    taken = own_milliseconds(run, runs, run()[0].device)
    print(f"{label} forward + backward {show(taken)} ms", flush=True)


def over_a_grid(grid: tuple[int, ...], last: bool, device: torch.device) -> Callable[[], tuple[Tensor, ...]]:
    rows, H, W, channels = grid
    dtype = torch.bfloat16 if device.type == "cuda" else torch.float32
    x = torch.randn(rows, channels, H, W, device=device, dtype=dtype)
    x = x.to(memory_format=torch.channels_last if last else torch.contiguous_format)
    taps, bias = (torch.randn(size, device=device, dtype=dtype) for size in ((channels, 1, 3, 3), (channels,)))
    leaves = x, taps, bias = [leaf.requires_grad_() for leaf in (x, taps, bias)]
    weight = torch.ones_like(x)

    def run() -> tuple[Tensor, ...]:
        return torch.autograd.grad(F.silu(F.conv2d(x, taps, bias, padding=1, groups=channels)), leaves, weight)

    return run


def forward_and_backward(leaves: list[Tensor], sides: tuple[Side, ...], impl: Any) -> Callable[[], Any]:
    weight = torch.ones(len(sides), *leaves[0].shape, device=leaves[0].device, dtype=leaves[0].dtype)
    return lambda: torch.autograd.grad(short_conv(*leaves, sides=sides, impl=impl), leaves, weight)


if __name__ == "__main__":
    main()
