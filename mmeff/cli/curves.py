"""The learning curves of a run, in metrics.csv and for TensorBoard."""

import csv
import io
import os
from pathlib import Path
from typing import Any

from lightning.pytorch.loggers import CSVLogger, Logger, TensorBoardLogger
from lightning.pytorch.loggers.csv_logs import ExperimentWriter
from lightning.pytorch.utilities import rank_zero_only

from mmeff.errors import spelled
from mmeff.tasks.distributed import say
from mmeff.tasks.safety import read_checkpoint


class Writer(ExperimentWriter):
    """Lightning's writer, which replaces a table by a whole one only: Lightning's own empties the file first."""

    def __init__(self, folder: Path):
        self.folder = folder
        super().__init__(str(folder))

    def _check_log_dir_exists(self) -> None:
        pass  # where Lightning deletes the table of the run so far

    def save(self) -> None:
        before = list(self.metrics_keys)
        try:
            super().save()
        except BaseException:
            self.metrics_keys = before  # the table on disk has these columns still
            raise

    def replace(self, rows: list[dict[str, Any]]) -> None:
        """Rows of the same or of fewer columns than the table is to have; the table on disk is never half of one."""
        self.metrics_keys = sorted(set(self.metrics_keys).union(*rows))
        path = Path(self.metrics_file_path)
        part = path.with_name(path.name + ".part")
        try:
            with open(part, "w", newline="", encoding="utf-8") as file:
                table = csv.DictWriter(file, self.metrics_keys)
                table.writeheader()
                table.writerows(rows)
                file.flush()
                os.fsync(file.fileno())
            os.replace(part, path)
        finally:
            part.unlink(missing_ok=True)

    def _rewrite_with_new_header(self, fieldnames: list[str]) -> None:
        self.replace(rows(Path(self.metrics_file_path))[0])


class Table(CSVLogger):
    """metrics.csv in the run folder."""

    def __init__(self, run: Path):
        super().__init__(run, name="", version="")
        self.run = run

    def after_save_checkpoint(self, checkpoint_callback: Any) -> None:
        self.save()  # a run that is killed and goes on from there has the rows before it

    @property
    def experiment(self) -> Any:
        if self._experiment is None and rank_zero_only.rank == 0:
            self._experiment = Writer(self.run)
        return self._experiment if rank_zero_only.rank == 0 else super().experiment


def loggers(run: Path, checkpoint: str | None) -> list[Logger]:
    """Loggers into the run folder; a run that goes on from `checkpoint` keeps what it logged before that step."""
    table, path = Table(run), run / "metrics.csv"
    # Of several processes the first alone writes.
    if checkpoint is not None and rank_zero_only.rank == 0 and path.is_file():
        earlier, damaged = rows(path, read_checkpoint(checkpoint)["global_step"])
        if damaged:
            count = "1 row is" if damaged == 1 else f"{damaged} rows are"
            say(f"warning: {spelled(path)}: {count} damaged and left out of the curves")
        table.experiment.replace(earlier)
    return [table, TensorBoardLogger(run, name="", version="")]


def rows(path: Path, step: float = float("inf")) -> tuple[list[dict[str, str]], int]:
    """The rows that CSVLogger wrote before `step`, and how many it cannot have written.

    A damaged row costs itself alone; under a header that is damaged no row has a meaning.
    """
    content = path.read_bytes()
    lines = content.splitlines()
    header, *rest = [line for line in lines if line] or [b""]
    names = fields(header)
    if names is None or "step" not in names or len(set(names)) < len(names) or not all(map(str.isprintable, names)):
        return [], len(rest) + bool(header)
    found: list[dict[str, str]] = []
    damaged = 0
    # A row that was cut has no end of line: its last number may lack digits.
    whole = len(rest) - (not content.endswith(b"\n"))
    for i, line in enumerate(rest):
        row = number_row(names, fields(line)) if i < whole else None
        if row is None:
            damaged += 1
        elif int(row["step"]) < step:
            found.append(row)
    return found, damaged


def fields(line: bytes) -> list[str] | None:
    try:
        return next(csv.reader(io.StringIO(line.decode()), strict=True), None)
    except (UnicodeDecodeError, csv.Error):
        return None


def number_row(names: list[str], values: list[str] | None) -> dict[str, str] | None:
    """The row without empty fields, or None where a field is no number or one is missing."""
    if values is None or len(values) != len(names):
        return None
    row = {name: value for name, value in zip(names, values, strict=True) if value}
    try:
        for value in row.values():
            float(value)
        int(row["step"])
    except (KeyError, ValueError):
        return None
    return row
