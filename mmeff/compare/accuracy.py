"""How well a contender learns within a budget of steps."""

import io
import time
import warnings
from contextlib import redirect_stdout
from statistics import mean

import torch
from lightning.pytorch import Trainer, seed_everything

from mmeff.compare.contenders import Contender, build_data, build_task
from mmeff.compare.plan import Train


def accuracies(contender: Contender, train: Train, device: torch.device) -> dict[str, float | int]:
    """Accuracy on the test split (multi-label: mean average precision) over the seeds, under the names of a row."""
    found = [train_and_test(contender, train.steps, seed, device) for seed in range(train.seeds)]
    scores = [score for score, _, _ in found]
    return {
        "steps": train.steps,
        "seeds": train.seeds,
        "accuracy": mean(scores),
        "accuracy_spread": max(scores) - min(scores),
        "tested": found[0][2],
        "train_seconds": mean(seconds for _, seconds, _ in found),
    }


def train_and_test(contender: Contender, steps: int, seed: int, device: torch.device) -> tuple[float, float, int]:
    """Accuracy after `steps` optimiser steps, the seconds that they took, and the examples that were tested.

    The seed draws the weights and the order of the examples, which is the same for all contenders. Trained as
    `mmeff fit` does, but for the recipe's callbacks: averaged weights lag far behind in so few steps.
    """
    data = build_data(contender)
    data.seed = seed
    data.setup()
    seed_everything(seed, verbose=False)
    task = build_task(contender)
    task.prepare(data.specs, data.fit_sample())
    trainer = Trainer(
        accelerator="gpu" if device.type == "cuda" else "cpu",
        devices=1,
        precision="bf16-mixed" if device.type == "cuda" else "32-true",
        max_steps=steps,
        max_epochs=-1,
        limit_val_batches=0,
        num_sanity_val_steps=0,
        gradient_clip_val=(contender.config.get("trainer") or {}).get("gradient_clip_val"),
        use_distributed_sampler=False,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    with warnings.catch_warnings(), redirect_stdout(io.StringIO()):
        warnings.filterwarnings("ignore", ".*does not have many workers.*|.*number of training batches.*")
        start = time.perf_counter()
        trainer.fit(task, datamodule=data)
        seconds = time.perf_counter() - start
        (found,) = trainer.test(task, datamodule=data, verbose=False)
    (part,) = data.parts.values()
    return float(found["test/score"]), seconds, len(part.splits["test"])
