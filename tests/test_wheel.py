"""What an installation holds: the code, and the recipes and data that the README's first command needs."""

import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


def test_a_wheel_holds_the_code_the_recipes_and_the_assets(tmp_path):
    wheel = pytest.importorskip("hatchling.builders.wheel", reason="builds the wheel: pip install hatchling")
    (path,) = wheel.WheelBuilder(str(ROOT)).build(directory=str(tmp_path), versions=["standard"])
    with zipfile.ZipFile(path) as file:
        names = set(file.namelist())
    wanted = {path.relative_to(ROOT).as_posix() for path in (ROOT / "mmeff").rglob("*.py")} | {"mmeff/py.typed"}
    wanted |= {path.relative_to(ROOT).as_posix() for path in (ROOT / "mmeff").rglob("*.html")}
    wanted |= {path.relative_to(ROOT / "kernels").as_posix() for path in (ROOT / "kernels/mmeff_kernels").rglob("*.py")}
    for folder in ("recipes", "assets"):
        files = [path for path in (ROOT / folder).rglob("*") if path.suffix in (".yaml", ".png", ".ogg", ".csv", ".xz")]
        assert files
        wanted |= {f"mmeff/_{path.relative_to(ROOT).as_posix()}" for path in files}
    assert wanted <= names, f"the wheel lacks {sorted(wanted - names)}"
    assert not [name for name in names if name.startswith(("tests/", "kernels/"))]
