"""Task: an objective as a LightningModule. What trains, tests, saves, predicts and compares knows no other class."""

import math
from abc import ABC, abstractmethod
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal, overload

import torch
from lightning.pytorch import LightningModule
from lightning.pytorch.plugins import MixedPrecision
from lightning.pytorch.utilities import rank_zero_only
from torch import Tensor, nn
from torch.optim.lr_scheduler import ReduceLROnPlateau
from torchmetrics import MetricCollection

from mmeff.backbones import Backbone
from mmeff.errors import InputError
from mmeff.model import Model
from mmeff.predict import Prediction, predict
from mmeff.signals import DataSpec
from mmeff.tasks.optim import OptimizerConfig
from mmeff.tasks.report import Results
from mmeff.tasks.restored import check_keys, check_optimizer, check_training


class Task(LightningModule, ABC):
    """A model, the loss it learns by, what it is measured by and what it answers.

    An objective is a subclass: `make_head`, `loss`, `evaluate`, `metrics`, `main_metric`, `results` and `answer`. A new
    task knows no data: `prepare(specs, samples)` builds the heads and fits the tokenizers, from the data before
    training, or from a checkpoint. Every step takes one batch of one labelled signal, `batch["task"]`.

    monitor  logged value of validation whose best keeps best.ckpt, and `mode`, "max" or "min"

    A checkpoint holds the weights under the names that they have in `model`: tokenizers.*, backbone.*, heads.*.
    """

    monitor: str = "val/score"
    mode: Literal["max", "min"] = "max"

    def __init__(self, model: Model, optimizer: OptimizerConfig):
        super().__init__()
        self.model = model
        self.optimizer_config = optimizer
        self.specs: dict[str, DataSpec] = {}
        #: Where it came from, in plain values: what `mmeff.load` builds the same task from.
        self.recipe: dict[str, Any] | None = None
        #: Steps of the whole run where it goes on from a checkpoint; None: what the Trainer estimates.
        self.total_steps: float | None = None
        self.register_state_dict_post_hook(_names_of_the_model)
        self.register_load_state_dict_pre_hook(_names_of_the_task)

    @property
    def backbone(self) -> Backbone:
        """The model's; Lightning's BackboneFinetuning asks for it under this name."""
        return self.model.backbone

    # What an objective says.

    @abstractmethod
    def make_head(self, spec: DataSpec) -> nn.Module:
        """Tokens of the backbone's width -> outputs (B, ...), for data of this spec."""

    @abstractmethod
    def loss(self, batch: dict[str, Any]) -> Tensor:
        """Of a training batch, a scalar."""

    @abstractmethod
    def evaluate(self, batch: dict[str, Any]) -> tuple[Tensor, Tensor, Tensor]:
        """-> the loss of a batch of validation or test, the outputs (B, ...), and what metrics hold them against."""

    @abstractmethod
    def metrics(self, spec: DataSpec) -> MetricCollection:
        """What is measured of outputs for data of this spec: `val/NAME` and `test/NAME` in the logs."""

    @abstractmethod
    def main_metric(self, spec: DataSpec) -> str:
        """The name of the metric whose mean over all signals is logged as val/score and test/score."""

    @abstractmethod
    def results(self, spec: DataSpec) -> Results:
        """An empty collection of what a test leaves behind: files and pictures."""

    @abstractmethod
    def answer(self, task: str, output: Tensor) -> Prediction:
        """What is said of one signal whose output is given. InputError if it is not finite."""

    def beside_baselines(self, parts: dict[str, Any], measured: dict[str, Any]) -> list[str]:
        """Lines on a test's metrics beside those of simple models of the same data (`ClassificationData.parts`)."""
        return []

    def usage(self, run: Path) -> list[str]:
        """Lines on what to do with a run that is over, one or more."""
        return [f"Its model: mmeff.load({str(run)!r})"]

    # What all objectives share.

    def prepare(self, specs: dict[str, DataSpec], samples: dict[str, Any] | None = None) -> None:
        """Build a head for each signal, and fit its tokenizer to raw training examples where there are some."""
        if self.specs:
            if specs != self.specs:
                raise InputError(different_data(self.specs, specs))
            return
        tokenizers = self.model.tokenizers
        if set(specs) != set(tokenizers):
            raise InputError(f"the model has tokenizers for {sorted(tokenizers)}, the data is {sorted(specs)}")
        for name, spec in specs.items():
            tokenizer = self.model.tokenizer(name)
            tokenizer.accept(spec)
            if samples is not None:
                tokenizer.fit(samples[name])
            self.model.heads[name] = self.make_head(spec)
            for stage in ("val", "test"):
                setattr(self, f"{stage}_{name}", self.metrics(spec))
        self.specs = dict(specs)

    @torch.no_grad()
    def try_out(self, batches: dict[str, dict[str, Any]]) -> None:
        """One pass over a batch of each signal: what cannot work is known before training starts."""
        was_training = self.training
        self.eval()
        for batch in batches.values():
            self.of_batch(batch)
        self.train(was_training)

    def forward(self, task: str, raw: Any, lengths: Tensor | None = None) -> Any:
        """A raw batch of one signal -> outputs."""
        return self.model(task, raw, lengths)

    def of_batch(self, batch: dict[str, Any]) -> Any:
        """A batch of `mmeff.data` -> outputs."""
        raw = self.specs[batch["task"]].raw(batch)
        return self(batch["task"], raw, batch.get("lengths"))

    def setup(self, stage: str) -> None:
        if not self.specs:  # a Trainer without the command line: the data is at hand here
            data: Any = self.trainer.datamodule  # type: ignore[attr-defined]
            if data is None:
                raise InputError("call model.prepare(specs) first, or give the Trainer a data module of mmeff.data")
            self.prepare(data.specs, data.fit_sample() if stage == "fit" else None)

    def training_step(self, batch: dict[str, Any], batch_idx: int) -> Tensor:
        loss = self.loss(batch)
        for module in self.model.backbone.modules():
            aux = getattr(module, "aux_loss", None)
            if aux is not None:
                loss = loss + aux
        self.log("train/loss", loss, prog_bar=True, on_step=True, on_epoch=False, batch_size=self._size(batch))
        return loss

    def validation_step(self, batch: dict[str, Any], batch_idx: int) -> Tensor:
        return self._evaluate(batch, "val")

    def test_step(self, batch: dict[str, Any], batch_idx: int) -> Tensor:
        return self._evaluate(batch, "test")

    def _evaluate(self, batch: dict[str, Any], stage: str) -> Tensor:
        """Outputs of a batch; metrics are updated on the way."""
        loss, outputs, target = self.evaluate(batch)
        counted = 0 if batch.get("repeated") else self._size(batch)
        if counted:
            getattr(self, f"{stage}_{batch['task']}").update(outputs, target)
        if self.trainer.state.fn != "fit" and not loss.isfinite():
            raise InputError(
                f"the model gives numbers that are NaN or infinite, first for {batch['id'][0]}: its weights, or the "
                "statistics of its tokenizer, are not those of a trained model"
            )
        self.log(f"{stage}/loss", loss, on_step=False, on_epoch=True, batch_size=counted, sync_dist=True)
        return outputs

    def _size(self, batch: dict[str, Any]) -> int:
        return len(self.specs[batch["task"]].raw(batch))

    def on_validation_epoch_end(self) -> None:
        self._log_metrics("val")

    def on_test_epoch_end(self) -> None:
        self._log_metrics("test")

    def _log_metrics(self, stage: str) -> None:
        """Each signal's metrics, and `score`: the mean over the signals of their main metric."""
        scores = []
        for task, spec in self.specs.items():
            collection = getattr(self, f"{stage}_{task}")
            prefix = f"{stage}/{task}/" if len(self.specs) > 1 else f"{stage}/"
            values = {prefix + key: value for key, value in collection.compute().items()}
            collection.reset()
            self.log_dict(values, sync_dist=True)
            scores.append(values[prefix + self.main_metric(spec)])
        self.log(f"{stage}/score", torch.stack(scores).mean(), prog_bar=True, sync_dist=True)
        for task in self.specs:
            said = self.report(task)
            if said and (stage == "test" or self.current_epoch == 0):
                rank_zero_only(print)(f"{task}: {said}")

    @overload
    def predict(self, signals: list[Any], task: str | None = None, batch_size: int = 32) -> list[Prediction]: ...
    @overload
    def predict(self, signals: Any, task: str | None = None, batch_size: int = 32) -> Prediction: ...
    def predict(self, signals: Any, task: str | None = None, batch_size: int = 32) -> Prediction | list[Prediction]:
        """Labels and probabilities of one signal, or of each of a list; on the model's device, in eval mode.

        signals     for images a path, a uint8 array or tensor (h, w) or (h, w, 3), or one of Pillow's images; for
                    sounds a path, or a pair (waveform (S,) or (S, channels), its sample rate); for texts a string
        task        which head of a model that has several
        batch_size  signals of a list that are passed together

        InputError says which signal cannot be read, and why.
        """
        return predict(self, signals, task, batch_size)

    def report(self, task: str) -> str | None:
        """What to tell the user about the signals that the task's tokenizer has read since the last report."""
        return self.model.tokenizer(task).report()

    def configure_optimizers(self) -> Any:
        steps = self.total_steps or self.trainer.estimated_stepping_batches
        if math.isinf(steps):
            raise InputError(
                "set trainer.max_epochs or trainer.max_steps: the learning rate falls towards the last step"
            )
        autocast = isinstance(self.trainer.precision_plugin, MixedPrecision)
        optimizer, schedule = self.optimizer_config.build(self.model.layers(), int(steps), autocast)
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


def _names_of_the_model(task: nn.Module, state: dict[str, Any], prefix: str, metadata: Any) -> None:
    """Names of weights without the `model.` that a task puts before them."""
    for key in [key for key in state if key.startswith(f"{prefix}model.")]:
        state[prefix + key.removeprefix(f"{prefix}model.")] = state.pop(key)


def _names_of_the_task(task: nn.Module, state: dict[str, Any], prefix: str, *_: Any) -> None:
    """The opposite of `_names_of_the_model`, before weights are loaded."""
    for key in [key for key in state if key.startswith(prefix)]:
        state[f"{prefix}model.{key.removeprefix(prefix)}"] = state.pop(key)


def optimizer_of(recipe: Any) -> dict[str, Any]:
    """The optimizer's part of a recipe; nothing where it has none."""
    for key in ("init_args", "optimizer"):
        recipe = recipe.get(key) if isinstance(recipe, dict) else None
    return recipe if isinstance(recipe, dict) else {}


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
