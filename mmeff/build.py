"""The model that a checkpoint describes: plain values of a closed grammar, checked against signatures and built here.

A file may come from anybody. A `class_path` is looked up among the parts of mmeff, never imported; no string is
parsed, no file opened, and what is built holds no more than the file's own weights. Recipes of the user's own are
built by jsonargparse instead (`mmeff.cli`, `mmeff.compare`), which imports any name and opens files.
"""

import collections.abc
import importlib
import inspect
import math
import re
import types
import typing
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import cache, partial
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map

from mmeff.errors import InputError, meant, shown
from mmeff.spec import DataSpec
from mmeff.tasks import Classification

#: What they export is what a checkpoint may name.
PARTS = (
    "mmeff.tokenizers",
    "mmeff.mixers",
    "mmeff.feedforward",
    "mmeff.backbones",
    "mmeff.heads",
    "mmeff.tasks",
)
#: Most values of a recipe, entries of a list, levels, and characters of a string.
VALUES, ENTRIES, LEVELS, CHARACTERS = 20_000, 1_000, 40, 1_000

MISFIT = "the checkpoint's recipe does not fit this version of mmeff"
LARGER = f"{MISFIT}: it describes a model that is larger than the checkpoint's weights"
#: As YAML 1.1 leaves them in recipes: `lr: 1e-3` is a string there.
NUMBER = re.compile(r"[-+]?\d{1,18}(\.\d{0,18})?([eE][-+]?\d{1,3})?", re.ASCII)


def build(recipe: Any, specs: dict[str, DataSpec], state: dict[str, Any], trust: Sequence[str] = ()) -> Classification:
    """The untrained model that a checkpoint's recipe describes.

    specs  the data it was trained on, which say its heads
    state  the checkpoint's weights: building stops as soon as it takes more than they do
    trust  further packages whose classes, and functions annotated to return one, the recipe may name in full

    InputError names the key of a value that does not belong there.
    """
    with warnings.catch_warnings(), Budget(state):
        warnings.simplefilter("ignore")  # of torch, on values that are then refused
        model = Builder(trust).instance(Classification, recipe, "model")
        with said_of("model"):
            model.prepare(specs)
    model.recipe = recipe
    return model


class Budget(TorchDispatchMode):
    """Bounds the tensors that are made within it, before they are, by those of `state`.

    Building a recipe's model makes up to 3 times the numbers of its weights, and 700,000 for a spectrogram, in up to
    10 operations per tensor; a class of the user's may take a few times as many.
    """

    def __init__(self, state: dict[str, Any]):
        super().__init__()
        tensors = [value for value in state.values() if isinstance(value, Tensor)]
        self.numbers = 12 * sum(tensor.numel() for tensor in tensors) + 2**24
        self.operations = 40 * len(tensors) + 2_000

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        made = () if func._schema.is_mutable else tree_leaves(shapes_of(func, args, kwargs))
        self.operations -= 1
        self.numbers -= sum(x.numel() for x in made if isinstance(x, Tensor))
        if self.operations < 0 or self.numbers < 0:
            raise InputError(LARGER)
        return func(*args, **kwargs)


