"""Data and settings with which every recipe runs in a second or two."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from mmeff.cli.recipe import compose


def write_images(folder: Path, count: int, rng: np.random.Generator) -> None:
    from PIL import Image

    folder.mkdir(parents=True)
    for i in range(count):
        Image.fromarray(rng.integers(0, 256, (40, 36, 3), dtype=np.uint8)).save(folder / f"{i}.jpg")


def write_sound(file: Path, rate: int, rng: np.random.Generator) -> None:
    import soundfile

    file.parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(file, 0.1 * rng.standard_normal(int(rate * rng.uniform(0.3, 0.6))), rate)


@pytest.fixture(scope="session")
def user_data(tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[str]]:
    """For each recipe on data that do not come with the project: options that name a tiny set of the same layout."""
    base = tmp_path_factory.mktemp("user_data")
    rng = np.random.default_rng(0)
    for name in ("cat", "dog"):
        write_images(base / "photos" / name, 5, rng)
        write_images(base / "cifar10" / "train" / name, 4, rng)
        write_images(base / "cifar10" / "test" / name, 2, rng)
        for i in range(5):
            write_sound(base / "sounds" / name / f"{i}.wav", 22050, rng)
            write_sound(base / "speech_commands" / name / f"{i:08x}_nohash_0.wav", 16000, rng)
    (base / "speech_commands/validation_list.txt").write_text("cat/00000000_nohash_0.wav\ndog/00000000_nohash_0.wav\n")
    (base / "speech_commands/testing_list.txt").write_text("cat/00000001_nohash_0.wav\ndog/00000001_nohash_0.wav\n")
    for digit in range(2):
        for take in range(8):
            write_sound(base / "fsdd" / f"{digit}_ann_{take}.flac", 8000, rng)
    rows = [(f"a {word} of number {i}", word) for word in ("good", "bad") for i in range(8)]
    (base / "table.csv").write_text("text,label\n" + "".join(f"{text},{label}\n" for text, label in rows))
    (base / "agnews.csv").write_text(
        "split,label,title,description\n"
        + "".join(f"{'train' if i % 4 else 'test'},{label},News,{text}\n" for i, (text, label) in enumerate(rows))
    )
    return {
        "recipes/vision/folder.yaml": ["--data.source.root", str(base / "photos")],
        "recipes/vision/cifar10.yaml": ["--data.source.root", str(base / "cifar10")],
        "recipes/audio/folder.yaml": ["--data.source.root", str(base / "sounds")],
        "recipes/audio/fsdd.yaml": ["--data.source.root", str(base / "fsdd")],
        "recipes/audio/speech_commands.yaml": ["--data.source.root", str(base / "speech_commands")],
        "recipes/text/table.yaml": ["--data.source.path", str(base / "table.csv")],
        "recipes/text/agnews.yaml": ["--data.source.path", str(base / "agnews.csv")],
    }


@pytest.fixture(scope="session")
def new_files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[str]]:
    """For each signal, the words by which `mmeff predict` is given one new signal."""
    base, rng = tmp_path_factory.mktemp("new_files"), np.random.default_rng(1)
    write_images(base / "images", 1, rng)
    write_sound(base / "new.wav", 16000, rng)
    np.savetxt(base / "new.csv", rng.normal(size=(20, 12)), delimiter=",")
    return {
        "image": [str(base / "images/0.jpg")],
        "audio": [str(base / "new.wav")],
        "text": ["-t", "a new text"],
        "series": [str(base / "new.csv")],
    }


@pytest.fixture
def one_thread():
    """The models are too small to share out; threads that wait for each other cost more than they bring."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture
def small_batches() -> Callable[[Path], list[str]]:
    """Batches of four, read in this process; in a joint recipe each part has its own."""

    def words(recipe: Path) -> list[str]:
        data = compose(["-c", str(recipe)])[0]["data"]["init_args"]
        parts = [f"--data.parts.{name}" for name in data["parts"]] if "parts" in data else ["--data"]
        return [word for part in parts for word in (f"{part}.batch_size=4", f"{part}.num_workers=0")]

    return words
