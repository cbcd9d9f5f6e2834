"""Processes of their own, where there are cores for them, that get contenders ready: seconds each, with no clock on."""

import os
import signal
import sys
from collections.abc import Callable, Iterable
from concurrent.futures import ProcessPoolExecutor
from functools import cache
from multiprocessing import get_context
from pathlib import Path
from typing import TypeVar

import torch

from mmeff.compare.contenders import Contender

T = TypeVar("T")

#: Processes, at most, and at least: each takes seconds to import torch.
MOST, LEAST = 8, 4


def each(work: Callable[[Contender], T], contenders: Iterable[Contender]) -> list[T | Exception]:
    """What `work`, a function of a module, gives for each contender, or what it failed with."""
    pool = _pool()
    if pool is None:
        return [_attempt(work, contender) for contender in contenders]
    # Ctrl-C is for the process that waits: those that begin here inherit that they do not see it.
    seen = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        asked = [pool.submit(_attempt, work, contender) for contender in contenders]
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, seen)
    try:
        return [future.result() for future in asked]
    except BaseException:  # what is not begun is not waited for
        close()
        raise


def close() -> None:
    """End the processes, and what they hold of a device; the next work begins new ones."""
    if pool := _pool():
        pool.shutdown(cancel_futures=True)
    _pool.cache_clear()


def _attempt(work: Callable[[Contender], T], contender: Contender) -> T | Exception:
    try:
        return work(contender)
    except Exception as error:
        return error


@cache
def _pool() -> ProcessPoolExecutor | None:
    """Processes until they are closed; none where there are too few cores, or the program is not the command: each
    process begins by running the program's file, which may do anything."""
    workers = min(MOST, (os.cpu_count() or 1) // 2)
    program = getattr(sys.modules["__main__"], "__file__", None)
    if workers < LEAST or (program is not None and Path(program).name != "mmeff"):
        return None
    # Not forked: what runs on a GPU must not be.
    return ProcessPoolExecutor(workers, get_context("spawn"), torch.set_num_threads, (1,))
