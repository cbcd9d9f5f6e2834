"""The launcher asks Triton once for each compiled form, and hands the arguments on in the kernel's order."""

from types import SimpleNamespace
from typing import Any

import pytest
import torch
import triton

from mmeff_kernels import launcher
from mmeff_kernels.launcher import Launcher


def kernel(p_x, p_y, n, stride, BLOCK):
    """Stands for a Triton kernel; it is never run."""


class Compiled:
    """What Triton returns of a first launch: run again with grid, stream, handles, hooks and positional arguments, or,
    where a profiler listens, by its grid."""

    function, packed_metadata = "function", "metadata"

    def __init__(self, name: str, log: list[Any]):
        self.name, self.log = name, log

    def run(self, x: int, y: int, z: int, stream: int, *arguments: Any) -> None:
        assert (stream, *arguments[:5]) == (7, "function", "metadata", None, None, None)
        self.log.append((self.name, (x, y, z), arguments[5:]))

    def __getitem__(self, grid: tuple[int, ...]):
        return lambda *arguments: self.log.append((f"{self.name}, heard", grid, arguments))


class Driver:
    """Of a machine with one device, -1."""

    active = SimpleNamespace(get_current_stream={-1: 7}.__getitem__)


@pytest.fixture
def launched(monkeypatch: pytest.MonkeyPatch) -> tuple[Launcher, list[Any]]:
    log: list[Any] = []
    function = triton.JITFunction(kernel)

    def run(*arguments: Any, grid: Any, warmup: bool, **options: Any) -> Compiled:
        assert not arguments and not warmup
        log.append(("compiled", grid, options))
        return Compiled(f"form {len([1 for name, *_ in log if name == 'compiled'])}", log)

    monkeypatch.setattr(function, "run", run)
    monkeypatch.setattr(torch.cuda, "current_device", lambda: -1)
    monkeypatch.setattr(launcher, "driver", Driver)
    return Launcher(function), log


def test_a_form_is_compiled_once(launched) -> None:
    launch, log = launched
    x, y = torch.zeros(64), torch.zeros(64)
    launch(5, {"p_x": x, "p_y": y}, {"n": 48, "stride": 7}, {"BLOCK": 32, "num_warps": 1})
    launch(6, {"p_x": x, "p_y": y}, {"n": 32, "stride": 9}, {"BLOCK": 32, "num_warps": 1})
    assert log[0][:2] == ("compiled", (5,)) and log[0][2]["num_warps"] == 1
    name, grid, arguments = log[1]
    assert (name, grid) == ("form 1", (6, 1, 1))
    assert arguments[0] is x and arguments[1] is y and arguments[2:] == (32, 9, 32), "in the kernel's order"
    assert len(log) == 2


def test_a_profiler_hears_of_every_launch(launched, monkeypatch: pytest.MonkeyPatch) -> None:
    launch, log = launched
    monkeypatch.setattr(triton.knobs.runtime.launch_enter_hook, "calls", [print])
    for _ in range(2):
        launch(5, {"p_x": torch.zeros(64), "p_y": None}, {"n": 48, "stride": 7}, {"BLOCK": 32})
    assert log[1][:2] == ("form 1, heard", (5, 1, 1))


@pytest.mark.parametrize("change", ["type", "alignment", "none", "divisible", "one", "wide", "option"])
def test_what_decides_compiles_anew(change: str, launched) -> None:
    launch, log = launched
    x = torch.zeros(64)
    tensors: dict[str, Any] = {"p_x": x, "p_y": torch.zeros(64)}
    numbers, options = {"n": 48, "stride": 7}, {"BLOCK": 32, "num_warps": 1}
    launch(1, tensors, numbers, options)
    if change == "type":
        tensors = tensors | {"p_x": x.half()}
    elif change == "alignment":
        tensors = tensors | {"p_x": x[1:]}
    elif change == "none":
        tensors = tensors | {"p_y": None}
    elif change == "option":
        options = options | {"BLOCK": 64}
    else:
        numbers = numbers | {"stride": {"divisible": 16, "one": 1, "wide": 2**31 + 1}[change]}
    launch(1, tensors, numbers, options)
    assert [name for name, *_ in log] == ["compiled", "compiled"]
    launch(1, tensors, numbers, options)
    assert log[-1][0] == "form 2"
