"""Classification: cross-entropy on labels, or binary cross-entropy where there are several per signal."""

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch.nn.functional as F
from torch import Tensor, nn
from torchmetrics import MetricCollection
from torchmetrics.classification import (
    MulticlassAccuracy,
    MulticlassF1Score,
    MultilabelAveragePrecision,
    MultilabelF1Score,
)

from mmeff.backbones import Backbone
from mmeff.errors import within
from mmeff.heads import Head, MeanPool, Pool
from mmeff.model import Model
from mmeff.predict import Prediction
from mmeff.signals import DataSpec
from mmeff.tasks.base import Task
from mmeff.tasks.baseline import fit_baseline
from mmeff.tasks.classify_results import ClassificationResults
from mmeff.tasks.mix import Mix
from mmeff.tasks.optim import OptimizerConfig
from mmeff.tokenizers import Tokenizer

TokenizerFactory = Callable[[int], Tokenizer]


class Classification(Task):
    """Signals -> logits of their classes."""

    def __init__(
        self,
        tokenizers: dict[str, Tokenizer],
        backbone: Backbone,
        pool: Callable[[int], Pool],
        dropout: float,
        smoothing: float,
        mix: Mix | None,
        optimizer: OptimizerConfig,
    ):
        within("[0, 1)", dropout=dropout, smoothing=smoothing)
        super().__init__(Model(tokenizers, backbone), optimizer)
        self.new_head = partial(Head, backbone.out_dim, pool=pool, dropout=dropout)
        self.smoothing, self.mix = smoothing, mix

    def make_head(self, spec: DataSpec) -> nn.Module:
        return self.new_head(len(spec.classes))

    def loss(self, batch: dict[str, Any]) -> Tensor:
        spec = self.specs[batch["task"]]
        raw, label = spec.raw(batch), batch["label"]
        if spec.multilabel:
            return F.binary_cross_entropy_with_logits(self.of_batch(batch), label)
        if self.mix is None or not isinstance(raw, Tensor):  # strings cannot be blended
            return F.cross_entropy(self.of_batch(batch), label, label_smoothing=self.smoothing)
        raw, lengths, target = self.mix(raw, batch.get("lengths"), label, len(spec.classes), self.smoothing)
        return F.cross_entropy(self(batch["task"], raw, lengths), target)

    def evaluate(self, batch: dict[str, Any]) -> tuple[Tensor, Tensor, Tensor]:
        label, logits = batch["label"], self.of_batch(batch).float()
        if self.specs[batch["task"]].multilabel:
            return F.binary_cross_entropy_with_logits(logits, label), logits, label.int()
        return F.cross_entropy(logits, label), logits, label

    def metrics(self, spec: DataSpec) -> MetricCollection:
        """Each counts on its own: torchmetrics' groups merge metrics for good whose first batches happen to agree."""
        K = len(spec.classes)
        if spec.multilabel:
            return MetricCollection(
                {"map": MultilabelAveragePrecision(K), "f1": MultilabelF1Score(K)}, compute_groups=False
            )
        found = {"acc": MulticlassAccuracy(K, average="micro"), "f1": MulticlassF1Score(K)}
        if K > 5:
            found["top5"] = MulticlassAccuracy(K, top_k=5, average="micro")
        return MetricCollection(found, compute_groups=False)  # type: ignore[arg-type]

    def main_metric(self, spec: DataSpec) -> str:
        """Accuracy, or mean average precision where there are several labels per signal."""
        return "map" if spec.multilabel else "acc"

    def results(self, spec: DataSpec) -> ClassificationResults:
        return ClassificationResults(spec)

    def answer(self, task: str, output: Tensor) -> Prediction:
        return Prediction.of(output, self.specs[task])

    def beside_baselines(self, parts: dict[str, Any], measured: dict[str, Any]) -> list[str]:
        """A line for each signal: what logistic regression on plain features reaches, and whether the model beats
        it."""
        lines = []
        for name, part in parts.items():
            found = fit_baseline(part.spec, part.splits)
            if found is None:
                continue
            metric = (f"{name}/" if len(parts) > 1 else "") + self.main_metric(part.spec)
            score = float(measured[f"test/{metric}"])
            line = f"baseline  test/{metric} {found.score:.4g}  logistic regression on {found.features}"
            if score <= found.score:
                line += (
                    f". This model ({score:.4g}) does not beat it: so few examples may not be enough for a network "
                    "trained from scratch. Give it more, or more epochs (--trainer.max_epochs)"
                )
            lines.append(line)
        return lines

    def usage(self, run: Path) -> list[str]:
        lines = ["Label something of your own:"]
        for name, spec in self.specs.items():
            head = f"--task {name} " if len(self.specs) > 1 else ""
            lines.append(f"  mmeff predict --ckpt {run} {head}{spec.kind.example}")
        return lines

    @property
    def classes(self) -> tuple[str, ...] | dict[str, tuple[str, ...]]:
        """Names of the classes in the order of the logits; of a model with several tasks, by task."""
        found = {task: spec.classes for task, spec in self.specs.items()}
        return next(iter(found.values())) if len(found) == 1 else found


class Classify(Classification):
    """One signal, one set of labels."""

    def __init__(
        self,
        tokenizer: TokenizerFactory,
        backbone: Backbone,
        pool: Callable[[int], Pool] = MeanPool,
        dropout: float = 0.0,
        smoothing: float = 0.0,
        mix: Mix | None = None,
        optimizer: OptimizerConfig = OptimizerConfig(),  # noqa: B008 (a frozen default, shown by --print_config)
    ):
        """
        Args:
            tokenizer: turns the raw signal into tokens of the backbone's width.
            backbone: mixes the tokens.
            pool: from tokens to one vector.
            dropout: on that vector, before the last linear map.
            smoothing: label smoothing.
            mix: mixup and CutMix.
            optimizer: the optimizer and its learning rate over the run.
        """
        built = tokenizer(backbone.in_dim)
        super().__init__({built.signal: built}, backbone, pool, dropout, smoothing, mix, optimizer)


class JointClassify(Classification):
    """Several signals through one shared backbone, each with its own tokenizer and head."""

    def __init__(
        self,
        tokenizers: dict[str, TokenizerFactory],
        backbone: Backbone,
        pool: Callable[[int], Pool] = MeanPool,
        dropout: float = 0.0,
        smoothing: float = 0.0,
        mix: Mix | None = None,
        optimizer: OptimizerConfig = OptimizerConfig(),  # noqa: B008
    ):
        """
        Args:
            tokenizers: one for each part of the data, under the same names.
            backbone: mixes the tokens of all of them.
            pool: from tokens to one vector.
            dropout: on that vector, before the last linear map.
            smoothing: label smoothing.
            mix: mixup and CutMix of images and sounds.
            optimizer: the optimizer and its learning rate over the run.
        """
        built = {name: make(backbone.in_dim) for name, make in tokenizers.items()}
        super().__init__(built, backbone, pool, dropout, smoothing, mix, optimizer)
