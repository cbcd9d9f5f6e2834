"""Objects out of plain values: `class_path` and `init_args`, checked against signatures, at any depth.

Recipes, checkpoints and comparisons are built here and nowhere else. A checkpoint may come from anybody: of those, a
`class_path` is looked up among the parts of mmeff and never imported, no string is parsed and no file opened. What the
user writes may name any class that Python can import.
"""

import collections.abc
import importlib
import inspect
import math
import os
import re
import types
import typing
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from enum import Enum
from functools import cache, partial
from pathlib import Path
from typing import Any, Literal

from torch import nn

from mmeff.errors import InputError, meant, shown

#: What they export is what a checkpoint may name.
PARTS = (
    "mmeff.tokenizers",
    "mmeff.mixers",
    "mmeff.feedforward",
    "mmeff.backbones",
    "mmeff.heads",
    "mmeff.tasks",
)
#: Most values of a checkpoint's recipe, entries of a list, levels, and characters of a string.
VALUES, ENTRIES, LEVELS, CHARACTERS = 20_000, 1_000, 40, 1_000

#: How errors begin, of what the user wrote.
FAILED = "the recipe cannot be built"
#: As YAML 1.1 leaves them in recipes: `lr: 1e-3` is a string there.
NUMBER = re.compile(r"[-+]?\d{1,18}(\.\d{0,18})?([eE][-+]?\d{1,3})?", re.ASCII)


def build(base: type, given: Any, where: str, trust: Sequence[str] | None = None, failed: str = FAILED) -> Any:
    """An object of a class under `base`.

    given   a mapping with `class_path` and `init_args`, or the name of a class alone
    where   the key of these values, for errors
    trust   packages beside mmeff whose classes, and functions annotated to return one, may be named in full; None: any
    failed  how errors begin

    InputError names the key of a value that does not belong there.
    """
    return Builder(trust, failed).instance(base, given, where)


@cache
def parts() -> dict[str, Any]:
    """Classes of mmeff, and functions that return one, by all of their names: as exported, as defined, and short."""
    found = {}
    for package in PARTS:
        module = importlib.import_module(package)
        for name in module.__all__:
            part = getattr(module, name)
            if inspect.isclass(part) or inspect.isfunction(part):
                found |= dict.fromkeys((name, f"{package}.{name}", f"{part.__module__}.{name}"), part)
    return found


