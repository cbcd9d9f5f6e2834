"""The parts of a comparison, each of which is measured, and remembered, by itself."""

import gc
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from functools import partial
from statistics import median
from typing import Any

import torch

from mmeff.compare.accuracy import accuracies
from mmeff.compare.baselines import TimmModel
from mmeff.compare.budget import parameters
from mmeff.compare.contenders import Contender
from mmeff.compare.counts import count
from mmeff.compare.energy import joules
from mmeff.compare.entrants import Field, one_line
from mmeff.compare.journal import Values
from mmeff.compare.memory import limited, memory_end, peaks
from mmeff.compare.plan import Memory, Plan, Speed, Train
from mmeff.compare.speed import samples
from mmeff.compare.steps import Signals, Steps, fitting
from mmeff.compare.workers import close, each
from mmeff.model import Model

#: Classes whose instances make a backbone's depth.
BLOCKS = ("Block", "TransformerEncoderLayer")


@dataclass(frozen=True)
class Part:
    """One measurement of some contenders of a field at one length.

    key      what the values depend on besides the contender, in plain values
    measure  contenders by name -> what was found, fields of a row by name
    """

    name: str
    field: Field
    length: float
    contenders: dict[str, Contender]
    key: dict[str, Any]
    measure: Callable[[dict[str, Contender]], dict[str, Values]]


def parts_of(plan: Plan, fields: list[Field], device: torch.device) -> list[Part]:
    """Speed of all contenders of a recipe at one length together; then where memory ends, and accuracy, one by one; and
    speed once more, as many times as is visited."""
    visits = [
        [_speed(field, length, plan.speed, device, visit) for field in fields for length in field.lengths]
        for visit in range(plan.speed.visits)
    ]
    parts = visits[0]
    alone = [(field, contender) for field in fields for contender in field.contenders.values()]
    if plan.memory is not None and device.type == "cuda":
        parts += [_memory(field, contender, plan.memory, device) for field, contender in alone if field.lengths]
    if plan.train is not None:
        parts += [_accuracy(field, contender, plan.train, device) for field, contender in alone]
    return [*parts, *(part for again in visits[1:] for part in again)]


def _speed(field: Field, length: float, speed: Speed, device: torch.device, visit: int) -> Part:
    group = {name: contender.config for name, contender in field.contenders.items()}
    key = {"what": "speed", "length": length, "group": group, "speed": asdict(speed), "visit": visit}
    measure = partial(speeds, field, length, speed, device, visit == 0)
    again = f", visit {visit + 1}" if visit else ""
    return Part(f"speed: {field.recipe}, {length:g} {field.unit}{again}", field, length, field.contenders, key, measure)


def _memory(field: Field, contender: Contender, memory: Memory, device: torch.device) -> Part:
    key = {"what": "memory", "config": contender.config, "memory": asdict(memory), "from": field.lengths[0]}
    measure = partial(memory_ends, field, memory, device)
    alone = {contender.backbone: contender}
    return Part(f"end of memory: {contender.name}", field, field.lengths[-1], alone, key, measure)


def _accuracy(field: Field, contender: Contender, train: Train, device: torch.device) -> Part:
    key = {"what": "accuracy", "config": contender.config, "train": asdict(train)}
    measure = partial(learned, field, train, device)
    alone = {contender.backbone: contender}
    return Part(f"accuracy: {contender.name}", field, field.own_length, alone, key, measure)


def sized(model: Model, given: tuple[Any, ...]) -> Values:
    """Width, depth, parameters and tokens of a model that is given one example."""
    timm = isinstance(model.backbone, TimmModel)
    with torch.no_grad():
        tokens = None if timm else model.tokens(*given).x.shape[1]
    blocks = sum(type(module).__name__ in BLOCKS for module in model.backbone.modules())
    return {
        "dim": None if timm else model.backbone.in_dim,
        "depth": None if timm else blocks,
        "parameters": parameters(model.backbone),
        "tokens": tokens,
    }


def speeds(
    field: Field, length: float, speed: Speed, device: torch.device, first: bool, contenders: dict[str, Contender]
) -> dict[str, Values]:
    """What each pass of all contenders takes, in turn; of one that fails its error. On the first visit also size,
    counts, memory and energy."""
    signals = field.signals(length, device)
    batch = speed.batch if speed.tokens is None else max(1, speed.tokens // field.tokens(length))
    bare = replace(field, contenders={}, failed={})  # the rest need not travel
    ready = each(partial(prepared, bare, length, batch, device), contenders.values()) if first else []
    counted = dict(zip(contenders, ready, strict=False))
    found: dict[str, Values] = {}
    steps: dict[str, Steps] = {}
    for name, contender in contenders.items():
        try:
            fitted = fitting(field.model(contender, length), signals, batch, device)
            found[name] = {"batch": fitted.batch}
            if first:
                counts = counted[name]
                if isinstance(counts, Exception):
                    raise counts
                found[name] |= {**sized(fitted.model, signals(1)), **counts, **peaks(fitted)}
            steps[name] = fitted
        except Exception as error:
            found[name] = {"error": one_line(error)}
            free()
    if not steps:
        return found
    singles = {name: Steps(taken.model, signals, 1, device) for name, taken in steps.items()}
    for name, taken in samples(steps, singles, speed).items():
        found[name]["samples"] = taken
        if first:
            found[name]["joules"] = joules(steps[name], steps[name].batch / median(taken["training"]))
    return found


def prepared(field: Field, length: float, batch: int, device: torch.device, contender: Contender) -> Values:
    """Counts of one contender. Where a GPU is to run it, its kernels are compiled besides, for all processes: Triton
    keeps them on disk. Models of timm have none."""
    model = field.model(contender, length)
    counts = count(model, *field.signals(length, torch.device("cpu"))(1), bf16=device.type == "cuda")
    if device.type == "cuda" and not contender.timm:
        compile_kernels(model, field.signals(length, device), batch, device)
        free()
    return asdict(counts)


def compile_kernels(model: Model, signals: Signals, batch: int, device: torch.device) -> None:
    """Take each step that is to be measured once."""
    try:
        steps = Steps(model, signals, batch, device)
        steps.train()
        steps.infer()
        Steps(model, signals, 1, device).infer()
    except Exception:
        pass  # others use the memory too; what is wrong with the contender is found where it is measured alone


def memory_ends(
    field: Field, memory: Memory, device: torch.device, contenders: dict[str, Contender]
) -> dict[str, Values]:
    """Where memory ends for one contender."""
    ((name, contender),) = contenders.items()
    close()

    def step(length: float) -> None:
        free()
        Steps(field.model(contender, length), field.signals(length, device), 1, device).train()
        torch.cuda.synchronize()

    with limited(memory.gib, device):
        end = memory_end(step, field.lengths[0], field.spec.kind.least, memory.seconds)
    return {name: {"memory_ends_at": end}}


def learned(field: Field, train: Train, device: torch.device, contenders: dict[str, Contender]) -> dict[str, Values]:
    """Accuracy of one contender, beside its size and counts at the length at which it learned."""
    ((name, contender),) = contenders.items()
    if contender.timm:
        contender = contender.with_backbone(pixels=int(field.own_length))
    found = accuracies(contender, train, device)
    given = field.signals(field.own_length, device)(1)
    model = field.model(contender, field.own_length).to(device)
    return {name: {**sized(model, given), **asdict(count(model, *given, bf16=device.type == "cuda")), **found}}


def free() -> None:
    """Give back what contenders have left behind."""
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
