"""LightningDataModules: examples from folders, tables and published sets become batches of raw signals."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mmeff.data.audio import AudioAugment
    from mmeff.data.base import ClassificationData, Part
    from mmeff.data.embedded import Digits, Glosses, Tones
    from mmeff.data.examples import Examples, Source
    from mmeff.data.folders import AudioFolder, ImageFolder, TextFolder
    from mmeff.data.image import Affine, ImageAugment
    from mmeff.data.loader import ResumableLoader, Signals
    from mmeff.data.modules import AudioData, ImageData, JointData, TextData
    from mmeff.data.published import SpeechCommands, TorchvisionSet
    from mmeff.data.raw import collate, read_raw
    from mmeff.data.splits import AsGiven, ByGroup, ByRatio, SplitRule
    from mmeff.data.tables import FileTable, TextTable

# Loaded on first use, so that `import mmeff.data` costs neither lightning nor a decoder.
_HOME = {
    "audio": ("AudioAugment",),
    "base": ("ClassificationData", "Part"),
    "embedded": ("Digits", "Glosses", "Tones"),
    "examples": ("Examples", "Source"),
    "folders": ("AudioFolder", "ImageFolder", "TextFolder"),
    "image": ("Affine", "ImageAugment"),
    "loader": ("ResumableLoader", "Signals"),
    "modules": ("AudioData", "ImageData", "JointData", "TextData"),
    "published": ("SpeechCommands", "TorchvisionSet"),
    "raw": ("collate", "read_raw"),
    "splits": ("AsGiven", "ByGroup", "ByRatio", "SplitRule"),
    "tables": ("FileTable", "TextTable"),
}
_MODULE = {name: module for module, names in _HOME.items() for name in names}

__all__ = [
    "Affine",
    "AsGiven",
    "AudioAugment",
    "AudioData",
    "AudioFolder",
    "ByGroup",
    "ByRatio",
    "ClassificationData",
    "Digits",
    "Examples",
    "FileTable",
    "Glosses",
    "ImageAugment",
    "ImageData",
    "ImageFolder",
    "JointData",
    "Part",
    "ResumableLoader",
    "Signals",
    "Source",
    "SpeechCommands",
    "SplitRule",
    "TextData",
    "TextFolder",
    "TextTable",
    "Tones",
    "TorchvisionSet",
    "collate",
    "read_raw",
]


def __getattr__(name: str) -> Any:
    if name not in _MODULE:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_MODULE[name]}"), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
