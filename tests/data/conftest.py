"""Small sources in memory and on disk."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from mmeff.data import Examples, Source


class Given(Source):
    """Examples that a test made."""

    def __init__(self, examples: Examples):
        self.given = examples

    def examples(self) -> Examples:
        return self.given


@pytest.fixture
def given() -> type[Given]:
    return Given


@pytest.fixture
def images() -> Callable[..., Given]:
    """n random images (8, 8) of two classes in turn, without a split."""

    def make(n: int = 40, seed: int = 0) -> Given:
        pixels = np.random.default_rng(seed).integers(0, 256, (n, 8, 8), dtype=np.uint8)
        return Given(
            Examples(list(pixels), ["even" if i % 2 == 0 else "odd" for i in range(n)], [f"#{i}" for i in range(n)])
        )

    return make


@pytest.fixture
def sounds() -> Callable[..., Given]:
    """n random sounds of 800 to 1600 samples at 8 kHz of two classes in turn, without a split."""

    def make(n: int = 20) -> Given:
        rng = np.random.default_rng(1)
        waves = [(rng.uniform(-0.5, 0.5, rng.integers(800, 1600)).astype(np.float32), 8000) for _ in range(n)]
        return Given(Examples(waves, ["low" if i % 2 == 0 else "high" for i in range(n)], [f"#{i}" for i in range(n)]))

    return make


@pytest.fixture
def write_sound(tmp_path: Path) -> Callable[..., Path]:
    """A sine of 440 Hz in a file; its name says the format."""

    def write(name: str, seconds: float = 0.5, rate: int = 8000, channels: int = 1) -> Path:
        import soundfile

        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        wave = 0.5 * np.sin(2 * np.pi * 440 * np.arange(int(seconds * rate)) / rate)
        soundfile.write(path, np.repeat(wave[:, None], channels, 1).astype(np.float32), rate)
        return path

    return write


@pytest.fixture
def write_image(tmp_path: Path) -> Callable[..., Path]:
    """An image of one colour in a file; its name says the format."""

    def write(name: str, mode: str = "RGB", size: tuple[int, int] = (10, 8), colour: object = (255, 0, 0)) -> Path:
        from PIL import Image

        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new(mode, size, colour).save(path)  # type: ignore[arg-type]
        return path

    return write