class Builder:
    """Turns values into what a signature asks for, by its type hints. `where` is the key of a value, for errors."""

    def __init__(self, trust: Sequence[str] | None, failed: str):
        self.trusted = (trust,) if isinstance(trust, str) else None if trust is None else tuple(trust)
        self.failed = failed
        # What the user wrote may be as large as it is: a pattern, the names of a table's columns.
        bounds = (VALUES, ENTRIES, LEVELS, CHARACTERS) if self.trusted is not None else (math.inf,) * 4
        self.most_values, self.entries, self.levels, self.characters = bounds
        self.values = self.level = 0

    def unfit(self, where: str, wanted: str, given: Any) -> "Misfit":
        plain = given is None or isinstance(given, bool | int | float | str)
        got = shown(repr(given) if plain else type(given).__name__)
        return self.misfit(where, f"expected {wanted}, got {got}")

    def misfit(self, where: str, reason: str, inside: int = 0) -> "Misfit":
        depth = where.count(".") + where.count("[") + inside
        return Misfit(f"{self.failed}: {shown(where)}: {reason}", depth)

    def impossible(self, reason: str) -> InputError:
        return InputError(f"{self.failed}: {reason}")

    @contextmanager
    def said_of(self, where: str) -> Iterator[None]:
        """Errors of a class, which may refuse its values as it likes, as an InputError."""
        try:
            yield
        except InputError:
            raise
        except Exception as error:
            reason = " ".join(str(error).split())[:300] or type(error).__name__
            raise self.misfit(where, reason) from error

    def value(self, hint: Any, given: Any, where: str) -> Any:
        """`given` as a `hint`. InputError if it is none."""
        self.values += 1
        if self.values > self.most_values or self.level > self.levels:
            raise self.impossible(f"{shown(where)} goes past {VALUES} values or {LEVELS} levels")
        self.level += 1
        try:
            return self._value(hint, given, where)
        finally:
            self.level -= 1

    def _value(self, hint: Any, given: Any, where: str) -> Any:
        origin, arguments = typing.get_origin(hint), typing.get_args(hint)
        if hint in (Any, inspect.Parameter.empty):
            return self.plain(given, where)
        if origin in (typing.Union, types.UnionType):
            return self.member(arguments, given, where)
        if hint in (None, types.NoneType) or origin is Literal:
            choices = arguments or (None,)
            if not any(type(given) is type(choice) and given == choice for choice in choices):
                raise self.unfit(where, "one of " + ", ".join(map(repr, choices)), given)
            return given
        if hint in (bool, int, float, str):
            return self.scalar(hint, given, where)
        if origin is collections.abc.Callable:
            taken, result = arguments or ((), None)
            return self.factory(result, len(taken) if isinstance(taken, list) else 0, given, where)
        if (origin or hint) in (list, tuple, collections.abc.Sequence):
            return self.row(origin or hint, arguments, given, where)
        if (origin or hint) is dict:
            inner = arguments[1] if arguments else Any
            return {key: self.value(inner, one, f"{where}.{key}") for key, one in self.mapping(given, where).items()}
        if hint in (Path, os.PathLike):
            return Path(self.scalar(str, given, where))
        if inspect.isclass(hint) and issubclass(hint, Enum):
            if not isinstance(given, str) or given not in hint.__members__:
                raise self.unfit(where, f"one of {', '.join(hint.__members__)}", given)
            return hint[given]
        for kind in (int, float, str):  # restricted numbers and strings, as jsonargparse.typing has them
            if inspect.isclass(hint) and issubclass(hint, kind):
                with self.said_of(where):
                    return hint(self.scalar(kind, given, where))
        if inspect.isclass(hint):
            return self.instance(hint, given, where)
        return self.plain(given, where)

    def scalar(self, hint: type, given: Any, where: str) -> Any:
        if hint in (int, float) and isinstance(given, str) and NUMBER.fullmatch(given):
            given = int(given) if given.lstrip("+-").isdigit() else float(given)
        if isinstance(given, int) and abs(given) >= 2**63:
            raise self.unfit(where, "a number that fits into 64 bits", given)
        if isinstance(given, float) and not math.isfinite(given):
            raise self.unfit(where, "a finite number", given)
        if hint is float and type(given) is int:
            given = float(given)
        if type(given) is not hint:
            raise self.unfit(where, hint.__name__, given)
        if isinstance(given, str) and len(given) > self.characters:
            raise self.unfit(where, f"at most {CHARACTERS} characters", given)
        return given

    def member(self, hints: Sequence[Any], given: Any, where: str) -> Any:
        """Of a union, the first that fits; else the error that came from furthest inside."""
        errors = []
        for hint in hints:
            try:
                return self.value(hint, given, where)
            except Misfit as error:
                errors.append(error)
        raise max(errors, key=lambda error: error.depth)

    def row(self, kind: Any, hints: tuple[Any, ...], given: Any, where: str) -> Any:
        if not isinstance(given, list | tuple):
            raise self.unfit(where, "a list", given)
        if len(given) > self.entries:
            raise self.unfit(where, f"at most {ENTRIES} entries", given)
        if kind is tuple and hints and hints[-1] is not Ellipsis:
            if len(given) != len(hints):
                raise self.unfit(where, f"{len(hints)} values", given)
        else:
            hints = (hints[0] if hints else Any,) * len(given)
        found = [self.value(h, one, f"{where}[{i}]") for i, (h, one) in enumerate(zip(hints, given, strict=True))]
        return tuple(found) if kind is tuple else found

    def mapping(self, given: Any, where: str) -> dict[str, Any]:
        if not isinstance(given, dict) or not all(isinstance(key, str) for key in given):
            raise self.unfit(where, "a mapping", given)
        if len(given) > self.entries or any(len(key) > self.characters for key in given):
            raise self.unfit(where, f"at most {ENTRIES} keys of {CHARACTERS} characters", given)
        return given

    def plain(self, given: Any, where: str) -> Any:
        """A value whose type no signature says."""
        if isinstance(given, dict):
            return {k: self.value(Any, v, f"{where}.{k}") for k, v in self.mapping(given, where).items()}
        if isinstance(given, list | tuple):
            return self.row(list, (), given, where)
        if type(given) not in (bool, int, float, str, types.NoneType):
            raise self.unfit(where, "a plain value", given)
        return None if given is None else self.scalar(type(given), given, where)

    def factory(self, base: Any, taken: int, given: Any, where: str) -> Callable[..., Any]:
        """A class under `base` with all but its first arguments, which are given later."""
        part, arguments = self.named(base, given, where)
        return partial(part, **self.arguments(part, arguments, where, taken))

    def instance(self, base: type, given: Any, where: str) -> Any:
        """An object of a class under `base`; of `base` itself where no class is named."""
        part, arguments = self.named(base, given, where)
        found = self.arguments(part, arguments, where, 0)
        with self.said_of(where):
            return part(**found)

    def named(self, base: Any, given: Any, where: str) -> tuple[Any, dict[str, Any]]:
        """-> the class or function that a value names, and its arguments."""
        if isinstance(given, str):
            return self.find(given, base, where), {}
        given = self.mapping(given, where)
        if "class_path" not in given:
            if not inspect.isclass(base) or inspect.isabstract(base):
                raise self.unfit(where, "a class_path", given)
            return base, given
        for key in given:
            if key not in ("class_path", "init_args", "dict_kwargs"):
                raise self.misfit(where, f"unknown key {shown(key)!r} beside class_path")
        part, arguments = self.find(given["class_path"], base, where), given.get("init_args")
        arguments = {} if arguments is None else self.mapping(arguments, f"{where}.init_args")
        further = given.get("dict_kwargs")
        return part, {**arguments, **(self.mapping(further, f"{where}.dict_kwargs") if further else {})}

    def find(self, name: Any, base: Any, where: str) -> Any:
        if not isinstance(name, str) or len(name) > CHARACTERS or not all(p.isidentifier() for p in name.split(".")):
            raise self.unfit(where, "the name of a class", name)
        part = parts().get(name)
        if part is None:
            part = self.imported(name)
        made = type_hints(part).get("return") if inspect.isfunction(part) else part
        known = inspect.isclass(base) and inspect.isclass(made) and issubclass(made, base)
        if not known or (made is part and inspect.isabstract(made)):
            raise self.misfit(where, f"{shown(name)} is no {getattr(base, '__name__', base)} that can be built", 1)
        return part

    def imported(self, name: str) -> Any:
        """A class or function that a trusted package defines."""
        module, _, attribute = name.rpartition(".")
        if self.trusted is None:
            return self.attribute(module, attribute)
        package = next((p for p in self.trusted if f"{name}.".startswith(f"{p}.")), None)
        if package is None and name.split(".")[0] in ("mmeff", attribute):
            raise self.impossible(f"it asks to build {shown(name)}, which is no part of a model of mmeff")
        if package is None:
            top = shown(name.partition(".")[0])
            raise InputError(
                f"the checkpoint asks to build {shown(name)}: if you trust that package, "
                f"say mmeff.load(path, trust=[{top!r}]) or --trust {top}"
            )
        found = self.attribute(module, attribute)
        defined = f"{getattr(found, '__module__', '')}."
        if not any(defined.startswith(f"{p}.") for p in self.trusted) and found not in parts().values():
            raise self.impossible(f"{shown(name)} is not defined in {package}, the package that is trusted")
        return found

    def attribute(self, module: str, name: str) -> Any:
        """What a module holds under a name."""
        try:
            found = getattr(importlib.import_module(module), name, None)
        except Exception as error:  # of the package's own code
            raise self.impossible(f"{shown(f'{module}.{name}')} cannot be imported: {error}") from error
        if found is None:
            raise self.impossible(f"{shown(module)} has no {shown(name)}")
        return found

    def arguments(self, part: Any, given: dict[str, Any], where: str, taken: int) -> dict[str, Any]:
        """What a class or function is called with, beyond its first `taken` arguments."""
        accepted = hints_of(part)
        free = list(accepted)[taken:]
        for key in given:
            if key not in free and not takes_more(part):
                hint = meant(key, free, f"it takes {', '.join(sorted(free)) or 'nothing'}")
                raise self.misfit(where, f"unknown key {shown(key)!r} in {part.__name__}: {hint}")
        parameters = inspect.signature(part).parameters
        return {
            key: self.value(accepted.get(key, Any), one, f"{where}.{key}")
            for key, one in given.items()
            if key not in parameters or not names(one, parameters[key].default)
        }


