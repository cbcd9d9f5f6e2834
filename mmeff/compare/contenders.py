"""Who takes part in a comparison: recipes, each with one backbone in it, and the models and data that they describe."""

import importlib
from copy import deepcopy
from dataclasses import dataclass, replace
from typing import Any, Literal

from mmeff.backbones import Backbone
from mmeff.build import build
from mmeff.data import ClassificationData
from mmeff.tasks import Task

Config = dict[str, Any]

#: What stands in the place of a backbone where a whole model of timm competes.
TIMM = "mmeff.compare.baselines.TimmModel"


@dataclass(frozen=True)
class Contender:
    """One backbone on one recipe. Names are those of the files, or of the baseline."""

    recipe: str
    backbone: str
    kind: Literal["mmeff", "baseline"]
    #: The recipe as `mmeff fit` composes it: `model`, `data` and `trainer`.
    config: Config

    @property
    def name(self) -> str:
        return f"{self.backbone} on {self.recipe}"

    @property
    def timm(self) -> bool:
        """Whether it is a whole model of timm."""
        return self.config["model"]["init_args"]["backbone"]["class_path"] == TIMM

    def with_backbone(self, **arguments: Any) -> "Contender":
        """The same with other arguments of its backbone."""
        config = deepcopy(self.config)
        part = config["model"]["init_args"]["backbone"]
        part["init_args"] = {**part.get("init_args", {}), **arguments}
        return replace(self, config=config)

    def resized(self, width: int | None = None, depth: int | None = None) -> "Contender":
        """The same with a backbone of another width or depth, as its class says it."""
        part = self.config["model"]["init_args"]["backbone"]
        module, _, name = part["class_path"].rpartition(".")
        backbone: type[Backbone] = getattr(importlib.import_module(module), name)
        return self.with_backbone(**backbone.resized(part.get("init_args", {}), width, depth))


def build_backbone(contender: Contender) -> Backbone:
    return build(Backbone, contender.config["model"]["init_args"]["backbone"], "model.backbone")


def build_data(contender: Contender) -> ClassificationData:
    return build(ClassificationData, contender.config["data"], "data")


def build_task(contender: Contender) -> Task:
    return build(Task, contender.config["model"], "model")
