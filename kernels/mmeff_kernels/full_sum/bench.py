"""Time order-free linear attention on this machine: python -m mmeff_kernels.full_sum.bench [--runs 20]

`full_sum` with elu + 1, normalised, with and without a rotation, beside torch's softmax attention of the same tensors
(on CUDA its flash and its cuDNN backend). bf16 on CUDA, fp32 on the CPU; ms of the device's own time,
forward; with backward, and the share of the time that the bytes take which must move: 4 tensors of q's size forward, 11
in all, at the speed of a copy. Medians, quartiles in brackets.

--first times the first calls of a fresh process instead.
"""

from collections.abc import Callable
from statistics import median

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

from ..timing import LIMITS, banner, first_calls, name_of, own_milliseconds, parser, show
from .op import full_sum

#: (B, L, H, K): DeiT-T at 224 pixels, DeiT-S at 362 and 512, DeiT-T at 1248, and a long sequence.
CUDA_SHAPES = ((128, 197, 3, 64), (64, 512, 6, 64), (64, 1024, 6, 64), (8, 6084, 3, 64), (2, 16384, 16, 128))
CPU_SHAPES = ((8, 256, 3, 64),)


def contenders(shape: tuple[int, ...], device: torch.device) -> dict[str, tuple[list[Tensor], Callable[..., Tensor]]]:
    """By name, the tensors that each takes and what it does with them."""
    dtype = torch.bfloat16 if device.type == "cuda" else torch.float32
    generator = torch.Generator().manual_seed(0)
    given = [torch.randn(shape, generator=generator).to(device, dtype).requires_grad_() for _ in range(3)]
    _, L, _, K = shape
    angles = torch.arange(L, device=device)[:, None] * 1e4 ** (-torch.arange(K // 2, device=device) / (K // 2))
    rotation = angles.cos(), angles.sin()
    heads_first = [t.detach().transpose(1, 2).contiguous().requires_grad_() for t in given]
    found: dict[str, tuple[list[Tensor], Callable[..., Tensor]]] = {
        "full_sum": (given, full_sum),
        "rotated": (given, lambda *tensors: full_sum(*tensors, rotation=rotation)),
    }
    backends = [SDPBackend.FLASH_ATTENTION, SDPBackend.CUDNN_ATTENTION] if device.type == "cuda" else [SDPBackend.MATH]
    for backend in backends:

        def attend(q: Tensor, k: Tensor, v: Tensor, backend: SDPBackend = backend) -> Tensor:
            with sdpa_kernel(backend):
                return F.scaled_dot_product_attention(q, k, v)

        found[f"softmax, {backend.name.split('_')[0].lower()}"] = (heads_first, attend)
    return found


def main() -> None:
    asked = parser(__doc__)
    asked.add_argument("--first", action="store_true")
    args = asked.parse_args()
    device = torch.device(args.device)
    print(banner(device))
    shapes = CUDA_SHAPES if device.type == "cuda" else CPU_SHAPES
    if args.first:
        for name, (given, run) in contenders(shapes[0], device).items():
            if not name.startswith("softmax"):
                print(f"{shapes[0]!s:22} {name:16} {first_calls(lambda r=run, g=given: r(*g), device)}", flush=True)
        return
    for shape in shapes:
        for name, (given, run) in contenders(shape, device).items():
            weight = torch.ones_like(given[2])
            alone = median(own_milliseconds(torch.no_grad()(lambda r=run, g=given: r(*g)), args.runs, device))
            both = own_milliseconds(
                lambda r=run, g=given, w=weight: torch.autograd.grad(r(*g), g, w), args.runs, device
            )
            share = ""
            if name_of(device) in LIMITS and not name.startswith("softmax"):
                floor = 1e3 * given[0].nbytes / LIMITS[name_of(device)][0]
                share = f"{4 * floor / alone:4.0%} {11 * floor / median(both):4.0%} of the bytes' limit"
            print(f"{shape!s:22} {name:16} {alone:8.3f} {show(both)} {share}", flush=True)


if __name__ == "__main__":
    main()
