"""The embedded data: what is in it, that its splits are clean, and that a damaged file is caught."""

import re
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from mmeff.data import embedded
from mmeff.data.embedded import SHA256, Digits, Glosses, Tones, asset
from mmeff.data.examples import Examples
from mmeff.errors import InputError


@pytest.fixture(scope="module")
def digits() -> Examples:
    return Digits().examples()


@pytest.fixture(scope="module")
def tones() -> Examples:
    return Tones().examples()


@pytest.fixture(scope="module")
def glosses() -> Examples:
    return Glosses().examples()


def counts(examples: Examples) -> dict[str, Counter]:
    """{split: {class: examples}}."""
    assert examples.split is not None
    pairs = list(zip(examples.split, examples.labels, strict=True))
    return {split: Counter(label for s, label in pairs if s == split) for split in ("train", "val", "test")}


def assert_aligned(examples: Examples, size: int) -> None:
    assert len(examples) == len(examples.items) == len(examples.ids) == len(examples.split or []) == size
    assert len(set(examples.ids)) == size


def test_digits(digits):
    assert_aligned(digits, 5000)
    classes = list("0123456789")
    assert counts(digits) == {s: dict.fromkeys(classes, n) for s, n in {"train": 350, "val": 50, "test": 100}.items()}
    assert all(image.shape == (28, 28) and image.dtype == np.uint8 for image in digits.items)
    assert len({image.tobytes() for image in digits.items}) == 5000


def test_digits_look_like_their_labels(digits):
    """The nearest class mean names 81.4 % of these digits; with the tiles cut or named wrong it would not."""
    images, labels = np.stack(digits.items).astype(np.float32), np.array(digits.labels, dtype=int)
    test = np.array(digits.split) == "test"
    means = np.stack([images[~test & (labels == digit)].mean(0) for digit in range(10)])
    nearest = ((images[test, None] - means) ** 2).sum((2, 3)).argmin(1)
    assert (nearest == labels[test]).mean() > 0.75


def test_tones(tones):
    assert_aligned(tones, 1144)
    assert counts(tones) == {
        "train": {"tone 1 (high)": 213, "tone 2 (rising)": 160, "tone 3 (dipping)": 197, "tone 4 (falling)": 225},
        "val": {"tone 1 (high)": 29, "tone 2 (rising)": 24, "tone 3 (dipping)": 27, "tone 4 (falling)": 31},
        "test": {"tone 1 (high)": 61, "tone 2 (rising)": 51, "tone 3 (dipping)": 63, "tone 4 (falling)": 63},
    }


def test_tones_are_short_sounds_that_begin_and_end_quietly(tones):
    for wave, rate in tones.items:
        assert rate == Tones.sample_rate == 16000
        assert wave.dtype == np.float32 and wave.ndim == 1
        assert 0.25 < len(wave) / rate < 0.37
        assert 0.05 < np.abs(wave).max() <= 1
        # Clips cut 10 ms off their places break a bound: early ones by a neighbour's end, late ones by their onset.
        loud = np.abs(wave).max()
        assert np.abs(wave[:160]).max() < 0.1 * loud
        assert np.abs(wave[-16:]).max() < 0.2 * loud


def test_no_syllable_is_in_two_splits(tones):
    splits = dict(zip(tones.group, tones.split, strict=True))
    assert [splits[group] for group in tones.group] == list(tones.split)
    assert Counter(splits.values()) == {"train": 267, "val": 40, "test": 78}


def test_initials_are_in_every_split(tones):
    examples = Tones(label="initial").examples()
    assert examples.ids == tones.ids and examples.split == tones.split
    for classes in counts(examples).values():
        assert len(classes) == 22 and {"zh", "m", "none"} < set(classes)
    assert {i[0] for i, label in zip(examples.ids, examples.labels, strict=True) if label == "zh"} == {"ㄓ"}


def test_tones_know_two_labels_only():
    with pytest.raises(InputError, match='label is \'speaker\'; it must be "tone" or "initial"'):
        Tones(label="speaker")  # pyright: ignore[reportArgumentType]


def test_glosses(glosses):
    assert_aligned(glosses, 18000)
    nouns = "act animal artifact body cognition communication food location person plant state substance"
    classes = nouns.split()
    assert counts(glosses) == {
        s: dict.fromkeys(classes, n) for s, n in {"train": 1200, "val": 150, "test": 150}.items()
    }
    assert len(set(glosses.items)) == 18000
    assert all(len(text) >= 15 and text == text.strip() and '; "' not in text for text in glosses.items)


@pytest.mark.parametrize(
    ("name", "source"),
    [("digits.png", Digits()), ("tones.ogg", Tones()), ("tones.csv", Tones()), ("glosses.csv.xz", Glosses())],
)
def test_a_damaged_or_missing_file_is_named(name, source, tmp_path, monkeypatch):
    for other in SHA256:
        data = bytearray(asset(other).read_bytes())
        data[len(data) // 2] ^= other == name
        (tmp_path / other).write_bytes(data)
    monkeypatch.setattr(embedded, "asset", lambda file: tmp_path / file)
    with pytest.raises(InputError, match=rf"{re.escape(name)} is damaged .*git checkout assets.*assets/rebuild.py"):
        source.examples()


def test_a_missing_file_is_named():
    with pytest.raises(InputError, match=r"assets/nothing\.png is missing; .*git checkout assets"):
        asset("nothing.png")


def test_the_readme_records_what_the_code_verifies():
    readme = (Path(__file__).parents[2] / "assets" / "README.md").read_text(encoding="utf-8")
    assert all(sha256 in readme for sha256 in SHA256.values())
