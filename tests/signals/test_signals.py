"""Kinds of signals: each says all that the rest of the package asks, and the rest asks nothing else."""

import inspect
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from matplotlib.figure import Figure

from mmeff import signals
from mmeff.errors import InputError
from mmeff.signals import DataSpec, collate, read_raw

ROOT = Path(__file__).parents[2]
#: Of each kind: preprocessing, and items as a source has them.
RNG = np.random.default_rng(0)
KINDS: dict[str, tuple[dict[str, Any], list[Any]]] = {
    "image": ({"size": [8, 12], "channels": 1}, list(RNG.integers(0, 255, (3, 10, 9), dtype=np.uint8))),
    "audio": ({"sample_rate": 8000, "samples": 8000}, [(RNG.uniform(-1, 1, n), 8000) for n in (400, 9000, 8000)]),
    "text": ({}, ["one text", "another, longer", "x"]),
    "series": (
        {"channels": 2, "steps": 50, "columns": []},
        [RNG.normal(size=(n, 2)).astype(np.float32) for n in (7, 60, 33)],
    ),
}


def test_every_module_is_a_kind_and_has_examples_here():
    assert set(signals.names()) == set(KINDS)
    for name in signals.names():
        kind = signals.of(name)
        assert kind.name == name and not inspect.isabstract(type(kind))
        for attribute in signals.Signal.__annotations__:
            assert hasattr(kind, attribute), f"{name} does not say its {attribute}"
        assert list(kind.penalties) == sorted(kind.penalties)


def test_a_kind_that_is_none_is_named():
    with pytest.raises(InputError, match="no signal 'imgae': did you mean 'image'"):
        signals.of("imgae")


@pytest.mark.parametrize("name", KINDS)
def test_items_become_batches_and_pictures(name):
    preprocessing, items = KINDS[name]
    spec = DataSpec.from_dict(DataSpec(name, ("a", "b"), False, preprocessing).to_dict())
    raws = [read_raw(spec, spec.kind.item(item, **spec.preprocessing)) for item in items]
    batch = collate("part", spec, raws)
    assert batch["task"] == "part" and len(spec.raw(batch)) == 3
    for i, raw in enumerate(raws):
        row = spec.raw(batch)[i]
        if "lengths" in batch:
            n = int(batch["lengths"][i])
            assert n == len(raw) and not row[n:].any()
            row = row[:n]
        assert row == raw if isinstance(raw, str) else torch.equal(row, raw)
    axes = Figure(figsize=(3, 2)).add_subplot()
    assert isinstance(spec.kind.draw(axes, raws[0], 3.0, **preprocessing), str)
    kept = [spec.kind.compact(raw, **preprocessing) for raw in raws]
    assert spec.kind.featurise(kept)(kept).shape[0] == 3
    if not spec.kind.strings:
        length = spec.kind.length(**preprocessing)
        assert len(spec.kind.random(length, 2, **preprocessing)) == 2


def source_of(*parts: str) -> list[tuple[Path, str]]:
    paths = [path for part in parts for path in (ROOT / "mmeff" / part).rglob("*.py")]
    assert len(paths) > 10
    return [(path.relative_to(ROOT), path.read_text()) for path in paths]


def test_nobody_else_asks_what_kind_a_signal_is_of():
    """Outside the kinds, tokenizers and data modules, no source names a kind or asks for the class of a tokenizer."""
    kinds = "|".join(f'"{name}"' for name in signals.names())
    asked = re.compile(rf"modality|isinstance\([^)]*Tokenizer|(==|!=|in|\[|get\() ?\(?({kinds})")
    wrong = [
        f"{path}:{number}: {line.strip()}"
        for path, text in source_of("tasks", "compare", "cli", "backbones", "mixers")
        for number, line in enumerate(text.splitlines(), 1)
        if asked.search(line)
    ]
    assert not wrong, "\n".join(wrong)
    others = [path for path in (ROOT / "mmeff").rglob("*.py") if "modality" in path.read_text()]
    allowed = ("signals", "tokenizers", "data/modules.py")
    assert all(path.relative_to(ROOT / "mmeff").as_posix().startswith(allowed) for path in others), others
