import csv
import math
import warnings
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from lightning.pytorch import LightningModule, Trainer
from PIL import Image

from mmeff import lettering
from mmeff.signals import DataSpec
from mmeff.signals.audio import log_mel
from mmeff.tasks import classify_figures, classify_results, figures, report
from mmeff.tasks.classify_results import SHEET, ClassificationResults


def run_test(folder: Path, specs: dict[str, DataSpec], batches: list[tuple[dict[str, Any], torch.Tensor]]) -> None:
    """What `trainer.test` does with the callback; warnings are errors."""
    callback: Any = report.TestReport(folder)
    module, trainer = SimpleNamespace(specs=specs, results=ClassificationResults), SimpleNamespace(is_global_zero=True)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        callback.on_test_start(trainer, module)
        for i, (batch, logits) in enumerate(batches):
            callback.on_test_batch_end(trainer, module, logits, batch, i)
        callback.on_test_end(trainer, module)


def rows(path: Path) -> list[list[str]]:
    return list(csv.reader(open(path, encoding="utf-8", newline="")))


def drawn(path: Path) -> bool:
    """A picture that is more than a white sheet."""
    with Image.open(path) as image:
        low, high = image.convert("L").getextrema()
        return low < 128 < high and min(image.size) > 20  # type: ignore[operator]


IMAGES = DataSpec("image", ("cat", "dog", "owl"))


def image_batch(label: list[int], predicted: list[int], sure: float = 5.0) -> tuple[dict[str, Any], torch.Tensor]:
    batch = {
        "task": "image",
        "image": torch.rand(len(label), 3, 6, 9),
        "label": torch.tensor(label),
        "id": [f"{i}.png" for i in range(len(label))],
    }
    return batch, sure * torch.nn.functional.one_hot(torch.tensor(predicted), 3).float()


def test_one_task_leaves_a_table_and_three_pictures(tmp_path: Path) -> None:
    run_test(tmp_path, {"image": IMAGES}, [image_batch([0, 1, 2], [0, 1, 1]), image_batch([2], [2])])
    assert {p.name for p in tmp_path.iterdir()} == {"predictions.csv", "confusion.png", "mistakes.png", "curves.png"}
    probability = f"{1 / (1 + 2 * math.exp(-5)):.4f}"
    assert rows(tmp_path / "predictions.csv") == [
        ["id", "label", "predicted", "probability"],
        ["0.png", "cat", "cat", probability],
        ["1.png", "dog", "dog", probability],
        ["2.png", "owl", "dog", probability],
        ["0.png", "owl", "owl", probability],
    ]
    assert all(drawn(path) for path in tmp_path.glob("*.png"))


def test_each_of_several_tasks_has_its_own(tmp_path: Path) -> None:
    sounds = DataSpec("audio", ("on", "off"), preprocessing={"sample_rate": 8000, "samples": 8000})
    texts = DataSpec("text", ("good", "bad"))
    label, wrong = torch.tensor([0, 1]), torch.tensor([[0.0, 3.0], [3.0, 0.0]])
    sound = {"task": "a", "audio": torch.randn(2, 8000), "lengths": torch.tensor([10, 8000]), "label": label}
    text = {"task": "t", "text": ["word " * 400, "."], "label": label}
    ids = {"id": ["first", "second"]}
    run_test(tmp_path, {"a": sounds, "t": texts}, [({**sound, **ids}, wrong), ({**text, **ids}, wrong)])
    for kind in ("predictions-{}.csv", "confusion-{}.png", "mistakes-{}.png"):
        assert all((tmp_path / kind.format(task)).stat().st_size for task in ("a", "t"))
    assert drawn(tmp_path / "mistakes-a.png") and drawn(tmp_path / "mistakes-t.png")


def test_several_labels_are_joined_and_have_average_precisions(tmp_path: Path) -> None:
    spec = DataSpec("text", ("wind", "rain", "snow"), multilabel=True)
    batch = {"task": "text", "text": ["a", "b"], "id": ["1", "2"], "label": torch.tensor([[1.0, 1, 0], [0, 0, 0]])}
    run_test(tmp_path, {"text": spec}, [(batch, torch.tensor([[4.0, 4, -4], [-4.0, -4, 4]]))])
    assert rows(tmp_path / "predictions.csv")[1:] == [
        ["1", "wind|rain", "wind|rain", "0.9820|0.9820"],
        ["2", "", "snow", "0.9820"],
    ]
    assert drawn(tmp_path / "confusion.png") and drawn(tmp_path / "mistakes.png")


def test_the_worst_mistakes_are_kept_with_their_raw_signals_alone() -> None:
    spec = DataSpec("audio", ("on", "off"), preprocessing={"sample_rate": 8000, "samples": 100})
    found = ClassificationResults(spec)
    margins = torch.randperm(200, generator=torch.Generator().manual_seed(0)).float() / 10 - 10  # half are wrong
    for part in margins.split(50):
        batch = {
            "audio": part[:, None].expand(-1, 100),
            "lengths": torch.full((50,), 70),
            "label": torch.zeros(50, dtype=torch.long),
            "id": [f"{m:.1f}" for m in part.tolist()],
        }
        found.add(batch, torch.stack([torch.zeros(50), part], 1))
    expected = sorted((m for m in margins.tolist() if m > 0), reverse=True)
    assert found.wrong == len(expected) and len(found.rows) == 200
    assert [m.id for m in found.mistakes] == [f"{m:.1f}" for m in expected[:SHEET]]
    for mistake in found.mistakes:
        assert mistake.raw.shape == (70,) and f"{mistake.raw[0]:.1f}" == mistake.id
        # A clone: a view would hold the whole batch in memory.
        assert mistake.raw.untyped_storage().nbytes() == 70 * 4
        assert mistake.true == "on" and mistake.predicted == "off" and mistake.probability > 0.5


