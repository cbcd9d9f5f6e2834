"""What a model must know of its data, in plain values: saved in every checkpoint."""

from dataclasses import asdict, dataclass, field
from typing import Any

from mmeff.errors import InputError, shown

MODALITIES = ("image", "audio", "text")

#: Most characters of a class or task name, pixels of an image, samples per second, and seconds of a sound.
CHARACTERS, PIXELS, RATE, SECONDS = 10_000, 2**26, 2**22, 86_400


@dataclass(frozen=True)
class DataSpec:
    """One labelled signal: enough to build a head, and to turn a new file into the same raw signal.

    modality       "image", "audio" or "text"
    classes        names in the order of the logits
    multilabel     True: any number of classes at once (labels (B, K) float); False: exactly one (labels (B,) int64)
    preprocessing  what the reader of new files needs: {"size": [H, W], "channels": 1} for images,
                   {"sample_rate": 16000, "samples": 16000} for audio, {} for text
    """

    modality: str
    classes: tuple[str, ...]
    multilabel: bool = False
    preprocessing: dict[str, Any] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        """Plain types only, so that a checkpoint holding it loads with `weights_only=True`."""
        return {**asdict(self), "classes": list(self.classes)}

    @classmethod
    def from_dict(cls, values: Any, name: str = "data") -> "DataSpec":
        """The spec that `to_dict` wrote. InputError that names the key for values that no data module gives."""
        keys = ("modality", "classes", "multilabel", "preprocessing")
        if not isinstance(values, dict) or not {"modality", "classes"} <= values.keys() <= set(keys):
            raise wrong(name, f"it must be a mapping of {', '.join(keys)}", values)
        modality, classes = values["modality"], values["classes"]
        multilabel, preprocessing = values.get("multilabel", False), values.get("preprocessing", {})
        if not isinstance(modality, str) or modality not in MODALITIES:
            raise wrong(f"{name}.modality", f"it must be one of {', '.join(MODALITIES)}", modality)
        if not isinstance(classes, list | tuple) or not classes:
            raise wrong(f"{name}.classes", "it must be a list of names", classes)
        for i, one in enumerate(classes):
            if not isinstance(one, str) or len(one) > CHARACTERS:
                raise wrong(f"{name}.classes[{i}]", f"it must be a name of at most {CHARACTERS} characters", one)
        if len(set(classes)) < len(classes):
            seen: set[str] = set()
            twice = next(one for one in classes if one in seen or seen.add(one))
            raise wrong(f"{name}.classes", "each name must stand there once", f"{shown(twice)} again")
        if not isinstance(multilabel, bool):
            raise wrong(f"{name}.multilabel", "it must be true or false", multilabel)
        check_preprocessing(modality, preprocessing, f"{name}.preprocessing")
        return cls(modality, tuple(classes), multilabel, preprocessing)

    @classmethod
    def from_dicts(cls, values: Any) -> "dict[str, DataSpec]":
        """The specs of all tasks by name. InputError that names the key for what no data module gives."""
        if not isinstance(values, dict) or not values:
            raise wrong("specs", "it must be a mapping of tasks to what their data are", values)
        for name in values:
            # Tasks name modules and files.
            if (
                not isinstance(name, str)
                or not name.isprintable()
                or not 0 < len(name) <= 100
                or set(name) & set("./\\")
            ):
                raise wrong("specs", "a task has a name of at most 100 characters without full stop or slash", name)
        return {name: cls.from_dict(one, name) for name, one in values.items()}


def check_preprocessing(modality: str, values: Any, where: str) -> None:
    """InputError unless `values` is what `mmeff.data.read_raw` needs for signals of this modality."""
    wanted = {"image": ("size", "channels"), "audio": ("sample_rate", "samples"), "text": ()}[modality]
    if not isinstance(values, dict) or values.keys() != set(wanted):
        raise wrong(where, f"for {modality} it must be a mapping of {' and '.join(wanted) or 'no keys'}", values)
    if modality == "image":
        size = values["size"]
        if not isinstance(size, list | tuple) or len(size) != 2 or not all(whole(n, PIXELS) for n in size):
            raise wrong(f"{where}.size", "it must be a height and a width in pixels", size)
        if size[0] * size[1] > PIXELS:
            raise wrong(f"{where}.size", f"an image has at most {PIXELS} pixels", size)
        if not whole(values["channels"], 3) or values["channels"] == 2:
            raise wrong(f"{where}.channels", "it must be 1 (grey) or 3 (colour)", values["channels"])
    if modality == "audio":
        rate, samples = values["sample_rate"], values["samples"]
        if not whole(rate, RATE):
            raise wrong(f"{where}.sample_rate", f"it must be from 1 to {RATE} per second", rate)
        if not whole(samples, rate * SECONDS):
            raise wrong(f"{where}.samples", f"it must be from 1 to those of {SECONDS} seconds", samples)


def whole(value: Any, most: int) -> bool:
    return type(value) is int and 1 <= value <= most


def wrong(where: str, must: str, value: Any) -> InputError:
    inner = value if isinstance(value, list | tuple) and len(value) < 10 else [value]
    plain = all(isinstance(one, int | float | str | None) for one in inner)
    got = shown(repr(value)) if plain else type(value).__name__
    return InputError(f"the checkpoint does not say what its data are: {shown(where)}: {must}, not {got}")
