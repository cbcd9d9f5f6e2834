"""How fast contenders are: all in turn, round by round, so that what else the machine does meets all of them."""

import time
from collections.abc import Callable
from statistics import median

import torch

from mmeff.compare.noise import Samples, shares
from mmeff.compare.plan import Speed
from mmeff.compare.steps import Steps
from mmeff_kernels.timing import once

#: Calls that are not counted, and rounds that are taken however long they last.
WARM_UP, LEAST = 1, 3
#: Rounds of passes over one example: a 95th percentile wants many.
LATENCY_RUNS = 40

Clock = Callable[[Callable[[], object]], float]


def interleaved(
    calls: dict[str, Callable[[], object]], runs: int, seconds: float, clock: Clock, least: int = LEAST
) -> dict[str, list[float]]:
    """Seconds of each call in each of `runs` rounds; fewer, but `least`, when `seconds` for each of the calls have
    passed."""
    for call in calls.values():
        for _ in range(WARM_UP):
            call()
    taken: dict[str, list[float]] = {name: [] for name in calls}
    end = time.perf_counter() + seconds * len(calls)
    for i in range(runs):
        if i >= least and time.perf_counter() > end:
            break
        for name, call in calls.items():
            taken[name].append(clock(call))
    return taken


def seconds_of(call: Callable[[], object], device: torch.device) -> float:
    """Seconds of one call: between two events on CUDA, where the host may run ahead within the call."""
    if device.type != "cuda":
        return once(call, device) / 1e3
    begin, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
    begin.record()
    call()
    end.record()
    end.synchronize()
    return begin.elapsed_time(end) / 1e3


def samples(batches: dict[str, Steps], singles: dict[str, Steps], speed: Speed) -> dict[str, Samples]:
    """What one visit finds, of each contender: the seconds of forward passes and of training steps on its batch, and of
    forward passes on one example from their start on the host until the device has ended them."""
    device = next(iter(batches.values())).device

    def turns(found: dict[str, Steps], kind: str, runs: int, clock: Clock) -> dict[str, list[float]]:
        calls: dict[str, Callable[[], object]] = {name: getattr(steps, kind) for name, steps in found.items()}
        share = speed.visits
        return interleaved(calls, -(-runs // share), speed.seconds / share, clock, -(-LEAST // share))

    taken = {
        "inference": turns(batches, "infer", speed.runs, lambda call: seconds_of(call, device)),
        "training": turns(batches, "train", speed.runs, lambda call: seconds_of(call, device)),
        "latency": turns(singles, "infer", LATENCY_RUNS, lambda call: once(call, device) / 1e3),
    }
    return {name: {kind: times[name] for kind, times in taken.items()} for name in batches}


def summary(found: Samples, batch: int) -> dict[str, float]:
    """Medians and quartiles of examples a second, p50 and p95 of milliseconds, under the names of a row's fields."""
    row = {}
    for kind in ("inference", "training"):
        low, middle, high = shares([batch / t for t in found[kind]], 4)
        row |= {kind: middle, f"{kind}_low": low, f"{kind}_high": high}
    milliseconds = [1e3 * t for t in found["latency"]]
    return {**row, "latency_p50": median(milliseconds), "latency_p95": shares(milliseconds, 20)[-1]}
