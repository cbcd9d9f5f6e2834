"""Values on the command line, read as what the parameter that they are for is annotated with."""

import collections.abc
import inspect
import re
import types
import typing
from typing import Any, Literal

import yaml

from mmeff.cli.keys import find_class
from mmeff.cli.yaml_text import load, read_value
from mmeff.errors import InputError

#: What stands at the top of a recipe.
TOP_HINTS: dict[str, Any] = {
    "seed_everything": bool | int,
    "ckpt_path": str | None,
    "weights_only": bool | None,
    "verbose": bool,
    "return_predictions": bool | None,
}
#: Classes that a recipe need not name.
DEFAULTS = {"trainer": "lightning.pytorch.Trainer", "model": "mmeff.tasks.Classify"}

WHOLE = re.compile(r"[-+]?\d+", re.ASCII)
NUMBER = re.compile(r"[-+]?(\d+\.?\d*|\.\d+)([eE][-+]?\d+)?|[-+]?\.?(inf|nan)", re.ASCII)


def hint_of(recipe: dict[str, Any], key: str) -> Any:
    """The annotation of the parameter that a dotted key leads to; Any where the recipe does not say its class yet."""
    from mmeff.build import hints_of

    path = key.split(".")
    here: Any = recipe
    hint: Any = None
    for depth, name in enumerate(path):
        if name == "init_args":
            continue
        if name == "class_path":
            return str
        if depth == 0:
            hint = TOP_HINTS.get(name, dict)
        else:
            owner = class_of(here, hint)
            if owner is None and path[0] in DEFAULTS and depth == 1:
                owner = find_class(DEFAULTS[path[0]], path[0])
            if owner is not None:
                hint = hints_of(owner).get(name, Any)
            else:
                inner = [typing.get_args(one)[1] for one in members(hint) if len(typing.get_args(one)) == 2]
                hint = inner[0] if len(inner) == 1 else Any
        arguments = here.get("init_args", here) if isinstance(here, dict) else {}
        here = arguments.get(name) if isinstance(arguments, dict) else None
        if path[0] == "trainer" and isinstance(here, list) and here:
            here = here[-1]
    return hint


def class_of(here: Any, hint: Any) -> Any:
    """The class of a part: the one it names, else the one its annotation leaves no choice of."""
    path = here.get("class_path") if isinstance(here, dict) else here
    if isinstance(path, str) and "." in path:
        return find_class(path, path)
    classes = [one for one in members(hint) if is_part(one) and inspect.isclass(one)]
    return classes[0] if len(classes) == 1 and not inspect.isabstract(classes[0]) else None


def members(hint: Any) -> list[Any]:
    """What a union may be, without unions and literals inside."""
    if typing.get_origin(hint) in (typing.Union, types.UnionType):
        return [one for member in typing.get_args(hint) for one in members(member)]
    if typing.get_origin(hint) is typing.Annotated:
        return members(typing.get_args(hint)[0])
    return [hint]


def is_part(hint: Any) -> bool:
    """Whether a class of some parameters is asked for, or a mapping, or a list of such."""
    origin = typing.get_origin(hint)
    if origin in (list, tuple, collections.abc.Sequence, collections.abc.Iterable):
        return any(is_part(one) for inner in typing.get_args(hint) for one in members(inner))
    if origin is collections.abc.Callable:
        return True
    return inspect.isclass(hint) and hint.__module__ != "builtins" and not issubclass(hint, (str, types.NoneType))


def takes_a_file(hint: Any) -> bool:
    """Whether a value that ends in .yaml names the recipe of a part, not a text."""
    found = members(hint)
    return str not in found or any(is_part(one) for one in found)


def read(hint: Any, text: str, word: str) -> Any:
    """The value that `text` says for a parameter so annotated. A str takes it as it stands."""
    found = members(hint)
    if Any in found or inspect.Parameter.empty in found:
        return read_value(word, text)
    value = plain(found, text)
    if value is not text:
        return value
    for one in found:
        fitting = collection(one, text)
        if fitting is not None:
            return fitting
    if str in found and not (text.startswith("{") and any(is_part(one) for one in found)):
        return text
    return read_value(word, text)


def full_name(hint: Any, name: str) -> str:
    """The dotted name of a class that is given without its module: looked up beside the class asked for."""
    if "." in name:
        return name
    inner = [one for member in members(hint) for one in (member, *typing.get_args(member))]
    for package in dict.fromkeys(one.__module__.rpartition(".")[0] for one in inner if is_part(one)):
        if package:
            find_class(f"{package}.{name}", name)
            return f"{package}.{name}"
    return name


def plain(found: list[Any], text: str) -> Any:
    """The number, truth value, choice or None that `text` is among these types; else `text` itself."""
    is_str = str in found
    if text == "null" and types.NoneType in found:
        return None
    for one in found:
        if typing.get_origin(one) is Literal:
            for choice in typing.get_args(one):
                if str(choice) == text:
                    return choice
    if bool in found and text in ("true", "false", "True", "False"):
        return text in ("true", "True")
    # A name such as 007 is no number where names may stand.
    if int in found and WHOLE.fullmatch(text) and len(text) < 20 and (not is_str or str(int(text)) == text):
        return int(text)
    if float in found and NUMBER.fullmatch(text) and not is_str:
        return float(text.replace(".inf", "inf").replace(".nan", "nan"))
    return text


def collection(hint: Any, text: str) -> Any:
    """A YAML list or mapping of plain values, each read by its own annotation; None if `text` is none."""
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    wanted, opening = (dict, "{") if origin is dict else (list, "[")
    if origin not in (dict, list, tuple, collections.abc.Sequence) or not text.lstrip().startswith(opening):
        return None
    inner = arguments[1] if origin is dict else arguments[0]
    if Any in members(inner) or any(is_part(one) for one in members(inner)):
        return None
    try:
        load(text, "")  # which refuses keys given twice, and endless aliases
        bare = yaml.load(text, yaml.BaseLoader)
        if not isinstance(bare, wanted):
            return None
        if isinstance(bare, dict):
            return {key: entry(inner, one) for key, one in bare.items()}
        each = arguments if origin is tuple and arguments[-1] is not Ellipsis else [inner] * len(bare)
        return [entry(one, value) for one, value in zip(each, bare, strict=True)]
    except (InputError, ValueError):
        return None


def entry(hint: Any, given: Any) -> Any:
    """An entry of a list or mapping. ValueError if it is not what the annotation says."""
    found = members(hint)
    if isinstance(given, str):
        value = plain(found, given)
        # An empty entry is what {a} and {a: } hold: no text that anybody meant.
        if value is given and (str not in found or not given):
            raise ValueError(given)
        return value
    for one in found:
        if typing.get_origin(one) is list and isinstance(given, list):
            return [entry(typing.get_args(one)[0], value) for value in given]
    raise ValueError(given)
