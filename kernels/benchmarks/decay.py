"""Linear attention with a decaying state: a gate for each head and for each feature, in one direction and in both,
beside torch's softmax attention and, where they are installed, the causal passes of mamba-ssm (SSD) and
flash-linear-attention (simple GLA, GLA).

Bytes that must move: 4 tensors of q's size and the gates forward, 11 and two of the gates in all.
"""

from collections.abc import Iterator
from functools import partial
from typing import Any

import torch
from torch import Tensor

from benchmarks.driver import Case, Least, kind_of, softmax
from mmeff_kernels.decay import decay_attention

#: (B, L, H, K): Mamba-2's heads at 224 pixels, DeiT-S at 512, DeiT-T at 1248, and a long sequence.
CUDA_SHAPES = ((128, 197, 6, 64), (64, 1024, 6, 64), (8, 6084, 3, 64), (2, 16384, 16, 128))
CPU_SHAPES = ((8, 256, 3, 64),)


def first_result(run: Any, *tensors: Tensor, **options: Any) -> Tensor:
    return run(*tensors, **options)[0]


def cases(shape: tuple[int, int, int, int], device: torch.device) -> Iterator[Case]:
    generator = torch.Generator().manual_seed(0)
    given = [torch.randn(shape, generator=generator).to(device, kind_of(device)).requires_grad_() for _ in range(3)]
    for name, gates in (("head", shape[:3]), ("feature", shape)):
        g = (-torch.rand(gates, generator=generator)).to(device).requires_grad_()
        least = Least(4 * given[0].nbytes + g.nbytes), Least(11 * given[0].nbytes + 2 * g.nbytes)
        for direction in ("forward", "both"):
            run = partial(first_result, decay_attention, direction=direction)
            yield Case(f"a gate per {name}, {direction}", [*given, g], run, *least)
    yield from softmax(shape, device)
    if device.type == "cuda":
        yield from peers(shape, device)


def peers(shape: tuple[int, int, int, int], device: torch.device) -> Iterator[Case]:
    """Causal passes of the libraries that are installed."""
    q, k, v = (torch.randn(shape, device=device, dtype=torch.bfloat16).requires_grad_() for _ in range(3))
    g, each = ((-torch.rand(size, device=device)).requires_grad_() for size in (shape[:3], shape))
    try:
        from mamba_ssm.ops.triton.ssd_combined import mamba_chunk_scan_combined  # type: ignore[import-not-found]
    except ImportError:
        print("mamba-ssm is not installed: its SSD is not timed")
    else:
        A = -torch.ones(shape[2], device=device)

        def ssd(v: Tensor, g: Tensor, k: Tensor, q: Tensor) -> Tensor:
            return mamba_chunk_scan_combined(v, -g, A, k, q, chunk_size=64)

        yield Case("mamba-ssm SSD", [v, g, k, q], ssd)
    try:
        from fla.ops.gla import chunk_gla  # type: ignore[import-not-found]
        from fla.ops.simple_gla import chunk_simple_gla  # type: ignore[import-not-found]
    except ImportError:
        print("flash-linear-attention is not installed: its simple GLA and its GLA are not timed")
    else:
        yield Case("fla, a gate per head", [q, k, v, g], partial(first_result, chunk_simple_gla))
        yield Case("fla, a gate per feature", [q, k, v, each], partial(first_result, chunk_gla))
