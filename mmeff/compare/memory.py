"""How much memory contenders need, and at which length it ends."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch.profiler import ProfilerActivity, profile

from mmeff.compare.steps import Steps
from mmeff_kernels import timing

#: Lengths are looked for until they are known to this share.
SHARE = 1 / 16
#: Doublings of the first length.
MOST = 20


def peak_mib(call: Callable[[], object], device: torch.device) -> float:
    """MiB at the peak of a call beyond what was there, by CUDA's allocator, or by torch's own of the CPU."""
    if device.type == "cuda":
        return timing.peak_mib(call)
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True, acc_events=True) as recorded:
        call()
    now = peak = 0
    assert recorded.profiler is not None and recorded.profiler.kineto_results is not None
    events: list[Any] = [e for e in recorded.profiler.kineto_results.events() if e.name() == "[memory]"]
    for event in sorted(events, key=lambda e: e.start_ns()):
        now += event.nbytes()
        peak = max(peak, now)
    return peak / 2**20


def held_mib(steps: Steps, training: bool) -> float:
    """MiB of the batch and of parameters and buffers; in training of the optimiser's two averages too."""
    held = [*steps.given, *steps.model.parameters(), *steps.model.buffers()]
    if training:
        held += [t for state in steps.optimizer.state.values() for t in state.values() if isinstance(t, torch.Tensor)]
    return sum(t.numel() * t.itemsize for t in held if isinstance(t, torch.Tensor)) / 2**20


def peaks(steps: Steps) -> dict[str, float]:
    """MiB at the peak of a training step and of a forward pass, with the model and the batch, under a row's names."""
    return {
        "memory": held_mib(steps, True) + peak_mib(steps.train, steps.device),
        "inference_memory": held_mib(steps, False) + peak_mib(steps.infer, steps.device),
    }


def memory_end(step: Callable[[float], object], start: float, least: float, seconds: float) -> float | None:
    """The least length at which `step(length)` runs out of memory, to a share of 1/16: doubled from `start`, bisected.

    least    lengths are whole multiples of this
    seconds  a step that takes longer ends the search: None, as where memory does not end at a million times `start`
    """

    def fits(length: float) -> bool | None:
        """None: it fits, but took too long."""
        began = time.perf_counter()
        try:
            step(length)
        except torch.OutOfMemoryError:
            return False
        return True if time.perf_counter() - began <= seconds else None

    low, high = 0.0, start
    for _ in range(MOST):
        found = fits(high)
        if found is None:
            return None
        if not found:
            break
        low, high = high, 2 * high
    else:
        return None
    while high - low > max(least, SHARE * high):
        middle = least * round((low + high) / 2 / least)
        if fits(middle) is False:
            high = middle
        else:
            low = middle
    return high


@contextmanager
def limited(gib: float | None, device: torch.device) -> Iterator[None]:
    """Within, a CUDA device has so much memory and no more."""
    if gib is None:
        yield
        return
    total = torch.cuda.get_device_properties(device).total_memory
    torch.cuda.set_per_process_memory_fraction(min(1.0, gib * 2**30 / total))
    try:
        yield
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)
