"""Timing for the benches: medians and quartiles on any device, also without the host on CUDA."""

import platform
import time
from collections.abc import Callable
from statistics import median, quantiles

import torch


def name_of(device: torch.device) -> str:
    return torch.cuda.get_device_name(device) if device.type == "cuda" else f"{platform.machine()} CPU"


def milliseconds(run: Callable[[], object], runs: int, device: torch.device) -> list[float]:
    """Wall time of each of `runs` calls, the host's part included, after three that warm up."""
    return [once(run, device) for _ in range(runs + 3)][3:]


def once(run: Callable[[], object], device: torch.device) -> float:
    """Milliseconds until a call has ended, on CUDA with all that it launched."""
    wait = torch.cuda.synchronize if device.type == "cuda" else lambda: None
    wait()
    start = time.perf_counter()
    run()
    wait()
    return 1e3 * (time.perf_counter() - start)


def captured(run: Callable[[], object]) -> torch.cuda.CUDAGraph:
    """A call as a CUDA graph, after three calls that warm up."""
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        for _ in range(3):
            run()
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        run()
    return graph


def graph_milliseconds(run: Callable[[], object], runs: int) -> list[float]:
    """The GPU's own time of each of `runs` calls, replayed as a CUDA graph: what is left where the host keeps up."""
    graph = captured(run)
    taken = []
    for _ in range(runs + 3):
        start, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
        start.record()
        graph.replay()
        end.record()
        torch.cuda.synchronize()
        taken.append(start.elapsed_time(end))
    return taken[3:]


def own_milliseconds(run: Callable[[], object], runs: int, device: torch.device) -> list[float]:
    """The device's own time of each of `runs` calls: a GPU's without the host, a CPU's."""
    return graph_milliseconds(run, runs) if device.type == "cuda" else milliseconds(run, runs, device)


def peak_mib(run: Callable[[], object]) -> float:
    """MiB of CUDA memory that a call needs at its peak, beyond what was there."""
    before = torch.cuda.memory_allocated()
    torch.cuda.reset_peak_memory_stats()
    run()
    torch.cuda.synchronize()
    return (torch.cuda.max_memory_allocated() - before) / 2**20


def show(taken: list[float]) -> str:
    """The median, and the quartiles in brackets."""
    low, _, high = quantiles(taken, n=4)
    return f"{median(taken):8.3f} [{low:.3f}, {high:.3f}]"
