"""Keys and classes of a recipe, held against what its classes take; the nearest right name for a wrong one."""

import difflib
import importlib
import inspect
import typing
from pathlib import Path
from typing import Any

from mmeff.errors import InputError, meant

Recipe = dict[str, Any]

#: What a recipe may hold at its top level.
TOP = ("seed_everything", "trainer", "model", "data", "ckpt_path", "weights_only", "verbose", "return_predictions")


def recipe_folders() -> list[Path]:
    """Where the package's own recipes are: in an installed wheel, or beside the code in a clone."""
    package = Path(__file__).parent.parent
    return [f for f in (package / "_recipes", package.parent / "recipes") if f.is_dir()]


def check(recipe: Recipe) -> None:
    """Every key is one that its class takes; InputError names the key and the nearest right one."""
    from lightning.pytorch import Trainer

    known(recipe, TOP, "the recipe")
    trainer = recipe.get("trainer") or {}
    known(trainer, parameters(Trainer), "trainer")
    for key in ("trainer", "model", "data"):
        check_classes(recipe.get(key), key)


def check_classes(value: Any, where: str) -> None:
    if isinstance(value, list):
        for i, item in enumerate(value):
            check_classes(item, f"{where}[{i}]")
    if not isinstance(value, dict):
        return
    if "class_path" in value:
        known(value, ("class_path", "init_args", "dict_kwargs"), where)
        cls = find_class(value["class_path"], where)
        accepted = parameters(cls)
        if accepted is not None:
            known(value.get("init_args") or {}, accepted, f"{where} ({cls.__name__})")
            check_groups(value.get("init_args") or {}, cls, where)
    for key, child in value.items():
        check_classes(child, where if key == "init_args" else f"{where}.{key}")


def check_groups(arguments: Recipe, cls: Any, where: str) -> None:
    """Keys of arguments that name no class, because their type says it: `optimizer: {lr: 1e-3}`."""
    hints = typing.get_type_hints(cls.__init__ if inspect.isclass(cls) else cls)
    for key, value in arguments.items():
        if isinstance(value, dict) and "class_path" not in value:
            hint = hints.get(key)
            classes = [t for t in (hint, *typing.get_args(hint)) if inspect.isclass(t) and t.__module__ != "builtins"]
            if len(classes) == 1 and not inspect.isabstract(classes[0]):
                inner = value.get("init_args", value)
                known(inner, parameters(classes[0]), f"{where}.{key} ({classes[0].__name__})")
                check_groups(inner, classes[0], f"{where}.{key}")


def parameters(cls: Any) -> tuple[str, ...] | None:
    """Names that a class or function takes; None if it takes any."""
    found = inspect.signature(cls).parameters.values()
    if any(p.kind is p.VAR_KEYWORD for p in found):
        return None
    return tuple(p.name for p in found)


def known(given: Recipe, accepted: tuple[str, ...] | None, where: str) -> None:
    if not isinstance(given, dict):
        raise InputError(f"{where} must be a mapping of keys to values, got {given!r}")
    for key in given:
        if accepted is not None and key not in accepted:
            raise InputError(f"unknown key {key!r} in {where}: {nearest(str(key), accepted)}")


def nearest(name: str, accepted: tuple[str, ...]) -> str:
    return meant(name, accepted, f"it takes {', '.join(sorted(accepted))}")


def find_class(path: Any, where: str) -> Any:
    module, _, name = str(path).rpartition(".")
    if not module:
        raise InputError(f"{where}: {what_is_meant(str(path))}")
    try:
        return getattr(importlib.import_module(module), name)
    except ImportError as error:
        raise InputError(f"{where}: cannot import {path}: {error}") from error
    except AttributeError:
        near = difflib.get_close_matches(name, dir(importlib.import_module(module)), 1)
        hint = f"did you mean {module}.{near[0]}?" if near else "see `mmeff list`"
        raise InputError(f"{where}: {module} has no {name}: {hint}") from None


def what_is_meant(name: str) -> str:
    """What to type for a part that is named without its module."""
    stems = [p.stem for folder in recipe_folders() for p in folder.glob("backbones/*.yaml")]
    near = difflib.get_close_matches(name.lower(), stems, 1, cutoff=0.8)
    whole = f"rite {name!r} with its module, such as mmeff.mixers.{name}"
    return f"did you mean recipes/backbones/{near[0]}.yaml? (Else w{whole})" if near else f"w{whole}"
