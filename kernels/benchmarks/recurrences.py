"""Recurrences of two dimensions, each from one corner, beside a selective scan of the same size in both directions."""

from collections.abc import Callable, Iterator
from functools import partial

import torch
from torch import Tensor

from benchmarks.driver import Case, kind_of
from mmeff_kernels.scan2d import separable_scan, wavefront_scan
from mmeff_kernels.selective_scan import selective_scan_routes

#: (B, H, W, D, N): VMamba-T's first two stages, an image of 1024 pixels in patches of 16, a minute of audio.
CUDA_SHAPES = (
    (64, 56, 56, 96, 16), (64, 56, 56, 192, 16), (64, 28, 28, 192, 16), (16, 64, 64, 384, 16), (16, 8, 750, 384, 16),
    (64, 56, 56, 96, 1), (16, 64, 64, 384, 1),
)  # fmt: skip
CPU_SHAPES = ((4, 14, 14, 96, 4), (4, 14, 14, 96, 1))
Inputs = dict[str, Tensor]


def inputs(shape: tuple[int, ...], device: torch.device, copies: int = 1) -> Inputs:
    """Mamba's ranges at initialisation; what each direction or corner has of its own leads with an axis of copies."""
    rows, H, W, channels, N = shape
    generator = torch.Generator().manual_seed(0)

    def draw(*size: int) -> Tensor:
        return torch.randn(size, generator=generator).to(kind_of(device))

    drawn = {"x": draw(rows, H * W, channels)}
    for end in ("", "_top"):
        drawn |= {
            f"dt{end}": draw(copies, rows, H * W, channels) / 10,
            f"A{end}": -torch.arange(1, N + 1, dtype=torch.float32).repeat(copies, channels, 1),
            f"B{end}": draw(copies, rows, H * W, N),
            f"dt_bias{end}": (10 ** (2 * torch.rand(copies, channels, generator=generator) - 3)).expm1().log(),
        }
    drawn["C"] = draw(copies, rows, H * W, N)
    return {name: tensor.to(device).requires_grad_() for name, tensor in drawn.items()}


def both_directions(**given: Tensor) -> Tensor:
    given |= {name: given[name].unsqueeze(-2) for name in "BC"}
    return selective_scan_routes(**given, routes=("forward", "backward"), dt_softplus=True)[0]  # type: ignore[arg-type]


def case(label: str, run: Callable[..., Tensor], given: Inputs) -> Case:
    return Case(label, tuple(given.values()), lambda *tensors: run(**dict(zip(given, tensors, strict=True))))


def cases(shape: tuple[int, ...], device: torch.device) -> Iterator[Case]:
    grid, corner = (shape[1], shape[2]), ("top-left",)
    one, two = inputs(shape, device), inputs(shape, device, copies=2)
    left, scanned = ({k: t for k, t in given.items() if not k.endswith("_top")} for given in (one, two))
    yield case("both directions", both_directions, scanned)
    yield case("separable", partial(separable_scan, grid=grid, corners=corner, dt_softplus=True), left)
    yield case("wavefront", partial(wavefront_scan, grid=grid, corners=corner, dt_softplus=True), one)
