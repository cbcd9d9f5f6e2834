"""Hand-made rows for tests of the report."""

from pathlib import Path
from typing import Any

from mmeff import signals
from mmeff.compare.schema import Row
from mmeff.compare.store import write_rows

ABOUT = {
    "device": "a test's device",
    "date": "2026-11-24T05:00:00",
    "versions": {"torch": "2.11.0", "mmeff": "0.1.0"},
    "commit": "abc123",
    "command": "mmeff compare -c some.yaml",
    "threads": 2,
}
RECIPES = {"image": "digits", "audio": "tones", "text": "glosses"}


def row(backbone: str, length: float, signal: Any = "text", **values: Any) -> Row:
    """A row with these values measured and no other."""
    values = {"recipe": RECIPES[signal], "kind": "mmeff", "unit": signals.of(signal).unit, **values}
    return Row(signal=signal, backbone=backbone, length=float(length), **values)


def timed(backbone: str, length: float, rate: float, spread: float = 0.01, signal: str = "text", **values: Any) -> Row:
    """A row whose training runs at so many examples a second, with quartiles this share below and above."""
    bounds = {"training_low": rate * (1 - spread), "training_high": rate * (1 + spread)}
    return row(backbone, length, signal, training=rate, **bounds, **values)


def run(folder: Path, rows: list[Row], **about: Any) -> Path:
    """A folder with these results."""
    folder.mkdir(parents=True, exist_ok=True)
    write_rows(folder / "results.parquet", rows, {**ABOUT, **about})
    return folder


def three_signals() -> list[Row]:
    """Three contenders, one of which fails at one length, for every signal at two lengths."""
    lengths = {"image": (224, 1024), "audio": (1, 10), "text": (512, 4096)}
    found = []
    for signal, those in lengths.items():
        for i, length in enumerate(those):
            found.append(timed("attention", length, 100 / 10**i, signal=signal, memory=50.0 * 9**i, parameters=10**6))
            found.append(timed("vim", length, 60 / 2**i, signal=signal, memory=60.0 * 3**i, parameters=2 * 10**6))
        found.append(timed("deit", those[0], 80, signal=signal, kind="baseline", accuracy=0.9, seeds=1, steps=30))
        found.append(row("deit", those[1], signal, kind="baseline", error="out of memory: 3 GiB | <all> of 2 GiB"))
    return found
