"""Examples: the table that every source of data gives, whatever it was read from."""

import unicodedata
import warnings
from abc import ABC, abstractmethod
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from mmeff.errors import InputError


@dataclass
class Examples:
    """N labelled examples. InputError if they are not N each, or a label is no name.

    items   what a data module's `read` turns into a raw signal: a path, an array or a string
    labels  a class name each, or a tuple of class names each (multi-label); kept in Unicode's composed form (NFC),
            without white space around it
    ids     a short name each, for messages and for the sheet of mistakes: a relative path, "line 17", "#123"
    split   "train", "val" or "test" each, where the source says so; None where it does not
    group   a key each (speaker, syllable, patient) that a split must not divide, kept like labels; None where there
            is none
    """

    items: Sequence[Any]
    labels: Sequence[str] | Sequence[tuple[str, ...]]
    ids: Sequence[str]
    split: Sequence[str] | None = None
    group: Sequence[str] | None = None

    def __post_init__(self) -> None:
        for name in ("items", "ids", "split", "group"):
            column = getattr(self, name)
            if column is not None and len(column) != len(self.labels):
                raise InputError(f"Examples: {len(column)} {name} for {len(self.labels)} labels")
        known: dict[Any, Any] = {}
        self.labels = [_label(label, where, known) for where, label in zip(self.ids, self.labels, strict=True)]
        if self.group is not None:
            self.group = [unicodedata.normalize("NFC", str(key)).strip() for key in self.group]

    def __len__(self) -> int:
        return len(self.labels)


class Source(ABC):
    """Where examples come from. A source reads tables, names and indexes, never the signals of all examples."""

    @abstractmethod
    def examples(self) -> Examples: ...


def _label(label: Any, where: str, known: dict[Any, Any]) -> Any:
    """A label in its one form; `known` holds the forms of those met before."""
    try:
        if label in known:
            return known[label]
    except TypeError:
        pass  # no key: neither a string nor a tuple of strings
    if isinstance(label, str):
        known[label] = _class_name(label, where)
    elif isinstance(label, tuple) and all(isinstance(one, str) for one in label):
        known[label] = tuple(dict.fromkeys(_class_name(one, where) for one in label))
    else:
        raise InputError(f"{where}: the label {label!r} is no class name: give a string, or a tuple of strings")
    return known[label]


def _class_name(label: str, where: str) -> str:
    # A lone surrogate stands for a byte of a file name that is not UTF-8; no file or terminal could take it.
    name = unicodedata.normalize("NFC", label.encode(errors="backslashreplace").decode()).strip()
    if not name:
        raise InputError(f"{where}: the label is empty: fill it in or take the example out")
    if any(unicodedata.category(character) == "Cc" for character in name):
        where = where if where.isprintable() else repr(where)
        raise InputError(f"{where}: the label {name!r} has a control character: name classes in one line of text")
    return name


def warn_of_shared(examples: Examples) -> None:
    """Warn of items (paths) that are in two splits, or have two labels."""
    splits, labels = defaultdict(set), defaultdict(set)
    for i, item in enumerate(examples.items):
        labels[item].add(examples.labels[i])
        if examples.split is not None:
            splits[item].add(examples.split[i])
    for places, what in ((splits, "two splits"), (labels, "two classes")):
        shared = [(item, place) for item, place in places.items() if len(place) > 1]
        if shared:
            item, place = shared[0]
            among = " and ".join(map(str, sorted(place)))
            warnings.warn(f"{len(shared)} files are in {what}, such as {item} in {among}", stacklevel=2)
