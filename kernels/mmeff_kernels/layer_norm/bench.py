"""Time the layer normalisation on this machine: python -m mmeff_kernels.layer_norm.bench [--runs 20]

fp32 to bf16, as the blocks of a model under autocast take it: this package's kernels (on CUDA) and torch's own with the
cast that follows. Forward and backward; medians with quartiles.
"""

import argparse
import platform
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from ..timing import graph_milliseconds, milliseconds, name_of, show
from .op import layer_norm

#: (M, D): Vim-T at 224 pixels, a batch of 256; at 1248, a batch of 16; a wider one. On the CPU a batch of 8.
CUDA_SHAPES = ((50176, 192), (97344, 192), (50176, 768))
CPU_SHAPES = ((1576, 192),)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=20)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    args = parser.parse_args()
    device = torch.device(args.device)
    cuda = device.type == "cuda"
    print(
        f"{name_of(device)}, {torch.get_num_threads()} threads, torch {torch.__version__}, {platform.python_version()}"
    )
    for shape in CUDA_SHAPES if cuda else CPU_SHAPES:
        leaves = [torch.randn(size, device=device, requires_grad=True) for size in (shape, shape[1:], shape[1:])]
        for impl in ("triton", "torch") if cuda else ("torch",):
            forward, both = passes(leaves, impl)
            time = (lambda run: graph_milliseconds(run, args.runs)) if cuda else timed(args.runs, device)
            print(
                f"{shape!s:14} {impl:7} forward {show(time(forward))} ms, + backward {show(time(both))} ms", flush=True
            )


def timed(runs: int, device: torch.device) -> Callable[[Callable[[], Any]], list[float]]:
    return lambda run: milliseconds(run, runs, device)


def passes(leaves: list[Tensor], impl: Any) -> tuple[Callable[[], Any], Callable[[], Any]]:
    weight = torch.ones(leaves[0].shape, device=leaves[0].device, dtype=torch.bfloat16)

    x, scale, bias = leaves

    def forward() -> Tensor:
        return layer_norm(x, scale, bias, dtype=torch.bfloat16, impl=impl)

    return torch.no_grad()(forward), lambda: torch.autograd.grad(forward(), leaves, weight)


if __name__ == "__main__":
    main()
