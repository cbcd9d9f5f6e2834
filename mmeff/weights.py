"""Files of weights, read as data: tensors and plain values. Nothing that a file says is run, imported or opened."""

import json
import math
import pickletools
import stat
import warnings
import zipfile
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from mmeff.errors import InputError, shown

WEIGHTS, CONFIG = "model.safetensors", "config.json"

#: Bytes of a file's plain values (names, classes, settings). Those of a model of 10,000 tensors are 4 MB.
PLAIN = 16 * 2**20

#: Each is allowed by torch, and makes as many bytes as the file asks for.
UNBOUNDED = ("builtins bytearray", "torch Tensor", *(f"{t.__module__} {t.__name__}" for t in torch._tensor_classes))


class Refused(ValueError):
    """The reason why a file is not read, in words."""


def read_checkpoint(path: str | Path, map_location: Any = "cpu") -> dict[str, Any]:
    """A checkpoint that mmeff wrote: tensors and plain values, no pickled code is run. InputError if it is none."""
    path = Path(path)
    try:
        check_regular(path)
        check_archive(path)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # advice to torch's developers on what it then refuses
            checkpoint = torch.load(path, map_location=map_location, weights_only=True)
    except InputError:
        raise
    except Exception as error:  # torch raises half a dozen types for a file that is no checkpoint
        reason = describe_read_error(path, error)
        raise InputError(f"{path} cannot be read as a checkpoint: {reason}. Give one that `mmeff fit` wrote") from error
    held = checkpoint if isinstance(checkpoint, dict) else {}
    stored = held.get("mmeff")
    whole = isinstance(stored, dict) and isinstance(stored.get("specs"), dict)
    if not whole or not {"state_dict", "pytorch-lightning_version"} <= held.keys():
        raise InputError(f"{path} was not written by `mmeff fit`: it holds no class names and no recipe")
    check_state(checkpoint["state_dict"], path)
    return checkpoint


def read_export(folder: Path) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """The config.json and the weights of a folder that `mmeff export` wrote. InputError if it is none."""
    from safetensors.torch import load_file

    config, weights = folder / CONFIG, folder / WEIGHTS
    try:
        check_regular(config)
        check_regular(weights)
        if config.stat().st_size > PLAIN:
            raise ValueError(f"{CONFIG} has {config.stat().st_size} bytes, and {PLAIN} are the most")
        held = json.loads(
            config.read_bytes(), object_pairs_hook=unrepeated, parse_constant=no_number, parse_int=short_number
        )
        if not isinstance(held, dict) or not all(isinstance(held.get(key), dict) for key in ("model", "specs")):
            raise ValueError(f"{CONFIG} is no mapping with a `model` and its `specs`")
        state = load_file(weights)
    except InputError:
        raise
    except RecursionError as error:
        raise InputError(f"{folder} is not a whole export: the values of {CONFIG} are nested too deeply") from error
    except Exception as error:  # of json, safetensors and torch
        reason = " ".join(str(error).split())[:200] or type(error).__name__
        raise InputError(f"{folder} is not a whole export ({CONFIG} and {WEIGHTS}): {reason}") from error
    check_state(state, weights)
    return held, state


def check_regular(path: Path) -> None:
    """InputError for a pipe, a device or a socket, which could be read for ever. Links to files are followed."""
    if not stat.S_ISREG(path.stat().st_mode):
        raise InputError(f"{path} is no regular file: give one that `mmeff fit` or `mmeff export` wrote")


def check_archive(path: Path) -> None:
    """Refused if an archive of torch's could unfold into more than the file holds."""
    with zipfile.ZipFile(path) as archive:
        records = archive.infolist()
        if any(record.compress_type != zipfile.ZIP_STORED for record in records):
            raise Refused("it is compressed, which no checkpoint is")
        if sum(record.file_size for record in records) > path.stat().st_size:
            raise Refused("its records say that they are larger than the file")
        for record in records:
            if record.filename.endswith(".pkl"):
                if record.file_size > PLAIN:
                    raise Refused(f"its plain values take {record.file_size} bytes, and {PLAIN} are the most")
                check_pickle(archive.read(record))


