"""From the words of a command to one recipe: files merged, parts replaced, values set, every key checked."""

import difflib
import re
from pathlib import Path
from typing import Any

from mmeff.cli import glance, values
from mmeff.cli.keys import TOP, Recipe, check, nearest, recipe_folders
from mmeff.cli.yaml_text import load, read_yaml
from mmeff.errors import InputError

#: Words of a command that are not about its recipe.
OTHER = ("print_config", "help", "h", "all")

#: Of several classes each; one alone may be given by its short name.
LISTS = ("trainer.callbacks", "trainer.logger", "trainer.plugins")
SHORT = re.compile(r"(?!(True|False|None|Null)$)[A-Z]\w*")

#: A name, with or without the modules that it is in.
NAME = re.compile(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)*")

#: What names a class or function: words with full stops between them.
CLASS = re.compile(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)+")


class Untyped(str):
    """A value whose class the words after it will name."""


def compose(words: list[str], quick: bool = False) -> tuple[Recipe, list[str], list[str]]:
    """-> the recipe, the names of the files it came from, and the words that are not about it (--print_config).

    Later words win. A mapping with a `class_path` replaces what stood there, whole: the arguments of one class mean
    nothing to another, even under the same name. Without one it changes single keys.

    quick  check names alone, as far as their source text says them, and import no class: values stay unread
    """
    recipe: Recipe = {}
    names: list[str] = []
    rest: list[str] = []
    untyped: list[tuple[str, str]] = []
    queue = list(words)
    while queue:
        word = queue.pop(0)
        if not word.startswith("-"):
            raise InputError(f"{word!r} stands alone: options begin with --, recipes come after -c")
        word, equals, value = word.partition("=") if word.startswith("--") else (word, "", "")
        has_value = bool(equals) or (bool(queue) and not queue[0].startswith("--") and queue[0] not in ("-c", "-h"))
        key = word.lstrip("-")
        if has_value and not equals:
            value = queue.pop(0)
        if key == "model.optimizer" and NAME.fullmatch(value) and not value.endswith((".yaml", ".yml")):
            key = "model.optimizer.name"
        if word in ("-c", "--config"):
            if not has_value:
                raise InputError("-c needs the path of a recipe")
            path = find_recipe(value)
            merge(recipe, read_yaml(path))
            names.append(path.stem)
        elif key.partition(".")[0].rstrip("+") not in (*TOP, *OTHER):
            raise InputError(f"unknown option {word}: {nearest(key.partition('.')[0], (*TOP, *OTHER))}")
        elif not has_value or key.partition(".")[0] not in TOP:
            rest += [word, value] if has_value else [word]
        elif key.endswith("+"):
            append(recipe, key[:-1], value, quick)
        elif key in LISTS and SHORT.fullmatch(value):
            set_value(recipe, key, [])
            append(recipe, key, value, quick)
        else:
            hint = Any if quick else values.hint_of(recipe, key)
            if value.endswith((".yaml", ".yml")) and (Path(value).is_file() if quick else values.takes_a_file(hint)):
                path = find_recipe(value)
                place(recipe, key, read_yaml(path))
                names.append(path.stem)
            elif quick:
                set_value(recipe, key, glance.guess(value))
            elif hint is Any:
                untyped.append((key, word))
                set_value(recipe, key, Untyped(value))
            else:
                set_value(recipe, key, values.read(hint, value, word))
    for key, word in untyped:
        here, last = parent_of(recipe, key)
        if isinstance(here.get(last), Untyped):
            set_value(recipe, key, values.read(values.hint_of(recipe, key), str(here[last]), word))
    model = recipe.get("model")
    if isinstance(model, dict) and "class_path" not in model:
        recipe["model"] = {"class_path": "mmeff.tasks.Classify", "init_args": model}
    (glance.check if quick else check)(recipe)
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
    if name and path.exists():
        what = "a folder" if path.is_dir() else "no regular file"
        raise InputError(f"{name} is {what}: give the path of a recipe, a .yaml file")
    for folder in recipe_folders():
        inside = folder / Path(*path.parts[1:]) if path.parts[:1] == ("recipes",) else folder / path
        if inside.is_file():
            return inside
    known = [f"recipes/{p.relative_to(f)}" for f in recipe_folders() for p in sorted(f.rglob("*.yaml"))]
    near = difflib.get_close_matches(name, known, 1, cutoff=0.5)
    raise InputError(f"no recipe at {name}" + (f": did you mean {near[0]}?" if near else " (`mmeff list recipes`)"))


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
        if isinstance(child, list) and path[0] == "trainer" and child and isinstance(child[-1], dict):
            child = child[-1]  # the callback or logger that was added last
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


def append(recipe: Recipe, key: str, value: str, quick: bool) -> None:
    """Add an entry to a list: `--trainer.callbacks+=EarlyStopping`; its arguments can follow."""
    here, last = parent_of(recipe, key)
    old = here.get(last)
    entry = load(value, f"--{key}+: {value!r} is not YAML")
    if isinstance(entry, str):
        entry = {"class_path": entry if quick else values.full_name(values.hint_of(recipe, key), entry)}
    here[last] = [*(old if isinstance(old, list) else [] if old in (None, True, False) else [old]), entry]
