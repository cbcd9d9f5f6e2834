"""A trained model out of a run, and into a folder of safetensors and JSON: no pickle is ever executed."""

import json
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map

from mmeff.build import Misfit, build
from mmeff.errors import InputError
from mmeff.signals import DataSpec
from mmeff.tasks import Task
from mmeff.tasks.restored import check_keys
from mmeff.weights import CONFIG, WEIGHTS, read_checkpoint, read_export

MISFIT = "the checkpoint's recipe does not fit this version of mmeff"
LARGER = f"{MISFIT}: it describes a model that is larger than the checkpoint's weights"


def load(path: str | Path, trust: Sequence[str] = ()) -> Task:
    """The trained model of a run folder (its best checkpoint), a .ckpt file or an exported folder, in eval mode.

    Only tensors and plain values are read, and only classes of mmeff are built; `trust` names further packages whose
    classes a checkpoint may build. InputError says what is wrong with the file.
    """
    source = find(path)
    config, state = read(source)
    try:
        model = rebuild(config["model"], DataSpec.from_dicts(config["specs"]), state, trust)
        check_keys(state, model.state_dict())
        model.load_state_dict(state)
    except InputError as error:
        raise InputError(f"{source}: {error}") from error
    return model.eval()


def rebuild(recipe: Any, specs: dict[str, DataSpec], state: dict[str, Any], trust: Sequence[str] = ()) -> Task:
    """The untrained model that a checkpoint's recipe describes.

    specs  the data it was trained on, which say its heads
    state  the checkpoint's weights: building stops as soon as it takes more than they do
    trust  further packages whose classes, and functions annotated to return one, the recipe may name in full

    InputError names the key of a value that does not belong there.
    """
    try:
        with warnings.catch_warnings(), Budget(state):
            warnings.simplefilter("ignore")  # of torch, on values that are then refused
            model = build(Task, recipe, "model", trust, MISFIT)
            model.prepare(specs)
    except InputError as error:
        if isinstance(error, Misfit) and "overflow" in str(error).lower():  # of torch's, where sizes are multiplied
            raise InputError(LARGER) from error
        raise
    except Exception as error:
        raise InputError(f"{MISFIT}: {' '.join(str(error).split())[:300] or type(error).__name__}") from error
    model.recipe = recipe
    return model


class Budget(TorchDispatchMode):
    """Bounds the tensors that are made within it, before they are, by those of `state`.

    Building a recipe's model makes up to 3 times the numbers of its weights, and 700,000 for a spectrogram, in up to
    10 operations per tensor; a class of the user's may take a few times as many.
    """

    def __init__(self, state: dict[str, Any]):
        super().__init__()
        tensors = [value for value in state.values() if isinstance(value, Tensor)]
        self.numbers = 12 * sum(tensor.numel() for tensor in tensors) + 2**24
        self.operations = 40 * len(tensors) + 2_000

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        made = () if func._schema.is_mutable else tree_leaves(shapes_of(func, args, kwargs))
        self.operations -= 1
        self.numbers -= sum(x.numel() for x in made if isinstance(x, Tensor))
        if self.operations < 0 or self.numbers < 0:
            raise InputError(LARGER)
        return func(*args, **kwargs)


def shapes_of(func: Any, args: Any, kwargs: Any) -> Any:
    """The results of an operation as tensors without numbers; None where they depend on numbers, and are no larger."""
    if {torch.Tag.data_dependent_output, torch.Tag.dynamic_output_shape} & set(func.tags):
        return None
    if any(argument.name == "device" for argument in func._schema.arguments):
        kwargs = {**kwargs, "device": "meta"}
        kwargs.pop("pin_memory", None)
    args, kwargs = tree_map(lambda x: x.to("meta") if isinstance(x, Tensor) else x, (args, kwargs))
    try:
        return func(*args, **kwargs)
    except NotImplementedError:  # an operation of the user's own
        return None


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
