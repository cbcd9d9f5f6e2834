"""LightningDataModules: examples from folders, tables and published sets become batches of raw signals."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mmeff.data.base import ClassificationData, Part
    from mmeff.data.embedded import Digits, Glosses, Tones
    from mmeff.data.examples import Examples, Source
    from mmeff.data.folders import AudioFolder, ImageFolder, TextFolder
    from mmeff.data.loader import ResumableLoader, Signals
    from mmeff.data.modules import AudioData, ImageData, JointData, SeriesData, TextData
    from mmeff.data.published import SpeechCommands, TorchvisionSet
    from mmeff.data.series import SeriesArrays, SeriesFolder, Vowels
    from mmeff.data.splits import AsGiven, ByGroup, ByRatio, SplitRule
    from mmeff.data.tables import FileTable, TextTable
    from mmeff.signals import collate, read_raw
    from mmeff.signals.audio import AudioAugment
    from mmeff.signals.image import Affine, ImageAugment
    from mmeff.signals.series import SeriesAugment
    from mmeff.signals.text import text_lines

# Loaded on first use, so that `import mmeff.data` costs neither lightning nor a decoder.
_HOME = {
    "base": ("ClassificationData", "Part"),
    "embedded": ("Digits", "Glosses", "Tones"),
    "examples": ("Examples", "Source"),
    "folders": ("AudioFolder", "ImageFolder", "TextFolder"),
    "loader": ("ResumableLoader", "Signals"),
    "modules": ("AudioData", "ImageData", "JointData", "SeriesData", "TextData"),
    "published": ("SpeechCommands", "TorchvisionSet"),
    "series": ("SeriesArrays", "SeriesFolder", "Vowels"),
    "splits": ("AsGiven", "ByGroup", "ByRatio", "SplitRule"),
    "tables": ("FileTable", "TextTable"),
    ".signals": ("collate", "read_raw"),
    ".signals.audio": ("AudioAugment",),
    ".signals.image": ("Affine", "ImageAugment"),
    ".signals.series": ("SeriesAugment",),
    ".signals.text": ("text_lines",),
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
    "SeriesArrays",
    "SeriesAugment",
    "SeriesData",
    "SeriesFolder",
    "Signals",
    "Source",
    "SpeechCommands",
    "SplitRule",
    "TextData",
    "TextFolder",
    "TextTable",
    "Tones",
    "TorchvisionSet",
    "Vowels",
    "collate",
    "read_raw",
    "text_lines",
]


def __getattr__(name: str) -> Any:
    if name not in _MODULE:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f".{_MODULE[name]}", __name__), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
