"""What a comparison is to measure, as a YAML file says it."""

from dataclasses import dataclass, field
from typing import Any

from mmeff import signals
from mmeff.errors import InputError, as_input_error


def _positive(where: str, **values: float | None) -> None:
    for name, value in values.items():
        if value is not None and value <= 0:
            raise InputError(f"{where}{name} is {value}: it must be above 0")


@dataclass(frozen=True)
class Budget:
    """What all backbones have in common.

    Args:
        parameters: of the backbone, without tokenizer and head: the width is chosen that comes nearest.
        dim: width of all backbones, of a pyramid that of its first stage.
        depth: blocks of all backbones but pyramids, whose stages keep theirs; by default a backbone's own.
    """

    parameters: int | None = None
    dim: int | None = None
    depth: int | None = None

    def __post_init__(self) -> None:
        _positive("budget.", parameters=self.parameters, dim=self.dim, depth=self.depth)
        if self.parameters and self.dim:
            raise InputError("budget holds both parameters and dim, and one follows from the other: take one away")


@dataclass(frozen=True)
class Train:
    """How long each contender learns.

    Args:
        steps: of the optimiser, at the batch size of the recipe.
        seeds: trainings of each contender, with seeds 0, 1, ...
    """

    steps: int = 100
    seeds: int = 1

    def __post_init__(self) -> None:
        _positive("train.", steps=self.steps, seeds=self.seeds)


#: At which lengths speed and memory are measured, by the kind of signal: sides of images in pixels, seconds of sound,
#: tokens of text, steps of series.
Lengths = dict[str, tuple[int | float, ...]]


@dataclass(frozen=True)
class Speed:
    """How speed is measured.

    Args:
        runs: rounds, in each of which every contender takes its turn.
        visits: over so many visits the rounds of a length are spread, minutes apart: a machine that is slow for a while
            is slow in some of the rounds alone, and the spread says so.
        batch: examples at once; halved for a contender that runs out of memory.
        tokens: instead, as many examples at each length as hold so many tokens, where a GPU shall be full.
        seconds: for each contender and measurement, on average, in all visits together; then no further round begins,
            after three at least.
    """

    runs: int = 10
    visits: int = 2
    batch: int = 8
    tokens: int | None = None
    seconds: float = 2.0

    def __post_init__(self) -> None:
        _positive(
            "speed.", runs=self.runs, visits=self.visits, batch=self.batch, tokens=self.tokens, seconds=self.seconds
        )


@dataclass(frozen=True)
class Memory:
    """Where memory ends: the least length at which a training step of one example no longer fits a GPU.

    Args:
        gib: size of the GPU that is asked about; by default the whole of the one at hand.
        seconds: a step that takes longer ends the search, with no answer.
    """

    gib: float | None = None
    seconds: float = 5.0

    def __post_init__(self) -> None:
        _positive("memory.", gib=self.gib, seconds=self.seconds)


@dataclass(frozen=True)
class Plan:
    """Every recipe with every backbone and baseline, at every length.

    Args:
        recipes: as after `mmeff fit -c`, options included.
        backbones: paths of YAML files, as after `--model.backbone`.
        baselines: "transformer" (torch's own), and names of timm's models, which serve images.
        budget: what the widths of backbones are matched to; null takes them as their files say.
        train: null measures no accuracy.
        lengths: at which speed and memory are measured, by the kind of signal: {image: [224, 448], audio: [1, 10]}.
        speed: how it is measured.
        memory: null looks for no end of memory.
    """

    recipes: tuple[str, ...]
    backbones: tuple[str, ...] = ()
    baselines: tuple[str, ...] = ()
    budget: Budget | None = None
    train: Train | None = None
    lengths: dict[str, tuple[int | float, ...]] = field(default_factory=dict)
    speed: Speed = field(default_factory=Speed)
    memory: Memory | None = None

    def __post_init__(self) -> None:
        if not self.recipes or not (self.backbones or self.baselines):
            raise InputError("the plan compares nothing: give it recipes, and backbones or baselines")
        for name, lengths in self.lengths.items():
            signals.of(name)
            for length in lengths:
                _positive("lengths.", **{name: length})


def read_plan(values: dict[str, Any]) -> Plan:
    """The plan that a YAML file holds. InputError names the key that is wrong, and what it takes."""
    from jsonargparse import ArgumentParser

    for name in ("budget", "train", "lengths", "speed", "memory"):
        if not isinstance(values.get(name), dict | None):
            raise InputError(
                f"{name} is {values[name]!r}: it holds keys and values, as `train: {{steps: 100, seeds: 2}}`"
            )
    parser = ArgumentParser(exit_on_error=False)
    parser.add_class_arguments(Plan, "plan")
    with as_input_error("the plan cannot be read"):
        return parser.instantiate(parser.parse_object({"plan": values}))["plan"]
