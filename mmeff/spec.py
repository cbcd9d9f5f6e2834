"""What a model must know of its data, in plain values: it travels in every checkpoint."""

from dataclasses import asdict, dataclass, field
from typing import Any


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
    def from_dict(cls, values: dict[str, Any]) -> "DataSpec":
        return cls(**{**values, "classes": tuple(values["classes"])})

    @classmethod
    def from_dicts(cls, values: dict[str, dict[str, Any]]) -> "dict[str, DataSpec]":
        return {name: cls.from_dict(one) for name, one in values.items()}
