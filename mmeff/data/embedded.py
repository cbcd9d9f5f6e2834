"""Real data that comes with the project: digits, spoken syllables, definitions of nouns. See assets/README.md."""

import csv
import hashlib
import io
import lzma
from pathlib import Path
from typing import Literal

import numpy as np

from mmeff.data.examples import Examples, Source
from mmeff.errors import InputError

RATE = 16000
SHA256 = {
    "digits.png": "19cb3f074cde2d3ed831f9054b3c56268b6af1d2132023e8e2728d404ffb9073",
    "tones.ogg": "94792b6b4d832e6d28853d53970e9e333702609711cda66af03009e3705cf91d",
    "tones.csv": "9d3f0d990c7be95aa3516c4d47233eade8f29be83a51f2200c05131b4d26073a",
    "glosses.csv.xz": "80a95006f6176ac9bbe9ded94c4bd0406c65612364911da211a86a703f9ae363",
}
RESTORE = "restore it with `git checkout assets` or `python assets/rebuild.py`, or install mmeff again"
TONES = {"1": "tone 1 (high)", "2": "tone 2 (rising)", "3": "tone 3 (dipping)", "4": "tone 4 (falling)"}


def asset(name: str) -> Path:
    """The path of a file of assets/, in an installed wheel or in a clone. InputError if it is in neither."""
    package = Path(__file__).resolve().parents[1]
    for folder in (package / "_assets", package.parent / "assets"):
        if (folder / name).is_file():
            return folder / name
    raise InputError(f"assets/{name} is missing; {RESTORE}")


def read_asset(name: str, sha256: str = "") -> bytes:
    """A file of assets/. InputError if it is not the one of this sha256, by default that of SHA256."""
    data = asset(name).read_bytes()
    if hashlib.sha256(data).hexdigest() != (sha256 or SHA256[name]):
        raise InputError(f"{asset(name)} is damaged (its sha256 is not the recorded one); {RESTORE}")
    return data


class Digits(Source):
    """5,000 handwritten digits of MNIST in 10 classes, 350 train, 50 val and 100 test each.

    An item is a uint8 array (28, 28), 0 background to 255 ink. Digits come in turn: 0, 1, ..., 9, 0, ...
    """

    def examples(self) -> Examples:
        from PIL import Image

        mosaic = np.asarray(Image.open(io.BytesIO(read_asset("digits.png"))))
        # (10 digits x 10 rows x 28, 50 columns x 28) -> (10 digits, 500, 28, 28)
        images = mosaic.reshape(100, 28, 50, 28).swapaxes(1, 2).reshape(10, 500, 28, 28)
        order = [(digit, i) for i in range(500) for digit in range(10)]
        return Examples(
            items=[images[digit, i] for digit, i in order],
            labels=[str(digit) for digit, _ in order],
            ids=[f"{digit}/{i}" for digit, i in order],
            split=["train" if i < 350 else "val" if i < 400 else "test" for _, i in order],
        )


class Tones(Source):
    """1,144 recordings of Mandarin syllables by one speaker, 0.26 to 0.36 s each.

    label   "tone": the 4 tones. "initial": the consonant the syllable begins with, 21 in pinyin and "none"

    An item is (waveform float32 (S,) in [-1, 1], 16000). The group is the base syllable, without its tone: the tones of
    a syllable seem to share one take, so none is in two splits.

    By ChionMeilin with the vocal source from Chu Lo, CC BY 3.0.
    """

    sample_rate = RATE

    def __init__(self, label: Literal["tone", "initial"] = "tone"):
        if label not in ("tone", "initial"):
            raise InputError(f'label is {label!r}; it must be "tone" or "initial"')
        self.label = label

    def examples(self) -> Examples:
        import soundfile

        rows = list(csv.DictReader(io.StringIO(read_asset("tones.csv").decode())))
        # The whole file at once: a seek in Ogg may land some samples off.
        wave, rate = soundfile.read(io.BytesIO(read_asset("tones.ogg")), dtype="float32")
        starts = [int(row["start"]) for row in rows]
        return Examples(
            items=[(wave[s : s + int(row["samples"])], rate) for s, row in zip(starts, rows, strict=True)],
            labels=[TONES[row["tone"]] if self.label == "tone" else row["initial"] for row in rows],
            ids=[row["syllable"] + row["tone"] for row in rows],
            split=[row["split"] for row in rows],
            group=[row["syllable"] for row in rows],
        )


class Glosses(Source):
    """18,000 definitions of English nouns from WordNet 3.0 in 12 domains, 1,200 train, 150 val and 150 test each.

    An item is a string, as "an abrupt involuntary movement"; its id is the offset of its synset in data.noun.
    """

    def examples(self) -> Examples:
        rows = list(csv.DictReader(io.StringIO(lzma.decompress(read_asset("glosses.csv.xz")).decode(), newline="")))
        return Examples(
            items=[row["text"] for row in rows],
            labels=[row["domain"] for row in rows],
            ids=[row["offset"] for row in rows],
            split=[row["split"] for row in rows],
        )
