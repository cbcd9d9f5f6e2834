"""Raw signal -> Tokens: one file a kind of signal, and the positions they add."""

from mmeff.tokenizers.audio import AudioFrames, AudioPatches, AudioWave, LogMel, SpecAugment
from mmeff.tokenizers.base import Tokenizer
from mmeff.tokenizers.image import ImagePatches, ImageStem
from mmeff.tokenizers.positions import LearnedPositions, NoPositions, Positions, SinusoidalPositions
from mmeff.tokenizers.series import SeriesPatches
from mmeff.tokenizers.text import TextBPE, TextBytes

__all__ = [
    "AudioFrames",
    "AudioPatches",
    "AudioWave",
    "ImagePatches",
    "ImageStem",
    "LearnedPositions",
    "LogMel",
    "NoPositions",
    "Positions",
    "SeriesPatches",
    "SinusoidalPositions",
    "SpecAugment",
    "TextBPE",
    "TextBytes",
    "Tokenizer",
]
