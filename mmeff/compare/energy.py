"""The energy of training, from the counter of what a GPU has used since it was started."""

import time
from collections.abc import Callable
from functools import cache

import pynvml
import torch

from mmeff.compare.steps import Steps

#: Seconds of training between the first time that the counter is seen to move and the last, and those after which it
#: is taken to stand still.
SECONDS, PATIENCE = 0.25, 2.0


def joules(steps: Steps, examples_per_second: float) -> float | None:
    """Energy of an example in training: the device's power meanwhile over the rate. None where it does not count."""
    millijoules = counter(steps.device)
    if millijoules is None:
        return None
    done = torch.cuda.Event()

    def step() -> None:
        steps.train()
        done.record()

    watts = power(step, done.query, millijoules)
    return None if watts is None else watts / examples_per_second


def power(begin: Callable[[], object], ended: Callable[[], bool], millijoules: Callable[[], int]) -> float | None:
    """Watts while steps are taken one after another: `begin` starts one, which then goes on by itself.

    The counter moves some ten times a second, at times that are not ours: power is what it grew by from one such time
    to another, over the seconds between them. What ran before has no part in it.
    """
    seen = [(time.perf_counter(), millijoules())]  # each value of the counter, and when it was first seen
    begin()
    while True:
        now, counted = time.perf_counter(), millijoules()
        if counted != seen[-1][1]:
            seen.append((now, counted))
        if ended():
            (start, _), *moved = seen
            if now - start > PATIENCE or (moved and moved[-1][0] - moved[0][0] >= SECONDS):
                break
            begin()
    if len(moved) < 2:
        return None
    (first, before), (then, after) = moved[0], moved[-1]
    return (after - before) / 1e3 / (then - first)


@cache
def counter(device: torch.device) -> Callable[[], int] | None:
    """Reads the millijoules that a device counts; None where it has no such counter, or no driver that tells."""
    if device.type != "cuda":
        return None
    try:
        pynvml.nvmlInit()
        handle = pynvml.nvmlDeviceGetHandleByUUID(f"GPU-{torch.cuda.get_device_properties(device).uuid}")
        pynvml.nvmlDeviceGetTotalEnergyConsumption(handle)
    except pynvml.NVMLError:
        return None
    return lambda: pynvml.nvmlDeviceGetTotalEnergyConsumption(handle)
