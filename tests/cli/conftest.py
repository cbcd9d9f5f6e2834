"""Tiny data in folders and tables, the words that train a tiny model on them, and how a command ought to fail."""

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from mmeff.cli import main

RECIPES = Path(__file__).parents[2] / "recipes"
TINY = """\
seed_everything: 0
trainer:
  accelerator: cpu
  logger: false
  max_epochs: 1
  limit_train_batches: 2
  limit_val_batches: 1
model:
  backbone:
    class_path: mmeff.backbones.Isotropic
    init_args: {dim: 32, depth: 1, mixer: {class_path: mmeff.mixers.Attention, init_args: {head_dim: 32}}}
data: {batch_size: 4, num_workers: 0}
"""
KINDS = {
    "image": ("vision/folder.yaml", "root", ["--data.size", "16"]),
    "audio": ("audio/folder.yaml", "root", ["--data.seconds", "0.3"]),
    "text": ("text/table.yaml", "path", []),
}


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder to work in: `runs/` lands there, and modules are imported from there."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    return tmp_path


@pytest.fixture
def fit(here: Path) -> Callable[..., list[str]]:
    """The words that train a tiny model of one kind of signal on data at a place, in a run folder `runs/<run>`."""

    def words(kind: str, data: object, *more: str, run: str = "run") -> list[str]:
        recipe, key, own = KINDS[kind]
        tiny = here / "tiny.yaml"
        tiny.write_text(TINY)
        place = [f"--data.source.{key}", str(data), "--trainer.default_root_dir", f"runs/{run}"]
        return ["fit", "-c", str(RECIPES / recipe), "-c", str(tiny), *place, *own, *more]

    return words


@pytest.fixture
def fails(capsys: pytest.CaptureFixture[str]) -> Callable[..., str]:
    """Run a command that must fail with an exit code and one line that holds all of `parts`; -> the line."""

    def check(words: list[str], *parts: str, code: int = 2) -> str:
        capsys.readouterr()
        got = main(words)
        said = capsys.readouterr()
        assert "Traceback" not in said.out + said.err
        assert len(said.err.splitlines()) == 1, said.err
        assert got == code, said.err
        for part in parts:
            assert part in said.err
        assert said.err.startswith("mmeff: ")
        assert len(said.err) < 400, said.err
        return said.err

    return check


def write_photos(root: Path, classes: tuple[str, ...] = ("cat", "dog"), n: int = 6) -> Path:
    from PIL import Image

    rng = np.random.default_rng(0)
    for name in classes:
        (root / name).mkdir(parents=True, exist_ok=True)
        for i in range(n):
            Image.fromarray(rng.integers(0, 256, (16, 16, 3), dtype=np.uint8)).save(root / name / f"{i}.png")
    return root


def write_sounds(root: Path, classes: tuple[str, ...] = ("cat", "dog"), n: int = 6, seconds: float = 0.2) -> Path:
    import soundfile

    rng = np.random.default_rng(0)
    for name in classes:
        (root / name).mkdir(parents=True, exist_ok=True)
        for i in range(n):
            soundfile.write(root / name / f"{i}.wav", 0.1 * rng.standard_normal(int(seconds * 8000)), 8000)
    return root


def write_table(path: Path, *more: str, header: str = "text,label") -> Path:
    rows = [f"a {label} thing number {i},{label}" for label in ("good", "bad") for i in range(6)]
    path.write_text("\n".join([header, *rows, *more]) + "\n")
    return path


@pytest.fixture
def photos() -> Callable[..., Path]:
    return write_photos


@pytest.fixture
def sounds() -> Callable[..., Path]:
    return write_sounds


@pytest.fixture
def table() -> Callable[..., Path]:
    return write_table


@pytest.fixture
def trained(trained_once: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Checkpoints of tiny models, one for each kind of signal, and `data`: the folder with what they learned from.

    Copies: a fit that goes on from a checkpoint writes into its folder.
    """
    base = tmp_path_factory.mktemp("copied")
    for kind in KINDS:
        shutil.copytree(trained_once[kind].parent, base / kind)
    return {kind: base / kind / "last.ckpt" for kind in KINDS} | {"data": trained_once["data"]}


@pytest.fixture(scope="session")
def trained_once(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Path]]:
    base = tmp_path_factory.mktemp("trained")
    (base / "tiny.yaml").write_text(TINY)
    data = {
        "image": write_photos(base / "photos"),
        "audio": write_sounds(base / "sounds"),
        "text": write_table(base / "table.csv"),
    }
    for kind, place in data.items():
        recipe, key, own = KINDS[kind]
        words = ["fit", "-c", str(RECIPES / recipe), "-c", str(base / "tiny.yaml"), *own]
        words += [f"--data.source.{key}", str(place), "--trainer.default_root_dir", str(base / kind)]
        assert main(words) == 0
    yield {kind: base / kind / "last.ckpt" for kind in data} | {"data": base}
