"""Signals that ask a run to end: it saves what it has done and says how to go on."""

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.callbacks import WeightAveraging

from mmeff.errors import Interrupted

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


@contextmanager
def handlers_kept() -> Iterator[None]:
    """Put the handlers of the signals back: at the end of a run Lightning leaves those that the run had."""
    found = {number: signal.getsignal(number) for number in SIGNALS}
    try:
        yield
    finally:
        for number, handler in found.items():
            signal.signal(number, handler)


class StopOnInterrupt(Callback):
    """Ctrl-C, SIGTERM or SIGHUP ends a fit at the next place where all can be saved; a second one ends it at once.

    Such a place is the end of a training step, the start of a batch of validation, and between two epochs. Several
    processes stop together, at the end of a step or an epoch. Run the fit within `handlers_kept()`.
    """

    def __init__(self, checkpoint: Path):
        self.checkpoint = checkpoint
        self.asked = 0
        self.begun = False

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        for number in SIGNALS:
            if signal.getsignal(number) is not signal.SIG_IGN:  # nohup
                signal.signal(number, self._ask)

    def _ask(self, number: int, frame: Any) -> None:
        if self.asked:
            raise KeyboardInterrupt(number)
        self.asked = number
        print("\nstopping after this step (once more to stop at once)", flush=True)

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._stop_if_asked(trainer)

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._stop_if_asked(trainer)

    def on_train_batch_end(self, trainer: Trainer, *_: Any) -> None:
        self.begun = True
        self._stop_if_asked(trainer, in_step=True)

    def on_validation_batch_start(self, trainer: Trainer, pl_module: LightningModule, *_: Any) -> None:
        # Of several processes one may have no such batch any more.
        if not self.asked or trainer.world_size > 1:
            return
        if not trainer.sanity_checking:
            for callback in trainer.callbacks:  # type: ignore[attr-defined]
                if isinstance(callback, WeightAveraging):  # the weights in training, not their average
                    callback.on_validation_epoch_end(trainer, pl_module)
            self.begun = True
        self._stop_if_asked(trainer)

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.begun = True
        self._stop_if_asked(trainer)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._stop_if_asked(trainer)

    def _stop_if_asked(self, trainer: Trainer, in_step: bool = False) -> None:
        asked = bool(self.asked)
        if trainer.world_size > 1:
            asked = trainer.strategy.reduce_boolean_decision(asked, all=False)
        if not asked:
            return
        code = 128 + (self.asked or signal.SIGTERM)
        if not self.begun:
            raise Interrupted("stopped before the first step: there was nothing to save. Run the same command", code)
        if in_step:  # Lightning logs a step after its callbacks
            connector = trainer._logger_connector
            connector.on_batch_end()
            connector.update_train_step_metrics()
        trainer.save_checkpoint(self.checkpoint)
        raise Interrupted(
            f"stopped at step {trainer.global_step}; saved {self.checkpoint}. "
            "Go on with the same command and --ckpt_path last",
            code,
        )
