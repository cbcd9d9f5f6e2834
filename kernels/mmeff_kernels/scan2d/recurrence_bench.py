"""Time the recurrences of two dimensions: python -m mmeff_kernels.scan2d.recurrence_bench [--runs 20]

Each from one corner, beside a selective scan of the same size in both directions, whose time is 1. On CUDA in bf16, ms
of the GPU alone (a CUDA graph), forward and with the backward pass, and peak memory beyond the inputs; on the CPU in
fp32. dt has a bias and a softplus. Medians, quartiles in brackets.
"""

from collections.abc import Callable
from functools import partial
from statistics import median

import torch
from torch import Tensor

from ..selective_scan import selective_scan_routes
from ..timing import banner, own_milliseconds, parser, peak_mib, show
from .recurrence import separable_scan, wavefront_scan

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
    dtype = torch.bfloat16 if device.type == "cuda" else torch.float32
    generator = torch.Generator().manual_seed(0)

    def draw(*size: int) -> Tensor:
        return torch.randn(size, generator=generator).to(dtype)

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


def passes(run: Callable[..., Tensor], given: Inputs) -> tuple[Callable[[], Tensor], Callable[[], tuple[Tensor, ...]]]:
    """A forward pass alone, and one with its backward pass."""
    alone = torch.no_grad()(lambda: run(**given))
    weight = torch.ones_like(alone())
    return alone, lambda: torch.autograd.grad(run(**given), tuple(given.values()), weight)


def contenders(shape: tuple[int, ...], device: torch.device) -> list[tuple[str, Callable[..., Tensor], Inputs]]:
    grid, corner = (shape[1], shape[2]), ("top-left",)
    one, two = inputs(shape, device), inputs(shape, device, copies=2)
    left, scanned = ({k: t for k, t in given.items() if not k.endswith("_top")} for given in (one, two))
    return [
        ("both directions", both_directions, scanned),
        ("separable", partial(separable_scan, grid=grid, corners=corner, dt_softplus=True), left),
        ("wavefront", partial(wavefront_scan, grid=grid, corners=corner, dt_softplus=True), one),
    ]


def main() -> None:
    args = parser(__doc__).parse_args()
    device = torch.device(args.device)
    print(banner(device))
    print(f"{'(B, H, W, D, N)':24} {'':16} {'forward':>8} {'with backward':>28}   MiB")
    for shape in CUDA_SHAPES if device.type == "cuda" else CPU_SHAPES:
        first: list[float] = []
        for label, run, given in contenders(shape, device):
            alone, both = passes(run, given)
            own = median(own_milliseconds(alone, args.runs, device))
            whole = own_milliseconds(both, args.runs, device)
            memory = f"{peak_mib(both):5.0f}" if device.type == "cuda" else ""
            first = first or [own, median(whole)]
            ratios = f"{own / first[0]:5.2f} {median(whole) / first[1]:5.2f}"
            print(f"{shape!s:24} {label:16} {own:8.3f} {show(whole):>28} {memory} {ratios}", flush=True)


if __name__ == "__main__":
    main()
