"""Which part may know which: the arrows of the architecture, read from the sources; and what an import costs."""

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[1]
SOURCES = [*sorted((ROOT / "mmeff").rglob("*.py")), *sorted((ROOT / "kernels").rglob("*.py"))]

#: Importer -> what it must not import: packages of the project, and third parties that belong elsewhere.
FORBIDDEN = {
    "mmeff.data": (
        "mmeff.tasks",
        "mmeff.tokenizers",
        "mmeff.backbones",
        "mmeff.mixers",
        "mmeff.heads",
        "mmeff_kernels",
    ),
    "mmeff.tasks": ("mmeff.data", "mmeff.cli", "mmeff.mixers", "mmeff_kernels"),
    "mmeff.tokenizers": ("mmeff.data", "mmeff.tasks", "mmeff.backbones", "mmeff.mixers", "mmeff.feedforward"),
    "mmeff.backbones": ("mmeff.data", "mmeff.tasks", "mmeff.tokenizers", "mmeff_kernels", "lightning"),
    "mmeff.mixers": (
        "mmeff.data",
        "mmeff.tasks",
        "mmeff.tokenizers",
        "mmeff.backbones",
        "mmeff.feedforward",
        "lightning",
    ),
    "mmeff.feedforward": (
        "mmeff.data",
        "mmeff.tasks",
        "mmeff.tokenizers",
        "mmeff.backbones",
        "mmeff.mixers",
        "lightning",
    ),
    "mmeff.heads": ("mmeff.data", "mmeff.tasks", "mmeff.tokenizers", "mmeff.backbones", "mmeff.mixers", "lightning"),
    "mmeff.tokens": ("mmeff", "lightning"),
    "mmeff.signals": (
        "mmeff.data",
        "mmeff.tasks",
        "mmeff.tokenizers",
        "mmeff.backbones",
        "mmeff.mixers",
        "mmeff.heads",
        "mmeff_kernels",
        "lightning",
    ),
    "mmeff.model": ("mmeff.data", "mmeff.tasks", "mmeff.cli", "mmeff.compare", "mmeff_kernels", "lightning"),
    "mmeff.weights": ("mmeff.data", "mmeff.tasks", "mmeff.tokenizers", "mmeff.backbones", "mmeff.signals", "lightning"),
    "mmeff.errors": ("mmeff", "torch", "lightning"),
    "mmeff_kernels": ("mmeff", "lightning", "timm", "torchaudio", "torchvision"),
}
#: What stands on top -> the modules that may import it, besides itself.
ONLY_FROM = {
    "mmeff.cli": ("mmeff.__main__", "benchmarks.trainer_overhead"),
    "mmeff.compare": ("mmeff.cli.compare",),
    "mmeff.checkpoint": ("mmeff", "mmeff.cli.export", "mmeff.cli.predict"),
    "mmeff.build": ("mmeff.checkpoint", "mmeff.cli.run", "mmeff.cli.values", "mmeff.compare.contenders"),
}


def module_of(path: Path) -> str:
    base = ROOT / "kernels" if path.is_relative_to(ROOT / "kernels") else ROOT
    parts = path.relative_to(base).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def imports_of(path: Path) -> set[str]:
    """Every module that a source imports, at its top or inside a function; of `from a import b` both a and a.b."""
    return {name for base, names in imported(path, ast.parse(path.read_text())) for name in (base, *names)}


def imported(path: Path, tree: ast.AST) -> Iterator[tuple[str, list[str]]]:
    """Of each import in a source's tree the module, and for `from a import b` the names a.b."""
    package = module_of(path).split(".") if path.name == "__init__.py" else module_of(path).split(".")[:-1]
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((alias.name, []) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            above = package[: len(package) - node.level + 1] if node.level else []
            base = ".".join([*above, *filter(None, [node.module])])
            yield base, [f"{base}.{alias.name}" for alias in node.names]


def within(module: str, package: str) -> bool:
    return module == package or module.startswith(package + ".")


@pytest.mark.parametrize("importer", FORBIDDEN)
def test_arrows_point_one_way(importer):
    paths = [path for path in SOURCES if within(module_of(path), importer)]
    assert paths, f"there is no {importer}"
    wrong = [
        f"{path.relative_to(ROOT)} imports {name}"
        for path in paths
        for name in sorted(imports_of(path))
        for package in FORBIDDEN[importer]
        if within(name, package)
    ]
    assert not wrong, "\n".join(wrong)


@pytest.mark.parametrize("top", ONLY_FROM)
def test_what_stands_on_top_is_imported_by_few(top):
    users = {module_of(path) for path in SOURCES if any(within(name, top) for name in imports_of(path))}
    assert {user for user in users if not within(user, top)} <= set(ONLY_FROM[top])


def needs(path: Path) -> set[str]:
    """The modules of the project that a source imports as it runs, inside functions too. Of `from a import b` that is
    a.b where it is a module; what types alone ask for is left out."""

    class ForTypes(ast.NodeTransformer):
        def visit_If(self, node: ast.If) -> Any:
            return None if ast.unparse(node.test) == "TYPE_CHECKING" else self.generic_visit(node)

    tree = ForTypes().visit(ast.parse(path.read_text()))
    modules = {module_of(other) for other in SOURCES}
    pairs = ((base, name) for base, names in imported(path, tree) for name in names or [base])
    return {name if name in modules else base for base, name in pairs} & modules


def test_imports_go_in_no_circle():
    left = {module_of(path): needs(path) - {module_of(path)} for path in SOURCES}
    while leaves := [name for name, wanted in left.items() if not wanted & left.keys()]:
        for name in leaves:
            del left[name]
    # What is left lies on a circle, or above one.
    users = {name for wanted in left.values() for name in wanted}
    assert not left, f"imports go in a circle among {sorted(left.keys() & users)}"


def test_imports_are_read_from_functions_and_relative_imports_too():
    op = ROOT / "kernels/mmeff_kernels/selective_scan/op.py"
    assert "mmeff_kernels.selective_scan.reference" in imports_of(op)
    assert "mmeff.checkpoint" in imports_of(ROOT / "mmeff/__init__.py")


@pytest.mark.parametrize("module", ["mmeff", "mmeff.cli", "mmeff.data", "mmeff.errors"])
def test_a_light_import_loads_neither_torch_nor_lightning(module):
    heavy = "{'torch', 'lightning', 'timm', 'torchvision', 'torchaudio', 'numpy', 'yaml'}"
    code = f"import sys, {module}; print(*sorted({heavy} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.split() == []


def test_the_folder_of_kernels_is_no_package():
    assert not (ROOT / "kernels/__init__.py").exists(), "PyPI has a package `kernels`, which this would hide"
