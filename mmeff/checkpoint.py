"""A trained model out of a run, and into a folder of safetensors and JSON: no pickle is ever executed."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from mmeff.build import build
from mmeff.errors import InputError
from mmeff.spec import DataSpec
from mmeff.tasks.classify import Classification
from mmeff.tasks.restored import check_keys
from mmeff.weights import CONFIG, WEIGHTS, read_checkpoint, read_export


def load(path: str | Path, trust: Sequence[str] = ()) -> Classification:
    """The trained model of a run folder (its best checkpoint), a .ckpt file or an exported folder, in eval mode.

    Only tensors and plain values are read, and only classes of mmeff are built; `trust` names further packages whose
    classes a checkpoint may build. InputError says what is wrong with the file.
    """
    source = find(path)
    config, state = read(source)
    try:
        model = build(config["model"], DataSpec.from_dicts(config["specs"]), state, trust)
        check_keys(state, model.state_dict())
        model.load_state_dict(state)
    except InputError as error:
        raise InputError(f"{source}: {error}") from error
    return model.eval()


def find(path: str | Path) -> Path:
    """The checkpoint file or exported folder that `path` means."""
    path = Path(path)
    if path.is_file() or (path / CONFIG).is_file():
        return path
    for name in ("best.ckpt", "last.ckpt"):
        if (path / name).is_file():
            return path / name
    if path.is_dir():
        raise InputError(f"{path} holds neither best.ckpt, last.ckpt nor {CONFIG}: give a run folder or a checkpoint")
    raise InputError(f"no checkpoint at {path}: give a run folder such as runs/digits, or a .ckpt file")


def read(path: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    """-> {"model": its recipe, "specs": the data it was trained on} as they stand in the file, and its state_dict."""
    if path.is_dir():
        return read_export(path)
    checkpoint = read_checkpoint(path)
    if not isinstance(checkpoint["mmeff"].get("model"), dict):
        raise InputError(f"{path} was not written by `mmeff fit`: it holds no recipe to build its model from")
    return checkpoint["mmeff"], checkpoint["state_dict"]


def export(path: str | Path, to: str | Path, trust: Sequence[str] = ()) -> Path:
    """Write a trained model as safetensors and config.json into a new folder."""
    from safetensors import SafetensorError
    from safetensors.torch import save_file

    source, to = find(path), Path(to)
    model = load(source, trust)
    if to.exists() and (not to.is_dir() or any(to.iterdir())):
        raise InputError(f"{to} is already there: give --to a new folder")
    state = model.state_dict()
    for key, value in state.items():
        if not isinstance(value, Tensor):
            raise InputError(f"{source} cannot be exported: {key} is {type(value).__name__}, and no tensor")
    to.mkdir(parents=True, exist_ok=True)
    import mmeff

    config = {
        "mmeff": mmeff.__version__,
        "model": model.recipe,
        "specs": {name: spec.to_dict() for name, spec in model.specs.items()},
    }
    try:
        # Copies, for safetensors takes no two that share their numbers.
        save_file(
            {key: value.clone(memory_format=torch.contiguous_format) for key, value in state.items()}, to / WEIGHTS
        )
    except SafetensorError as error:  # its way to say that the disk is full
        raise OSError(f"{to / WEIGHTS} cannot be written: {error}") from error
    (to / CONFIG).write_text(json.dumps(config, indent=2) + "\n")
    return to
