"""Latencies beside attention's: where lines cross, and a tiny run on the CPU."""

import math
from typing import Any

import pytest
import torch

from mmeff_kernels.scan2d import latency
from mmeff_kernels.scan2d.latency import FROM_START, NEVER, OPERATORS, crossover

NAN = math.nan


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
