"""Which examples are trained on, which choose the model, which judge it."""

import random
import warnings
from abc import ABC, abstractmethod
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence

from mmeff.data.examples import Examples
from mmeff.errors import InputError, meant, within

Division = dict[str, list[int]]


class SplitRule(ABC):
    """Divides the examples of a source."""

    @abstractmethod
    def divide(self, examples: Examples) -> Division:
        """{"train": indices, "val": indices, "test": indices}, disjoint, ascending. InputError if a split is empty."""

    def classes(self, examples: Examples, division: Division) -> tuple[str, ...]:
        """The names of the classes, by their numbers: of train, in natural order."""
        return class_names(examples, division)


class AsGiven(SplitRule):
    """The source's own split; `val` is cut from train if there is none, all three are if it says nothing.

    A source that names train and val alone has no test split. Groups are ignored: the source has decided.

    Args:
        val: Fraction of train (stratified by class) that becomes val where the source has none.
        seed: Chooses the examples that are cut out.
    """

    def __init__(self, val: float = 0.1, seed: int = 0):
        _check_fractions(val)
        self.val, self.seed = val, seed

    def divide(self, examples: Examples) -> Division:
        if examples.split is None:
            return ByRatio(val=self.val, seed=self.seed).divide(examples)
        given: Division = {"train": [], "val": [], "test": []}
        for i, name in enumerate(examples.split):
            given[name].append(i)
        _require(given, ["train"])
        if not given["val"] and self.val > 0:
            cut = _stratified(given["train"], examples.labels, {"val": self.val}, self.seed)
            given["train"], given["val"] = cut["train"], cut["val"]
            _require(given, ["val"])
        return given


class ByRatio(SplitRule):
    """A random split, stratified: each class gives at least one example to each split as long as train keeps one.

    Multi-label examples are stratified by the rarest of their labels, and one that holds a label which train lacks
    goes to train.

    Args:
        val: Fraction of the examples that choose the model.
        test: Fraction of the examples that judge it.
        seed: Chooses the examples.
    """

    def __init__(self, val: float = 0.1, test: float = 0.1, seed: int = 0):
        _check_fractions(val, test)
        self.val, self.test, self.seed = val, test, seed

    def divide(self, examples: Examples) -> Division:
        if self.val + self.test > 0:
            _require_two_of_each(examples)
        fractions = {"test": self.test, "val": self.val}
        parts = _stratified(range(len(examples)), examples.labels, fractions, self.seed)
        return _require(parts, ["train", *(name for name, fraction in fractions.items() if fraction > 0)])


class ByGroup(SplitRule):
    """A random split that divides no group (speaker, patient): the test hears speakers that training never heard.

    Args:
        val: Fraction of the examples that choose the model; at least one group.
        test: Fraction of the examples that judge it; at least one group.
        seed: Chooses the groups.
    """

    def __init__(self, val: float = 0.1, test: float = 0.1, seed: int = 0):
        _check_fractions(val, test)
        self.val, self.test, self.seed = val, test, seed

    def divide(self, examples: Examples) -> Division:
        if examples.group is None:
            raise InputError("ByGroup needs a group for each example: name the source's group column or pattern group")
        members: dict[str, list[int]] = defaultdict(list)
        for i, group in enumerate(examples.group):
            members[group].append(i)
        wanted = {name: fraction for name, fraction in (("test", self.test), ("val", self.val)) if fraction > 0}
        if len(members) < 1 + len(wanted):
            raise InputError(
                f"ByGroup cannot cut {len(members)} group(s) into train, {', '.join(wanted)}: "
                f"it takes {1 + len(wanted)} groups at least, or use ByRatio"
            )
        waiting = sorted(members)
        random.Random(self.seed).shuffle(waiting)
        parts: Division = {"train": [], "val": [], "test": []}
        for place, (name, fraction) in enumerate(wanted.items()):
            still_to_serve = len(wanted) - place
            for group in list(waiting):
                fits = len(parts[name]) + len(members[group]) <= fraction * len(examples)
                if len(waiting) > still_to_serve and (fits or not parts[name]):
                    parts[name] += members[group]
                    waiting.remove(group)
        parts["train"] = [i for group in waiting for i in members[group]]
        return {name: sorted(rows) for name, rows in parts.items()}


