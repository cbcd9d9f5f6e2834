"""Classification: tokenizer -> backbone -> head, its loss and its metrics, as a LightningModule."""

import math
from abc import ABC
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any, overload

import torch
import torch.nn.functional as F
from lightning.pytorch import LightningModule
from lightning.pytorch.plugins import MixedPrecision
from lightning.pytorch.utilities import rank_zero_only
from torch import Tensor, nn
from torch.optim.lr_scheduler import ReduceLROnPlateau
from torchmetrics import MetricCollection
from torchmetrics.classification import (
    MulticlassAccuracy,
    MulticlassF1Score,
    MultilabelAveragePrecision,
    MultilabelF1Score,
)

from mmeff.backbones import Backbone
from mmeff.errors import InputError, within
from mmeff.heads import Head, MeanPool, Pool
from mmeff.init import init_weights
from mmeff.spec import DataSpec
from mmeff.tasks.mix import Mix
from mmeff.tasks.optim import OptimizerConfig
from mmeff.tasks.restored import check_keys, check_optimizer, check_training
from mmeff.tokenizers import Tokenizer
from mmeff.tokenizers.text import TextTokenizer

if TYPE_CHECKING:
    from mmeff.predict import Prediction

TokenizerFactory = Callable[[int], Tokenizer]


