"""What a test leaves behind: each prediction, the confusions, the worst mistakes and the learning curves."""

import csv
import warnings
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
import torch.nn.functional as F
from lightning.pytorch import Callback, LightningModule, Trainer
from torch import Tensor

from mmeff.spec import DataSpec
from mmeff.tasks.figures import Mistake, draw_average_precision, draw_confusion, draw_curves, draw_mistakes

#: Mistakes on a sheet.
SHEET = 24


class TestReport(Callback):
    """Writes into `folder` at the end of `trainer.test`:

    predictions.csv  id, label, predicted and probability of each example
    confusion.png    how often each class was taken for each other; average precisions where labels are several
    mistakes.png     the mistakes of highest loss, as the model saw them
    curves.png       the learning curves, from the metrics.csv that Lightning's CSVLogger left in `folder`

    With several tasks the first three exist for each, as predictions-TASK.csv. What cannot be written is a warning: the
    metrics of the test are worth more than its pictures.
    """

    __test__ = False  # its name is no test's, whatever pytest thinks

    def __init__(self, folder: Path):
        self.folder = Path(folder)
        self.results: dict[str, Results] = {}

    def on_test_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        specs: Any = pl_module.specs
        self.results = {task: Results(spec) for task, spec in specs.items()}

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
            if found.rows:
                self._write_task(found, f"-{task}" if several else "")
        self._write("curves.png", draw_curves, self.folder / "metrics.csv")

    def _write_task(self, found: "Results", suffix: str) -> None:
        classes = found.spec.classes
        self._write(f"predictions{suffix}.csv", write_rows, found.rows)
        if found.counts is not None:
            self._write(f"confusion{suffix}.png", draw_confusion, found.counts, classes)
        else:
            labels, probabilities = torch.cat(found.labels), torch.cat(found.probabilities)
            self._write(f"confusion{suffix}.png", draw_average_precision, labels, probabilities, classes)
        args = found.mistakes, found.spec, found.wrong, len(found.rows)
        self._write(f"mistakes{suffix}.png", draw_mistakes, *args)

    def _write(self, name: str, write: Callable[..., None], *args: Any) -> None:
        try:
            write(self.folder / name, *args)
        except Exception as error:
            warnings.warn(f"could not write {self.folder / name}: {type(error).__name__}: {error}", stacklevel=2)


@dataclass
class Results:
    """What is kept of the test of one task, K classes. Of several labels, those of probability 0.5 are predicted.

    rows           id, label, predicted and probability of each example, several classes joined by "|"
    counts         (K, K) true class x predicted class; one label an example alone
    labels         (B, K) of each batch; several labels an example alone, as `probabilities`
    mistakes       the worst, highest loss first; raw signals are kept of these alone
    wrong          how many mistakes there were
    """

    spec: DataSpec
    rows: list[tuple[str, str, str, str]] = field(default_factory=list)
    counts: Tensor | None = None
    labels: list[Tensor] = field(default_factory=list)
    probabilities: list[Tensor] = field(default_factory=list)
    mistakes: list[Mistake] = field(default_factory=list)
    wrong: int = 0

    def add(self, batch: dict[str, Any], logits: Tensor) -> None:
        """logits (B, K) of a batch."""
        logits, label = logits.detach().float().cpu(), batch["label"].cpu()
        K = logits.shape[1]
        if self.spec.multilabel:
            p = logits.sigmoid()
            true, predicted = label.bool(), p >= 0.5
            loss = F.binary_cross_entropy_with_logits(logits, label, reduction="none").sum(1)
            confidence = torch.where(predicted, p, 1 - p).prod(1)
            self.labels.append(label)
            self.probabilities.append(p)
        else:
            p = logits.softmax(1)
            confidence, answer = p.max(1)
            true, predicted = F.one_hot(label, K).bool(), F.one_hot(answer, K).bool()
            loss = F.cross_entropy(logits, label, reduction="none")
            counts = torch.bincount(label * K + answer, minlength=K * K).reshape(K, K)
            self.counts = counts if self.counts is None else self.counts + counts
        rows = []
        for i, name in enumerate(batch["id"]):
            probability = "|".join(f"{value:.4f}" for value in p[i, predicted[i]].tolist())
            rows.append((str(name), self._names(true[i]), self._names(predicted[i]), probability))
        self.rows += rows

        wrong = (predicted != true).any(1)
        self.wrong += int(wrong.sum())
        loss = loss.nan_to_num(nan=torch.inf).masked_fill(~wrong, -1)
        for i in loss.topk(min(SHEET, int(wrong.sum()))).indices.tolist():
            if len(self.mistakes) < SHEET or loss[i] > self.mistakes[-1].loss:
                name, label_name, answer_name, _ = rows[i]
                raw = self._raw(batch, i)
                self._keep([Mistake(name, raw, label_name, answer_name, float(confidence[i]), float(loss[i]))])

    def merge(self, other: "Results") -> None:
        """Add what another process found."""
        self.rows += other.rows
        if other.counts is not None:
            self.counts = other.counts if self.counts is None else self.counts + other.counts
        self.labels += other.labels
        self.probabilities += other.probabilities
        self.wrong += other.wrong
        self._keep(other.mistakes)

    def _keep(self, mistakes: list[Mistake]) -> None:
        self.mistakes = sorted(self.mistakes + mistakes, key=lambda mistake: -mistake.loss)[:SHEET]

    def _names(self, chosen: Tensor) -> str:
        return "|".join(self.spec.classes[k] for k in chosen.nonzero().flatten().tolist())

    def _raw(self, batch: dict[str, Any], i: int) -> Any:
        raw = batch[self.spec.modality][i]
        if self.spec.modality == "audio":
            raw = raw[: int(batch["lengths"][i])]
        return raw.detach().float().cpu().clone() if isinstance(raw, Tensor) else raw


def write_rows(path: Path, rows: list[tuple[str, str, str, str]]) -> None:
    # Names of files may hold bytes that are no text.
    with open(path, "w", encoding="utf-8", errors="backslashreplace", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(("id", "label", "predicted", "probability"))
        writer.writerows(rows)


def all_ranks(own: Any) -> list[Any]:
    """The object of each process, in the order of ranks; of one process, its own."""
    if not (dist.is_available() and dist.is_initialized()):
        return [own]
    found: list[Any] = [None] * dist.get_world_size()
    dist.all_gather_object(found, own)
    return found
