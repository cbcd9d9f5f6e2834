"""Time the selective scan on this machine: python -m mmeff_kernels.selective_scan.bench [--runs 20] [--device cpu]

For each shape the forward pass, forward + backward, and on CUDA the peak memory beyond the inputs, of each way that the
device offers: median and quartiles in ms. On the CPU in fp32, on CUDA in bf16, dt with bias and softplus. On an H200
also the share of its limit that forward + backward reach: each tensor moved once over the bandwidth, or two
exponentials for each state and step over their rate, whichever takes longer.
"""

import argparse
import platform
import time
from collections.abc import Callable
from statistics import median, quantiles
from typing import Any

import torch
from torch import Tensor

from .op import Impl, selective_scan

#: (B, L, D, N): Vim-T's layer at a batch of 8, and other forms of about the same work.
CPU_SHAPES = ((8, 197, 192, 16), (1, 197, 384, 16), (32, 64, 384, 16), (2, 1024, 192, 16), (8, 784, 96, 1))
#: Vim-T and Vim-S at 224, Vim-T at 512 and 1248 pixels, long audio, one route of VMamba-T's first two stages.
CUDA_SHAPES = (
    (128, 196, 384, 16),
    (64, 196, 768, 16),
    (32, 1024, 384, 16),
    (8, 6084, 384, 16),
    (4, 16384, 768, 16),
    (64, 3136, 96, 1),
    (64, 784, 192, 1),
)
#: Bytes a second of a copy, and exponentials a second, as measured.
LIMITS = {"NVIDIA H200": (4.3e12, 4.2e12)}


def inputs(shape: tuple[int, int, int, int], device: torch.device) -> dict[str, Tensor]:
    """Mamba's ranges at initialisation: softplus(dt + bias) in [1e-3, 1e-1], A = -(1..N)."""
    rows, L, channels, N = shape
    dtype = torch.bfloat16 if device.type == "cuda" else torch.float32
    generator = torch.Generator().manual_seed(0)
    x, dt = torch.randn(2, rows, L, channels, generator=generator).to(dtype)
    B, C = torch.randn(2, rows, L, N, generator=generator).to(dtype)
    step = 10 ** (2 * torch.rand(channels, generator=generator) - 3)
    A = -torch.arange(1, N + 1, dtype=torch.float32).repeat(channels, 1)
    tensors = {"x": x, "dt": dt / 10, "A": A, "B": B, "C": C, "dt_bias": step.expm1().log()}
    return {name: tensor.to(device).requires_grad_() for name, tensor in tensors.items()}


def times(run: Callable[[], object], runs: int, device: torch.device) -> list[float]:
    """Milliseconds of each of `runs` calls, after three that warm up."""
    synchronize = torch.cuda.synchronize if device.type == "cuda" else lambda: None
    taken = []
    for _ in range(runs + 3):
        synchronize()
        start = time.perf_counter()
        run()
        synchronize()
        taken.append(1e3 * (time.perf_counter() - start))
    return taken[3:]


def measure(impl: Impl, tensors: dict[str, Tensor], runs: int) -> tuple[list[float], list[float], float]:
    """ms of forward passes, ms of forward + backward passes, MiB that they need beyond their inputs (CUDA)."""
    device = tensors["x"].device
    weight = torch.randn_like(tensors["x"])

    arguments: dict[str, Any] = {**tensors, "dt_softplus": True, "impl": impl}

    def forward() -> Tensor:
        return selective_scan(**arguments)

    def both() -> None:
        torch.autograd.grad(forward(), tuple(tensors.values()), weight)

    with torch.no_grad():
        alone = times(forward, runs, device)
    both_times = times(both, runs, device)
    if device.type != "cuda":
        return alone, both_times, 0.0
    before = torch.cuda.memory_allocated()
    torch.cuda.reset_peak_memory_stats()
    both()
    return alone, both_times, (torch.cuda.max_memory_allocated() - before) / 2**20


def limit(shape: tuple[int, int, int, int], name: str) -> float | None:
    """The least ms that forward + backward could take on this device."""
    if name not in LIMITS:
        return None
    bandwidth, exponentials = LIMITS[name]
    rows, L, channels, N = shape
    wide, narrow = 2 * rows * L * channels, 2 * rows * L * N  # bytes of x, of B
    # Forward reads x, dt, B, C and writes y; backward reads those four and dy, and writes four gradients.
    return 1e3 * max(
        (3 * wide + 2 * narrow + 5 * wide + 4 * narrow) / bandwidth, rows * L * channels * N * 2 / exponentials
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=20)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    args = parser.parse_args()
    device = torch.device(args.device)
    cuda = device.type == "cuda"
    name = torch.cuda.get_device_name(device) if cuda else f"{platform.machine()} CPU"
    print(f"{name}, {torch.get_num_threads()} threads, torch {torch.__version__}, Python {platform.python_version()}")
    print("(B, L, D, N), ms: forward; forward + backward: median [quartiles]")
    for shape in CUDA_SHAPES if cuda else CPU_SHAPES:
        tensors = inputs(shape, device)
        medians = []
        impls: tuple[Impl, ...] = ("triton",) if cuda else ("reference", "torch")
        for impl in impls:
            forward, both, memory = measure(impl, tensors, args.runs)
            medians.append(median(both))
            low, _, high = quantiles(both, n=4)
            line = f"{shape!s:22} {impl:9} {median(forward):9.3f}; {medians[-1]:9.3f} [{low:.3f}, {high:.3f}]"
            least = limit(shape, name)
            line += f"  {memory:.0f} MiB" if cuda else ""
            line += f"  {least / medians[-1]:.0%} of the limit" if least is not None else ""
            line += f"  {medians[0] / medians[-1]:.1f}x" if len(medians) > 1 else ""
            print(line, flush=True)


if __name__ == "__main__":
    main()
