"""Examples: the table that every source of data gives, whatever it was read from."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any


@dataclass
class Examples:
    """N labelled examples.

    items   what a data module's `read` turns into a raw signal: a path, an array or a string
    labels  a class name each, or a tuple of class names each (multi-label)
    ids     a short name each, for messages and for the sheet of mistakes: a relative path, "line 17", "#123"
    split   "train", "val" or "test" each, where the source says so; None where it does not
    group   a key each (speaker, syllable, patient) that a split must not divide; None where there is none
    """

    items: Sequence[Any]
    labels: Sequence[str] | Sequence[tuple[str, ...]]
    ids: Sequence[str]
    split: Sequence[str] | None = None
    group: Sequence[str] | None = None

    def __len__(self) -> int:
        return len(self.labels)


class Source(ABC):
    """Where examples come from. A source reads tables, names and indexes, never the signals of all examples."""

    @abstractmethod
    def examples(self) -> Examples: ...
