"""What `mmeff fit` leaves behind is the model it trained: of every recipe, and with every backbone."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch

import mmeff
from mmeff.cli import main, run
from mmeff.data import ClassificationData, collate, read_raw
from mmeff.tasks import Classification

ROOT = Path(__file__).parents[2]
RECIPES = sorted(
    path.relative_to(ROOT).as_posix()
    for kind in ("vision", "audio", "text", "series", "multimodal")
    for path in (ROOT / "recipes" / kind).rglob("*.yaml")
)
BACKBONES = sorted((ROOT / "recipes" / "backbones").rglob("*.yaml"))
SWAPPED = "recipes/vision/digits.yaml"
STEP = ["--trainer.max_epochs=1", "--trainer.limit_train_batches=1", "--trainer.limit_val_batches=1"]
QUICK = ["--trainer.num_sanity_val_steps=0", "--trainer.logger=false", "--trainer.accelerator=cpu"]


@dataclass
class Trained:
    """A model as training left it in memory, its data, and the run folder."""

    model: Classification
    data: ClassificationData
    folder: Path


@pytest.fixture
def train(monkeypatch, one_thread, user_data, small_batches, tmp_path) -> Callable[..., Trained]:
    """`mmeff fit` of a recipe for one step, without the test at its end."""
    kept: list[Trained] = []
    monkeypatch.setattr(run, "finish", lambda cli, folder: kept.append(Trained(cli.model, cli.datamodule, folder)))

    def fit(recipe: str, *words: str) -> Trained:
        words = (*small_batches(ROOT / recipe), *user_data.get(recipe, []), *words)
        folder = f"--trainer.default_root_dir={tmp_path / 'run'}"
        assert main(["fit", "-c", str(ROOT / recipe), *words, *STEP, *QUICK, folder]) == 0
        kept[-1].model.eval()
        return kept[-1]

    return fit


def logits_of(model: Classification, data: ClassificationData) -> list[torch.Tensor]:
    """Of the first two training examples of each task."""
    found = []
    for name, part in data.parts.items():
        batch = part.splits["train"].batch(0, [0, 1])
        with torch.inference_mode():
            found.append(model(name, part.spec.raw(batch), batch.get("lengths")))
    return found


def best_label(model: Classification, task: str, signal: str) -> str:
    spec = model.specs[task]
    batch = collate(task, spec, [read_raw(spec, signal)])
    with torch.inference_mode():
        return spec.classes[int(model(task, spec.raw(batch), batch.get("lengths")).argmax())]


@pytest.mark.parametrize(
    ("recipe", "words"),
    [
        *(pytest.param(recipe, [], id=recipe) for recipe in RECIPES),
        *(pytest.param(SWAPPED, ["--model.backbone", str(path)], id=path.stem) for path in BACKBONES),
    ],
)
def test_a_run_and_its_export_are_the_model_that_was_trained(recipe, words, train, new_files, tmp_path, capsys):
    trained = train(recipe, *words)
    exported = tmp_path / "exported"
    assert main(["export", str(trained.folder), "--to", str(exported)]) == 0
    assert sorted(path.name for path in exported.iterdir()) == ["config.json", "model.safetensors"]

    expected = logits_of(trained.model, trained.data)
    for place in (trained.folder, exported):
        for logits, same in zip(logits_of(mmeff.load(place), trained.data), expected, strict=True):
            assert torch.equal(logits, same), f"{place} gives other logits than the model in memory"

    for task, spec in trained.model.specs.items():
        new = new_files[spec.signal]
        label = best_label(trained.model, task, new[-1])
        capsys.readouterr()
        for place in (trained.folder, exported):
            assert main(["predict", "--ckpt", str(place), *new, "--task", task, "--top", "1"]) == 0
            assert f": {label} " in capsys.readouterr().out
