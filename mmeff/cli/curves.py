"""The learning curves of a run, in metrics.csv and for TensorBoard."""

import csv
from pathlib import Path
from typing import Any

from lightning.pytorch.loggers import CSVLogger, Logger, TensorBoardLogger
from lightning.pytorch.utilities import rank_zero_only

from mmeff.tasks.safety import read_checkpoint


def loggers(run: Path, checkpoint: str | None) -> list[Logger]:
    """Loggers into the run folder; a run that goes on from `checkpoint` keeps what it logged before that step."""
    table = CSVLogger(run, name="", version="")
    if checkpoint is not None and rank_zero_only.rank == 0:  # of several processes the first alone writes
        earlier = rows(run / "metrics.csv", read_checkpoint(checkpoint)["global_step"])
        writer = table.experiment  # it deletes the file that it finds
        writer.metrics += earlier
        writer.save()
    return [table, TensorBoardLogger(run, name="", version="")]


def rows(path: Path, step: int) -> list[dict[str, Any]]:
    """What CSVLogger wrote before `step`."""
    if not path.is_file():
        return []
    with open(path, newline="") as file:
        return [{k: v for k, v in row.items() if v} for row in csv.DictReader(file) if int(row["step"]) < step]
