"""FLOPs, bytes and states of all contenders at once: a second each on the host, counted while no clock runs."""

import os
import signal
import sys
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, replace
from functools import cache
from multiprocessing import get_context
from pathlib import Path

import torch

from mmeff.compare.contenders import Contender
from mmeff.compare.counts import count
from mmeff.compare.entrants import Field
from mmeff.compare.journal import Values

#: Processes that count, at most, and at least: each takes seconds to import torch.
MOST, LEAST = 8, 4


def counts_of(
    field: Field, length: float, contenders: dict[str, Contender], bf16: bool
) -> dict[str, Values | Exception]:
    """What `count` says of each contender at a length, or what it failed with."""
    bare = replace(field, contenders={}, failed={})  # the rest need not travel
    pool = _pool()
    if pool is None:
        return {name: _attempt(bare, length, contender, bf16) for name, contender in contenders.items()}
    asked = {name: pool.submit(_attempt, bare, length, contender, bf16) for name, contender in contenders.items()}
    return {name: future.result() for name, future in asked.items()}


def _attempt(field: Field, length: float, contender: Contender, bf16: bool) -> Values | Exception:
    try:
        raw = field.signals(length, torch.device("cpu"))(1)
        return asdict(count(field.model(contender, length), raw, bf16))
    except Exception as error:
        return error


@cache
def _pool() -> ProcessPoolExecutor | None:
    """Processes for as long as this one lives; none where there are too few cores, or the program is not the command:
    each process begins by running the program's file, which may do anything."""
    workers = min(MOST, (os.cpu_count() or 1) // 2)
    program = getattr(sys.modules["__main__"], "__file__", None)
    if workers < LEAST or (program is not None and Path(program).name != "mmeff"):
        return None
    # Not forked: what runs on a GPU must not be.
    return ProcessPoolExecutor(workers, get_context("spawn"), _begin)


def _begin() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the process that waits
    torch.set_num_threads(1)
