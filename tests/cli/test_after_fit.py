"""What a fit leaves in its folder and on the screen, and that a test, a validation and a resumed run keep it."""

import csv
import re
import shlex
from pathlib import Path

import numpy as np
import pytest
import torch
from lightning.pytorch.loggers import CSVLogger

from mmeff.cli import main
from mmeff.cli.curves import loggers
from mmeff.cli.progress import TimeAhead
from mmeff.cli.recipe import compose

ROOT = Path(__file__).parents[2]
LIMITS = [f"--trainer.limit_{split}_batches=2" for split in ("train", "val", "test")]
SMALL = ["--model.backbone", str(ROOT / "recipes/backbones/attention.yaml"), "--model.backbone.depth", "1"]
QUICK = [*LIMITS, "--trainer.num_sanity_val_steps=0", "--trainer.accelerator=cpu"]


def recipe(name: str) -> list[str]:
    return ["-c", str(ROOT / f"recipes/{name}.yaml"), *SMALL]


@pytest.fixture
def digits(tmp_path, monkeypatch, capsys) -> list[str]:
    """The words that name a recipe which was fitted for an epoch."""
    monkeypatch.chdir(tmp_path)
    assert main(["fit", *recipe("vision/digits"), *QUICK, "--trainer.max_epochs=1"]) == 0
    capsys.readouterr()
    return recipe("vision/digits")


@pytest.mark.parametrize("command", ["test", "validate"])
def test_one_line_of_results_and_the_files_of_the_fit_untouched(command, digits, capsys):
    (run,) = Path("runs").iterdir()
    before = {name: (run / name).read_bytes() for name in ("metrics.csv", "config.yaml", "best.ckpt", "last.ckpt")}
    assert main([command, *digits, *QUICK, "--ckpt_path", "best"]) == 0
    lines = [line for line in capsys.readouterr().out.splitlines() if "/acc" in line]
    assert len(lines) == 1 and lines[0].startswith(f"{command}  ")
    assert before == {name: (run / name).read_bytes() for name in before}


def test_the_config_of_a_run_is_a_recipe_for_another(digits):
    (run,) = Path("runs").iterdir()
    before = (run / "metrics.csv").read_bytes()
    assert main(["fit", "-c", str(run / "config.yaml")]) == 0
    (again,) = set(Path("runs").iterdir()) - {run}
    assert (run / "metrics.csv").read_bytes() == before
    assert (again / "metrics.csv").read_bytes() == before, "the same recipe gave other curves"


@pytest.mark.parametrize("name", ["text/glosses", "multimodal/joint"])
def test_the_closing_hint_can_be_followed(name, tmp_path, monkeypatch, capsys):
    import soundfile
    from PIL import Image

    monkeypatch.chdir(tmp_path)
    soundfile.write("a.wav", np.sin(np.arange(8000) / 5), 16000)
    Image.new("L", (28, 28)).save("a.png")
    assert main(["fit", *recipe(name), *QUICK, "--trainer.max_epochs=1"]) == 0
    hints = [line.strip() for line in capsys.readouterr().out.splitlines() if line.startswith("  mmeff predict")]
    parts = compose(recipe(name))[0]["data"]["init_args"].get("parts", ["text"])
    assert len(hints) == len(parts)
    for hint in hints:
        words = shlex.split(hint.replace("FILE", "a.wav" if "audio" in hint else "a.png"))
        assert main(words[1:]) == 0


def test_a_resumed_run_keeps_the_curves_before_its_checkpoint(tmp_path):
    table = CSVLogger(tmp_path, name="", version="")
    for step, loss in enumerate((3.0, 2.0, 1.0)):
        table.log_metrics({"train/loss": loss}, step)
    table.save()
    written = {"global_step": 2, "state_dict": {}, "pytorch-lightning_version": "", "mmeff": {"model": {}, "specs": {}}}
    torch.save(written, tmp_path / "last.ckpt")
    again = loggers(tmp_path, str(tmp_path / "last.ckpt"))[0]
    again.log_metrics({"train/loss": 1.5, "val/acc": 0.5}, 2)
    again.save()
    with open(tmp_path / "metrics.csv", newline="") as file:
        rows = [(int(row["step"]), float(row["train/loss"])) for row in csv.DictReader(file)]
    assert rows == [(0, 3.0), (1, 2.0), (2, 1.5)]


def test_a_fit_says_how_long_it_takes_and_what_a_simple_model_reaches(tmp_path, monkeypatch, capsys, table):
    monkeypatch.chdir(tmp_path)
    # The label is a word of the text, which a linear model finds at once and a network does not in one step.
    more = [f"a {label} thing,{label}" for label in ("good", "bad", "odd") for _ in range(40)]
    path = table(tmp_path / "table.csv", *more)
    words = [*recipe("text/table"), "--data.source.path", str(path), "--data.num_workers", "0", *QUICK[1:2], *QUICK[3:]]
    assert main(["fit", *words, "--trainer.max_epochs=2", "--model.optimizer.lr=0"]) == 0
    lines = capsys.readouterr().out.splitlines()
    (ahead,) = [line for line in lines if line.startswith("about ")]
    assert re.fullmatch(r"about [\d.]+ s per epoch \(6 steps of [\d.]+ s\), [\d.]+ s for 2 epochs", ahead)
    assert lines.index(ahead) < next(i for i, line in enumerate(lines) if line.startswith("epoch 1/2"))
    (said,) = [line for line in lines if line.startswith("baseline  test/acc 1 ")]
    assert "logistic regression on TF-IDF" in said and "does not beat it" in said


