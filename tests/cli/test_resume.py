"""A run that is killed in the middle of an epoch and goes on ends where an uninterrupted one does, bit by bit."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

ROOT = Path(__file__).parents[2]
BATCHES = 8  # in an epoch: a checkpoint after every third step lies within one


def fit(recipe: str, run: Path, *words: str) -> subprocess.Popen:
    """`mmeff fit` of a small model for two epochs, with dropout and a checkpoint after every third step."""
    every_third = {
        "class_path": "lightning.pytorch.callbacks.ModelCheckpoint",
        "init_args": {
            "dirpath": str(run),
            "filename": "last",
            "every_n_train_steps": 3,
            "enable_version_counter": False,
        },
    }
    code = "import sys; from mmeff.cli import main; sys.exit(main())"
    command = [sys.executable, "-c", code, "fit", "-c", f"recipes/{recipe}.yaml", "--model.dropout", "0.2"]
    command += ["--model.backbone", "recipes/backbones/attention.yaml"]
    command += ["--model.backbone.dim", "32", "--model.backbone.depth", "1", "--data.batch_size", "16"]
    command += ["--trainer.accelerator", "cpu", "--trainer.max_epochs", "2"]
    command += ["--trainer.limit_train_batches", str(BATCHES), "--trainer.limit_val_batches", "2"]
    average = {"class_path": "lightning.pytorch.callbacks.EMAWeightAveraging", "init_args": {"decay": 0.9}}
    command += ["--trainer.callbacks", json.dumps([average, every_third])]
    command += ["--trainer.default_root_dir", str(run), *words]
    env = {**os.environ, "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(command, cwd=ROOT, env=env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def finish(process: subprocess.Popen) -> None:
    output, _ = process.communicate(timeout=120)
    assert process.returncode == 0, output


def read(run: Path) -> dict:
    return torch.load(run / "last.ckpt", weights_only=True)


def kill_in_mid_epoch(process: subprocess.Popen, run: Path) -> int:
    """SIGKILL as soon as a checkpoint is there; -> the step it was taken at."""
    deadline = time.monotonic() + 120
    while not (run / "last.ckpt").exists():
        assert process.poll() is None, process.communicate()[0]
        assert time.monotonic() < deadline, "no checkpoint in two minutes"
        time.sleep(0.001)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert process.returncode == -signal.SIGKILL, "the run ended before it was killed"
    return read(run)["global_step"]


@pytest.mark.parametrize("recipe", ["vision/digits", "text/glosses"])
def test_a_killed_run_that_goes_on_ends_with_the_same_bits(recipe, tmp_path):
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    uninterrupted = fit(recipe, whole)
    killed = fit(recipe, cut)
    step = kill_in_mid_epoch(killed, cut)
    assert step % BATCHES, f"the checkpoint of step {step} is not within an epoch: this run tests nothing"
    finish(uninterrupted)
    finish(fit(recipe, cut, "--ckpt_path", "last"))
    expected, got = read(whole), read(cut)
    assert got["global_step"] == expected["global_step"] == 2 * BATCHES
    assert got["state_dict"].keys() == expected["state_dict"].keys()
    differ = [name for name, value in expected["state_dict"].items() if not torch.equal(value, got["state_dict"][name])]
    assert not differ, f"killed at step {step}: {differ}"
