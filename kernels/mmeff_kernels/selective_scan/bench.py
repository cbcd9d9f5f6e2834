"""Time the selective scan on this machine: python -m mmeff_kernels.selective_scan.bench [--runs 10] [--device cpu]

For each shape, forward + backward of the reference through autograd and of the torch path: median and the quartiles.
"""

import argparse
import platform
import time
from statistics import median, quantiles

import torch
from torch import Tensor

from .op import Impl, selective_scan

#: (B, L, D, N)
SHAPES = ((8, 197, 192, 16), (1, 197, 384, 16), (32, 64, 384, 16), (2, 1024, 192, 16), (8, 784, 96, 1))


def inputs(shape: tuple[int, int, int, int], device: torch.device) -> tuple[Tensor, ...]:
    """x, dt, A, B, C with Mamba's ranges at initialisation: dt in [1e-3, 1e-1], A = -(1..N)."""
    rows, L, channels, N = shape
    generator = torch.Generator().manual_seed(0)
    x, log_dt = torch.randn(rows, L, channels, generator=generator), torch.rand(rows, L, channels, generator=generator)
    B, C = torch.randn(2, rows, L, N, generator=generator)
    A = -torch.arange(1, N + 1, dtype=torch.float32).repeat(channels, 1)
    return tuple(tensor.to(device).requires_grad_() for tensor in (x, 10 ** (2 * log_dt - 3), A, B, C))


def times(impl: Impl, tensors: tuple[Tensor, ...], runs: int) -> list[float]:
    """Milliseconds of forward + backward, `runs` times after two that warm up."""
    x, dt, A, B, C = tensors
    synchronize = torch.cuda.synchronize if x.is_cuda else lambda: None
    taken = []
    for _ in range(runs + 2):
        synchronize()
        start = time.perf_counter()
        y = selective_scan(x, dt, A, B, C, impl=impl)
        torch.autograd.grad(y.sum(), tensors)
        synchronize()
        taken.append(1e3 * (time.perf_counter() - start))
    return taken[2:]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=10)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    args = parser.parse_args()
    device = torch.device(args.device)
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else f"{platform.machine()} CPU"
    print(f"{name}, {torch.get_num_threads()} threads, torch {torch.__version__}, Python {platform.python_version()}")
    print("forward + backward, ms: median [quartiles]")
    for shape in SHAPES:
        tensors = inputs(shape, device)
        medians = {}
        cells = []
        for impl in ("reference", "torch"):
            taken = times(impl, tensors, args.runs)
            low, _, high = quantiles(taken, n=4)
            medians[impl] = median(taken)
            cells.append(f"{impl} {medians[impl]:8.2f} [{low:.2f}, {high:.2f}]")
        print(f"{shape!s:22}", *cells, f"{medians['reference'] / medians['torch']:.1f}x", sep="  ")


if __name__ == "__main__":
    main()
