"""What a test leaves behind: the task's own results, and the learning curves."""

import warnings
from abc import ABC, abstractmethod
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch.distributed as dist
from lightning.pytorch import Callback, LightningModule, Trainer
from torch import Tensor

from mmeff.tasks.figures import draw_curves


class Results(ABC):
    """What is kept of the test of one signal, batch by batch, and the files that are made of it."""

    @abstractmethod
    def add(self, batch: dict[str, Any], outputs: Tensor) -> None:
        """Keep what the files need of one batch and its outputs."""

    @abstractmethod
    def merge(self, other: Any) -> None:
        """Add what another process found."""

    @abstractmethod
    def files(self) -> dict[str, Callable[[Path], None]]:
        """Names of files, as "mistakes.png", and what writes each; none where nothing was tested."""


class TestReport(Callback):
    """Writes the files of the task's `results`, and curves.png, into `folder` at the end of `trainer.test`.

    curves.png are the learning curves, from the metrics.csv that Lightning's CSVLogger left in `folder`. With several
    signals the others exist for each, as predictions-NAME.csv. What cannot be written is a warning: the metrics of the
    test are worth more than its pictures.
    """

    __test__ = False  # its name is no test's, whatever pytest thinks

    def __init__(self, folder: Path):
        self.folder = Path(folder)
        self.results: dict[str, Results] = {}

    def on_test_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        task: Any = pl_module
        self.results = {name: task.results(spec) for name, spec in task.specs.items()}

    def on_test_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        if not batch.get("repeated"):
            self.results[batch["task"]].add(batch, outputs)

    def on_test_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        ranks = all_ranks(self.results)
        self.results = {}
        if not trainer.is_global_zero:
            return
        self.folder.mkdir(parents=True, exist_ok=True)
        several = len(ranks[0]) > 1
        for task, found in ranks[0].items():
            for other in ranks[1:]:
                found.merge(other[task])
            for name, write in found.files().items():
                stem, dot, suffix = name.rpartition(".")
                self._write(f"{stem}-{task}{dot}{suffix}" if several else name, write)
        metrics = self.folder / "metrics.csv"
        self._write("curves.png", lambda path: draw_curves(path, metrics))

    def _write(self, name: str, write: Callable[[Path], None]) -> None:
        try:
            write(self.folder / name)
        except Exception as error:
            warnings.warn(f"could not write {self.folder / name}: {type(error).__name__}: {error}", stacklevel=2)


def all_ranks(own: Any) -> list[Any]:
    """The object of each process, in the order of ranks; of one process, its own."""
    if not (dist.is_available() and dist.is_initialized()):
        return [own]
    found: list[Any] = [None] * dist.get_world_size()
    dist.all_gather_object(found, own)
    return found
