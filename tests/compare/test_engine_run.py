"""A comparison from its command to its folder: whole, stopped and gone on with, with a contender that fails."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

import mmeff.compare.parts
import mmeff.compare.run
from mmeff.cli import main
from mmeff.cli.compare import contenders_of
from mmeff.compare.accuracy import train_and_test
from mmeff.compare.budget import matched
from mmeff.compare.plan import Budget, read_plan
from mmeff.compare.schema import Row
from mmeff.compare.speed import summary
from mmeff.compare.store import read_rows

PLAN: dict[str, Any] = {
    "recipes": ["recipes/vision/digits.yaml"],
    "backbones": ["recipes/backbones/attention.yaml", "recipes/backbones/linear.yaml"],
    "budget": {"dim": 32, "depth": 1},
    "train": {"steps": 2, "seeds": 2},
    "lengths": {"image": [28, 32]},
    "speed": {"runs": 3, "visits": 1, "batch": 2, "seconds": 0.1},
}


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    return tmp_path


@pytest.fixture
def unreported(monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """The folders that a report was asked of; drawing takes longer than all else here."""
    asked: list[Path] = []
    monkeypatch.setattr(mmeff.compare.run, "write_report", asked.append)
    return asked


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Measurements that take no time; their names, as they are taken."""
    taken: list[str] = []

    def speeds(field: Any, length: float, speed: Any, device: Any, first: bool, contenders: dict[str, Any]) -> Any:
        taken.append(f"speed {length:g} of {' '.join(contenders)}" + ("" if first else ", again"))
        times = [0.2 / length if first else 0.4 / length] * 4
        found = {"batch": 2, "samples": dict.fromkeys(("inference", "training", "latency"), times)}
        return dict.fromkeys(contenders, found)

    def accuracies(contender: Any, train: Any, device: Any) -> dict[str, Any]:
        taken.append(f"accuracy of {contender.backbone}")
        return {"accuracy": 0.5, "steps": train.steps}

    monkeypatch.setattr(mmeff.compare.parts, "speeds", speeds)
    monkeypatch.setattr(mmeff.compare.parts, "accuracies", accuracies)
    return taken


def compare(*words: str, plan: dict[str, Any] = PLAN) -> int:
    Path("plan.yaml").write_text(yaml.safe_dump(plan))
    return main(["compare", "-c", "plan.yaml", "--out", "out", "--device", "cpu", *words])


def rows() -> dict[tuple[str, float], Row]:
    return {(row.backbone, row.length): row for row in read_rows(Path("out/results.parquet"))[0]}


ALL = [
    "speed 28 of attention linear", "speed 32 of attention linear", "accuracy of attention", "accuracy of linear",
]  # fmt: skip


