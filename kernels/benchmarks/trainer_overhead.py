"""`python kernels/benchmarks/trainer_overhead.py`: what a step of `mmeff fit` costs beyond one in plain PyTorch.

Both are timed in one run, in turn, on the same batches: after each step of the Trainer, with all that `mmeff fit`
installs (callbacks, loggers, loader), a copy of the model takes the same step in a bare loop over a loader of its own.
"""

import argparse
import copy
import json
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from lightning.pytorch import Callback, LightningModule, Trainer
from torch import nn


class AgainstBareLoop(Callback):
    """Times each step of the Trainer, then the bare step; prints both at the end of the fit."""

    def __init__(self) -> None:
        self.times: list[tuple[float, float, float]] = []  # ms of the Trainer's step, the bare step, its loading alone

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.model: Any = copy.deepcopy(pl_module)
        for ours, bare in zip(pl_module.parameters(), self.model.parameters(), strict=True):
            bare.__dict__.update(ours.__dict__)  # which of them decay: a deep copy leaves the marks behind
        self.model.trainer = trainer
        built = self.model.configure_optimizers()
        self.optimizer, self.schedule = built["optimizer"], built["lr_scheduler"]["scheduler"]
        self.loader = copy.copy(trainer.datamodule).train_dataloader()  # type: ignore[attr-defined]

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.batches = iter(self.loader)

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        start = time.perf_counter()
        own = next(self.batches)
        loaded = time.perf_counter()
        self.step(own, trainer.gradient_clip_val or 0)
        end = time.perf_counter()
        if batch_idx:  # before the first step of an epoch lies the validation
            self.times.append((1e3 * (start - self.mark), 1e3 * (end - start), 1e3 * (loaded - start)))
        assert own["id"] == batch["id"], "the two loops saw different batches"
        self.mark = time.perf_counter()

    def step(self, batch: dict[str, Any], clip: float) -> None:
        loss = F.cross_entropy(self.model.of_batch(batch), batch["label"])
        self.optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_([p for group in self.optimizer.param_groups for p in group["params"]], clip)
        self.optimizer.step()
        self.schedule.step()

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        pairs = zip(pl_module.parameters(), self.model.parameters(), strict=True)
        assert all(torch.equal(ours, bare) for ours, bare in pairs), "the two loops trained different models"
        for name, values in zip(("Trainer", "bare", "loading alone"), zip(*self.times, strict=True), strict=True):
            low, middle, high = statistics.quantiles(values, n=4)
            print(f"{name:14s} {middle:6.2f} ms a step, quartiles {low:.2f} to {high:.2f}, {len(values)} steps")
        low, middle, high = statistics.quantiles([ours / bare - 1 for ours, bare, _ in self.times], n=4)
        print(f"overhead       {middle:6.1%} of the bare step, quartiles {low:.1%} to {high:.1%}")
        print(f"torch {torch.__version__}, {torch.get_num_threads()} threads")


def main() -> int:
    sys.path[0] = str(Path(__file__).parents[1])
    from mmeff.cli import main as mmeff

    p = argparse.ArgumentParser(prog="trainer_overhead")
    p.add_argument("--repeats", type=int, default=3, help="epochs of 54 steps (default 3)")
    timed = json.dumps([{"class_path": "benchmarks.trainer_overhead.AgainstBareLoop"}])
    words = [
        "--trainer.accelerator=cpu",
        f"--trainer.max_epochs={p.parse_args().repeats}",
        "--trainer.callbacks",
        timed,
    ]
    with tempfile.TemporaryDirectory() as folder:
        return mmeff(["fit", "-c", "recipes/vision/digits.yaml", *words, "--trainer.default_root_dir", f"{folder}/run"])


if __name__ == "__main__":
    raise SystemExit(main())
