"""The README is true: its commands run, in its order, and its tree is the tree."""

import csv
import re
import shlex
from pathlib import Path

import numpy as np
import pytest

from mmeff.cli import main
from mmeff.data import Digits, Glosses, Tones, Vowels

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()
FENCED = re.findall(r"^```(\w*)\n(.*?)^```$", README, flags=re.DOTALL | re.MULTILINE)
BLOCKS = [block for language, block in FENCED if not language]
PYTHON = [block for language, block in FENCED if language == "python"]
QUICK = {
    "fit": ["--trainer.max_epochs=1", *(f"--trainer.limit_{split}_batches=2" for split in ("train", "val", "test"))],
    "compare": [
        "--recipes=[recipes/vision/digits.yaml]", "--lengths={image: [28]}", "--train={steps: 2}",
        "--speed={runs: 3, seconds: 0.1, batch: 2}",
    ],
}  # fmt: skip


def commands() -> list[list[str]]:
    """What a reader would type, each once, as words: the lines of the blocks, then the commands within the text."""
    blocks = [part for block in BLOCKS if block != tree() for line in block.splitlines() for part in line.split("&&")]
    spans = re.findall(r"`(mmeff \w+ [^`]+)`", README)
    found = [shlex.split(command) for command in [*blocks, *spans]]
    return [words for i, words in enumerate(found) if words not in found[:i]]


def tree() -> str:
    return re.findall(r"^## The tree\n+```\n(.*?)^```$", README, flags=re.DOTALL | re.MULTILINE)[0]


@pytest.fixture
def own_files(tmp_path, monkeypatch) -> None:
    """The files that the README's reader has, under its names, in the current folder."""
    import soundfile
    from PIL import Image

    monkeypatch.chdir(tmp_path)
    digits, tones, glosses = Digits().examples(), Tones().examples(), Glosses().examples()
    Image.fromarray(digits.items[0]).save("my_digit.png")
    soundfile.write("my_syllable.wav", *tones.items[0])
    np.savetxt("my_series.csv", Vowels().examples().items[0], delimiter=",")
    for i in range(100):
        photo, sound = Path("photos", digits.labels[i], f"{i}.jpg"), Path("sounds", tones.labels[i], f"{i}.wav")
        for file in (photo, sound):
            file.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(digits.items[i]).save(photo)
        soundfile.write(sound, *tones.items[i])
        picture = Path("cifar10", "test" if i % 7 == 0 else "train", digits.labels[i], f"{i}.jpg")
        picture.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(digits.items[i]).save(picture)
        spoken = Path("fsdd", f"{i % 10}_speaker_{i // 10}.flac")
        spoken.parent.mkdir(exist_ok=True)
        soundfile.write(spoken, *tones.items[i])
    with open("agnews.csv", "w", newline="") as file:
        rows = zip(["train", "val", "test"] * 66, glosses.labels, glosses.items, glosses.items[1:], strict=False)
        csv.writer(file).writerows([("split", "label", "title", "description"), *rows])
    for name, part in (("reviews.csv", slice(200)), ("held_back.csv", slice(150, 200))):
        with open(name, "w", newline="") as file:
            rows = zip(glosses.items[part], glosses.labels[part], strict=True)
            csv.writer(file).writerows([("review", "stars"), *rows])


def test_every_command_works(own_files, capsys):
    """Fits and comparisons take two steps; recipes are found in the package, as they are after an installation."""
    ran = [words for words in commands() if words[0] == "mmeff"]
    for words in ran:
        code = main([*words[1:], *QUICK.get(words[1], [])])
        assert code == 0, f"{shlex.join(words)}: {capsys.readouterr().err}"
    assert {words[1] for words in ran} >= {"fit", "predict", "export", "list", "compare"}


def test_every_block_of_python_works(own_files):
    main(["fit", "-c", "recipes/vision/digits.yaml", *QUICK["fit"]])
    assert len(PYTHON) == 2
    for block in PYTHON:
        exec(block, {})


def test_what_is_installed_and_how_is_said_once():
    others = [words for words in commands() if words[0] != "mmeff"]
    assert others == [["pip", "install", "-e", "."], ["pip", "install", "-e", ".[test]"], ["pytest", "-n", "auto"]]
    assert README.count("pip install") == 2


def test_the_tree_is_the_tree():
    folders: dict[int, Path] = {0: ROOT}
    for line in tree().splitlines():
        depth, name = len(line) - len(line.lstrip()), line.split()[0]
        path = folders[depth] / name
        assert path.is_dir() if name.endswith("/") else path.is_file(), f"the README's tree has {name}"
        folders[depth + 2] = path
    shown = {line.split()[0].strip("/") for line in tree().splitlines() if line.startswith("  ")}
    parts = {path.name for path in (ROOT / "mmeff").iterdir() if path.is_dir() and (path / "__init__.py").is_file()}
    assert parts <= shown, f"the README's tree lacks {sorted(parts - shown)}"