class Classification(LightningModule, ABC):
    """One backbone, and for each task (a signal with its labels) a tokenizer and a head.

    A new model knows no classes: `prepare(specs, samples)` builds the heads and fits the tokenizers, from the data
    before training, or from a checkpoint. Every step takes one batch of one task, `batch["task"]`.
    """

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
        super().__init__()
        within("[0, 1)", dropout=dropout, smoothing=smoothing)
        self.tokenizers = nn.ModuleDict(tokenizers)
        self.backbone = backbone
        self.heads = nn.ModuleDict()
        self.make_head = partial(Head, backbone.out_dim, pool=pool, dropout=dropout)
        self.smoothing, self.mix, self.optimizer_config = smoothing, mix, optimizer
        self.specs: dict[str, DataSpec] = {}
        #: Where it came from, in plain values: what `mmeff.load` builds the same model from.
        self.recipe: dict[str, Any] | None = None
        #: Steps of the whole run where it goes on from a checkpoint; None: what the Trainer estimates.
        self.total_steps: float | None = None
        init_weights(self, depth=len(backbone.layers()))

    def prepare(self, specs: dict[str, DataSpec], samples: dict[str, Any] | None = None) -> None:
        """Build a head for each task, and fit its tokenizer to raw training examples where there are some."""
        if self.specs:
            if specs != self.specs:
                raise InputError(different_data(self.specs, specs))
            return
        if set(specs) != set(self.tokenizers):
            raise InputError(f"the model has tokenizers for {sorted(self.tokenizers)}, the data is {sorted(specs)}")
        for name, spec in specs.items():
            tokenizer = self.tokenizers[name]
            assert isinstance(tokenizer, Tokenizer)
            if tokenizer.modality != spec.modality:
                raise InputError(
                    f"{type(tokenizer).__name__} reads {tokenizer.modality}, but the data is {spec.modality}: "
                    "give model.tokenizer one of that kind (`mmeff list`)"
                )
            tokenizer.check(spec.preprocessing)
            if samples is not None:
                tokenizer.fit(samples[name])
            self.heads[name] = self.make_head(len(spec.classes))
            for stage in ("val", "test"):
                setattr(self, f"{stage}_{name}", metrics(spec))
        self.specs = dict(specs)

    @torch.no_grad()
    def try_out(self, batches: dict[str, dict[str, Any]]) -> None:
        """One pass over a batch of each task: what cannot work is known before training starts."""
        was_training = self.training
        self.eval()
        for task, batch in batches.items():
            self(task, batch[self.specs[task].modality], batch.get("lengths"))
        self.train(was_training)

    def forward(self, task: str, raw: Any, lengths: Tensor | None = None) -> Tensor:
        """Raw batch of one task -> logits (B, classes)."""
        return self.heads[task](self.backbone(self.tokenizers[task](raw, lengths)))

    def setup(self, stage: str) -> None:
        if not self.specs:  # a Trainer without the command line: the data is at hand here
            data: Any = self.trainer.datamodule  # type: ignore[attr-defined]
            if data is None:
                raise InputError("call model.prepare(specs) first, or give the Trainer a data module of mmeff.data")
            self.prepare(data.specs, data.fit_sample() if stage == "fit" else None)

    def training_step(self, batch: dict[str, Any], batch_idx: int) -> Tensor:
        task = batch["task"]
        spec = self.specs[task]
        raw, lengths, label = batch[spec.modality], batch.get("lengths"), batch["label"]
        if spec.multilabel:
            loss = F.binary_cross_entropy_with_logits(self(task, raw, lengths), label)
        elif self.mix is None or spec.modality == "text":
            loss = F.cross_entropy(self(task, raw, lengths), label, label_smoothing=self.smoothing)
        else:
            raw, lengths, target = self.mix(raw, lengths, label, len(spec.classes), self.smoothing)
            loss = F.cross_entropy(self(task, raw, lengths), target)
        for module in self.backbone.modules():
            aux = getattr(module, "aux_loss", None)
            if aux is not None:
                loss = loss + aux
        self.log("train/loss", loss, prog_bar=True, on_step=True, on_epoch=False, batch_size=len(label))
        return loss

    def validation_step(self, batch: dict[str, Any], batch_idx: int) -> Tensor:
        return self._evaluate(batch, "val")

    def test_step(self, batch: dict[str, Any], batch_idx: int) -> Tensor:
        return self._evaluate(batch, "test")

    def _evaluate(self, batch: dict[str, Any], stage: str) -> Tensor:
        """Logits (B, classes); metrics are updated on the way."""
        task, label = batch["task"], batch["label"]
        spec = self.specs[task]
        logits = self(task, batch[spec.modality], batch.get("lengths")).float()
        counted = 0 if batch.get("repeated") else len(label)
        if counted:
            getattr(self, f"{stage}_{task}").update(logits, label.int() if spec.multilabel else label)
        loss_of = F.binary_cross_entropy_with_logits if spec.multilabel else F.cross_entropy
        loss = loss_of(logits, label)
        if self.trainer.state.fn != "fit" and not loss.isfinite():
            raise InputError(
                f"the model gives numbers that are NaN or infinite, first for {batch['id'][0]}: its weights, or the "
                "statistics of its tokenizer, are not those of a trained model"
            )
        self.log(f"{stage}/loss", loss, on_step=False, on_epoch=True, batch_size=counted, sync_dist=True)
        return logits

    def on_validation_epoch_end(self) -> None:
        self._log_metrics("val")

    def on_test_epoch_end(self) -> None:
        self._log_metrics("test")

    def _log_metrics(self, stage: str) -> None:
        """Each task's metrics, and `score`: the mean over tasks of accuracy (single-label) or mAP (multi-label)."""
        scores = []
        for task, spec in self.specs.items():
            collection = getattr(self, f"{stage}_{task}")
            prefix = f"{stage}/{task}/" if len(self.specs) > 1 else f"{stage}/"
            values = {prefix + key: value for key, value in collection.compute().items()}
            collection.reset()
            self.log_dict(values, sync_dist=True)
            scores.append(values[prefix + ("map" if spec.multilabel else "acc")])
        self.log(f"{stage}/score", torch.stack(scores).mean(), prog_bar=True, sync_dist=True)
        for task in self.specs:
            said = self.report(task)
            if said and (stage == "test" or self.current_epoch == 0):
                rank_zero_only(print)(f"{task}: {said}")

    @property
    def classes(self) -> tuple[str, ...] | dict[str, tuple[str, ...]]:
        """Names of the classes in the order of the logits; of a model with several tasks, by task."""
        found = {task: spec.classes for task, spec in self.specs.items()}
        return next(iter(found.values())) if len(found) == 1 else found

    @overload
    def predict(self, signals: list[Any], task: str | None = None, batch_size: int = 32) -> "list[Prediction]": ...
    @overload
    def predict(self, signals: Any, task: str | None = None, batch_size: int = 32) -> "Prediction": ...
    def predict(self, signals: Any, task: str | None = None, batch_size: int = 32) -> "Prediction | list[Prediction]":
        """Labels and probabilities of one signal, or of each of a list; on the model's device, in eval mode.

        signals     for images a path, a uint8 array or tensor (h, w) or (h, w, 3), or one of Pillow's images; for
                    sounds a path, or a pair (waveform (S,) or (S, channels), its sample rate); for texts a string
        task        which head of a model that has several
        batch_size  signals of a list that are passed together

        InputError says which signal cannot be read, and why.
        """
        from mmeff.predict import predict  # which reads files: the rest of this package knows batches alone

        return predict(self, signals, task, batch_size)

    def report(self, task: str) -> str | None:
        """What to tell the user about the signals that the task's tokenizer has read since the last report."""
        tokenizer = self.tokenizers[task]
        return tokenizer.report() if isinstance(tokenizer, TextTokenizer) else None

    def configure_optimizers(self) -> Any:
        inner = self.backbone.layers()
        layers = [list(self.tokenizers.values()), *([layer] for layer in inner), list(self.heads.values())]
        steps = self.total_steps or self.trainer.estimated_stepping_batches
        if math.isinf(steps):
            raise InputError(
                "set trainer.max_epochs or trainer.max_steps: the learning rate falls towards the last step"
            )
        autocast = isinstance(self.trainer.precision_plugin, MixedPrecision)
        optimizer, schedule = self.optimizer_config.build(layers, int(steps), autocast)
        times: dict[str, Any] = {"scheduler": schedule, "interval": "step"}
        if isinstance(schedule, ReduceLROnPlateau):
            times |= {"interval": "epoch", "monitor": "val/loss"}
        return {"optimizer": optimizer, "lr_scheduler": times}

    @property
    def lr(self) -> float:
        """The peak learning rate; Lightning's LearningRateFinder sets it when the optimizer is made already."""
        return self.optimizer_config.lr

    @lr.setter
    def lr(self, value: float) -> None:
        factor = value / self.lr
        self.optimizer_config = replace(self.optimizer_config, lr=value)
        if self.recipe is not None:
            self.recipe.setdefault("init_args", {}).setdefault("optimizer", {})["lr"] = value
        for config in self.trainer.lr_scheduler_configs if self._trainer is not None else []:
            config.scheduler.base_lrs = [rate * factor for rate in config.scheduler.base_lrs]
            for group in config.scheduler.optimizer.param_groups:
                group["initial_lr"] *= factor
        rank_zero_only(print)(f"the peak learning rate is {value:.3g} now")

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        specs = {name: spec.to_dict() for name, spec in self.specs.items()}
        checkpoint["mmeff"] = {"model": self.recipe, "specs": specs}

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        stored = checkpoint.get("mmeff")
        if stored is None:
            raise InputError("this checkpoint was not written by mmeff: it holds no class names and no recipe")
        specs = DataSpec.from_dicts(stored["specs"])
        if self.specs and specs != self.specs:
            raise InputError(different_data(specs, self.specs))
        check_keys(checkpoint["state_dict"], self.state_dict())
        if self._trainer is not None and self._trainer.state.fn == "fit":
            check_training(checkpoint)
            before, now = optimizer_of(stored["model"]), optimizer_of(self.recipe)
            changed = [key for key in ("lr", "weight_decay", "layer_decay") if before.get(key) != now.get(key)]
            if changed:
                rank_zero_only(print)(
                    f"the optimizer goes on with the checkpoint's {', '.join(changed)}: other values want a new run"
                )

    def on_train_start(self) -> None:
        for optimizer in self.trainer.optimizers:
            check_optimizer(optimizer)


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
        super().__init__({built.modality: built}, backbone, pool, dropout, smoothing, mix, optimizer)


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


