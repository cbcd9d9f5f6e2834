"""From the words of a command to one recipe: files merged, parts replaced, values set, every key checked."""

import difflib
import importlib
import inspect
import re
import typing
from pathlib import Path
from typing import Any

import yaml

from mmeff.errors import InputError

Recipe = dict[str, Any]

#: What a recipe may hold at its top level.
TOP = ("seed_everything", "trainer", "model", "data", "ckpt_path", "weights_only", "verbose", "return_predictions")

#: Words of a command that are not about its recipe.
OTHER = ("print_config", "help", "h")


#: What names a class or function: words with full stops between them.
CLASS = re.compile(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)+")


def compose(words: list[str]) -> tuple[Recipe, list[str], list[str]]:
    """-> the recipe, the names of the files it came from, and the words that are not about it (--print_config).

    Later words win. A mapping with a `class_path` replaces what stood there, whole: the arguments of one class mean
    nothing to another, even under the same name. Without one it changes single keys.
    """
    recipe: Recipe = {}
    names: list[str] = []
    rest: list[str] = []
    queue = split_equals(words)
    while queue:
        word = queue.pop(0)
        if not word.startswith("-"):
            raise InputError(f"{word!r} stands alone: options begin with --, recipes come after -c")
        key = word.lstrip("-")
        has_value = bool(queue) and (not queue[0].startswith("--") and queue[0] not in ("-c", "-h"))
        if word in ("-c", "--config"):
            if not has_value:
                raise InputError("-c needs the path of a recipe")
            path = find_recipe(queue.pop(0))
            merge(recipe, read_yaml(path))
            names.append(path.stem)
        elif has_value and not key.endswith("+") and key.partition(".")[0] in TOP:
            value = queue.pop(0)
            if value.endswith((".yaml", ".yml")):
                path = find_recipe(value)
                place(recipe, key, read_yaml(path))
                names.append(path.stem)
            else:
                set_value(recipe, key, read_value(word, value))
        elif key.partition(".")[0].rstrip("+") not in (*TOP, *OTHER):
            raise InputError(f"unknown option {word}: {nearest(key.partition('.')[0], (*TOP, *OTHER))}")
        else:
            rest += [word, queue.pop(0)] if has_value else [word]
    model = recipe.get("model")
    if isinstance(model, dict) and "class_path" not in model:
        recipe["model"] = {"class_path": "mmeff.tasks.Classify", "init_args": model}
    check(recipe)
    return recipe, names, rest


def split_equals(words: list[str]) -> list[str]:
    """["--a=b"] -> ["--a", "b"]."""
    out: list[str] = []
    for word in words:
        out += word.split("=", 1) if word.startswith("--") and "=" in word else [word]
    return out


def find_recipe(name: str) -> Path:
    """A path as given; else the same path among the recipes that came with the package."""
    path = Path(name)
    if path.is_file():
        return path
    for folder in recipe_folders():
        inside = folder / Path(*path.parts[1:]) if path.parts[:1] == ("recipes",) else folder / path
        if inside.is_file():
            return inside
    known = [f"recipes/{p.relative_to(f)}" for f in recipe_folders() for p in sorted(f.rglob("*.yaml"))]
    near = difflib.get_close_matches(name, known, 1, cutoff=0.5)
    raise InputError(f"no recipe at {name}" + (f": did you mean {near[0]}?" if near else " (`mmeff list recipes`)"))


def recipe_folders() -> list[Path]:
    """Where the package's own recipes are: in an installed wheel, or beside the code in a clone."""
    package = Path(__file__).parent.parent
    return [f for f in (package / "_recipes", package.parent / "recipes") if f.is_dir()]


def read_yaml(path: Path) -> Recipe:
    try:
        content = yaml.safe_load(path.read_text())
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise InputError(f"{path} is not a YAML file: {yaml_reason(error)}") from error
    if not isinstance(content, dict):
        raise InputError(f"{path} holds no keys: a recipe is a mapping such as `trainer: {{max_epochs: 5}}`")
    return content


def read_value(word: str, text: str) -> Any:
    try:
        return yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise InputError(f"{word}: {text!r} is not YAML: {yaml_reason(error)}") from error


def yaml_reason(error: Exception) -> str:
    """The line and what is wrong in it, without the excerpt."""
    if isinstance(error, yaml.MarkedYAMLError) and error.problem_mark is not None:
        return f"line {error.problem_mark.line + 1}: {error.problem}"
    return " ".join(str(error).split())


def merge(into: Recipe, new: Recipe) -> None:
    for key, value in new.items():
        old = into.get(key)
        if isinstance(old, dict) and isinstance(value, dict) and "class_path" not in value:
            merge(old["init_args"] if "class_path" in old and "init_args" not in value else old, value)
        else:
            into[key] = value


def parent_of(recipe: Recipe, key: str) -> tuple[Recipe, str]:
    """The mapping that holds dotted `key`, through the init_args of classes on the way, and its last name."""
    *path, last = key.split(".")
    here = recipe
    for name in path:
        here = here.setdefault("init_args", {}) if "class_path" in here and name != "init_args" else here
        child = here.get(name)
        if child is None or CLASS.fullmatch(str(child)):
            child = here[name] = {} if child is None else {"class_path": child}
        if not isinstance(child, dict):
            raise InputError(f"--{key}: {name} is {child!r} in this recipe and has no parts")
        here = child
    if "class_path" in here and last not in ("class_path", "init_args"):
        here = here.setdefault("init_args", {})
    return here, last


def place(recipe: Recipe, key: str, part: Recipe) -> None:
    """Put a whole part where another stood."""
    here, last = parent_of(recipe, key)
    here[last] = part


def set_value(recipe: Recipe, key: str, value: Any) -> None:
    """Set one value; a class name where a part stands replaces the part."""
    here, last = parent_of(recipe, key)
    if last == "class_path" and here.get("class_path") != value:
        here.clear()
    old = here.get(last)
    if isinstance(old, dict) and "class_path" in old and isinstance(value, str):
        value = {"class_path": value}
    here[last] = value


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
    near = difflib.get_close_matches(name, accepted, 1, cutoff=0.5)
    return f"did you mean {near[0]!r}?" if near else f"it takes {', '.join(sorted(accepted))}"


def find_class(path: Any, where: str) -> Any:
    module, _, name = str(path).rpartition(".")
    if not module:
        raise InputError(f"{where}: write {path!r} with its module, such as mmeff.mixers.{path}")
    try:
        return getattr(importlib.import_module(module), name)
    except ImportError as error:
        raise InputError(f"{where}: cannot import {path}: {error}") from error
    except AttributeError:
        near = difflib.get_close_matches(name, dir(importlib.import_module(module)), 1)
        hint = f"did you mean {module}.{near[0]}?" if near else "see `mmeff list`"
        raise InputError(f"{where}: {module} has no {name}: {hint}") from None