def test_confusions_of_all_processes_add_up() -> None:
    mine, other = ClassificationResults(IMAGES), ClassificationResults(IMAGES)
    mine.add(*image_batch([0, 1], [0, 2]))
    other.add(*image_batch([1, 2], [2, 2], sure=9.0))
    mine.merge(other)
    assert mine.counts is not None and mine.counts.tolist() == [[1, 0, 0], [0, 0, 2], [0, 0, 1]]
    assert len(mine.rows) == 4 and mine.wrong == 2
    assert mine.mistakes[0].loss > mine.mistakes[1].loss


def test_nothing_that_unicode_allows_disturbs(tmp_path: Path) -> None:
    names = ("狗", "😀", "$\\frac$", "\udcff.png", "a\nb\x00c", "long " * 40, "")
    spec = DataSpec("text", names)
    label = torch.arange(7)
    batch = {"task": "text", "text": ["", *names[1:]], "label": label, "id": list(names)}
    run_test(tmp_path, {"text": spec}, [(batch, 3 * torch.eye(7).roll(1, 0))])
    assert drawn(tmp_path / "confusion.png") and drawn(tmp_path / "mistakes.png")
    assert len(rows(tmp_path / "predictions.csv")) == 8


def test_no_mistakes_and_no_curves_are_said_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    notes = []
    for module in (figures, classify_figures):
        monkeypatch.setattr(module, "draw_note", lambda path, text: notes.append((path.name, text)))
    run_test(tmp_path, {"image": IMAGES}, [image_batch([0, 1], [0, 1])])
    assert notes == [
        ("mistakes.png", "No mistakes among 2 examples."),
        ("curves.png", "No learning curves: there is no metrics.csv."),
    ]


def test_curves_are_drawn_from_the_columns_that_are_there(tmp_path: Path) -> None:
    metrics, path = tmp_path / "metrics.csv", tmp_path / "curves.png"
    widths = []
    for text in (
        "step,epoch,train/loss\n0,0,2.0\n1,0,nan\n",
        "step,epoch,train/loss,val/loss,val/score,val/acc,lr-AdamW/pg1,lr-AdamW/pg2\n"
        + "".join(f"{i},0,{9 / (i + 1)},,,,{i},{2 * i}\n" for i in range(200))
        + "199,0,,1.5,0.5,0.5,,\n",
    ):
        metrics.write_text(text)
        figures.draw_curves(path, metrics)
        assert drawn(path)
        with Image.open(path) as image:
            widths.append(image.width)
    assert widths[1] > 2.5 * widths[0]  # three panels instead of one
    metrics.write_text("step,epoch,test/loss\n5,0,1.0\n")
    figures.draw_curves(path, metrics)
    assert drawn(path)


def test_many_classes(tmp_path: Path) -> None:
    counts = torch.eye(300, dtype=torch.long)
    counts[3, 4] = 2
    classify_figures.draw_confusion(tmp_path / "300.png", counts, [f"class {i}" for i in range(300)])
    assert drawn(tmp_path / "300.png")
    assert classify_figures._confused(counts, [str(i) for i in range(300)]) == [
        "most often confused (true → predicted)",
        "   2  3 → 4",
    ]


def test_a_long_name_keeps_its_telling_end() -> None:
    assert lettering.plain("a/b\n c\x00.wav", 99) == "a/b c .wav"
    assert lettering.plain("folder/name.wav", 9, keep_end=True) == "…name.wav"
    assert lettering.plain("folder/name.wav", 7) == "folder…"
    assert len(lettering.plain("狗" * 40, 20)) == 10  # each as wide as two


def test_the_picture_of_a_sound_shows_its_pitch() -> None:
    t = torch.arange(16000) / 16000
    picture = log_mel(torch.sin(2 * math.pi * 1000 * t), 16000)
    mel = 2595 * math.log10(1 + 1000 / 700)
    top = 2595 * math.log10(1 + 8000 / 700)
    assert picture.shape == (64, 101)
    assert picture[:, 50].argmax() == int(mel / top * 64)
    assert log_mel(torch.zeros(1), 8000).isfinite().all()


class Tiny(LightningModule):
    """Answers "cat" whatever it is shown."""

    def __init__(self) -> None:
        super().__init__()
        self.specs = {"image": IMAGES}
        self.results = ClassificationResults

    def test_step(self, batch: Any, batch_idx: int) -> torch.Tensor:
        self.log("test/acc", 0.25, batch_size=len(batch["id"]))
        return torch.tensor([[1.0, 0.0, 0.0]]).expand(len(batch["id"]), 3)


def test_a_picture_that_fails_warns_and_the_metrics_stay(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: Any) -> None:
        raise OSError("No space left on device")

    monkeypatch.setattr(classify_results, "draw_confusion", fail)
    trainer = Trainer(
        accelerator="cpu",
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        callbacks=[report.TestReport(tmp_path)],
    )
    batch, _ = image_batch([0, 1, 2], [0, 0, 0])
    loader = torch.utils.data.DataLoader([batch], batch_size=None)
    with pytest.warns(UserWarning, match=r"confusion\.png: OSError: No space left"):
        (metrics,) = trainer.test(Tiny(), loader, verbose=False)
    assert metrics == {"test/acc": 0.25}
    assert drawn(tmp_path / "mistakes.png") and not (tmp_path / "confusion.png").exists()
    assert len(rows(tmp_path / "predictions.csv")) == 4