def optimizer_of(recipe: Any) -> dict[str, Any]:
    """The optimizer's part of a recipe; nothing where it has none."""
    for key in ("init_args", "optimizer"):
        recipe = recipe.get(key) if isinstance(recipe, dict) else None
    return recipe if isinstance(recipe, dict) else {}


def metrics(spec: DataSpec) -> MetricCollection:
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


def different_data(stored: dict[str, DataSpec], given: dict[str, DataSpec]) -> str:
    """One line: how the data that a model was trained on differs from the data at hand."""
    if set(stored) != set(given):
        return f"the checkpoint is of a model for {sorted(stored)}, the data is {sorted(given)}"
    for name, spec in stored.items():
        if spec.classes != given[name].classes:
            missing = sorted(set(spec.classes) ^ set(given[name].classes))
            return (
                f"the checkpoint knows {len(spec.classes)} {name} classes, the data has {len(given[name].classes)}; "
                f"not in both: {missing[:5]}. Take the checkpoint of a run on this data"
            )
        if spec.multilabel != given[name].multilabel:
            one, other = ("any number of labels", "one label")[:: 1 if spec.multilabel else -1]
            return f"the checkpoint was trained on {name} with {one} per example, the data has {other}"
        if spec != given[name]:
            now = given[name].preprocessing
            return f"the checkpoint was trained on {name} as {spec.preprocessing}, the data gives {now}"
    return "the checkpoint is of other data"
