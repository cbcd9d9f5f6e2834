"""Time the selective scan on this machine: python -m mmeff_kernels.selective_scan.bench [--runs 20] [--only TEXT]

On the CPU, in fp32: each way that it offers, beside the definition. On CUDA, in bf16 and fp32: one direction, and both
in one call beside a call for each; ms of the GPU alone (a CUDA graph) and as the caller waits for it, peak memory
beyond the inputs, and the share of the limit that forward + backward reach on a GPU whose limits are known: each tensor
moved once over the bandwidth, or two exponentials for each state and step over their rate, whichever takes longer.
Where mamba_ssm is installed its scan is timed too. dt has a bias and a softplus. Medians, quartiles in brackets.
"""

from collections.abc import Callable
from statistics import median
from typing import Any

import torch
from torch import Tensor

from ..timing import LIMITS, banner, graph_milliseconds, milliseconds, name_of, parser, peak_mib, show
from .op import selective_scan
from .routes import selective_scan_routes

Shape = tuple[int, int, int, int]
#: (B, L, D, N): Vim-T's layer at a batch of 8, and other forms of about the same work.
CPU_SHAPES = ((8, 197, 192, 16), (1, 197, 384, 16), (32, 64, 384, 16), (2, 1024, 192, 16), (8, 784, 96, 1))
#: Vim-T and Vim-S at 224, Vim-T at 512 and 1248 pixels, long audio, the four routes of VMamba-T's first two stages.
CUDA_SHAPES = (
    (128, 196, 384, 16),
    (64, 196, 768, 16),
    (32, 1024, 384, 16),
    (8, 6084, 384, 16),
    (4, 16384, 768, 16),
    (64, 3136, 384, 1),
    (64, 784, 768, 1),
    (64, 3136, 384, 16),
)


def inputs(shape: Shape, device: torch.device, dtype: torch.dtype, routes: int = 0) -> dict[str, Tensor]:
    """Mamba's ranges at initialisation: softplus(dt + bias) in [1e-3, 1e-1], A = -(1..N). Own parameters a route."""
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


def passes(scan: Callable[..., Any], tensors: dict[str, Tensor], **options: Any) -> tuple[Callable[[], Any], ...]:
    """A forward pass alone, and one with its backward pass."""

    def forward() -> Tensor:
        y = scan(**tensors, **options)
        return y[0] if isinstance(y, tuple) else y

    def alone() -> Tensor:
        with torch.no_grad():
            return forward()

    weight = torch.ones_like(alone())

    def both() -> tuple[Tensor, ...]:
        return torch.autograd.grad(forward(), tuple(tensors.values()), weight)

    return alone, both


def limit(shape: Shape, name: str, size: int) -> float | None:
    """The least ms that forward + backward could take on this device, elements of `size` bytes."""
    if name not in LIMITS:
        return None
    bandwidth, exponentials = LIMITS[name]
    rows, L, channels, N = shape
    wide, narrow = size * rows * L * channels, size * rows * L * N  # bytes of x, of B
    # Forward reads x, dt, B, C and writes y; backward reads those four and dy, and writes four gradients.
    return 1e3 * max((8 * wide + 6 * narrow) / bandwidth, rows * L * channels * N * 2 / exponentials)


def on_cpu(runs: int, only: str) -> None:
    device = torch.device("cpu")
    print(f"{'(B, L, D, N), fp32':22} {'':9} {'forward ms':>28} {'forward + backward ms':>28}")
    for shape in CPU_SHAPES:
        if only not in str(shape):
            continue
        tensors = inputs(shape, device, torch.float32)
        medians = []
        for impl in ("reference", "torch"):
            alone, both = (
                milliseconds(run, runs, device) for run in passes(selective_scan, tensors, impl=impl, dt_softplus=True)
            )
            medians.append(median(both))
            print(
                f"{shape!s:22} {impl:9} {show(alone):>28} {show(both):>28}  {medians[0] / medians[-1]:.1f}x", flush=True
            )


