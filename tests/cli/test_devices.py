"""Precisions, numbers of processes and batches: what a run may change on the way, and what the Trainer cannot mean."""

import csv
import json
import math
import os
import shutil
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from lightning.pytorch import Callback

import mmeff.cli.run as cli_run
from mmeff.checkpoint import load
from mmeff.cli import main
from mmeff.cli.trainer import check_seed, check_values
from mmeff.errors import InputError
from mmeff.tasks.safety import NaNGuard, RandomState

ROOT = Path(__file__).parents[2]


def read(path: Path) -> dict:
    return torch.load(path, weights_only=True)


def rows(run: Path, key: str) -> list[tuple[int, float]]:
    with open(run / "metrics.csv", newline="") as file:
        return [(int(row["step"]), float(row[key])) for row in csv.DictReader(file) if row.get(key)]


def test_a_run_goes_on_with_other_batches(fit, table, here):
    """48 training examples, two epochs of 6 batches; `step=6` lies before the validation of the first epoch."""
    more = [f"another {label} thing {i},{label}" for label in ("good", "bad") for i in range(24)]
    save = {"dirpath": "first", "filename": "{step}", "every_n_train_steps": 3, "save_top_k": -1}
    save = {"class_path": "lightning.pytorch.callbacks.ModelCheckpoint", "init_args": save}
    words = ["--trainer.logger=true", "--trainer.log_every_n_steps=1", "--trainer.limit_test_batches=0"]
    words = fit("text", table(here / "t.csv", *more), *words, "--trainer.limit_train_batches=1.0")
    eight = [*words, "--data.batch_size=8", "--trainer.max_epochs=2", "--model.optimizer.lr=1e-3"]
    assert main([*eight, "--trainer.callbacks", json.dumps([save])]) == 0
    shutil.copy("runs/run/last.ckpt", "first/last.ckpt")
    for name, changed, steps, validations in (
        ("step=3", ["--data.batch_size=4"], 3 + 6 + 12, 2),
        ("step=3", ["--data.batch_size=16"], 3 + 1 + 3, 2),
        ("step=6", ["--data.batch_size=4"], 6 + 12, 2),
        ("last", ["--data.batch_size=16", "--trainer.max_epochs=4"], 12 + 3 + 3, 2),
        ("step=3", ["--trainer.accumulate_grad_batches=2"], 3 + 2 + 3, 2),
        ("step=3", ["--trainer.limit_train_batches=4"], 3 + 1 + 4, 2),
        ("last", ["--data.batch_size=4", "--trainer.max_steps=20"], 12 + 8, 0),
    ):
        run = here / f"{name}{'-'.join(changed)}"
        run.mkdir()
        shutil.copy(f"first/{name}.ckpt", run / "from.ckpt")
        assert main([*eight, *changed, "--trainer.max_epochs=4" if name == "last" else "--trainer.max_epochs=2",
                     "--ckpt_path", str(run / "from.ckpt")]) == 0  # fmt: skip
        assert read(run / "last.ckpt")["global_step"] == steps, (name, changed)
        assert len(rows(run, "val/loss")) == validations, (name, changed)
        assert rows(run, "lr-AdamW/pg1")[-1] == (steps - 1, pytest.approx(1e-5)), (name, changed)


def test_batches_whose_gradient_was_lost_are_read_again(fit, table, here):
    words = [*fit("text", table(here / "t.csv")), "--trainer.limit_train_batches=1.0", "--data.batch_size=1"]
    words += ["--trainer.accumulate_grad_batches=3", "--trainer.limit_test_batches=0"]

    class Save(Callback):
        def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
            if batch_idx == 4:
                trainer.save_checkpoint("mid.ckpt")

    callbacks = cli_run.run_callbacks
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(cli_run, "run_callbacks", lambda *args: [*callbacks(*args), Save()])
        assert main(words) == 0
    assert read(Path("mid.ckpt"))["TextData"]["examples"] == {"text": 3}
    assert main([*words, "--ckpt_path", "mid.ckpt"]) == 0
    assert read(Path("last.ckpt"))["global_step"] == read(Path("runs/run/last.ckpt"))["global_step"]


