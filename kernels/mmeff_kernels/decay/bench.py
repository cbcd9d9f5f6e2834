"""Time linear attention with a decaying state on this machine: python -m mmeff_kernels.decay.bench [--runs 20]

`decay_attention` with a gate for each head and for each feature, in one direction and in both, beside torch's softmax
attention of the same tensors (on CUDA its flash and its cuDNN backend) and, where they are installed, the causal passes
of mamba-ssm (SSD) and flash-linear-attention (simple GLA, GLA). bf16 on CUDA, fp32 on the CPU; ms of the device's own
time, forward; with backward, and the share of the time that the bytes take which must move: 4 tensors of q's size and
the gates forward, 11 and two of the gates in all, at the speed of a copy. Medians, quartiles in brackets.

--first times the first calls of a fresh process instead.
"""

from collections.abc import Callable, Iterator
from statistics import median
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

from ..timing import LIMITS, banner, first_calls, name_of, own_milliseconds, parser, show
from .op import decay_attention

#: (B, L, H, K): Mamba-2's heads at 224 pixels, DeiT-S at 512, DeiT-T at 1248, and a long sequence.
CUDA_SHAPES = ((128, 197, 6, 64), (64, 1024, 6, 64), (8, 6084, 3, 64), (2, 16384, 16, 128))
CPU_SHAPES = ((8, 256, 3, 64),)
Contender = tuple[str, list[Tensor], Callable[..., Tensor]]


def ours(shape: tuple[int, ...], device: torch.device) -> Iterator[Contender]:
    """Name, tensors, and what is done with them."""
    dtype = torch.bfloat16 if device.type == "cuda" else torch.float32
    generator = torch.Generator().manual_seed(0)
    given = [torch.randn(shape, generator=generator).to(device, dtype).requires_grad_() for _ in range(3)]
    for name, gates in (("head", shape[:3]), ("feature", shape)):
        g = (-torch.rand(gates, generator=generator)).to(device).requires_grad_()
        for direction in ("forward", "both"):

            def run(q: Tensor, k: Tensor, v: Tensor, g: Tensor, direction: Any = direction) -> Tensor:
                return decay_attention(q, k, v, g, direction=direction)[0]

            yield f"gate of a {name}, {direction}", [*given, g], run


def softmax(shape: tuple[int, ...], device: torch.device) -> Iterator[Contender]:
    dtype = torch.bfloat16 if device.type == "cuda" else torch.float32
    B, L, H, K = shape
    given = [torch.randn(B, H, L, K, device=device, dtype=dtype).requires_grad_() for _ in range(3)]
    backends = [SDPBackend.FLASH_ATTENTION, SDPBackend.CUDNN_ATTENTION] if device.type == "cuda" else [SDPBackend.MATH]
    for backend in backends:

        def attend(q: Tensor, k: Tensor, v: Tensor, backend: SDPBackend = backend) -> Tensor:
            with sdpa_kernel(backend):
                return F.scaled_dot_product_attention(q, k, v)

        yield f"softmax, {backend.name.split('_')[0].lower()}", given, attend


def peers(shape: tuple[int, ...], device: torch.device) -> Iterator[Contender]:
    """Causal passes of the installed libraries; none on the CPU, where they do not run."""
    if device.type != "cuda":
        return
    _, _, H, _ = shape
    q, k, v = (torch.randn(shape, device=device, dtype=torch.bfloat16).requires_grad_() for _ in range(3))
    g, each = ((-torch.rand(size, device=device)).requires_grad_() for size in (shape[:3], shape))
    try:
        from mamba_ssm.ops.triton.ssd_combined import mamba_chunk_scan_combined  # type: ignore[import-not-found]
    except ImportError:
        print("mamba-ssm is not installed: its SSD is not timed")
    else:
        A = -torch.ones(H, device=device)
        yield "mamba-ssm SSD", [v, g, k, q], lambda v, g, k, q: mamba_chunk_scan_combined(v, -g, A, k, q, chunk_size=64)
    try:
        from fla.ops.gla import chunk_gla  # type: ignore[import-not-found]
        from fla.ops.simple_gla import chunk_simple_gla  # type: ignore[import-not-found]
    except ImportError:
        print("flash-linear-attention is not installed: its simple GLA and its GLA are not timed")
    else:
        yield "fla, gate of a head", [q, k, v, g], lambda *tensors: chunk_simple_gla(*tensors)[0]
        yield "fla, gate of a feature", [q, k, v, each], lambda *tensors: chunk_gla(*tensors)[0]


def main() -> None:
    asked = parser(__doc__)
    asked.add_argument("--first", action="store_true")
    args = asked.parse_args()
    device = torch.device(args.device)
    print(banner(device))
    shapes = CUDA_SHAPES if device.type == "cuda" else CPU_SHAPES
    if args.first:
        for name, given, run in ours(shapes[0], device):
            taken = first_calls(lambda r=run, g=given: r(*g), device)
            print(f"{shapes[0]!s:22} {name:26} {taken}", flush=True)
        return
    for shape in shapes:
        for find in (ours, softmax, peers):
            for name, given, run in find(shape, device):
                weight = torch.ones_like(given[0])
                try:
                    alone = median(own_milliseconds(torch.no_grad()(lambda r=run, g=given: r(*g)), args.runs, device))
                    both = own_milliseconds(
                        lambda r=run, g=given, w=weight: torch.autograd.grad(r(*g), g, w), args.runs, device
                    )
                except Exception as error:  # a peer that does not run here is a result too
                    print(f"{shape!s:22} {name:26} {' '.join(str(error).split())[:120]}", flush=True)
                    continue
                share = ""
                if name_of(device) in LIMITS and find is ours:
                    tensor, gates = (1e3 * given[i].nbytes / LIMITS[name_of(device)][0] for i in (0, 3))
                    low, high = (4 * tensor + gates) / alone, (11 * tensor + 2 * gates) / median(both)
                    share = f"{low:4.0%} {high:4.0%} of the bytes' limit"
                print(f"{shape!s:22} {name:26} {alone:8.3f} {show(both)} {share}", flush=True)


if __name__ == "__main__":
    main()
