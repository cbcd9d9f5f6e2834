"""Names in a recipe, held against the source text of mmeff and Lightning: a typing error is known in a second."""

import ast
import difflib
import importlib.util
from functools import cache
from pathlib import Path
from typing import Any

from mmeff.cli.keys import TOP, Recipe, known, what_is_meant
from mmeff.cli.yaml_text import load
from mmeff.errors import InputError

PACKAGE = Path(__file__).parent.parent


def guess(text: str) -> Any:
    """A value whose type is not known yet: the parts that it may hold are looked at, the rest does not matter."""
    try:
        return load(text, "")
    except InputError:
        return text


def check(recipe: Recipe) -> None:
    """InputError for a key or class of mmeff that is not there; everything that is not certain is left alone."""
    known(recipe, TOP, "the recipe")
    trainer = recipe.get("trainer") or {}
    found = importlib.util.find_spec("lightning")
    source = found and found.origin and Path(found.origin).parent / "pytorch/trainer/trainer.py"
    known(trainer, arguments(source, "Trainer") if source and source.is_file() else None, "trainer")
    for key in ("model", "data"):
        check_parts(recipe.get(key), key)


def check_parts(value: Any, where: str) -> None:
    if isinstance(value, list):
        for i, item in enumerate(value):
            check_parts(item, f"{where}[{i}]")
    if not isinstance(value, dict):
        return
    name = value.get("class_path")
    if isinstance(name, str):
        known(value, ("class_path", "init_args", "dict_kwargs"), where)
        if name and "." not in name:
            raise InputError(f"{where}: {what_is_meant(name)}")
        module, _, cls = name.rpartition(".")
        init = PACKAGE.joinpath(*module.split(".")[1:], "__init__.py")
        if module.count(".") == 1 and module.startswith("mmeff.") and init.is_file():
            exported = exports(init)
            if cls not in exported and (near := difflib.get_close_matches(cls, exported, 1)):
                raise InputError(f"{where}: {module} has no {cls}: did you mean {module}.{near[0]}?")
            home = PACKAGE.joinpath(*exported.get(cls, "").split(".")[1:]).with_suffix(".py")
            accepted = arguments(home, cls) if cls in exported and home.is_file() else None
            known(value.get("init_args") or {}, accepted, f"{where} ({cls})")
    for key, child in value.items():
        check_parts(child, where if key == "init_args" else f"{where}.{key}")


@cache
def tree(path: Path) -> ast.Module:
    return ast.parse(path.read_bytes())


def exports(init: Path) -> dict[str, str]:
    """Names that a package imports from its modules, and those modules."""
    imports = (node for node in ast.walk(tree(init)) if isinstance(node, ast.ImportFrom))
    return {alias.asname or alias.name: node.module or "" for node in imports for alias in node.names}


def arguments(path: Path, cls: str) -> tuple[str, ...] | None:
    """Names that a class's own __init__, or a function, takes; None if its text alone does not say."""
    for node in tree(path).body:
        if isinstance(node, ast.ClassDef) and node.name == cls:
            inits = [n for n in node.body if isinstance(n, ast.FunctionDef) and n.name == "__init__"]
            if inits:
                return names(inits[0].args, 1)
            fields = [n.target.id for n in node.body if isinstance(n, ast.AnnAssign) and isinstance(n.target, ast.Name)]
            return tuple(fields) if node.decorator_list and not node.bases else None
        if isinstance(node, ast.FunctionDef) and node.name == cls:
            return names(node.args, 0)
    return None


def names(args: ast.arguments, skipped: int) -> tuple[str, ...] | None:
    """The names of a signature without its first ones; None if it takes any."""
    if args.kwarg is not None:
        return None
    return tuple(a.arg for a in (*args.posonlyargs, *args.args, *args.kwonlyargs))[skipped:]