@pytest.mark.parametrize(
    ("kind", "precision"),
    [("text", "bf16-mixed"), ("audio", "bf16-true"), ("audio", "16-true")],
)
def test_every_precision_trains_and_its_checkpoint_predicts(kind, precision, fit, table, sounds, here):
    data = table(here / "t.csv") if kind == "text" else sounds(here / "sounds")
    words = fit(kind, data, "--trainer.precision", precision, "--trainer.gradient_clip_val=1.0")
    assert main(words) == 0
    assert main(["predict", "--ckpt", "runs/run", *(["-t", "a text"] if kind == "text" else ["sounds/cat/0.wav"])]) == 0
    if kind == "audio":  # whatever the weights are, the sound and its spectrogram are in fp32
        from mmeff.tokenizers import LogMel

        tokenizer: Any = load("runs/run").model.tokenizers["audio"]
        own, new = tokenizer.log_mel.state_dict(), LogMel(mels=64, window_ms=50).to(torch.bfloat16).state_dict()
        name = "spectrogram.mel_scale.fb"
        assert torch.equal(own[name], new[name]) and new[name].dtype == torch.float32
        assert read(Path("runs/run/last.ckpt"))["state_dict"]["tokenizers.audio.log_mel.mean"].dtype == torch.float32


def test_half_precision_leaves_sounds_whole():
    from mmeff.tasks.precision import HalfButRaw

    x = torch.rand(2, 5)
    batch = HalfButRaw("bf16-true").convert_input({"audio": x, "label": x, "id": ["a", "b"]})
    assert batch["audio"] is x and batch["label"].dtype == torch.bfloat16 and batch["id"] == ["a", "b"]


def test_a_scaler_may_skip_a_step():
    model = torch.nn.Linear(1, 1)
    model.weight.grad = torch.full((1, 1), torch.inf)
    guard = NaNGuard(Path("none.ckpt"))
    guard.loss = torch.tensor(1.0)
    trainer = SimpleNamespace(precision_plugin=SimpleNamespace(scaler=object()))
    guard.on_before_optimizer_step(trainer, model, None)  # pyright: ignore[reportArgumentType]


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("accumulate_grad_batches", 0), ("accumulate_grad_batches", -1), ("check_val_every_n_epoch", 0),
        ("val_check_interval", 0), ("num_nodes", 0), ("limit_val_batches", -1), ("overfit_batches", -1),
        ("gradient_clip_val", -1), ("max_epochs", -2), ("gradient_clip_val", math.nan),
        ("gradient_clip_val", math.inf), ("profiler", "xla"),
    ],
)  # fmt: skip
def test_values_that_the_trainer_cannot_mean(option, value):
    with pytest.raises(InputError, match=f"trainer.{option} is {value}"):
        check_values({option: value})


@pytest.mark.parametrize("seed", [-1, 2**32, 2**70])
def test_seeds_that_numpy_takes_for_none(seed):
    with pytest.raises(InputError, match=f"seed_everything is {seed}"):
        check_seed(seed)
    for seed in (True, None, 0):
        check_seed(seed)


def test_what_no_run_can_be_started_with_is_one_line(fit, table, fails, here):
    words = fit("text", table(here / "t.csv"))
    for option, value, part in (
        ("trainer.accumulate_grad_batches", "0", "must be 1 at least"),
        ("trainer.max_epochs", "-1", "set trainer.max_epochs or trainer.max_steps"),
        ("trainer.val_check_interval", "100", "an epoch has 2 batches"),
        ("trainer.limit_train_batches", "0.01", "Try at least"),
        ("trainer.devices", "99", "at most"),
        ("trainer.num_nodes", "2", "MASTER_ADDR"),
        ("trainer.precision", "transformer-engine", "transformer_engine"),
        ("trainer.strategy", "ddp_spawn", "set trainer.strategy to ddp"),
        ("data.num_workers", "-1", "num_workers is -1"),
        ("data.num_workers", "100000", "num_workers is 100000"),
        ("data.batch_size", "null", "data.batch_size: expected int, got None"),
        ("seed_everything", "-1", "seed_everything is -1"),
    ):
        fails([*words, f"--{option}", value], part)


def test_a_run_without_checkpoints(fit, table, here, capsys):
    for words in (["--trainer.enable_checkpointing=false"], ["--trainer.barebones=true"]):
        assert main(fit("text", table(here / "t.csv"), *words)) == 0
        assert not list(here.glob("runs/*/*.ckpt"))
        assert "Label something" not in capsys.readouterr().out


TOKENIZER = {"class_path": "mmeff.tokenizers.TextBytes", "init_args": {"max_length": 32}}
MIXER = {"class_path": "mmeff.mixers.Attention", "init_args": {"head_dim": 32}}