def on_cuda(runs: int, only: str, name: str) -> None:
    print(f"{'(B, L, D, N)':22} {'':19} {'forward':>9} {'+ backward, GPU ms':>28} {'waited for':>15}   MiB  of limit")
    for dtype in (torch.bfloat16, torch.float32):
        kind = "bf16" if dtype == torch.bfloat16 else "fp32"
        for shape in CUDA_SHAPES:
            if only not in f"{shape} {kind}":
                continue
            least = limit(shape, name, dtype.itemsize)
            for label, run in contenders(shape, dtype, torch.device("cuda")):
                line(f"{shape!s:22} {kind} {label:14}", run, runs, least)
            torch.cuda.empty_cache()


def contenders(
    shape: Shape, dtype: torch.dtype, device: torch.device
) -> list[tuple[str, tuple[Callable[[], Any], ...]]]:
    """What is timed on CUDA: names, and a forward pass and one with its backward pass of each."""
    tensors, own = inputs(shape, device, dtype), inputs(shape, device, dtype, routes=2)
    own["x"] = tensors["x"]  # both directions read the same tokens

    def flipped(**given: Tensor) -> Tensor:
        there: dict[str, Any] = {k: t if k == "x" else t[0] for k, t in given.items()}
        back: dict[str, Any] = {k: t if k == "x" else t[1] for k, t in given.items()}
        back |= {k: back[k].flip(1) for k in ("x", "dt", "B", "C")}
        y = selective_scan(**there, dt_softplus=True, impl="triton")
        return y + selective_scan(**back, dt_softplus=True, impl="triton").flip(1)

    low = {name: t for name, t in tensors.items() if name != "dt"}
    low["dt"] = torch.randn(*shape[:2], 12, device=device, dtype=dtype, requires_grad=True)
    low["dt_weight"] = torch.randn(shape[2], 12, device=device, requires_grad=True)
    found = [("one direction", passes(selective_scan, tensors, dt_softplus=True, impl="triton"))]
    found.append(("  dt of rank 12", passes(selective_scan, low, dt_softplus=True, impl="triton")))
    found.append(
        (
            "both directions",
            passes(selective_scan_routes, own, dt_softplus=True, routes=("forward", "backward"), impl="triton"),
        )
    )
    found.append(("flips, two calls", passes(flipped, own)))
    try:
        from mamba_ssm.ops.selective_scan_interface import selective_scan_fn  # pyright: ignore[reportMissingImports]
    except ImportError:
        return found
    upstream = {k: tensors[k].detach().transpose(1, -1).contiguous().requires_grad_() for k in ("x", "dt")}
    upstream |= {k: tensors[k].detach().mT.contiguous().requires_grad_() for k in ("B", "C")}
    upstream |= {k: tensors[k].detach().requires_grad_() for k in ("A", "dt_bias")}

    def mamba(x: Tensor, dt: Tensor, B: Tensor, C: Tensor, A: Tensor, dt_bias: Tensor) -> Tensor:
        return selective_scan_fn(x, dt, A, B, C, delta_bias=dt_bias, delta_softplus=True)

    return [*found, ("mamba_ssm", passes(mamba, upstream))]


def line(label: str, run: tuple[Callable[[], Any], ...], runs: int, least: float | None) -> None:
    alone, both = run
    device = torch.device("cuda")
    own, whole = median(graph_milliseconds(alone, runs)), graph_milliseconds(both, runs)
    waited = [median(milliseconds(r, runs, device)) for r in run]
    share = "" if least is None else f"{least / median(whole):7.0%}"
    print(
        f"{label} {own:8.3f} {show(whole):>28} {waited[0]:7.3f} {waited[1]:7.3f} {peak_mib(both):5.0f} {share}",
        flush=True,
    )


def main() -> None:
    asked = parser(__doc__)
    asked.add_argument("--only", default="", help="lines that contain this, as '(8, 6084' or 'fp32'")
    args = asked.parse_args()
    device = torch.device(args.device)
    print(banner(device))
    if device.type == "cuda":
        on_cuda(args.runs, args.only, name_of(device))
    else:
        on_cpu(args.runs, args.only)


if __name__ == "__main__":
    main()
