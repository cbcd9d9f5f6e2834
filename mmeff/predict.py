"""What a trained model says of new signals."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from mmeff.errors import InputError
from mmeff.signals import DataSpec, collate, read_raw

if TYPE_CHECKING:
    from mmeff.tasks.base import Task


@dataclass(frozen=True)
class Prediction:
    """Labels and probabilities of one signal.

    label          the most probable class
    probability    of that class
    probabilities  of each class, most probable first: they sum to 1, but for models of several labels per signal
    labels         all classes of a probability of 0.5 or more where there are several labels per signal; else (label,)
    """

    label: str
    probability: float
    probabilities: dict[str, float]
    labels: tuple[str, ...]

    @classmethod
    def of(cls, logits: Tensor, spec: DataSpec) -> "Prediction":
        """logits (K,) of one signal. InputError if they are not finite."""
        if not logits.isfinite().all():
            raise InputError("the model gives numbers that are NaN or infinite")
        p = logits.sigmoid() if spec.multilabel else logits.softmax(0)
        ranked = {spec.classes[k]: float(p[k]) for k in p.argsort(descending=True, stable=True).tolist()}
        label, probability = next(iter(ranked.items()))
        labels = tuple(name for name, value in ranked.items() if value >= 0.5) if spec.multilabel else (label,)
        return cls(label, probability, ranked, labels)


def choose_task(model: "Task", task: str | None) -> str:
    """The name of the head to ask. InputError if there are several and none is named."""
    if not model.specs:
        raise InputError("this model has not been trained: it knows no classes. Take one from mmeff.load(run)")
    if task is None and len(model.specs) == 1:
        return next(iter(model.specs))
    if task not in model.specs:
        given = "and none is given" if task is None else f"not {task!r}"
        raise InputError(f"task must be one of {', '.join(sorted(model.specs))}, {given}")
    return task


def outputs_of(model: "Task", task: str, raws: Sequence[Any]) -> Tensor:
    """Raw signals, as `read_raw` gives them -> float32 outputs (B, ...) on the CPU."""
    spec = model.specs[task]
    batch = collate(task, spec, raws)
    raw, lengths = spec.raw(batch), batch.get("lengths")
    with torch.inference_mode(), in_eval_mode(model):
        raw = raw.to(model.device) if isinstance(raw, Tensor) else raw
        return model(task, raw, None if lengths is None else lengths.to(model.device)).float().cpu()


@contextmanager
def in_eval_mode(model: torch.nn.Module) -> Iterator[None]:
    """Every module in eval mode, and afterwards in the mode that it was in."""
    modes = [(module, module.training) for module in model.modules() if module.training]
    if modes:
        model.eval()
    try:
        yield
    finally:
        for module, mode in modes:
            module.training = mode


def predict(model: "Task", signals: Any, task: str | None, batch_size: int) -> Any:
    """See `Task.predict`."""
    if batch_size < 1:
        raise InputError(f"batch_size is {batch_size}; it must be 1 at least")
    task = choose_task(model, task)
    spec = model.specs[task]
    several = isinstance(signals, list)
    items = signals if several else [signals]
    found: list[Prediction] = []
    for start in range(0, len(items), batch_size):
        some = items[start : start + batch_size]
        raws = [read_raw(spec, spec.kind.item(one, **spec.preprocessing)) for one in some]
        found += [model.answer(task, row) for row in outputs_of(model, task, raws)]
    return found if several else found[0]