def check_pickle(content: bytes) -> None:
    """Refused if unpickling, which runs no code, could still make any number of bytes, or take for ever: a tuple of
    twice itself, 60 levels deep, is hashed in 2^60 steps."""
    sizes: list[int | None] = []  # of what lies on the stack: entries of a tuple and of those within; None for a mark
    memo: dict[Any, int] = {}
    for opcode, argument, _ in pickletools.genops(content):
        if opcode.name == "GLOBAL" and argument in UNBOUNDED:
            raise Refused(f"it asks for a {shown(str(argument))}, and only tensors and plain values are read")
        if opcode.name in ("BINPUT", "LONG_BINPUT"):
            memo[argument] = sizes[-1] or 0
            continue
        if opcode.name in ("BINGET", "LONG_BINGET"):
            sizes.append(memo[argument])
            continue
        taken: list[int | None] = []
        if pickletools.markobject in opcode.stack_before:
            while sizes[-1] is not None:
                taken.append(sizes.pop())
            sizes.pop()
        below = [kind for kind in opcode.stack_before if kind not in (pickletools.markobject, pickletools.stackslice)]
        taken += [sizes.pop() for _ in below]
        size = sum(1 + (inner or 0) for inner in taken) if opcode.name.startswith("TUPLE") else 0
        if size > PLAIN:
            raise Refused("it holds tuples of themselves")
        sizes += [None if kind is pickletools.markobject else size for kind in opcode.stack_after]


def check_state(state: Any, path: Path) -> None:
    """InputError unless `state` is tensors by name, and no more numbers than the file holds."""
    if not isinstance(state, dict) or not all(isinstance(key, str) for key in state):
        raise InputError(f"{path} is damaged: its state_dict is not tensors by name")
    seen = set()
    for key, value in state.items():
        if key.endswith("_extra_state") and not isinstance(value, Tensor):
            continue  # plain values, which the module that reads them checks
        if type(value) not in (Tensor, nn.Parameter) or value.layout != torch.strided or value.is_quantized:
            raise InputError(f"{path} is damaged: {shown(key)} is no plain tensor")
        if value.is_meta:
            raise InputError(f"{path} is damaged: {shown(key)} has a shape and no numbers")
        seen.add((value.data_ptr(), value.shape, value.stride(), value.dtype))
    held = sum(math.prod(shape) * dtype.itemsize for _, shape, _, dtype in seen)
    if held > path.stat().st_size:
        raise InputError(f"{path} is damaged: its tensors are views of {held} bytes, and the file is smaller")


def unrepeated(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """A JSON object. ValueError where a key stands twice, of which readers take either."""
    found: dict[str, Any] = {}
    for key, value in pairs:
        if key in found:
            raise ValueError(f"the key {shown(key)!r} stands twice in {CONFIG}")
        found[key] = value
    return found


def no_number(word: str) -> None:
    raise ValueError(f"{word} in {CONFIG} is no JSON")


def short_number(digits: str) -> int:
    if len(digits) > 20:
        raise ValueError(f"{CONFIG} holds a number of {len(digits)} digits")
    return int(digits)


def describe_read_error(path: Path, error: Exception) -> str:
    """The reason in words, from the error and the file's first bytes."""
    if isinstance(error, Refused):
        return str(error)
    if isinstance(error, PermissionError):
        return "you may not read it"
    if isinstance(error, FileNotFoundError):
        return "it is not there"
    if path.stat().st_size == 0:
        return "it is empty"
    said = str(error)
    if "GLOBAL " in said:
        name = said.partition("GLOBAL ")[2].split()[0]
        return f"it asks to run {shown(name)}, and only tensors and plain values are read"
    with open(path, "rb") as file:
        begins_as_one = file.read(2) == b"PK"
    if begins_as_one and not zipfile.is_zipfile(path):
        return "it is cut short"
    return "it is damaged" if begins_as_one else "it is a file of another kind"
