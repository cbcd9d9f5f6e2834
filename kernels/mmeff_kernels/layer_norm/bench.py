"""Time the layer normalisation on this machine: python -m mmeff_kernels.layer_norm.bench [--runs 20]

fp32 to bf16, as the blocks of a model under autocast take it, alone and of a residual sum fp32 + bf16: this package's
kernels (on CUDA) and torch's own with the sum before and the cast after. Forward and backward; medians with quartiles.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from ..timing import banner, own_milliseconds, parser, show
from .op import add_layer_norm, layer_norm

#: (M, D): Vim-T at 224 pixels, a batch of 256; at 1248, a batch of 16; a wider one. On the CPU a batch of 8.
CUDA_SHAPES = ((50176, 192), (97344, 192), (50176, 768))
CPU_SHAPES = ((1576, 192),)


def main() -> None:
    args = parser(__doc__).parse_args()
    device = torch.device(args.device)
    cuda = device.type == "cuda"
    print(banner(device))
    for shape in CUDA_SHAPES if cuda else CPU_SHAPES:
        leaves = [torch.randn(size, device=device, requires_grad=True) for size in (shape, shape[1:], shape[1:])]
        for impl in ("triton", "torch") if cuda else ("torch",):
            for name, passes in (("alone", norm), ("of a sum", norm_of_sum)):
                forward, both = passes(leaves, impl)
                alone, whole = (show(own_milliseconds(run, args.runs, device)) for run in (forward, both))
                print(f"{shape!s:14} {impl:7} {name:9} forward {alone} ms, + backward {whole} ms", flush=True)


Passes = tuple[Callable[[], Any], Callable[[], Any]]


def norm(leaves: list[Tensor], impl: Any) -> Passes:
    x, scale, bias = leaves
    weight = torch.ones(x.shape, device=x.device, dtype=torch.bfloat16)

    def forward() -> Tensor:
        return layer_norm(x, scale, bias, dtype=torch.bfloat16, impl=impl)

    return torch.no_grad()(forward), lambda: torch.autograd.grad(forward(), leaves, weight)


def norm_of_sum(leaves: list[Tensor], impl: Any) -> Passes:
    x, scale, bias = leaves
    branch = torch.randn_like(x, dtype=torch.bfloat16).requires_grad_()
    weights = torch.ones_like(x), torch.ones_like(branch)

    def forward() -> tuple[Tensor, Tensor]:
        return add_layer_norm(x, branch, scale, bias, dtype=torch.bfloat16, impl=impl)

    return torch.no_grad()(forward), lambda: torch.autograd.grad(forward(), [*leaves, branch], weights)


if __name__ == "__main__":
    main()
