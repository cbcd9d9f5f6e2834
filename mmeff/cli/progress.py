"""Lines about a run: how long it will take, and one per epoch, for logs and terminals without a live bar."""

import time
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer


class EpochLines(Callback):
    """Prints "epoch 3/20  train/loss 0.41  val/loss 0.30  val/acc 0.914  12 s" after each epoch of a fit.

    Of a test or a validation alone it prints one line as well.
    """

    def __init__(self) -> None:
        self.start = time.monotonic()

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.start = time.monotonic()

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._print(trainer, f"epoch {trainer.current_epoch + 1}/{trainer.max_epochs}", ("train/", "val/"), True)

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if trainer.state.fn == "validate":
            self._print(trainer, "validate", ("val/",), False)

    def on_test_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._print(trainer, "test", ("test/",), False)

    def _print(self, trainer: Trainer, title: str, prefixes: tuple[str, ...], timed: bool) -> None:
        if not trainer.is_global_zero:
            return
        values: dict[str, Any] = {k: float(v) for k, v in trainer.callback_metrics.items() if k.startswith(prefixes)}
        words = [
            f"{key} {value:.4g}" for key, value in values.items() if not key.endswith("/score") or len(values) == 1
        ]
        took = [f"{time.monotonic() - self.start:.0f} s"] if timed else []
        print("  ".join([title, *words, *took]), flush=True)


class TimeAhead(Callback):
    """Prints "about 41 s per epoch (56 steps of 0.7 s), 20 min for 30 epochs" before the first step of a fit.

    One batch of each task is read and passed forward and backward twice, the second time by the clock. Nothing of it
    stays: modules are in eval mode, no gradient is kept, random generators go on as if it had not been.
    """

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        epochs = (trainer.max_epochs or -1) - trainer.current_epoch
        steps = trainer.num_training_batches
        if steps == float("inf") or epochs < 1 or steps < 1:
            return
        step = self._measure(trainer, pl_module)
        if trainer.max_steps > 0:
            epochs = min(epochs, -(-(trainer.max_steps - trainer.global_step) // int(steps)))
        if trainer.is_global_zero and epochs > 0:
            total = f", {duration(epochs * steps * step)} for {epochs} epochs" if epochs > 1 else ""
            print(f"about {duration(steps * step)} per epoch ({steps} steps of {step:.2g} s){total}", flush=True)

    def _measure(self, trainer: Trainer, pl_module: Any) -> float:
        """Seconds of a training step, the mean over tasks, reading included."""
        data: Any = trainer.datamodule  # type: ignore[attr-defined]
        workers = trainer.train_dataloader.num_workers  # pyright: ignore[reportOptionalMemberAccess]
        modes = [(module, module.training) for module in pl_module.modules()]
        parameters = [p for p in pl_module.parameters() if p.requires_grad]
        seconds = 0.0
        trained = {task: part.splits["train"] for task, part in data.parts.items()}
        batches = {task: s.passes * s.batch_count(trainer.world_size) for task, s in trained.items()}
        pl_module.eval()
        with torch.random.fork_rng(devices=range(torch.cuda.device_count())):
            for task, signals in trained.items():
                signals.batch(0, [0])  # what is imported or opened once
                start = time.monotonic()
                batch = signals.batch(0, list(range(min(signals.batch_size, len(signals)))))
                reading = (time.monotonic() - start) / max(1, workers)
                batch = trainer.strategy.batch_to_device(batch)
                for _ in range(2):
                    start = time.monotonic()
                    with trainer.precision_plugin.forward_context():
                        logits = pl_module.of_batch(batch)
                    # Not `backward`, which on several processes waits for the others' gradients.
                    torch.autograd.grad(logits.float().sum(), parameters, allow_unused=True)
                    if logits.is_cuda:
                        torch.cuda.synchronize(logits.device)
                passing = time.monotonic() - start
                step = max(reading, passing) if workers else reading + passing
                seconds += step * batches[task] / sum(batches.values())
                pl_module.report(task)  # texts that were cut here are not the user's
        for module, training in modes:
            module.training = training
        return seconds


def duration(seconds: float) -> str:
    """ "0.4 s", "41 s", "20 min", "3.5 h"."""
    if seconds < 1:
        return f"{seconds:.1g} s"
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"
