"""Time operators over growing grids beside attention: python kernels/benchmarks/latency.py [--runs 10] [--out FILE]

The forward pass without gradients, at one batch and width: ms of the GPU alone (a CUDA graph) in bf16, on the CPU in
fp32; medians. Projections are not counted. Each direction, route or corner has a dt (with bias and softplus), A, B and
C of its own, in the line scan weights, which all channels share, and a gate. Then, for each operator, the number of
tokens from which it is faster than attention, read off lines between the measured sides in the logarithms of tokens
and time; and a picture of all in latency.png, or in --out, for which it needs matplotlib.
"""

import argparse
import gc
import math
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from statistics import median

import torch
import torch.nn.functional as F
from torch import Tensor

if __name__ == "__main__":
    sys.path[0] = str(Path(__file__).parents[1])

from benchmarks.recurrences import both_directions
from mmeff_kernels.scan2d import CROSS, DIRECTIONS, FOUR_CORNERS, cross_scan, line_scan, separable_scan, wavefront_scan
from mmeff_kernels.timing import name_of, own_milliseconds

CUDA_SIDES = (14, 28, 56, 112, 256)
CPU_SIDES = (7, 14, 28)
#: Width of a head of attention.
HEAD = 64
FROM_START, NEVER = "from the start", "never within what was measured"


@dataclass(frozen=True)
class Size:
    """What all operators are given: a batch of square grids of a side and a width."""

    batch: int
    side: int
    width: int
    device: torch.device

    @property
    def grid(self) -> tuple[int, int]:
        return self.side, self.side

    def draw(self, *shape: int) -> Tensor:
        dtype = torch.bfloat16 if self.device.type == "cuda" else torch.float32
        return torch.randn(shape, dtype=dtype, device=self.device)

    def tokens(self, *copies: int) -> Tensor:
        return self.draw(*copies, self.batch, self.side**2, self.width)


def scanned(size: Size, copies: int, N: int, ends: tuple[str, ...] = ("",)) -> dict[str, Tensor]:
    """What a scan of N states reads, but for x all with an axis of copies: Mamba's ranges at initialisation."""
    given = {"x": size.tokens()}
    for end in ends:
        given |= {
            f"dt{end}": size.tokens(copies) / 10,
            f"A{end}": -torch.arange(1.0, N + 1, device=size.device).repeat(copies, size.width, 1),
            f"B{end}": size.draw(copies, size.batch, size.side**2, N),
            f"dt_bias{end}": torch.full((copies, size.width), -4.0, device=size.device),
        }
    return given | {"C": size.draw(copies, size.batch, size.side**2, N)}


Call = Callable[[], object]


def attention(size: Size) -> Call:
    heads = size.batch, size.width // HEAD, size.side**2, HEAD
    return partial(F.scaled_dot_product_attention, *(size.draw(*heads) for _ in range(3)))


def two_directions(size: Size) -> Call:
    return partial(both_directions, **scanned(size, 2, 16))


def cross(size: Size, N: int) -> Call:
    given = scanned(size, len(CROSS), N)
    given |= {name: given[name].unsqueeze(-2) for name in "BC"}
    return partial(cross_scan, **given, grid=size.grid, dt_softplus=True)  # type: ignore[arg-type]


def separable(size: Size) -> Call:
    given = scanned(size, len(FOUR_CORNERS), 16)
    return partial(separable_scan, **given, grid=size.grid, dt_softplus=True)  # type: ignore[arg-type]


def wavefront(size: Size) -> Call:
    given = scanned(size, len(FOUR_CORNERS), 16, ("", "_top"))
    return partial(wavefront_scan, **given, grid=size.grid, dt_softplus=True)  # type: ignore[arg-type]


def lines(size: Size) -> Call:
    K = len(DIRECTIONS)
    weights = size.draw(K, size.batch, size.side**2, 3, 1).softmax(-2)
    return partial(line_scan, size.tokens(), weights, size.tokens(K), grid=size.grid)


ATTENTION = "attention"
#: By label, what makes an operator's inputs and returns the call to be timed, which alone keeps them alive.
OPERATORS: dict[str, Callable[[Size], Call]] = {
    ATTENTION: attention,
    "both directions, N=16": two_directions,
    "cross, N=1": partial(cross, N=1),
    "cross, N=16": partial(cross, N=16),
    "separable, N=16": separable,
    "wavefront, N=16": wavefront,
    "line": lines,
}


