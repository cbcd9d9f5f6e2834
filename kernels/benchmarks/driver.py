"""Time operations on this machine: python kernels/benchmarks [OPERATION ...] [--only TEXT] [--markdown FILE]

Every operation has a file here with its shapes and what it is timed beside. bf16 on CUDA, fp32 on the CPU. Forward, and
forward with backward: ms of the device alone (on CUDA a CUDA graph) and as the caller waits for it, host included;
medians, quartiles in brackets; peak memory of both beyond the inputs; and, on a GPU whose limits are known, the share
of them that each pass reaches: the bytes that must move at the speed of a copy, or exponentials at their rate,
whichever takes longer. --first times the first calls of a fresh process instead, which compile.
"""

import argparse
import gc
import platform
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from statistics import median
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

from mmeff_kernels.timing import milliseconds, name_of, once, own_milliseconds, peak_mib, show

OPERATIONS = ("selective_scan", "cross_scan", "recurrences", "decay", "full_sum", "short_conv", "layer_norm")
#: Bytes a second of a copy, exponentials a second, as measured.
LIMITS = {"NVIDIA H200": (4.3e12, 4.2e12)}
COLUMNS = ("shape", "", "forward, ms", "with backward, ms", "waited for, ms", "MiB", "of the limit")


@dataclass(frozen=True)
class Least:
    """What a pass must do: bytes moved, and exponentials."""

    bytes: float = 0
    exponentials: float = 0

    def milliseconds(self, device: torch.device) -> float | None:
        """That it takes at the limits of a device; None where they are not known."""
        if name_of(device) not in LIMITS or not self.bytes:
            return None
        bandwidth, rate = LIMITS[name_of(device)]
        return 1e3 * max(self.bytes / bandwidth, self.exponentials / rate)


@dataclass(frozen=True)
class Case:
    """One call that is timed: `run` of `tensors`, whose gradients are taken; what it must do, forward and in all."""

    label: str
    tensors: Sequence[Tensor]
    run: Callable[..., Any]
    forward: Least = Least()
    both: Least = Least()

    def passes(self) -> tuple[Callable[[], Any], Callable[[], Any]]:
        """A forward pass without gradients, and one with its backward pass."""
        alone = torch.no_grad()(lambda: self.run(*self.tensors))
        weights = [torch.ones_like(y) for y in outputs(alone())]
        return alone, lambda: torch.autograd.grad(outputs(self.run(*self.tensors)), self.tensors, weights)


def outputs(found: Any) -> tuple[Tensor, ...]:
    return (found,) if isinstance(found, Tensor) else tuple(found)


def kind_of(device: torch.device) -> torch.dtype:
    return torch.bfloat16 if device.type == "cuda" else torch.float32


def softmax(shape: tuple[int, ...], device: torch.device) -> Iterator[Case]:
    """torch's attention of heads (B, L, H, K): on CUDA its flash and its cuDNN backend."""
    B, L, H, K = shape
    given = [torch.randn(B, H, L, K, device=device, dtype=kind_of(device)).requires_grad_() for _ in range(3)]
    backends = [SDPBackend.FLASH_ATTENTION, SDPBackend.CUDNN_ATTENTION] if device.type == "cuda" else [SDPBackend.MATH]
    for backend in backends:

        def attend(q: Tensor, k: Tensor, v: Tensor, backend: SDPBackend = backend) -> Tensor:
            with sdpa_kernel(backend):
                return F.scaled_dot_product_attention(q, k, v)

        yield Case(f"softmax, {backend.name.split('_')[0].lower()}", given, attend)


def cases(operation: str, device: torch.device, only: str) -> Iterator[tuple[str, Case]]:
    """Shape in words and case, of those whose words contain `only`. Nothing of a shape outlives it."""
    module = import_module(f"benchmarks.{operation}")
    for shape in module.CUDA_SHAPES if device.type == "cuda" else module.CPU_SHAPES:
        for case in module.cases(shape, device):
            if only in f"{shape} {case.label}":
                yield str(shape), case
        gc.collect()
        if device.type == "cuda":
            torch.cuda.empty_cache()


def measure(case: Case, runs: int, device: torch.device) -> list[str]:
    """The cells of a row behind its label; the error of a case that fails, for a peer that does not run is a result."""
    try:
        alone, both = case.passes()
        own, whole = (own_milliseconds(run, runs, device) for run in (alone, both))
        waited = [median(milliseconds(run, runs, device)) for run in (alone, both)]
        memory = f"{peak_mib(both):.0f}" if device.type == "cuda" else ""
    except Exception as error:
        return [" ".join(str(error).split())[:100], *[""] * (len(COLUMNS) - 3)]
    shares = []
    for least, taken in ((case.forward, own), (case.both, whole)):
        if (floor := least.milliseconds(device)) is not None:
            shares.append(f"{floor / median(taken):.0%}")
    waits = f"{waited[0]:.3f}; {waited[1]:.3f}" if device.type == "cuda" else ""
    return [show(own).strip(), show(whole).strip(), waits, memory, " ".join(shares)]


def first_calls(case: Case, device: torch.device) -> list[str]:
    """Seconds of a call in a fresh process, which compiles, and then of one with its backward pass."""
    found = (once(run, device) / 1e3 for run in case.passes())
    return [f"{seconds:.1f} s" for seconds in found] + [""] * (len(COLUMNS) - 4)


def main(words: Sequence[str] | None = None) -> int:
    asked = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    asked.add_argument("operations", nargs="*", choices=[*OPERATIONS, []], help=f"of {', '.join(OPERATIONS)}; or all")
    asked.add_argument("--only", default="", help="rows that contain this, as '(8, 6084' or 'softmax'")
    asked.add_argument("--runs", type=int, default=20)
    asked.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    asked.add_argument("--markdown", type=Path, help="a file for the tables")
    asked.add_argument("--first", action="store_true", help="time the first calls, of the first shape")
    args = asked.parse_args(words)
    device = torch.device(args.device)
    banner = f"{name_of(device)}, {torch.get_num_threads()} threads, torch {torch.__version__}, "
    banner += f"Python {platform.python_version()}, {str(kind_of(device)).removeprefix('torch.')}"
    print(banner)
    pages = ["# Kernels timed", "", f"`python kernels/benchmarks`: {banner}", ""]
    for operation in args.operations or OPERATIONS:
        print(f"\n{operation}\n" + "".join(f"{cell:>{width(cell)}}" for cell in COLUMNS))
        pages += [f"## {operation}", "", "| " + " | ".join(COLUMNS) + " |", "|" + " --- |" * len(COLUMNS)]
        first = None
        for shape, case in cases(operation, device, args.only):
            first = first or shape
            if args.first and shape != first:
                break
            cells = first_calls(case, device) if args.first else measure(case, args.runs, device)
            row = [shape, case.label, *cells]
            print("".join(f"{cell:>{width(name)}}" for name, cell in zip(COLUMNS, row, strict=False)), flush=True)
            pages.append("| " + " | ".join(row) + " |")
        pages.append("")
    if args.markdown is not None:
        args.markdown.write_text("\n".join(pages))
    return 0


def width(column: str) -> int:
    return {"shape": 24, "": 28, "with backward, ms": 26, "forward, ms": 26, "MiB": 7}.get(column, 18)
