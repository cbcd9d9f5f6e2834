"""What a model must know of its data, in plain values: saved in every checkpoint."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from mmeff.errors import shown
from mmeff.signals.base import FORMER_NAME, Signal, names, of, wrong

#: Most characters of a class or task name.
CHARACTERS = 10_000


@dataclass(frozen=True)
class DataSpec:
    """One labelled signal: enough to build a head, and to turn a new file into the same raw signal.

    signal         which kind it is, a name of `mmeff.signals.names()`: "image", "audio", "text" or "series"
    classes        names in the order of the logits
    multilabel     True: any number of classes at once (labels (B, K) float); False: exactly one (labels (B,) int64)
    preprocessing  what the reader of new files needs: {"size": [H, W], "channels": 1} for images,
                   {"sample_rate": 16000, "samples": 16000} for audio, {} for text
    """

    signal: str
    classes: tuple[str, ...]
    multilabel: bool = False
    preprocessing: dict[str, Any] = field(default_factory=dict)

    @property
    def kind(self) -> Signal:
        """All that is known of signals of this kind."""
        return of(self.signal)

    def raw(self, batch: dict[str, Any]) -> Any:
        """The raw signals of a batch."""
        return batch[self.signal]

    def to_dict(self) -> dict[str, Any]:
        """Plain types only, so that a checkpoint holding it loads with `weights_only=True`."""
        return {
            FORMER_NAME: self.signal,
            "classes": list(self.classes),
            "multilabel": self.multilabel,
            "preprocessing": dict(self.preprocessing),
        }

    @classmethod
    def from_dict(cls, values: Any, name: str = "data") -> "DataSpec":
        """The spec that `to_dict` wrote. InputError that names the key for values that no data module gives."""
        keys = ("modality", "classes", "multilabel", "preprocessing")
        if not isinstance(values, dict) or not {"modality", "classes"} <= values.keys() <= set(keys):
            raise wrong(name, f"it must be a mapping of {', '.join(keys)}", values)
        modality, classes = values["modality"], values["classes"]
        multilabel, preprocessing = values.get("multilabel", False), values.get("preprocessing", {})
        if not isinstance(modality, str) or modality not in names():
            raise wrong(f"{name}.modality", f"it must be one of {', '.join(names())}", modality)
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
        kind, where = of(modality), f"{name}.preprocessing"
        if not isinstance(preprocessing, dict) or preprocessing.keys() != set(kind.keys):
            keys = " and ".join(kind.keys) or "no keys"
            raise wrong(where, f"for {modality} it must be a mapping of {keys}", preprocessing)
        kind.check(preprocessing, where)
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


def read_raw(spec: DataSpec, item: Any) -> Any:
    """The raw signal of an item, prepared as `spec` says: what a model that was trained under `spec` must be shown.

    item  the path of an image, sound or series; a Pillow image, or an array (H, W) or (H, W, C) uint8; a pair (waveform
          (S,) or (S, channels), float, int16, int32 or uint8, its sample rate); an array (S, C) of a series; a string

    Returns float32 (C, H, W) in [0, 1], float32 (S,) in [-1, 1], float32 (S, C), or a string. InputError if it cannot
    be read.
    """
    return spec.kind.read(item, **spec.preprocessing)


def collate(key: str, spec: DataSpec, raws: Sequence[Any]) -> dict[str, Any]:
    """A batch without labels: {"task": key, spec.signal: raw batch}, and "lengths" (B,) int64 where it is padded.

    Images (B, C, H, W); sounds (B, S), zeros after each one's end; series (B, S, C) likewise; texts a list.
    """
    raw, lengths = spec.kind.collate(raws, **spec.preprocessing)
    return {"task": key, spec.signal: raw} | ({} if lengths is None else {"lengths": lengths})
