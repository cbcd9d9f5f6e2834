"""Who takes part in a comparison: recipes, each with one backbone in it, and the models and data that they describe."""

import importlib
import json
from copy import deepcopy
from dataclasses import dataclass, replace
from functools import cache
from typing import TYPE_CHECKING, Any, Literal

from torch import Tensor, nn

from mmeff.backbones import Backbone
from mmeff.data import ClassificationData
from mmeff.errors import as_input_error
from mmeff.mixers import Mixer
from mmeff.spec import DataSpec
from mmeff.tasks import Classification
from mmeff.tokens import Tokens

if TYPE_CHECKING:
    from jsonargparse import ArgumentParser, Namespace

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


def build(base: type, config: Config) -> Any:
    """An object of a class under `base`, from its `class_path` and `init_args`, as `mmeff fit` builds it."""
    with as_input_error():
        parser, parsed = _parsed(base, json.dumps(config))
        return parser.instantiate(parsed)["part"]


@cache  # parsing takes twice the time of building, and a model is built for every length
def _parsed(base: type, config: str) -> "tuple[ArgumentParser, Namespace]":
    from jsonargparse import ArgumentParser

    parser = ArgumentParser(exit_on_error=False)
    parser.add_subclass_arguments(base, "part", required=True)
    return parser, parser.parse_object({"part": json.loads(config)})


def build_backbone(contender: Contender) -> Backbone:
    return build(Backbone, contender.config["model"]["init_args"]["backbone"])


def build_data(contender: Contender) -> ClassificationData:
    return build(ClassificationData, contender.config["data"])


def build_task(contender: Contender) -> Classification:
    return build(Classification, contender.config["model"])


class Model(nn.Module):
    """What is measured of a classifier: a batch of full signals -> logits (B, classes). No row is padded."""

    def __init__(self, task: Classification, specs: dict[str, DataSpec]):
        super().__init__()
        task.prepare(specs)
        (name,) = specs
        self.tokenizer, self.backbone, self.head = task.tokenizers[name], task.backbone, task.heads[name]

    def tokens(self, raw: Tensor) -> Tokens:
        """Images (B, C, H, W), sounds (B, S) or ids of text (B, L)."""
        if raw.dtype.is_floating_point:
            tokens = self.tokenizer(raw)
        else:  # Strings are cut into ids on the host: none of the backbone's time.
            embedded = self.tokenizer.embed(raw)  # type: ignore[operator]
            tokens = self.tokenizer.positions(Tokens(embedded, (raw.shape[1],)))  # type: ignore[operator]
        return tokens._replace(lengths=None)

    def forward(self, raw: Tensor) -> Tensor:
        return self.head(self.backbone(self.tokens(raw)))

    def serves(self, grid: tuple[int, ...]) -> bool:
        """Whether all mixers serve grids of so many axes."""
        return all(len(grid) in module.axes for module in self.backbone.modules() if isinstance(module, Mixer))
