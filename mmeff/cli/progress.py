"""One line an epoch, for logs and terminals without a live bar."""

import time
from typing import Any

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
