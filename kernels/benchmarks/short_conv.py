"""The short convolution: two directions of width 4 with bias and SiLU, as a bidirectional Mamba layer takes them, and a
centred one of width 3; this package's kernels (on CUDA) and torch's. Over grids, 3 x 3 with SiLU: torch's alone."""

from collections.abc import Iterator
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor

from benchmarks.driver import Case, kind_of
from mmeff_kernels.short_conv import Side, short_conv

#: (B, L, D): Vim-T at 224, 512 and 1248 pixels; (B, H, W, D): VMamba-T's first three stages. On the CPU fewer rows.
CUDA_SHAPES = (
    (128, 196, 384), (32, 1024, 384), (8, 6084, 384), (64, 56, 56, 192), (64, 28, 28, 384), (64, 14, 14, 768),
)  # fmt: skip
CPU_SHAPES = ((8, 197, 384), (4, 28, 28, 384))
FORMS: tuple[tuple[tuple[Side, ...], int], ...] = ((("causal", "anticausal"), 4), (("centred",), 3))


def cases(shape: tuple[int, ...], device: torch.device) -> Iterator[Case]:
    if len(shape) == 4:
        yield from over_a_grid(shape, device)
        return
    for sides, width in FORMS:
        x = torch.randn(shape, device=device, dtype=kind_of(device))
        weight, bias = torch.randn(len(sides), shape[2], width), torch.randn(len(sides), shape[2])
        leaves = [t.to(device).requires_grad_() for t in (x, weight, bias)]
        for impl in ("triton", "torch") if device.type == "cuda" else ("torch",):
            yield Case(f"{'+'.join(sides)}, {impl}", leaves, partial(short_conv, sides=sides, impl=impl))


def over_a_grid(shape: tuple[int, ...], device: torch.device) -> Iterator[Case]:
    rows, H, W, channels = shape
    taps, bias = (
        torch.randn(size, device=device, dtype=kind_of(device), requires_grad=True)
        for size in ((channels, 1, 3, 3), (channels,))
    )

    def run(x: Tensor, taps: Tensor, bias: Tensor) -> Tensor:
        return F.silu(F.conv2d(x, taps, bias, padding=1, groups=channels))

    for order, layout in (("first", torch.contiguous_format), ("last", torch.channels_last)):
        x = torch.randn(rows, channels, H, W, device=device, dtype=kind_of(device)).to(memory_format=layout)
        yield Case(f"3 x 3, channels {order}, torch", [x.requires_grad_(), taps, bias], run)
