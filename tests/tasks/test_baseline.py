"""Simple baselines: they find what plain features show, nothing where there is nothing, and leave randomness alone."""

import numpy as np
import pytest
import torch

from mmeff.data import AudioData, ByRatio, Examples, ImageData, Part, Source, TextData
from mmeff.tasks import baseline as module
from mmeff.tasks.baseline import Baseline, fit_baseline


class Given(Source):
    """Examples that a test made."""

    def __init__(self, examples: Examples):
        self.given = examples

    def examples(self) -> Examples:
        return self.given


def baseline_of(part: Part) -> Baseline | None:
    return fit_baseline(part.spec, part.splits)


SPLIT = ByRatio(val=0.2, test=0.3)
RNG = np.random.default_rng(0)


def shades(n: int, apart: int) -> Examples:
    """Images whose right half is brighter by `apart` in one of two classes."""
    pixels = RNG.integers(0, 100, (n, 20, 24, 3), dtype=np.uint8)
    pixels[1::2, :, 12:] += np.uint8(apart)
    return Examples(list(pixels), [("dark", "bright")[i % 2] for i in range(n)], [f"#{i}" for i in range(n)])


def tones(n: int) -> Examples:
    time = np.arange(4000) / 8000
    waves = [(0.3 * np.sin(2 * np.pi * (300, 1200)[i % 2] * time).astype(np.float32), 8000) for i in range(n)]
    return Examples(waves, [("low", "high")[i % 2] for i in range(n)], [f"#{i}" for i in range(n)])


def texts(n: int, multilabel: bool = False) -> Examples:
    items = [f"the {('cat', 'dog')[i % 2]} number {RNG.integers(1000)}" for i in range(n)]
    names = [("cat", "dog")[i % 2] for i in range(n)]
    labels = [(name, "pet") if i % 3 else (name,) for i, name in enumerate(names)] if multilabel else names
    return Examples(items, labels, [f"#{i}" for i in range(n)])


@pytest.mark.parametrize("kind", ["image", "audio", "text"])
def test_what_plain_features_show_is_found(kind):
    data = {
        "image": lambda: ImageData(Given(shades(60, 100)), split=SPLIT),
        "audio": lambda: AudioData(Given(tones(40)), sample_rate=8000, split=SPLIT),
        "text": lambda: TextData(Given(texts(60)), split=SPLIT),
    }[kind]()
    data.setup()
    before = torch.get_rng_state(), np.random.get_state()[1].copy()  # pyright: ignore[reportIndexIssue]
    found = baseline_of(data.parts[kind])
    assert found is not None and found.score == 1.0
    assert torch.equal(before[0], torch.get_rng_state()) and (before[1] == np.random.get_state()[1]).all()


def test_where_there_is_nothing_to_see_it_guesses():
    data = ImageData(Given(shades(200, 0)), split=SPLIT)
    data.setup()
    found = baseline_of(data.parts["image"])
    assert found is not None and 0.25 < found.score < 0.75


def test_several_labels_per_example_are_scored_by_mean_average_precision():
    data = TextData(Given(texts(60, multilabel=True)), split=SPLIT)
    data.setup()
    found = baseline_of(data.parts["text"])
    # "cat" and "dog" stand in the text, AP 1; "pet" is on two texts of three whatever they say, AP about 2 / 3.
    assert found is not None and 0.8 < found.score < 0.97


def test_none_without_a_test_split_or_for_a_large_set(monkeypatch):
    data = TextData(Given(texts(60)), split=ByRatio(val=0.2, test=0))
    data.setup()
    assert baseline_of(data.parts["text"]) is None
    data = TextData(Given(texts(60)), split=SPLIT)
    data.setup()
    monkeypatch.setattr(module, "LARGEST", 59)
    assert baseline_of(data.parts["text"]) is None