def test_measuring_the_time_ahead_changes_nothing_of_the_run(tmp_path, monkeypatch, capsys):
    losses = {}
    for name in ("measured", "not"):
        if name == "not":
            monkeypatch.setattr(TimeAhead, "on_train_start", lambda *_: None)
        folder = ["--trainer.default_root_dir", str(tmp_path / name), "--trainer.log_every_n_steps=1"]
        assert main(["fit", *recipe("audio/tones"), *QUICK, "--trainer.max_epochs=1", *folder]) == 0
        with open(tmp_path / name / "metrics.csv", newline="") as file:
            losses[name] = [row["train/loss"] for row in csv.DictReader(file) if row["train/loss"]]
    assert len(losses["not"]) == 2 and losses["measured"] == losses["not"]
    assert capsys.readouterr().out.count("per epoch") == 1


@pytest.mark.parametrize("kind", ["image", "text"])
def test_all_of_a_file_or_folder_that_was_held_back_is_tested(kind, fit, fails, trained, photos, table, capsys):
    """Not a tenth of it, and by the classes of the model, of which a small file may lack some."""
    held = photos(Path("held"), ("dog",), n=7) if kind == "image" else Path("held.csv")
    if kind == "text":
        held.write_text("text,label\n" + "".join(f"line {i},good\n" for i in range(7)))
    words = ["test", *fit(kind, held, "--ckpt_path", str(trained[kind]))[1:], "--all"]
    assert main(words) == 0
    out = capsys.readouterr().out
    assert "7 examples, 2 classes, 0 train / 0 val / 7 test" in out
    with (trained[kind].parent / "predictions.csv").open(newline="") as file:
        assert len(list(csv.DictReader(file))) == 7
    if kind == "image":
        photos(held, ("dogs",), n=1)
    else:
        held.write_text(held.read_text() + "one more,goood\n")
    name, near = ("dogs", "dog") if kind == "image" else ("goood", "good")
    fails(words, f"label {name!r} of ", "is no class of the model", f"did you mean {near!r}?")
    fails([*words[:-3], "--all"], "mmeff test -c RECIPE --ckpt_path best --all")
    fails(["fit", *words[1:]], "mmeff test -c RECIPE --ckpt_path best --all")


def test_a_learning_rate_that_was_found_trains_as_one_that_was_given(fit, photos, fails, capsys):
    """Bit for bit: weights, random numbers and place in the data are those of the start, and the warm-up too."""
    words = fit(
        "image", photos(Path("photos"), n=40), "--trainer.limit_train_batches", "1.0", "--trainer.logger", "true"
    )
    assert main([*words, "--trainer.callbacks=LearningRateFinder", "--trainer.callbacks.num_training_steps=15"]) == 0
    (said,) = re.findall(r"the peak learning rate is (\S+) now", capsys.readouterr().out)
    stored = torch.load("runs/run/last.ckpt", weights_only=True)
    lr = stored["mmeff"]["model"]["init_args"]["optimizer"]["lr"]
    assert float(said) == pytest.approx(lr, rel=5e-3) and lr != 1e-3
    assert main([*words, "--model.optimizer.lr", repr(lr)]) == 0
    (given,) = Path("runs").glob("run-2/last.ckpt")
    for key, value in torch.load(given, weights_only=True)["state_dict"].items():
        assert torch.equal(value, stored["state_dict"][key]), key
    fails([*words, "--trainer.callbacks=BatchSizeFinder"], "--data.batch_size")


def test_any_optimizer_from_the_command_line_goes_on_where_it_stopped(fit, photos, capsys):
    words = fit("image", photos(Path("photos")), "--model.optimizer", "torch.optim.SGD", "--trainer.max_epochs", "2")
    words += ["--model.optimizer.schedule", "CosineAnnealingLR", "--model.optimizer.options.momentum", "0.5"]
    assert main(words) == 0
    whole = torch.load("runs/run/last.ckpt", weights_only=True)
    assert whole["optimizer_states"][0]["param_groups"][0]["momentum"] == 0.5
    stopped = [*words, "--trainer.default_root_dir", "runs/other"]
    assert main([*stopped, "--trainer.max_epochs", "1"]) == 0
    capsys.readouterr()
    assert main([*stopped, "--ckpt_path", "last", "--model.optimizer.lr", "0.5"]) == 0
    assert "the optimizer goes on with the checkpoint's lr: other values want a new run" in capsys.readouterr().out
    again = torch.load("runs/other/last.ckpt", weights_only=True)
    assert again["global_step"] == whole["global_step"]
    assert again["optimizer_states"][0]["state"].keys() == whole["optimizer_states"][0]["state"].keys()
    assert main(["predict", "--ckpt", "runs/run", "photos/cat/0.png"]) == 0
