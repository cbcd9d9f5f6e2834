"""The quantities of a row that are shown and compared: their units, their spread, and which of two is better."""

from collections.abc import Callable
from dataclasses import dataclass
from math import floor, hypot, log10, sqrt
from typing import NamedTuple

from mmeff.compare.schema import Row, signal_rate

#: What a measurement may be off where the run gives no spread: memory by this share (allocators round),
#: the accuracy of a single seed by so much of 1.
MEMORY_NOISE, SEED_NOISE = 0.02, 0.01


class Measured(NamedTuple):
    """A value, the interval in which a repetition may fall, and that spread in words ("" where none was measured)."""

    value: float
    low: float
    high: float
    spread: str = ""


@dataclass(frozen=True)
class Quantity:
    """A column of the tables. `better`: 1 more, -1 less, 0 neither; `digits` are significant ones."""

    key: str
    title: str
    unit: str | Callable[[Row], str]
    better: int
    read: Callable[[Row], Measured | None]
    digits: int = 3

    def unit_of(self, row: Row) -> str:
        return self.unit if isinstance(self.unit, str) else self.unit(row)

    def show(self, found: Measured) -> str:
        return number(found.value, self.digits)


def number(value: float, digits: int = 3) -> str:
    """Whole numbers in full, others with so many significant digits: 4,096 and 12,300 and 0.0123."""
    if isinstance(value, int) or value == 0:
        return f"{value:,.0f}"
    places = digits - 1 - floor(log10(abs(value)))
    places -= abs(round(value, places)) >= 10 ** (digits - places)  # 0.9996 is 1.00
    return f"{round(value, places):,.{max(places, 0)}f}"


def short(value: float) -> str:
    """For axes and sentences: 224, 2.1k, 16k."""
    value = float(f"{value:.3g}")
    for size, letter in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if value >= size:
            text = f"{value / size:.1f}" if value < 10 * size else f"{value / size:.0f}"
            return text.removesuffix(".0") + letter
    return f"{value:.2g}" if value < 10 else f"{value:.0f}"


def distinct(a: Measured, b: Measured) -> bool:
    """Whether two values differ by more than the spread of both."""
    return a.low > b.high or b.low > a.high


def _rate_unit(row: Row) -> str:
    return signal_rate(row, 0.0)[1]


def _plain(name: str, scale: int = 1) -> Callable[[Row], Measured | None]:
    def read(row: Row) -> Measured | None:
        value = getattr(row, name)
        value = value if value is None or scale == 1 else value / scale
        return None if value is None else Measured(value, value, value)

    return read


def _rate(name: str) -> Callable[[Row], Measured | None]:
    def read(row: Row) -> Measured | None:
        examples = getattr(row, name)
        if examples is None:
            return None
        bounds = [getattr(row, f"{name}_low"), getattr(row, f"{name}_high")]
        known = None not in bounds
        value, low, high = (signal_rate(row, each)[0] for each in (examples, *(bounds if known else [examples] * 2)))
        return Measured(value, low, high, f"[{number(low, 4)}, {number(high, 4)}]" if known else "")

    return read


def _accuracy(row: Row) -> Measured | None:
    """In percent. The interval holds how far the seeds fell apart and the sampling error of the test split: two whose
    intervals do not meet differ in 19 cases of 20 on other examples too (Agresti and Coull's interval of a share,
    taken for mean average precision as well; 1.96 sigma of a difference is 1.96 / sqrt(2) sigma of each)."""
    if row.accuracy is None:
        return None
    seeds = row.accuracy_spread if (row.seeds or 1) > 1 else None
    sampling = 0.0
    if row.tested:
        share = (row.accuracy * row.tested + 2) / (row.tested + 4)
        sampling = 1.96 * sqrt(share * (1 - share) / (row.tested + 4) / 2)
    reach = 100 * hypot(SEED_NOISE if seeds is None else seeds, sampling)
    value = 100 * row.accuracy
    return Measured(value, value - reach, value + reach, f"± {reach:.1f}" if row.tested or seeds is not None else "")


def _latency(row: Row) -> Measured | None:
    """The interval is that of the quartiles of a normal distribution with this median and this 95th percentile."""
    median, p95 = row.latency_p50, row.latency_p95
    if median is None:
        return None
    if p95 is None:
        return Measured(median, median, median)
    reach = 0.41 * (p95 - median)
    return Measured(median, median - reach, median + reach, f"(p95 {number(p95)})")


def _memory(name: str) -> Callable[[Row], Measured | None]:
    def read(row: Row) -> Measured | None:
        peak = getattr(row, name)
        return None if peak is None else Measured(peak, peak * (1 - MEMORY_NOISE), peak * (1 + MEMORY_NOISE))

    return read


#: In the order of the columns.
QUANTITIES = (
    Quantity("parameters", "parameters", "M", 0, _plain("parameters", 10**6)),
    Quantity("accuracy", "accuracy", "%", 1, _accuracy),
    Quantity("train_seconds", "training time", "s", -1, _plain("train_seconds")),
    Quantity("training", "training throughput", _rate_unit, 1, _rate("training"), 4),
    Quantity("inference", "inference throughput", _rate_unit, 1, _rate("inference"), 4),
    Quantity("latency", "latency", "ms", -1, _latency),
    Quantity("memory", "training memory", "MiB", -1, _memory("memory")),
    Quantity("inference_memory", "inference memory", "MiB", -1, _memory("inference_memory")),
    Quantity("memory_ends_at", "out of memory from", lambda row: row.unit, 0, _plain("memory_ends_at")),
    Quantity("joules", "energy", "J an example", -1, _plain("joules")),
    Quantity("forward_flops", "forward", "GFLOPs", -1, _plain("forward_flops", 10**9)),
    Quantity("forward_macs", "forward", "GMACs", -1, _plain("forward_macs", 10**9)),
    Quantity("training_flops", "training step", "GFLOPs", -1, _plain("training_flops", 10**9)),
    Quantity("bytes_moved", "bytes moved", "MiB", -1, _plain("bytes_moved", 2**20)),
    Quantity("state_bytes", "state", "KiB", 0, _plain("state_bytes", 2**10)),
    Quantity("tokens", "tokens", "", 0, _plain("tokens")),
    Quantity("dim", "width", "", 0, _plain("dim")),
    Quantity("depth", "depth", "blocks", 0, _plain("depth")),
    Quantity("batch", "batch", "examples", 0, _plain("batch")),
)
BY_KEY = {quantity.key: quantity for quantity in QUANTITIES}
