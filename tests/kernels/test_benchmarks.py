"""Benchmarks: every operation's on tiny shapes, limits by hand, and where latencies cross attention's."""

import math
from typing import Any

import pytest
import torch

from benchmarks import cross_scan, driver, latency, selective_scan
from benchmarks.driver import LIMITS, OPERATIONS, Case, Least
from benchmarks.latency import FROM_START, NEVER, OPERATORS, crossover
from mmeff_kernels.selective_scan import selective_scan_routes
from mmeff_kernels.timing import peak_mib

NAN = math.nan
#: A small shape for each operation, and how many rows it makes on the CPU.
TINY = {
    "selective_scan": ((1, 4, 3, 2), 2), "cross_scan": ((1, 2, 3, 4, 1), 2), "recurrences": ((1, 2, 3, 4, 2), 3),
    "decay": ((1, 5, 2, 4), 5), "full_sum": ((1, 5, 2, 4), 3), "short_conv": ((1, 5, 4), 2), "layer_norm": ((6, 4), 2),
}  # fmt: skip


@pytest.mark.parametrize("operation", OPERATIONS)
def test_a_row_for_each_case_on_the_screen_and_in_a_page(
    operation: str, tmp_path: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    shape, rows = TINY[operation]
    monkeypatch.setattr(f"benchmarks.{operation}.CPU_SHAPES", (shape,))
    page = tmp_path / "kernels.md"
    assert driver.main([operation, "--runs", "2", "--device", "cpu", "--markdown", str(page)]) == 0
    shown = [line for line in capsys.readouterr().out.splitlines() if line.lstrip().startswith(str(shape))]
    written = [line for line in page.read_text().splitlines() if line.startswith(f"| {shape} |")]
    assert len(shown) == len(written) == rows
    for line in written:
        assert all(float(cell.split()[0]) > 0 for cell in line.split("|")[3:5]), line


def test_what_fails_is_a_row_with_its_reason() -> None:
    def fails(x: torch.Tensor) -> torch.Tensor:
        raise RuntimeError("not on this device")

    assert driver.measure(Case("a peer", [torch.zeros(1)], fails), 1, torch.device("cpu"))[0] == "not on this device"


def test_the_limit_is_the_bytes_or_the_exponentials(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(driver, "name_of", lambda device: "NVIDIA H200")
    bandwidth, rate = LIMITS["NVIDIA H200"]
    device = torch.device("cpu")
    assert Least(bandwidth, 0).milliseconds(device) == 1e3 and Least(1, rate).milliseconds(device) == 1e3
    shape = (128, 196, 384, 16)  # two exponentials for each of its states, 4.2e12 a second
    states = math.prod(shape)
    assert Least(1, 2 * states).milliseconds(device) == pytest.approx(0.0734, rel=1e-2)
    monkeypatch.setattr(driver, "name_of", lambda device: "another")
    assert Least(1, 1).milliseconds(device) is None


def test_both_directions_are_what_flips_and_two_calls_are() -> None:
    own = selective_scan.inputs((2, 9, 32, 4), torch.device("cpu"), torch.float32, routes=2)
    own["x"] = own["x"][0].detach().requires_grad_()
    both = selective_scan.case("both", selective_scan_routes, own, routes=("forward", "backward"))
    flips = selective_scan.case("flips", selective_scan.flipped, own)
    for run, other in zip(both.passes(), flips.passes(), strict=True):
        torch.testing.assert_close(run(), other())


@pytest.mark.gpu
def test_routes_need_no_copies() -> None:
    """Beyond the inputs, in sizes of x: y, x's gradient of four routes and its sum (6), dt's gradient (4), states of
    every fourth step (2). A copy of what the four routes read would take 8 more."""
    in_place, _ = cross_scan.cases((64, 56, 56, 96, 1), torch.device("cuda"))
    assert peak_mib(in_place.passes()[1]) <= 12.5 * in_place.tensors[0].nbytes / 2**20


@pytest.mark.gpu
def test_both_directions_need_no_more_memory_than_flips() -> None:
    """Beyond the inputs: y, gradients and states of each direction, and what a wave of programs keeps for itself."""
    found = {
        case.label: peak_mib(case.passes()[1])
        for case in selective_scan.cases((8, 6084, 384, 16), torch.device("cuda"))
    }
    assert found["both directions"] <= 1.05 * found["flips, two calls"], found


def test_power_laws_cross_where_they_are_equal() -> None:
    """3 n and n^2 / 50 at 150 tokens, wherever they are measured."""
    for tokens in ((10, 100, 1000), (100, 200), (149, 10_000), (150, 160)):
        point = crossover(tokens, [3 * n for n in tokens], [n * n / 50 for n in tokens])
        assert point == pytest.approx((150, 450), rel=1e-9), tokens


@pytest.mark.parametrize(("own", "said"), [
    ([1, 1, 1, 1], FROM_START),
    ([9, 9, 9, 9], NEVER),
    ([4, 4, 4, 4], NEVER),  # as fast is not faster
    ([1, 1, 1, 9], NEVER),
    ([9, 9, 1, NAN], 200.0),  # log-log: 9 -> 1 against 4 -> 4 by hand below
    ([9, 1, 9, 1], 400.0),  # the last crossing counts
    ([9, NAN, NAN, 1], 100.0),
    ([NAN, 1, 1, 1], FROM_START),
    ([NAN, NAN, NAN, NAN], NEVER),
])  # fmt: skip
def test_from_which_count_on(own: list[float], said: Any) -> None:
    """A time that falls from 9 to 1 is below 4 from ln(9 / 4) / ln(9) of the way on, in the logarithm of tokens."""
    point = crossover((100, 200, 400, 800), own, (4, 4, 4, 4))
    if isinstance(said, str):
        assert point == said
        return
    factor = 8 if said == 100 else 2
    assert point == pytest.approx((said * factor ** (math.log(9 / 4) / math.log(9)), 4))


def test_what_other_lacks_does_not_count() -> None:
    assert crossover((1, 4, 9), (9, 1, 9), (4, 4, NAN)) == crossover((1, 4), (9, 1), (4, 4))


def run(monkeypatch: pytest.MonkeyPatch, *words: str) -> None:
    monkeypatch.setattr(latency, "CPU_SIDES", (2, 4))
    monkeypatch.setattr("sys.argv", ["latency", "--device", "cpu", "--runs", "1", *words])
    latency.main()


def test_a_tiny_run(tmp_path: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    run(monkeypatch, "--out", str(tmp_path / "latency.png"))
    timed, crossed = capsys.readouterr().out.split("\n\n")
    for side in (2, 4):
        for label in OPERATORS:
            (line,) = [line for line in timed.splitlines() if line.startswith(f"{side:4} x {side:<4} {label} ")]
            assert float(line.split()[-2]) > 0
    said = crossed.splitlines()
    assert [line[:24].strip() for line in said[1:-1]] == list(OPERATORS)[1:]
    assert all(line.endswith((FROM_START, NEVER, " tokens")) for line in said[1:-1])
    assert (tmp_path / "latency.png").stat().st_size > 10_000


def test_out_of_memory_is_a_line_and_a_gap(
    tmp_path: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fails(size: latency.Size) -> latency.Call:
        if size.side == 4:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return OPERATORS["line"](size)

    monkeypatch.setattr(latency, "OPERATORS", {"attention": OPERATORS["attention"], "large": fails})
    run(monkeypatch, "--out", str(tmp_path / "latency.png"))
    assert [line.endswith("out of memory") for line in capsys.readouterr().out.splitlines()[1:5]] == [False] * 3 + [
        True
    ]
    assert (tmp_path / "latency.png").exists()


def test_other_errors_are_errors(monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(size: latency.Size) -> latency.Call:
        raise RuntimeError("broken")

    with pytest.raises(RuntimeError, match="broken"):
        latency.measured(fails, latency.Size(1, 2, 64, torch.device("cpu")), 1)
