"""What a trained model says of new signals."""

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from mmeff.errors import InputError
from mmeff.spec import DataSpec

if TYPE_CHECKING:
    from mmeff.tasks.classify import Classification


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


def choose_task(model: "Classification", task: str | None) -> str:
    """The name of the head to ask. InputError if there are several and none is named."""
    if not model.specs:
        raise InputError("this model has not been trained: it knows no classes. Take one from mmeff.load(run)")
    if task is None and len(model.specs) == 1:
        return next(iter(model.specs))
    if task not in model.specs:
        given = "and none is given" if task is None else f"not {task!r}"
        raise InputError(f"task must be one of {', '.join(sorted(model.specs))}, {given}")
    return task


def as_item(signal: Any, spec: DataSpec) -> Any:
    """What `read_raw` takes, of what users have at hand: paths, arrays, tensors, Pillow's images."""
    if spec.modality == "text":
        if isinstance(signal, os.PathLike):
            raise InputError(
                f"this model reads texts: give strings, not the path {os.fspath(signal)!r}. "
                "mmeff.data.text.text_lines(path) gives the lines of a file"
            )
        if not isinstance(signal, str):
            raise InputError(f"this model reads texts: give strings, not {type(signal).__name__}")
        return signal
    if isinstance(signal, str | os.PathLike):
        return signal
    if spec.modality == "audio":
        if not (isinstance(signal, tuple) and len(signal) == 2):
            raise InputError(
                "this model reads sounds: give a path, or a pair (waveform, sample rate), "
                f"not {type(signal).__name__}; several of them in a list"
            )
        wave, rate = signal
        return (wave.detach().cpu().numpy() if isinstance(wave, Tensor) else wave), rate
    if isinstance(signal, Tensor):
        return signal.detach().cpu().numpy()
    if hasattr(signal, "convert") and hasattr(signal, "mode"):  # one of Pillow's images
        import numpy as np

        return np.asarray(signal.convert("L" if spec.preprocessing["channels"] == 1 else "RGB"))
    return signal


def logits_of(model: "Classification", task: str, raws: Sequence[Any]) -> Tensor:
    """Raw signals, as `read_raw` gives them -> float32 logits (B, K) on the CPU."""
    from mmeff.data import collate

    spec = model.specs[task]
    batch = collate(task, spec, raws)
    raw, lengths = batch[spec.modality], batch.get("lengths")
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


def predict(model: "Classification", signals: Any, task: str | None, batch_size: int) -> Any:
    """See `Classification.predict`."""
    from mmeff.data import read_raw

    if batch_size < 1:
        raise InputError(f"batch_size is {batch_size}; it must be 1 at least")
    task = choose_task(model, task)
    spec = model.specs[task]
    several = isinstance(signals, list)
    items = signals if several else [signals]
    found: list[Prediction] = []
    for start in range(0, len(items), batch_size):
        raws = [read_raw(spec, as_item(item, spec)) for item in items[start : start + batch_size]]
        found += [Prediction.of(row, spec) for row in logits_of(model, task, raws)]
    return found if several else found[0]