def joint(here: Path, batch_sizes: tuple[int, int]) -> str:
    """A recipe of two texts: 4 batches of one and, in two passes, 8 of the other are an epoch of 12 steps."""
    parts = {}
    for name, n, size in (("a", 20, batch_sizes[0]), ("b", 15, batch_sizes[1])):
        (here / f"{name}.csv").write_text(
            "text,label\n" + "".join(f"{name} thing {i},{i % (2 + (name == 'b'))}\n" for i in range(n))
        )
        source = {"class_path": "mmeff.data.TextTable", "init_args": {"path": f"{name}.csv"}}
        parts[name] = {"class_path": "mmeff.data.TextData", "init_args": {"source": source, "batch_size": size}}
    average = {"class_path": "lightning.pytorch.callbacks.EMAWeightAveraging", "init_args": {"decay": 0.5}}
    save = {"dirpath": "mid", "filename": "{step}", "every_n_train_steps": 5, "save_top_k": -1}
    save = {"class_path": "lightning.pytorch.callbacks.ModelCheckpoint", "init_args": save}
    backbone = {"class_path": "mmeff.backbones.Isotropic", "init_args": {"dim": 32, "depth": 1, "mixer": MIXER}}
    recipe = {
        "seed_everything": 0,
        "trainer": {"accelerator": "cpu", "max_epochs": 2, "gradient_clip_val": 1.0, "callbacks": [average, save]},
        "model": {
            "class_path": "mmeff.tasks.JointClassify",
            "init_args": {"tokenizers": {"a": TOKENIZER, "b": TOKENIZER}, "backbone": backbone},
        },
        "data": {"class_path": "mmeff.data.JointData", "init_args": {"parts": parts, "passes": {"b": 2}}},
    }
    name = f"joint{batch_sizes[0]}.yaml"
    (here / name).write_text(json.dumps(recipe))
    return name


def on_two_processes(words: list[str]) -> list[str]:
    """Lines that `mmeff` prints."""
    script = Path("command.py")
    script.write_text("import sys; from mmeff.cli import main; sys.exit(main())")
    env = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": f"{ROOT}:{ROOT / 'kernels'}"}
    command = [sys.executable, str(script), *words, "--trainer.devices=2"]
    got = subprocess.run(command, capture_output=True, text=True, timeout=200, env=env)
    assert got.returncode == 0, got.stdout + got.stderr
    return got.stdout.splitlines()


def test_two_processes_train_and_test_as_one_with_twice_the_batch(here):
    words = ["fit", "-c", joint(here, (2, 1))]
    said = on_two_processes([*words, "--trainer.default_root_dir=two"])
    for begins in ("a: 20 examples", "epoch 1/2", "epoch 2/2", "test  ", "everything is in two"):
        assert len([line for line in said if line.startswith(begins)]) == 1, said
    for run in ("again", "alone"):
        Path(run).mkdir()
        shutil.copy("mid/step=5.ckpt", f"{run}/mid.ckpt")
    on_two_processes([*words, "--ckpt_path=again/mid.ckpt", "--trainer.limit_test_batches=0"])
    one = ["fit", "-c", joint(here, (4, 2)), "--trainer.devices=1"]
    assert main([*one, "--trainer.default_root_dir=one"]) == 0
    assert main([*one, "--ckpt_path=alone/mid.ckpt", "--trainer.limit_test_batches=0"]) == 0

    two, again, one, alone = (read(Path(run, "last.ckpt")) for run in ("two", "again", "one", "alone"))
    assert {state["global_step"] for state in (two, again, one, alone)} == {24}
    for key, value in two["state_dict"].items():
        assert torch.equal(again["state_dict"][key], value), key
        torch.testing.assert_close(one["state_dict"][key], value, rtol=1e-3, atol=1e-4)
    for name, n in (("a", 2), ("b", 3)):  # of b the second process has one example less, and sees one again
        shared, whole = (Path(run, f"predictions-{name}.csv").read_text().splitlines() for run in ("two", "one"))
        assert len(shared) == 1 + n and {row.split(",")[0] for row in shared} == {row.split(",")[0] for row in whole}


def test_each_process_goes_on_with_its_own_random_numbers():
    states = []
    for seed in range(2):
        torch.manual_seed(seed)
        states.append(RandomState().state_dict())
    for rank in range(2):
        state = RandomState()
        state.load_state_dict({**states[0], "ranks": states[1:]})
        state.on_train_batch_start(SimpleNamespace(global_rank=rank), None, None, 0)  # pyright: ignore
        assert torch.equal(torch.get_rng_state(), states[rank]["torch"])
