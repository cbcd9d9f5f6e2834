"""`mmeff list [WHAT]`: what there is to build with; `mmeff list NAME`: one class and its arguments."""

import importlib
import inspect
from pathlib import Path

from mmeff.cli.keys import recipe_folders
from mmeff.errors import InputError

PACKAGES = {
    "tokenizers": ("mmeff.tokenizers", ("Tokenizer", "Positions")),
    "mixers": ("mmeff.mixers", ("Mixer",)),
    "feedforward": ("mmeff.feedforward", ("ChannelMixer",)),
    "backbones": ("mmeff.backbones", ("Backbone",)),
    "data": ("mmeff.data", ("ClassificationData", "Source", "SplitRule")),
}


def main(words: list[str]) -> int:
    kinds = ["recipes", *PACKAGES]
    asked = words[1:] or kinds
    for kind in asked:
        if kind not in kinds:
            print(describe(kind))
            continue
        print(f"{kind}:")
        for name, summary in recipes() if kind == "recipes" else classes(*PACKAGES[kind]):
            print(f"  {name:44s} {summary}")
    return 0


def describe(name: str) -> str:
    """A class by its name: import path, and docstring with all arguments. InputError if it is not among PACKAGES."""
    found = [path for package in PACKAGES.values() for path, _ in classes(*package) if path.rpartition(".")[2] == name]
    if not found:
        raise InputError(f"cannot list {name!r}: it is one of recipes, {', '.join(PACKAGES)}, or a class in them")
    module, _, _ = found[0].rpartition(".")
    thing = getattr(importlib.import_module(module), name)
    arguments = "" if "Args:" in (thing.__doc__ or "") else f"\n\n{inspect.getdoc(thing.__init__) or ''}"
    return f"{found[0]}: {inspect.getdoc(thing)}{arguments}"


def recipes() -> list[tuple[str, str]]:
    """Path and first line of the header of every recipe, backbones included."""
    found = {
        f"recipes/{path.relative_to(folder).as_posix()}": header(path)
        for folder in recipe_folders()
        for path in sorted(folder.rglob("*.yaml"))
    }
    return sorted(found.items())


def header(path: Path) -> str:
    first = path.read_text().partition("\n")[0]
    return first.removeprefix("#").strip() if first.startswith("#") else ""


def classes(module: str, bases: tuple[str, ...]) -> list[tuple[str, str]]:
    """Import path and first line of the docstring of each concrete class under one of the bases."""
    package = importlib.import_module(module)
    parents = tuple(getattr(package, base) for base in bases)
    found = []
    for name in package.__all__:
        thing = getattr(package, name)
        if inspect.isclass(thing) and issubclass(thing, parents) and not inspect.isabstract(thing):
            found.append((f"{module}.{name}", (inspect.getdoc(thing) or "").partition("\n")[0]))
    return found
