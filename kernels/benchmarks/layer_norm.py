"""Layer normalisation, fp32 to bf16 as the blocks of a model under autocast take it, alone and of a residual sum."""

from collections.abc import Iterator
from functools import partial

import torch

from benchmarks.driver import Case
from mmeff_kernels.layer_norm import add_layer_norm, layer_norm

#: (M, D): Vim-T at 224 pixels, a batch of 256; at 1248, a batch of 16; a wider one. On the CPU a batch of 8.
CUDA_SHAPES = ((50176, 192), (97344, 192), (50176, 768))
CPU_SHAPES = ((1576, 192),)


def cases(shape: tuple[int, int], device: torch.device) -> Iterator[Case]:
    x, weight, bias = (torch.randn(size, device=device, requires_grad=True) for size in (shape, shape[1:], shape[1:]))
    branch = torch.randn(shape, device=device, dtype=torch.bfloat16, requires_grad=True)
    for impl in ("triton", "torch") if device.type == "cuda" else ("torch",):
        given = {"dtype": torch.bfloat16, "impl": impl}
        yield Case(f"alone, {impl}", (x, weight, bias), partial(layer_norm, **given))
        yield Case(f"of a sum, {impl}", (x, branch, weight, bias), partial(add_layer_norm, **given))
