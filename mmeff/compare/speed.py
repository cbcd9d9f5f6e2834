"""How fast contenders are: all in turn, round by round, so that what else the machine does meets all of them."""

import time
from collections.abc import Callable
from statistics import median, quantiles
from typing import Any

import torch

from mmeff.compare.steps import Steps
from mmeff_kernels.timing import once

#: Calls that are not counted, and rounds that are taken however long they last.
WARM_UP, LEAST = 2, 3
#: Rounds of passes over one example: a 95th percentile wants many.
LATENCY_RUNS = 40

Clock = Callable[[Callable[[], object]], float]


def interleaved(
    calls: dict[str, Callable[[], object]], runs: int, seconds: float, clock: Clock
) -> dict[str, list[float]]:
    """Seconds of each call in each of `runs` rounds; fewer, when `seconds` for each of the calls have passed."""
    for call in calls.values():
        for _ in range(WARM_UP):
            call()
    taken: dict[str, list[float]] = {name: [] for name in calls}
    end = time.perf_counter() + seconds * len(calls)
    for i in range(runs):
        if i >= LEAST and time.perf_counter() > end:
            break
        for name, call in calls.items():
            taken[name].append(clock(call))
    return taken


def seconds_of(call: Callable[[], object], device: torch.device) -> float:
    """Seconds of one call: between two events on CUDA, where the host may run ahead within the call."""
    if device.type != "cuda":
        start = time.perf_counter()
        call()
        return time.perf_counter() - start
    begin, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
    begin.record()
    call()
    end.record()
    end.synchronize()
    return begin.elapsed_time(end) / 1e3


def rates(found: dict[str, Steps], kind: str, runs: int, seconds: float) -> dict[str, dict[str, float]]:
    """Examples a second of `kind` ("infer" or "train"): median and quartiles, under the names of a row's fields."""
    field = {"infer": "inference", "train": "training"}[kind]
    device = next(iter(found.values())).device
    calls = {name: getattr(steps, kind) for name, steps in found.items()}
    rows = {}
    for name, taken in interleaved(calls, runs, seconds, lambda call: seconds_of(call, device)).items():
        low, middle, high = quantiles([found[name].batch / t for t in taken], n=4, method="inclusive")
        rows[name] = {field: middle, f"{field}_low": low, f"{field}_high": high}
    return rows


def latencies(found: dict[str, Steps], seconds: float) -> dict[str, dict[str, float]]:
    """Milliseconds of one forward pass from its start on the host until the device has ended it: p50 and p95."""
    device = next(iter(found.values())).device
    calls: dict[str, Callable[[], Any]] = {name: steps.infer for name, steps in found.items()}
    taken = interleaved(calls, LATENCY_RUNS, seconds, lambda call: once(call, device))
    return {
        name: {"latency_p50": median(times), "latency_p95": quantiles(times, n=20, method="inclusive")[-1]}
        for name, times in taken.items()
    }


def joules(steps: Steps, examples_per_second: float, seconds: float = 0.3) -> float | None:
    """Energy of an example in training: the power that the device reports while it trains. None where it reports none.

    NVML averages power over up to a second, so a short loop reads what came before it as well.
    """
    if steps.device.type != "cuda":
        return None
    watts, end = [], time.perf_counter() + seconds
    try:
        while time.perf_counter() < end or not watts:
            steps.train()
            torch.cuda.synchronize()
            watts.append(torch.cuda.power_draw() / 1e3)
    except (ModuleNotFoundError, RuntimeError):  # no pynvml, or no permission
        return None
    return median(watts) / examples_per_second
