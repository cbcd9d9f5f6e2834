"""A checkpoint that is damaged, or made to do damage, is one line by every command that reads it."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from mmeff.cli import main

WEIGHT = "backbone.blocks.0.mixer.qkv.weight"


def weights(change: Callable[[torch.Tensor], Any], key: str = WEIGHT) -> Callable[[dict], None]:
    return lambda checkpoint: checkpoint["state_dict"].update({key: change(checkpoint["state_dict"][key])})


def damaged(change: Callable[[dict], Any], good: Path, path: Path) -> Path:
    checkpoint = torch.load(good, weights_only=True)
    change(checkpoint)
    path.parent.mkdir(exist_ok=True)
    torch.save(checkpoint, path)
    return path


HUGE = weights(lambda w: torch.full_like(w, 3e38)), "the model gives numbers that are NaN or infinite"
NAN = weights(lambda w: w * float("nan")), f"{WEIGHT} holds numbers that are NaN or infinite"


@pytest.mark.parametrize(
    ("command", "change", "what"),
    [
        *((command, *case) for command in ("predict", "test") for case in (HUGE, NAN)),
        ("predict", weights(lambda w: w + 1j), f"{WEIGHT} is torch.complex64 there and torch.float32 here"),
        ("predict", weights(lambda w: w.to_sparse()), f"{WEIGHT} is no plain tensor"),
        (
            "predict",
            weights(lambda s: 0 * s, "tokenizers.image.norm.std"),
            "image.norm.std holds 0, which is no deviation",
        ),
        (
            "test",
            lambda c: c["mmeff"]["specs"]["image"].update(classes=["cat", "cat"]),
            "image.classes: each name must",
        ),
    ],
)
def test_weights_and_specs(command, change, what, fit, fails, here, trained):
    path = damaged(change, trained["image"], here / "damaged.ckpt")
    photos = trained["data"] / "photos"
    words = ["test", *fit("image", photos, "--ckpt_path", str(path))[1:]]
    fails(["predict", "--ckpt", str(path), str(photos / "cat/0.png")] if command == "predict" else words, what)


def test_a_name_of_a_class_does_not_command_the_terminal(here, trained, capsys):
    path = damaged(
        lambda c: c["mmeff"]["specs"]["image"].update(classes=["\x1b]0;cat\a", "dog\nmmeff: all is well"]),
        trained["image"],
        here / "named.ckpt",
    )
    assert main(["predict", "--ckpt", str(path), str(trained["data"] / "photos/cat/0.png")]) == 0
    said = capsys.readouterr().out
    assert said.strip().isprintable() and r"\x1b]0;cat\x07" in said


@pytest.mark.parametrize(
    ("change", "what"),
    [
        (lambda c: c["optimizer_states"][0]["state"][0].update(exp_avg=torch.zeros(3)), "exp_avg of its optimizer"),
        (lambda c: c.update(loops={"fit_loop": {"state_dict": 7}}), "its training cannot be restored"),
        (lambda c: c.update({"pytorch-lightning_version": "none"}), "its training cannot be restored: Invalid version"),
        (lambda c: c["callbacks"]["RandomState"].update(torch=torch.zeros(3)), "state of its random numbers cannot be"),
    ],
)
def test_training_that_cannot_go_on(change, what, fit, fails, here, trained):
    path = damaged(change, trained["image"], here / "run" / "damaged.ckpt")
    words = fit("image", trained["data"] / "photos", "--ckpt_path", str(path), "--trainer.max_epochs", "2")
    fails(words, what)


def test_a_resumed_run_removes_no_file_of_others(fit, here, trained, capsys):
    """Lightning takes the paths of files that it may remove out of the checkpoint."""
    (here / "run" / "papers").mkdir(parents=True)
    for name in ("papers/thesis.txt", "notes.txt", "papers/last.ckpt"):
        (here / "run" / name).write_text("mine")

    def point(checkpoint: dict) -> None:
        named = iter([here / "run/papers", here / "run/notes.txt", here / "run/papers/last.ckpt"])
        for key, state in checkpoint["callbacks"].items():
            if "Checkpoint" in key:
                state.update(best_model_path=str(next(named)), dirpath=str(here / "run"))

    path = damaged(point, trained["image"], here / "run" / "damaged.ckpt")
    words = fit("image", trained["data"] / "photos", "--ckpt_path", str(path), "--trainer.max_epochs", "2")
    assert main(words) == 0
    assert "epoch 2/2" in capsys.readouterr().out
    assert all((here / "run" / name).read_text() == "mine" for name in ("papers/thesis.txt", "notes.txt"))
    assert (here / "run/papers/last.ckpt").read_text() == "mine"