def test_a_run_measures_all_and_leaves_a_report(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert compare("--train.seeds", "1") == 0
    found = rows()
    assert set(found) == {(name, length) for name in ("attention", "linear") for length in (28, 32)}
    row = found["attention", 28]
    assert (row.dim, row.depth, row.tokens, row.steps, row.seeds) == (32, 1, 49, 2, 1)
    assert row.inference and row.training and row.inference_low and row.inference_high
    assert row.inference_low <= row.inference <= row.inference_high
    assert row.memory and row.inference_memory and row.memory > row.inference_memory
    assert row.latency_p50 and row.latency_p95 and row.latency_p50 <= row.latency_p95
    assert row.accuracy and 0 < row.accuracy <= 1 and row.accuracy_spread == 0
    assert row.tested and row.tested > 100
    assert row.forward_flops and row.training_flops and row.forward_flops < row.training_flops
    assert found["attention", 32].accuracy is None
    _, about = read_rows(Path("out/results.parquet"))
    assert {"device", "date", "versions", "code", "command", "threads"} <= set(about)
    assert Path("out/report.html").is_file()
    assert "[4/4] accuracy: linear on digits" in capsys.readouterr().out


def test_what_is_measured_is_not_measured_again(here: Path, quick: list[str], unreported: list[Path]) -> None:
    assert compare() == 0
    assert quick == ALL
    assert compare() == 0
    assert quick == ALL
    assert rows()["linear", 32].inference == 320
    assert compare("--speed.runs", "4") == 0  # another measurement
    assert quick == [*ALL, *ALL[:2]]


def test_a_batch_may_be_counted_in_tokens(here: Path, unreported: list[Path]) -> None:
    assert compare("--speed-only", "--speed.tokens", "200") == 0
    found = rows()  # 49 tokens an image of 28 pixels, 64 of 32
    assert (found["attention", 28].batch, found["linear", 32].batch) == (4, 3)
    assert compare("--speed-only", "--speed.tokens", "10", "--lengths.image", "[28]") == 0
    assert rows()["attention", 28].batch == 1, "one at least"


def test_rounds_are_spread_over_visits(here: Path, quick: list[str], unreported: list[Path]) -> None:
    """The median and the quartiles are those of all rounds; what one visit found is known when the other is missing."""
    assert compare("--speed.visits", "2") == 0
    assert quick == [*ALL, *(f"{name}, again" for name in ALL[:2])]
    row = rows()["linear", 32]
    assert row.inference_low == 160 and row.inference_high == 320 and row.inference == pytest.approx(240)
    assert row.latency_p50 == pytest.approx(9.375) and row.latency_p95 == pytest.approx(12.5)
    journal = Path("out/journal.jsonl")
    journal.write_text("\n".join(journal.read_text().splitlines()[:-1]))
    assert compare("--speed.visits", "2") == 0
    assert quick[6:] == ["speed 32 of linear, again"]
    assert rows()["linear", 32] == row
    assert summary({"inference": [0.5], "training": [1.0], "latency": [0.1]}, 2)["inference_low"] == 4, "one round"


def test_other_code_is_measured_anew(
    here: Path, quick: list[str], unreported: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert compare() == 0
    monkeypatch.setattr("mmeff.compare.journal.code_hash", lambda: "other")
    assert compare() == 0
    assert quick == ALL * 2


def test_an_interrupted_run_leaves_a_report_and_goes_on(
    here: Path,
    quick: list[str],
    unreported: list[Path],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    with monkeypatch.context() as patched:
        patched.setattr(mmeff.compare.parts, "accuracies", interrupting)
        assert compare() == 130
    assert "goes on where it was" in capsys.readouterr().err
    assert unreported == [Path("out")]
    assert rows()["attention", 28].inference == 280
    assert compare() == 0
    assert quick == ALL  # speed before, accuracy after
    assert rows()["attention", 28].accuracy == 0.5


def interrupting(*arguments: Any) -> None:
    raise KeyboardInterrupt


def test_a_line_that_a_kill_cut_short_is_measured_again(here: Path, quick: list[str], unreported: list[Path]) -> None:
    assert compare() == 0
    journal = Path("out/journal.jsonl")
    journal.write_text(journal.read_text()[:-5])
    assert compare() == 0
    assert quick == [*ALL, "accuracy of linear"]
    assert compare() == 0
    assert quick == [*ALL, "accuracy of linear"]


BROKEN = """\
from mmeff.mixers import Attention

class Broken(Attention):
    def forward(self, x, grid, lengths=None):
        raise RuntimeError("this mixer is broken")
"""


@pytest.fixture
def broken(here: Path) -> Callable[[], list[str]]:
    """Paths of backbones that cannot run, and that cannot be built."""

    def write() -> list[str]:
        (here / "broken_mixer.py").write_text(BROKEN)
        for name, mixer in {
            "broken": {"class_path": "broken_mixer.Broken", "init_args": {"head_dim": 32}},
            "unbuilt": {"class_path": "mmeff.mixers.Attention", "init_args": {"head_dim": 24}},
        }.items():
            backbone = {"class_path": "mmeff.backbones.Isotropic", "init_args": {"dim": 32, "depth": 1, "mixer": mixer}}
            (here / f"{name}.yaml").write_text(yaml.safe_dump(backbone))
        return ["broken.yaml", "unbuilt.yaml"]

    return write


def test_a_contender_that_fails_has_its_error_in_its_row(
    broken: Callable[[], list[str]], unreported: list[Path], capsys: pytest.CaptureFixture[str]
) -> None:
    plan = {**PLAN, "backbones": ["recipes/backbones/attention.yaml", *broken()], "train": None}
    assert compare(plan=plan) == 0
    found = rows()
    assert found["broken", 28].error == "this mixer is broken"
    assert "head_dim 24 does not divide dim 32" in (found["unbuilt", 32].error or "")
    assert found["attention", 32].error is None and found["attention", 32].training
    assert "2 contenders failed" in capsys.readouterr().out
    known = [json.loads(line) for line in Path("out/journal.jsonl").read_text().splitlines()]
    assert len(known) == 2, "what failed is tried again by the next run"


def test_who_cannot_serve_a_grid_is_left_out(
    here: Path, quick: list[str], unreported: list[Path], capsys: pytest.CaptureFixture[str]
) -> None:
    backbones = ["recipes/backbones/linear.yaml", "recipes/backbones/ss2d.yaml"]
    plan = {**PLAN, "recipes": ["recipes/text/glosses.yaml"], "backbones": backbones, "lengths": {"text": [16]}}
    assert compare("--speed-only", plan=plan) == 0
    assert quick == ["speed 16 of linear"]
    assert "left out: ss2d on glosses" in capsys.readouterr().out


def test_the_same_seed_trains_the_same_model(here: Path) -> None:
    plan = {**PLAN, "backbones": ["recipes/backbones/attention.yaml"]}
    (contender,) = contenders_of(read_plan(plan))
    contender = matched(contender, Budget(dim=32, depth=1))
    first, again = (train_and_test(contender, 2, 0, torch.device("cpu"))[0] for _ in range(2))
    assert first == again
