"""Contenders made ready: widths matched to the budget, those that cannot serve a recipe left out."""

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch

from mmeff.compare.budget import beside_budget, matched
from mmeff.compare.contenders import Contender, build_data, build_task
from mmeff.compare.plan import Budget, Lengths
from mmeff.compare.steps import Signals
from mmeff.compare.workers import each
from mmeff.errors import InputError
from mmeff.model import Model
from mmeff.signals import DataSpec
from mmeff.tokenizers import Tokenizer


@dataclass(frozen=True)
class Field:
    """One recipe: its signal, and those that compete on it, by the names of their backbones."""

    recipe: str
    specs: dict[str, DataSpec]
    tokenizer: Tokenizer
    #: At which the recipe trains.
    own_length: float
    #: At which speed is measured.
    lengths: tuple[float, ...]
    contenders: dict[str, Contender] = field(default_factory=dict)
    #: Those whose models cannot be built, and why.
    failed: dict[str, tuple[Contender, str]] = field(default_factory=dict)

    @property
    def spec(self) -> DataSpec:
        return next(iter(self.specs.values()))

    @property
    def unit(self) -> str:
        return self.spec.kind.unit

    def signals(self, length: float, device: torch.device) -> Signals:
        """Batch size -> the task and random signals of a length."""
        (task,) = self.specs
        return lambda batch: (task, self.tokenizer.random(self.spec, length, batch).to(device))

    def tokens(self, length: float) -> int:
        """Of one example of a length, as the recipe's tokenizer cuts it."""
        cut = next((each for each in self.contenders.values() if not each.timm), None)
        if cut is None:
            raise InputError(f"speed.tokens: {self.recipe} has no contender that takes its tokens; give speed.batch")
        with torch.no_grad():
            return self.model(cut, length).tokens(*self.signals(length, torch.device("cpu"))(1)).x.shape[1]

    def model(self, contender: Contender, length: float) -> Model:
        """The contender's model for signals of a length, which models of timm must know."""
        if contender.timm:
            contender = contender.with_backbone(pixels=int(length))
        task = build_task(contender)
        task.prepare(self.specs)
        return task.model

    def row(self, contender: Contender, length: float) -> dict[str, Any]:
        """The fields of a row that say what it is of."""
        return {
            "recipe": self.recipe, "signal": self.spec.signal, "backbone": contender.backbone,
            "kind": contender.kind, "length": length, "unit": self.unit,
        }  # fmt: skip


def field_of(contenders: list[Contender], lengths: Lengths, budget: Budget | None, say: Callable[[str], None]) -> Field:
    """The field of one recipe. `say` is told who is left out, because it cannot serve the grid of its tokens."""
    first = contenders[0]
    data = build_data(first)
    data.setup()
    if len(data.specs) > 1:
        raise InputError(f"{first.recipe} has {len(data.specs)} signals: a comparison wants recipes of one signal")
    ((task, spec),) = data.specs.items()
    tokenizer = build_task(first).model.tokenizer(task)
    entered = Field(first.recipe, data.specs, tokenizer, tokenizer.length(spec), lengths.get(spec.signal, ()))
    for contender, found in zip(contenders, each(partial(entrant, entered, budget), contenders), strict=True):
        if isinstance(found, Exception):
            entered.failed[contender.backbone] = contender, one_line(found)
        elif isinstance(found, int):
            say(f"left out: {contender.name}, whose tokens lie on {found} " + ("axes" if found > 1 else "axis"))
        else:
            entered.contenders[contender.backbone] = found
            if missed := beside_budget(found, budget):
                say(missed)
    return entered


def entrant(entered: Field, budget: Budget | None, contender: Contender) -> Contender | int:
    """The contender at the width of the budget; if its mixers do not serve them, the axes of the recipe's tokens."""
    contender = matched(contender, budget)
    if contender.timm:
        return contender
    model = entered.model(contender, entered.own_length)
    grid = model.tokens(*entered.signals(entered.own_length, torch.device("cpu"))(1)).grid
    return contender if model.backbone.serves(len(grid)) else len(grid)


def one_line(error: Exception) -> str:
    """What stands in the row of a contender that failed."""
    if isinstance(error, torch.OutOfMemoryError):
        return "out of memory"
    return " ".join(str(error).split())[:200] or type(error).__name__
