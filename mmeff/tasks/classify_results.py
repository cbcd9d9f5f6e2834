"""What the test of a classifier leaves behind: each prediction, the confusions and the worst mistakes."""

import csv
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from mmeff.signals import DataSpec
from mmeff.tasks.classify_figures import Mistake, draw_average_precision, draw_confusion, draw_mistakes
from mmeff.tasks.report import Results

#: Mistakes on a sheet.
SHEET = 24


@dataclass
class ClassificationResults(Results):
    """What is kept of the test of one task, K classes. Of several labels, those of probability 0.5 are predicted.

    rows           id, label, predicted and probability of each example, several classes joined by "|"
    counts         (K, K) true class x predicted class; one label an example alone
    labels         (B, K) of each batch; several labels an example alone, as `probabilities`
    mistakes       the worst, highest loss first; raw signals are kept of these alone
    wrong          how many mistakes there were

    Its files:

    predictions.csv  id, label, predicted and probability of each example
    confusion.png    how often each class was taken for each other; average precisions where labels are several
    mistakes.png     the mistakes of highest loss, as the model saw them
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

    def merge(self, other: "ClassificationResults") -> None:
        """Add what another process found."""
        self.rows += other.rows
        if other.counts is not None:
            self.counts = other.counts if self.counts is None else self.counts + other.counts
        self.labels += other.labels
        self.probabilities += other.probabilities
        self.wrong += other.wrong
        self._keep(other.mistakes)

    def files(self) -> dict[str, Callable[[Path], None]]:
        if not self.rows:
            return {}
        return {
            "predictions.csv": lambda path: write_rows(path, self.rows),
            "confusion.png": self._draw_confusion,
            "mistakes.png": lambda path: draw_mistakes(path, self.mistakes, self.spec, self.wrong, len(self.rows)),
        }

    def _draw_confusion(self, path: Path) -> None:
        if self.counts is not None:
            draw_confusion(path, self.counts, self.spec.classes)
        else:
            labels, probabilities = torch.cat(self.labels), torch.cat(self.probabilities)
            draw_average_precision(path, labels, probabilities, self.spec.classes)

    def _keep(self, mistakes: list[Mistake]) -> None:
        self.mistakes = sorted(self.mistakes + mistakes, key=lambda mistake: -mistake.loss)[:SHEET]

    def _names(self, chosen: Tensor) -> str:
        return "|".join(self.spec.classes[k] for k in chosen.nonzero().flatten().tolist())

    def _raw(self, batch: dict[str, Any], i: int) -> Any:
        raw = self.spec.raw(batch)[i]
        if "lengths" in batch:
            raw = raw[: int(batch["lengths"][i])]
        return raw.detach().float().cpu().clone() if isinstance(raw, Tensor) else raw


def write_rows(path: Path, rows: list[tuple[str, str, str, str]]) -> None:
    # Names of files may hold bytes that are no text.
    with open(path, "w", encoding="utf-8", errors="backslashreplace", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(("id", "label", "predicted", "probability"))
        writer.writerows(rows)
