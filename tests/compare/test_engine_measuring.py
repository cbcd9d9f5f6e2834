"""Clocks, peaks and ends of memory, on calls whose cost is known."""

import time
from collections.abc import Callable
from types import SimpleNamespace

import pytest
import torch
from torch import Tensor, nn

from mmeff.compare import energy
from mmeff.compare.energy import power
from mmeff.compare.memory import SHARE, memory_end, peak_mib
from mmeff.compare.parts import compile_kernels
from mmeff.compare.speed import LEAST, WARM_UP, interleaved, seconds_of
from mmeff.compare.steps import fitting

CPU = torch.device("cpu")


def test_contenders_take_turns_round_by_round() -> None:
    seen: list[str] = []
    calls = {name: (lambda name=name: seen.append(name)) for name in "ab"}
    taken = interleaved(calls, 4, 10.0, lambda call: seconds_of(call, CPU))
    assert "".join(seen) == "a" * WARM_UP + "b" * WARM_UP + "ab" * 4
    assert {name: len(times) for name, times in taken.items()} == {"a": 4, "b": 4}
    assert (
        len(interleaved({"slow": lambda: time.sleep(0.02)}, 9, 0.01, lambda call: seconds_of(call, CPU), 1)["slow"])
        == 1
    )


def test_slow_calls_end_after_a_few_rounds() -> None:
    taken = interleaved({"slow": lambda: time.sleep(0.02)}, 100, 0.01, lambda call: seconds_of(call, CPU))
    assert len(taken["slow"]) == LEAST
    assert min(taken["slow"]) >= 0.02


def test_measuring_costs_less_than_2_percent_of_the_least_step() -> None:
    """What the clock adds to a call, best of some, beside the quickest forward pass of a small layer."""
    rounds = 1000

    def nothing() -> None:
        pass

    def seconds(run: Callable[[], object]) -> float:
        return min(seconds_of(run, CPU) for _ in range(7))

    def bare() -> None:
        for _ in range(rounds):
            nothing()

    measured = seconds(lambda: interleaved({"a": nothing}, rounds, 60.0, lambda call: seconds_of(call, CPU)))
    each = (measured - seconds(bare)) / rounds
    layer, x = nn.TransformerEncoderLayer(96, 4, batch_first=True).eval(), torch.randn(1, 49, 96)
    with torch.no_grad():
        step = seconds(lambda: layer(x))
    assert each < 0.02 * step, f"{1e6 * each:.2f} us beside {1e6 * step:.0f} us"


@pytest.mark.parametrize(("launch", "step"), [(0.02, 0.0), (0.001, 0.15)])
def test_power_is_what_the_counter_grows_by(launch: float, step: float, monkeypatch: pytest.MonkeyPatch) -> None:
    """A counter that moves every 40 ms, of a device that uses 300 W, whether the host or the device takes longer over a
    step; on a clock that each look at it moves by 1 ms."""
    now, begun = 0.0, []

    def clock() -> float:
        nonlocal now
        now += 1e-3
        return now

    def begin() -> None:
        nonlocal now
        now += launch
        begun.append(now)

    monkeypatch.setattr(energy, "time", SimpleNamespace(perf_counter=clock))
    found = power(begin, lambda: now - begun[-1] >= step, lambda: 10**9 + 12000 * int(now / 0.04))
    assert found == pytest.approx(300, rel=0.08 if launch > step else 0.02)
    assert now < 0.5


def test_no_power_without_a_counter_that_moves(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(energy, "PATIENCE", 0.01)
    assert power(lambda: None, lambda: True, lambda: 7) is None
    assert energy.counter(CPU) is None


def test_the_peak_is_what_a_call_holds_at_once() -> None:
    def call() -> None:
        first = torch.ones(2**18)  # 1 MiB
        del first
        second = torch.ones(2**19)
        third = second + 1
        del second, third

    call()
    assert peak_mib(call, CPU) == pytest.approx(4, rel=0.01)


@pytest.mark.parametrize("limit", [30.0, 100.0, 5000.0])
def test_the_end_of_memory_is_found_by_doubling_and_bisection(limit: float) -> None:
    asked: list[float] = []

    def step(length: float) -> None:
        asked.append(length)
        if length >= limit:
            raise torch.OutOfMemoryError("a fake device is full")

    found = memory_end(step, 32.0, 1.0, seconds=10)
    assert found is not None and limit <= found <= limit * (1 + SHARE) + 1
    assert len(asked) < 16


def test_a_search_that_takes_too_long_has_no_end() -> None:
    assert memory_end(lambda length: time.sleep(0.002 * length), 1.0, 1.0, seconds=0.01) is None
    assert memory_end(lambda length: None, 1.0, 1.0, seconds=1.0) is None  # memory that never ends


class Narrow(nn.Module):
    """A model that serves `limit` examples at once."""

    def __init__(self, limit: int) -> None:
        super().__init__()
        self.limit, self.linear = limit, nn.Linear(4, 3)
        self.backbone = nn.Identity()

    def forward(self, raw: Tensor) -> Tensor:
        if len(raw) > self.limit:
            raise torch.OutOfMemoryError("a fake device is full")
        return self.linear(raw)


def test_a_batch_that_does_not_fit_is_halved() -> None:
    def signals(batch: int) -> tuple[Tensor]:
        return (torch.zeros(batch, 4),)

    assert fitting(Narrow(5), signals, 16, CPU).batch == 4  # type: ignore[arg-type]
    assert fitting(Narrow(16), signals, 16, CPU).batch == 16  # type: ignore[arg-type]
    with pytest.raises(torch.OutOfMemoryError):
        fitting(Narrow(0), signals, 16, CPU)  # type: ignore[arg-type]


def test_kernels_are_compiled_by_what_will_be_measured_and_a_full_device_is_none_of_its_business() -> None:
    model = Narrow(16)
    seen: list[tuple[int, bool]] = []
    model.register_forward_pre_hook(lambda module, given: seen.append((len(given[0]), module.training)))

    def signals(batch: int) -> tuple[Tensor]:
        return (torch.zeros(batch, 4),)

    compile_kernels(model, signals, 16, CPU)  # type: ignore[arg-type]
    assert seen == [(16, True), (16, False), (1, False)]
    compile_kernels(model, signals, 17, CPU)  # type: ignore[arg-type]
    assert seen[3:] == [(17, True)]