def measured(prepare: Callable[[Size], Call], size: Size, runs: int) -> float:
    """The median in ms; NaN if memory does not suffice. Nothing of it stays allocated."""
    try:
        with torch.no_grad():
            return median(own_milliseconds(prepare(size), runs, size.device))
    except RuntimeError as error:
        # A graph's capture that fails so ends in an error of its own.
        if not any(isinstance(found, torch.OutOfMemoryError) for found in (error, error.__context__)):
            raise
        return math.nan
    finally:
        gc.collect()
        if size.device.type == "cuda":
            torch.cuda.empty_cache()


def crossover(tokens: Sequence[int], own: Sequence[float], other: Sequence[float]) -> tuple[float, float] | str:
    """Tokens and ms of the point from which on `own` is below `other`; FROM_START or NEVER if there is none.

    Between the counts measured of both (NaN: not measured) times are straight lines in log-log. NEVER if `own` is not
    below at the last of them, whatever it was before.
    """
    both = [(n, a, b) for n, a, b in zip(tokens, own, other, strict=True) if not math.isnan(a + b)]
    behind = [k for k, (_, a, b) in enumerate(both) if a >= b]
    if not both or len(both) - 1 in behind:
        return NEVER
    if not behind:
        return FROM_START
    (n, a, b), (next_n, next_a, next_b) = both[behind[-1] : behind[-1] + 2]
    gap, next_gap = math.log(a / b), math.log(next_a / next_b)
    share = gap / (gap - next_gap)
    return n * (next_n / n) ** share, a * (next_a / a) ** share


def draw(
    out: str, title: str, tokens: Sequence[int], found: dict[str, list[float]], points: dict[str, tuple[float, float]]
) -> None:
    """A line for each operator, ms over tokens, and a ring where it crosses that of attention."""
    from matplotlib import pyplot

    figure, axis = pyplot.subplots(figsize=(8, 5.5), layout="constrained")
    for k, (label, taken) in enumerate(found.items()):
        color, width = ("black", 2.2) if label == ATTENTION else (f"C{k - 1}", 1.5)
        axis.plot(tokens, taken, color=color, linewidth=width, marker="o", markersize=4, label=label)
        if label in points:
            axis.scatter(*points[label], s=130, facecolors="none", edgecolors=color, linewidths=1.5, zorder=3)
    axis.set(xscale="log", yscale="log", xlabel="tokens of a square grid", ylabel="forward pass, ms")
    axis.set_xticks(tokens, [f"{math.isqrt(count)}²" for count in tokens])
    axis.yaxis.set_major_formatter("{x:g}")
    axis.minorticks_off()
    axis.grid(color="0.9")
    axis.legend(fontsize=9, frameon=False)
    figure.suptitle(f"{title}\nrings: where an operator becomes faster than attention", fontsize=11)
    figure.savefig(out, dpi=110)
    pyplot.close(figure)


def main() -> None:
    asked = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    asked.add_argument("--runs", type=int, default=10)
    asked.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    asked.add_argument("--out", default="latency.png")
    args = asked.parse_args()
    device = torch.device(args.device)
    sides, batch, width = (CUDA_SIDES, 8, 384) if device.type == "cuda" else (CPU_SIDES, 1, 64)
    shape = f"batch {batch}, width {width}"
    print(f"{name_of(device)}, torch {torch.__version__}; {shape}")
    found: dict[str, list[float]] = {label: [] for label in OPERATORS}
    for side in sides:
        for label, prepare in OPERATORS.items():
            taken = measured(prepare, Size(batch, side, width, device), args.runs)
            found[label].append(taken)
            shown = "out of memory" if math.isnan(taken) else f"{taken:10.3f} ms"
            print(f"{side:4} x {side:<4} {label:24} {shown}", flush=True)

    print(f"\nfaster than {ATTENTION}, up to the largest grid measured of both:")
    tokens = [side**2 for side in sides]
    points = {}
    for label in list(found)[1:]:
        point = crossover(tokens, found[label], found[ATTENTION])
        if isinstance(point, tuple):
            points[label] = point
        print(f"{label:24} {point if isinstance(point, str) else f'from {point[0]:.0f} tokens'}")
    kind = "bf16" if device.type == "cuda" else "fp32"
    draw(args.out, f"{shape}, {kind}", tokens, found, points)
    print(args.out)


if __name__ == "__main__":
    main()
