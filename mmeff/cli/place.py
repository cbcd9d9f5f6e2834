"""A fit that goes on: Lightning's counters and the learning rate follow the place in the data."""

import math
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.trainer.states import TrainerFn
from torch.optim.lr_scheduler import LambdaLR

from mmeff.data import ClassificationData


class Place(Callback):
    """Sets the counters of a checkpoint to where its examples stand under the settings of this run.

    Lightning counts the batches of an epoch, and keeps that number when batches have become larger, ranks more or the
    epoch shorter: it would validate never, or end the learning rate's schedule early. Let N be the batches of an epoch
    as they are now and r those that the loader has left: N - r are done. The run then has

        steps so far + ceil(N / a) - floor((N - r) / a) + ceil(N / a) * (epochs to come)

    steps, a batches a step. An epoch whose last batch is done is validated, if it was not, before the next begins.
    """

    def __init__(self) -> None:
        self.fresh = False

    def on_load_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        data: Any = trainer.datamodule  # type: ignore[attr-defined]
        loops = checkpoint.get("loops", {}).get("fit_loop")
        if trainer.state.fn != TrainerFn.FITTING or not loops or not isinstance(data, ClassificationData):
            return
        trainer.fit_loop.setup_data()
        if data.training is None:  # limit_train_batches 0
            return
        epochs = loops["epoch_progress"]
        batches = loops["epoch_loop.batch_progress"]
        validated = loops["epoch_loop.val_loop.batch_progress"]
        N, now, done = int(trainer.num_training_batches), batches["current"], epochs["current"]["processed"]

        # Saved between two epochs, or within one all of whose batches are done.
        between = done == epochs["current"]["started"]
        ended = not between and batches["is_last_batch"] and now["processed"] == now["ready"]
        if (between or ended) and data.training.begun:
            data.training.end_epoch()
        stored = checkpoint.get(type(data).__qualname__, {"epoch": 0})["epoch"]
        ended = not between and (ended or data.training.epoch > stored)
        # c of N batches are done; the next epoch is a fresh one, or this one has a part to come.
        c = N if ended else N - data.training.remaining
        due = validation_due(trainer, done, c, batches["total"]["processed"])
        self.fresh = between or (ended and not due)
        done += ended and not due

        over = validated["is_last_batch"] and validated["current"]["completed"] == validated["current"]["ready"]
        pending = ended and due and not (now["completed"] == now["processed"] and over)
        a, step = trainer.accumulate_grad_batches, checkpoint["global_step"]
        for count in epochs.values():
            count.update(ready=done + (not self.fresh), started=done + (not self.fresh), processed=done, completed=done)
        set_all(batches["total"], batches["total"]["processed"])
        set_all(now, 0 if self.fresh else c)
        batches["is_last_batch"] = ended and not self.fresh
        set_all(validated["current"], 0)
        set_all(validated["total"], 0)
        validated["is_last_batch"] = not pending
        if pending:  # the sign of a validation that was cut short
            validated["total"].update(ready=1, started=1)
        # Lightning counts the step once more where it passes by a validation.
        passes_by = not self.fresh and due and (c % a == 0 or c == N)
        loops["epoch_loop.state_dict"]["_batches_that_stepped"] = step - passes_by

        total = math.inf
        if trainer.max_epochs not in (None, -1):
            steps_of = math.ceil(N / a)
            made = 0 if self.fresh else steps_of if c == N else c // a
            total = step - made + steps_of * max(1 - self.fresh, trainer.max_epochs - done)
        model: Any = pl_module
        model.total_steps = total if trainer.max_steps == -1 else min(total, trainer.max_steps)

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if self.fresh:  # under max_steps Lightning takes every checkpoint for one within an epoch
            trainer.fit_loop.epoch_loop.restarting = False
            self.fresh = False
        for config in trainer.lr_scheduler_configs:  # of as many steps as there are now
            schedule = config.scheduler
            if isinstance(schedule, LambdaLR):
                for group, rate, factor in zip(
                    schedule.optimizer.param_groups, schedule.base_lrs, schedule.lr_lambdas, strict=True
                ):
                    group["lr"] = rate * factor(schedule.last_epoch)


def set_all(count: dict[str, int], value: int) -> None:
    count.update(dict.fromkeys(count, value))


def validation_due(trainer: Trainer, epoch: int, batches: int, total: int) -> bool:
    """Whether Lightning validates when this many batches of an epoch are done, `total` over all epochs."""
    every = trainer.check_val_every_n_epoch
    if not trainer.enable_validation or (every is not None and (epoch + 1) % every):
        return False
    return trainer.val_check_batch is not None and (total if every is None else batches) % trainer.val_check_batch == 0