def names(given: Any, default: Any) -> bool:
    """Whether a value is the name of a function or class of another package that is the default in any case."""
    path = given.get("class_path") if isinstance(given, dict) and len(given) == 1 else given
    package = str(getattr(default, "__module__", "")).partition(".")[0]
    if not isinstance(path, str) or package in ("", "mmeff"):
        return False
    return path.startswith(f"{package}.") and path.rpartition(".")[2] == getattr(default, "__name__", None)


def hints_of(part: Any) -> dict[str, Any]:
    """Names and type hints of what a class or function takes; through **kwargs, what its base classes do."""
    found: dict[str, Any] = {}
    for owner in part.__mro__ if inspect.isclass(part) else (part,):
        function = owner.__dict__.get("__init__") if inspect.isclass(owner) else owner
        if not inspect.isfunction(function):
            continue
        hints, signature = type_hints(function), inspect.signature(function)
        names = [p for p in signature.parameters.values() if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)]
        for p in names[1:] if inspect.isclass(owner) else names:
            found.setdefault(p.name, hints.get(p.name, Any))
        if owner is nn.Module or all(p.kind is not p.VAR_KEYWORD for p in signature.parameters.values()):
            break
    return found


def type_hints(function: Any) -> dict[str, Any]:
    try:
        return typing.get_type_hints(function)
    except Exception:  # names that stand in the user's module for type checkers alone
        return {}


def takes_more(part: Any) -> bool:
    return any(p.kind is p.VAR_KEYWORD for p in inspect.signature(part).parameters.values())


class Misfit(InputError):
    """A value that is not what its place asks for; another member of a union may take it."""

    def __init__(self, message: str, depth: int):
        super().__init__(message)
        self.depth = depth