class AllTest(SplitRule):
    """Every example judges a model that was trained elsewhere, whatever split the source names.

    Args:
        known: The model's classes.
    """

    def __init__(self, known: tuple[str, ...]):
        self.known = known

    def divide(self, examples: Examples) -> Division:
        return {"train": [], "val": [], "test": list(range(len(examples)))}

    def classes(self, examples: Examples, division: Division) -> tuple[str, ...]:
        known = set(self.known)
        for name, label in zip(examples.ids, examples.labels, strict=True):
            for one in _labels_of(label):
                if one not in known:
                    raise InputError(f"label {one!r} of {name} is no class of the model: {meant(one, self.known)}")
        return self.known


def class_names(examples: Examples, division: Division) -> tuple[str, ...]:
    """The labels of train in natural order. InputError if val or test has another, or if there is nothing to tell."""
    trained = {label for i in division["train"] for label in _labels_of(examples.labels[i])}
    for split in ("val", "test"):
        for i in division[split]:
            for label in _labels_of(examples.labels[i]):
                if label not in trained:
                    alike = [f", where it is {name!r}" for name in trained if name.casefold() == label.casefold()]
                    raise InputError(
                        f"label {label!r} of {examples.ids[i]} is in the {split} split and never in train"
                        f"{''.join(alike[:1])}; give train an example of it, correct the label, or split by ratio"
                    )
    if not trained or (len(trained) == 1 and isinstance(examples.labels[0], str)):
        raise InputError(f"the training split has {len(trained)} class(es) {sorted(trained)}: give two at least")
    classes = tuple(sorted(trained, key=_natural))
    first: dict[str, str] = {}
    for name in classes:
        if (other := first.setdefault(name.casefold(), name)) != name:
            warnings.warn(f"the classes {other!r} and {name!r} differ in capitals alone: are they one?", stacklevel=2)
    return classes


def _natural(name: str) -> tuple[int, int, str, str]:
    """9 before 10, numbers before names; by digits, as Python refuses integers of more than 4300."""
    digits = name.lstrip("0")
    return (0, len(digits), digits, name) if name.isascii() and name.isdecimal() else (1, 0, "", name)


def _labels_of(label: str | tuple[str, ...]) -> tuple[str, ...]:
    return (label,) if isinstance(label, str) else label


def _stratified(
    indices: Iterable[int], labels: Sequence[str] | Sequence[tuple[str, ...]], fractions: dict[str, float], seed: int
) -> Division:
    """indices in strata, each cut by `fractions`; what remains, one example of each stratum at least, is train."""
    indices = list(indices)
    counts = Counter(label for i in indices for label in _labels_of(labels[i]))
    strata: dict[str, list[int]] = defaultdict(list)
    for i in indices:
        strata[min(_labels_of(labels[i]), key=lambda label: (counts[label], label), default="")].append(i)
    rng = random.Random(seed)
    parts: Division = {"train": [], "val": [], "test": []}
    for name in sorted(strata):
        rows = strata[name]
        rng.shuffle(rows)
        size = len(rows)
        for split, fraction in fractions.items():
            take = min(max(1, round(fraction * size)), len(rows) - 1) if fraction > 0 else 0
            parts[split] += rows[:take]
            rows = rows[take:]
        parts["train"] += rows
    trained = {label for i in parts["train"] for label in _labels_of(labels[i])}
    for split in fractions:
        for i in list(parts[split]):
            if not trained.issuperset(_labels_of(labels[i])):
                parts[split].remove(i)
                parts["train"].append(i)
                trained.update(_labels_of(labels[i]))
    return {name: sorted(rows) for name, rows in parts.items()}


def _require_two_of_each(examples: Examples) -> None:
    counts = Counter(label for label in examples.labels if isinstance(label, str))
    for i, label in enumerate(examples.labels):
        if isinstance(label, str) and counts[label] == 1:
            raise InputError(
                f"class {label!r} has one example ({examples.ids[i]}), which cannot be both trained on and tested: "
                "add examples or leave the class out"
            )


def _require(division: Division, names: list[str]) -> Division:
    for name in names:
        if not division[name]:
            raise InputError(f"the {name} split is empty: give it examples, or use another split rule or fraction")
    return division


def _check_fractions(*fractions: float) -> None:
    for fraction in fractions:
        within("[0, 1)", **{"a fraction of the split (val, test)": fraction})
    if sum(fractions) >= 1:
        raise InputError(f"the split's fractions {fractions} must leave something to train on")
