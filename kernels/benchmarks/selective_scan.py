"""The selective scan with bias and softplus: one direction, dt in low rank, both directions in one call beside a call
for each; where mamba_ssm is installed its scan too. On the CPU the blocks beside the definition.

Bytes that must move: forward reads x, dt, B and C and writes y; backward reads those and dy, and writes four gradients.
Exponentials: one for each state and step forward, and one more backward.
"""

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from benchmarks.driver import Case, Least, kind_of
from mmeff_kernels.selective_scan import selective_scan, selective_scan_routes

Shape = tuple[int, int, int, int]
#: (B, L, D, N): Vim-T's layer at a batch of 8, and other forms of about the same work.
CPU_SHAPES = ((8, 197, 192, 16), (1, 197, 384, 16), (32, 64, 384, 16), (2, 1024, 192, 16), (8, 784, 96, 1))
#: Vim-T and Vim-S at 224, Vim-T at 512 and 1248 pixels, long audio, the four routes of VMamba-T's first two stages.
CUDA_SHAPES = (
    (128, 196, 384, 16), (64, 196, 768, 16), (32, 1024, 384, 16), (8, 6084, 384, 16), (4, 16384, 768, 16),
    (64, 3136, 384, 1), (64, 784, 768, 1), (64, 3136, 384, 16),
)  # fmt: skip


def inputs(shape: Shape, device: torch.device, dtype: torch.dtype, routes: int = 0) -> dict[str, Tensor]:
    """Mamba's ranges at initialisation: softplus(dt + bias) in [1e-3, 1e-1], A = -(1..N). Own parameters per route."""
    rows, L, channels, N = shape
    generator = torch.Generator().manual_seed(0)
    own = (routes,) if routes else ()

    def draw(*size: int) -> Tensor:
        return torch.randn(*own, *size, generator=generator).to(dtype)

    step = 10 ** (2 * torch.rand(*own, channels, generator=generator) - 3)
    tensors = {
        "x": draw(rows, L, channels), "dt": draw(rows, L, channels) / 10,
        "A": -torch.arange(1, N + 1, dtype=torch.float32).repeat(*own, channels, 1),
        "B": draw(rows, L, N), "C": draw(rows, L, N), "dt_bias": step.expm1().log(),
    }  # fmt: skip
    if routes:
        tensors |= {name: tensors[name].unsqueeze(-2) for name in "BC"}
    return {name: tensor.to(device).requires_grad_() for name, tensor in tensors.items()}


def case(label: str, scan: Any, given: dict[str, Tensor], *least: Least, **options: Any) -> Case:
    def run(*tensors: Tensor) -> Tensor:
        y = scan(**dict(zip(given, tensors, strict=True)), dt_softplus=True, **options)
        return y[0] if isinstance(y, tuple) else y

    return Case(label, tuple(given.values()), run, *least)


def cases(shape: Shape, device: torch.device) -> Iterator[Case]:
    dtype = kind_of(device)
    tensors = inputs(shape, device, dtype)
    if device.type == "cpu":
        for impl in ("reference", "torch"):
            yield case(impl, selective_scan, tensors, impl=impl)
        return
    rows, L, channels, N = shape
    wide, narrow, steps = tensors["x"].nbytes, tensors["B"].nbytes, rows * L * channels * N
    least = Least(3 * wide + 2 * narrow, steps), Least(8 * wide + 6 * narrow, 2 * steps)
    yield case("one direction", selective_scan, tensors, *least)
    low = {name: t for name, t in tensors.items() if name != "dt"}
    low["dt"] = torch.randn(*shape[:2], 12, device=device, dtype=dtype, requires_grad=True)
    low["dt_weight"] = torch.randn(channels, 12, device=device, requires_grad=True)
    yield case("one direction, dt of rank 12", selective_scan, low)
    own = inputs(shape, device, dtype, routes=2) | {"x": tensors["x"]}  # both directions read the same tokens
    yield case("both directions", selective_scan_routes, own, routes=("forward", "backward"))
    yield case("flips, two calls", flipped, own)
    yield from peers(tensors)


def flipped(**given: Any) -> Tensor:
    there, back = ({k: t[i] if k not in ("x", "dt_softplus") else t for k, t in given.items()} for i in (0, 1))
    back |= {k: back[k].flip(1) for k in ("x", "dt", "B", "C")}
    return selective_scan(**there) + selective_scan(**back).flip(1)


def peers(tensors: dict[str, Tensor]) -> Iterator[Case]:
    try:
        from mamba_ssm.ops.selective_scan_interface import selective_scan_fn  # pyright: ignore[reportMissingImports]
    except ImportError:
        print("mamba-ssm is not installed: its scan is not timed")
        return
    turned = {k: tensors[k].detach().mT.contiguous().requires_grad_() for k in ("x", "dt", "B", "C")}
    turned |= {k: tensors[k].detach().requires_grad_() for k in ("A", "dt_bias")}

    def mamba(x: Tensor, dt: Tensor, B: Tensor, C: Tensor, A: Tensor, dt_bias: Tensor) -> Tensor:
        return selective_scan_fn(x, dt, A, B, C, delta_bias=dt_bias, delta_softplus=True)

    yield Case("mamba_ssm", tuple(turned.values()), mamba)
