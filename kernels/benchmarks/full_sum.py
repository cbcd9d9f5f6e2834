"""Order-free linear attention with elu + 1, normalised, with and without a rotation, beside torch's softmax attention.

Bytes that must move: 4 tensors of q's size forward, 11 in all.
"""

from collections.abc import Iterator
from functools import partial

import torch

from benchmarks.driver import Case, Least, kind_of, softmax
from mmeff_kernels.full_sum import full_sum

#: (B, L, H, K): DeiT-T at 224 pixels, DeiT-S at 362 and 512, DeiT-T at 1248, and a long sequence.
CUDA_SHAPES = ((128, 197, 3, 64), (64, 512, 6, 64), (64, 1024, 6, 64), (8, 6084, 3, 64), (2, 16384, 16, 128))
CPU_SHAPES = ((8, 256, 3, 64),)


def cases(shape: tuple[int, int, int, int], device: torch.device) -> Iterator[Case]:
    generator = torch.Generator().manual_seed(0)
    given = [torch.randn(shape, generator=generator).to(device, kind_of(device)).requires_grad_() for _ in range(3)]
    _, L, _, K = shape
    angles = torch.arange(L, device=device)[:, None] * 1e4 ** (-torch.arange(K // 2, device=device) / (K // 2))
    least = Least(4 * given[0].nbytes), Least(11 * given[0].nbytes)
    yield Case("full_sum", given, full_sum, *least)
    yield Case("rotated", given, partial(full_sum, rotation=(angles.cos(), angles.sin())), *least)
    yield from softmax(shape, device)