def shapes_of(func: Any, args: Any, kwargs: Any) -> Any:
    """The results of an operation as tensors without numbers; None where they depend on numbers, and are no larger."""
    if {torch.Tag.data_dependent_output, torch.Tag.dynamic_output_shape} & set(func.tags):
        return None
    if any(argument.name == "device" for argument in func._schema.arguments):
        kwargs = {**kwargs, "device": "meta"}
        kwargs.pop("pin_memory", None)
    args, kwargs = tree_map(lambda x: x.to("meta") if isinstance(x, Tensor) else x, (args, kwargs))
    try:
        return func(*args, **kwargs)
    except NotImplementedError:  # an operation of the user's own
        return None


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

    def __init__(self, trust: Sequence[str]):
        self.trusted = (trust,) if isinstance(trust, str) else tuple(trust)
        self.values = self.level = 0

    def value(self, hint: Any, given: Any, where: str) -> Any:
        """`given` as a `hint`. InputError if it is none."""
        self.values += 1
        if self.values > VALUES or self.level > LEVELS:
            raise InputError(f"{MISFIT}: {shown(where)} goes past {VALUES} values or {LEVELS} levels")
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
                raise unfit(where, "one of " + ", ".join(map(repr, choices)), given)
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
        if inspect.isclass(hint):
            return self.instance(hint, given, where)
        return self.plain(given, where)

    def scalar(self, hint: type, given: Any, where: str) -> Any:
        if hint in (int, float) and isinstance(given, str) and NUMBER.fullmatch(given):
            given = int(given) if given.lstrip("+-").isdigit() else float(given)
        if isinstance(given, int) and abs(given) >= 2**63:
            raise unfit(where, "a number that fits into 64 bits", given)
        if isinstance(given, float) and not math.isfinite(given):
            raise unfit(where, "a finite number", given)
        if hint is float and type(given) is int:
            given = float(given)
        if type(given) is not hint:
            raise unfit(where, hint.__name__, given)
        if isinstance(given, str) and len(given) > CHARACTERS:
            raise unfit(where, f"at most {CHARACTERS} characters", given)
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
            raise unfit(where, "a list", given)
        if len(given) > ENTRIES:
            raise unfit(where, f"at most {ENTRIES} entries", given)
        if kind is tuple and hints and hints[-1] is not Ellipsis:
            if len(given) != len(hints):
                raise unfit(where, f"{len(hints)} values", given)
        else:
            hints = (hints[0] if hints else Any,) * len(given)
        found = [self.value(h, one, f"{where}[{i}]") for i, (h, one) in enumerate(zip(hints, given, strict=True))]
        return tuple(found) if kind is tuple else found

    def mapping(self, given: Any, where: str) -> dict[str, Any]:
        if not isinstance(given, dict) or not all(isinstance(key, str) for key in given):
            raise unfit(where, "a mapping", given)
        if len(given) > ENTRIES or any(len(key) > CHARACTERS for key in given):
            raise unfit(where, f"at most {ENTRIES} keys of {CHARACTERS} characters", given)
        return given

    def plain(self, given: Any, where: str) -> Any:
        """A value whose type no signature says."""
        if isinstance(given, dict):
            return {k: self.value(Any, v, f"{where}.{k}") for k, v in self.mapping(given, where).items()}
        if isinstance(given, list | tuple):
            return self.row(list, (), given, where)
        if type(given) not in (bool, int, float, str, types.NoneType):
            raise unfit(where, "a plain value", given)
        return None if given is None else self.scalar(type(given), given, where)

    def factory(self, base: Any, taken: int, given: Any, where: str) -> Callable[..., Any]:
        """A class under `base` with all but its first arguments, which are given later."""
        part, arguments = self.named(base, given, where)
        return partial(part, **self.arguments(part, arguments, where, taken))

    def instance(self, base: type, given: Any, where: str) -> Any:
        """An object of a class under `base`; of `base` itself where no class is named."""
        part, arguments = self.named(base, given, where)
        found = self.arguments(part, arguments, where, 0)
        with said_of(where):
            return part(**found)

    def named(self, base: Any, given: Any, where: str) -> tuple[Any, dict[str, Any]]:
        """-> the class or function that a value names, and its arguments."""
        if isinstance(given, str):
            return self.find(given, base, where), {}
        given = self.mapping(given, where)
        if "class_path" not in given:
            if not inspect.isclass(base) or inspect.isabstract(base) or base is Classification:
                raise unfit(where, "a class_path", given)
            return base, given
        for key in given:
            if key not in ("class_path", "init_args", "dict_kwargs"):
                raise Misfit(where, f"unknown key {shown(key)!r} beside class_path")
        part, arguments = self.find(given["class_path"], base, where), given.get("init_args")
        arguments = {} if arguments is None else self.mapping(arguments, f"{where}.init_args")
        further = given.get("dict_kwargs")
        return part, {**arguments, **(self.mapping(further, f"{where}.dict_kwargs") if further else {})}

    def find(self, name: Any, base: Any, where: str) -> Any:
        if not isinstance(name, str) or len(name) > CHARACTERS or not all(p.isidentifier() for p in name.split(".")):
            raise unfit(where, "the name of a class", name)
        part = parts().get(name)
        if part is None:
            part = self.imported(name)
        made = type_hints(part).get("return") if inspect.isfunction(part) else part
        known = inspect.isclass(base) and inspect.isclass(made) and issubclass(made, base)
        if not known or (made is part and inspect.isabstract(made)):
            raise Misfit(where, f"{shown(name)} is no {getattr(base, '__name__', base)} that can be built", 1)
        return part

    def imported(self, name: str) -> Any:
        """A class or function that a trusted package defines."""
        module, _, attribute = name.rpartition(".")
        package = next((p for p in self.trusted if f"{name}.".startswith(f"{p}.")), None)
        if package is None and name.split(".")[0] in ("mmeff", attribute):
            raise InputError(f"{MISFIT}: it asks to build {shown(name)}, which is no part of a model of mmeff")
        if package is None:
            top = shown(name.partition(".")[0])
            raise InputError(
                f"the checkpoint asks to build {shown(name)}: if you trust that package, "
                f"say mmeff.load(path, trust=[{top!r}]) or --trust {top}"
            )
        try:
            found = vars(importlib.import_module(module)).get(attribute)
        except Exception as error:  # of the package's own code
            raise InputError(f"{MISFIT}: {shown(name)} cannot be imported: {error}") from error
        if found is None:
            raise InputError(f"{MISFIT}: {shown(module)} has no {shown(attribute)}")
        defined = f"{getattr(found, '__module__', '')}."
        if not any(defined.startswith(f"{p}.") for p in self.trusted) and found not in parts().values():
            raise InputError(f"{MISFIT}: {shown(name)} is not defined in {package}, the package that is trusted")
        return found

    def arguments(self, part: Any, given: dict[str, Any], where: str, taken: int) -> dict[str, Any]:
        """What a class or function is called with, beyond its first `taken` arguments."""
        accepted = hints_of(part)
        free = list(accepted)[taken:]
        for key in given:
            if key not in free and not takes_more(part):
                hint = meant(key, free, f"it takes {', '.join(sorted(free)) or 'nothing'}")
                raise Misfit(where, f"unknown key {shown(key)!r} in {part.__name__}: {hint}")
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


@contextmanager
def said_of(where: str) -> Iterator[None]:
    """Errors of a class, which may refuse its values as it likes, as an InputError."""
    try:
        yield
    except InputError:
        raise
    except Exception as error:
        reason = " ".join(str(error).split())[:300] or type(error).__name__
        if "overflow" in reason.lower():  # of torch's, where sizes are multiplied
            raise InputError(LARGER) from error
        raise InputError(f"{MISFIT}: {shown(where)}: {reason}") from error


class Misfit(InputError):
    """A value that is not what its place asks for; another member of a union may take it."""

    def __init__(self, where: str, reason: str, inside: int = 0):
        super().__init__(f"{MISFIT}: {shown(where)}: {reason}")
        self.depth = where.count(".") + where.count("[") + inside


def unfit(where: str, wanted: str, given: Any) -> Misfit:
    plain = given is None or isinstance(given, bool | int | float | str)
    return Misfit(where, f"expected {wanted}, got {shown(repr(given) if plain else type(given).__name__)}")
