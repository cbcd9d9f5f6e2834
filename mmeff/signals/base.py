"""The interface of a kind of signal."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from importlib import import_module
from pathlib import Path
from pkgutil import iter_modules
from typing import Any

from mmeff.errors import InputError, meant, shown

#: What the kind of a signal is called in checkpoints, and was in the results of comparisons.
FORMER_NAME = "modality"


@dataclass(frozen=True)
class Sheet:
    """How pictures of signals are laid out, in inches: columns, size of a picture, lines of caption above it."""

    columns: int
    width: float
    height: float
    captions: int = 2


class Signal(ABC):
    """What reading, batching, showing and measuring a kind of signal takes.

    `preprocessing` is what a data module fixed when it was trained on: plain values, saved in every checkpoint.

    unit         of a length, as "px"
    rate         of throughput, as "images/s"; where `by_length`, lengths are counted in place of signals
    target       the length that a comparison is asked about, and `question`, what it is called
    least        least difference between two lengths that matters
    whole        whether raw signals stay in float32 where a model is of half precision
    example      how `mmeff predict` is given one, as "FILE"
    strings      whether raw signals are strings, which are in memory and need no reading
    sheet        how pictures of it are laid out
    keys         names of the values of `preprocessing`
    features     what the simple baseline sees of it, and `penalties`, its inverse strengths, weakest last
    """

    name: str
    unit: str
    rate: str
    by_length: bool = False
    target: float
    question: str
    least: float
    whole: bool = False
    example: str = "FILE"
    strings: bool = False
    sheet: Sheet
    features: str
    penalties: tuple[float, ...]
    keys: tuple[str, ...]

    @abstractmethod
    def check(self, preprocessing: dict[str, Any], where: str) -> None:
        """InputError if values under `keys` are none that a data module gives; `where` is what they are called."""

    @abstractmethod
    def read(self, item: Any, **preprocessing: Any) -> Any:
        """The raw signal of an item of a source, or of a new file, prepared as in training. InputError if it cannot."""

    @abstractmethod
    def item(self, given: Any, **preprocessing: Any) -> Any:
        """What `read` takes, of what users have: paths, arrays, tensors. InputError says what to give."""

    @abstractmethod
    def suffixes(self) -> tuple[str, ...]:
        """Of the files that are read."""

    def items(self, path: str) -> list[str]:
        """What a file holds: one signal, unless it is one of lines."""
        return [path]

    @abstractmethod
    def collate(self, raws: Sequence[Any], **preprocessing: Any) -> tuple[Any, Any]:
        """Raw signals -> a batch, and their lengths (B,) int64 where batches are padded, else None."""

    def length(self, **preprocessing: Any) -> float:
        """Of a raw signal as it is trained on, the longest, in `unit`. Of strings a tokenizer says it."""
        raise NotImplementedError(f"Tokenizer.length says it of {self.name}")

    def random(self, length: float, batch: int, **preprocessing: Any) -> Any:
        """A batch of random raw signals of a length in `unit`, each of them full. Of strings a tokenizer makes it."""
        raise NotImplementedError(f"Tokenizer.random makes it of {self.name}")

    @abstractmethod
    def draw(self, ax: Any, raw: Any, width: float, **preprocessing: Any) -> str:
        """Draw one on matplotlib's axes of a width in inches; what stands after its name, as "0.55 s"."""

    def shape(self, raw: Any) -> float:
        """Height over width of its picture, as a factor of the sheet's height."""
        return 1.0

    @abstractmethod
    def compact(self, raw: Any, **preprocessing: Any) -> Any:
        """What the simple baseline keeps of one: the features that it gives by itself."""

    def featurise(self, kept: Sequence[Any]) -> Callable[[Sequence[Any]], Any]:
        """What makes rows of features (N, F) of kept signals, fitted to these: by default each is scaled to mean 0
        and variance 1."""
        import numpy as np
        from sklearn.preprocessing import StandardScaler

        scaler = StandardScaler().fit(np.stack(list(kept)))
        return lambda rows: np.asarray(scaler.transform(np.stack(list(rows))))


@cache
def names() -> tuple[str, ...]:
    """Of all kinds, as their modules are called."""
    found = iter_modules([str(Path(__file__).parent)])
    return tuple(module.name for module in found if not module.ispkg and module.name not in ("base", "spec"))


def of(name: str) -> Signal:
    """The kind of signal of this name. InputError if there is none."""
    if name not in names():
        raise InputError(f"there is no signal {name!r}: {meant(name, names())}")
    return import_module(f"mmeff.signals.{name}").SIGNAL


def padded(raws: Sequence[Any], step: int, most: int) -> tuple[Any, Any]:
    """Signals (S, ...) of different lengths -> (B, S, ...) with zeros behind each one's end, and the lengths (B,).

    S is the longest, rounded up to a multiple of `step` but not past `most`, so that the shapes of batches are few.
    """
    import torch

    lengths = torch.tensor([len(raw) for raw in raws])
    longest = int(lengths.max())
    batch = torch.zeros(len(raws), min(-(-longest // step) * step, max(longest, most)), *raws[0].shape[1:])
    for row, raw in zip(batch, raws, strict=True):
        row[: len(raw)] = raw
    return batch, lengths


def whole_number(value: Any, most: int) -> bool:
    return type(value) is int and 1 <= value <= most


def wrong(where: str, must: str, value: Any) -> InputError:
    """Of a checkpoint whose data are none that a data module gives."""
    inner = value if isinstance(value, list | tuple) and len(value) < 10 else [value]
    plain = all(isinstance(one, int | float | str | None) for one in inner)
    got = shown(repr(value)) if plain else type(value).__name__
    return InputError(f"the checkpoint does not say what its data are: {shown(where)}: {must}, not {got}")
