"""Sounds for classification: decoding, resampling, cropping, augmentation."""

import os
import random
from dataclasses import dataclass
from fractions import Fraction
from functools import lru_cache
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from mmeff.data.audio_file import levelled, name_of, peak_of, read_samples
from mmeff.errors import InputError, within

#: Seconds of the shortest sound: one window of a spectrogram.
SHORTEST = 0.025


@dataclass(frozen=True)
class AudioAugment:
    """Random changes of training waveforms, in the order of the arguments; the defaults change nothing.

    Args:
        speed: Plays the sound at 1 - speed to 1 + speed times its speed (its pitch changes with it).
        shift: Moves the sound by up to this many seconds either way; what leaves is lost, what comes in is silence.
        gain_db: Changes the level by up to this many decibels either way; what exceeds [-1, 1] is clipped.
        noise: Adds white noise of a standard deviation drawn from 0 to this; full scale is 1.
    """

    speed: float = 0.0
    shift: float = 0.0
    gain_db: float = 0.0
    noise: float = 0.0

    def __post_init__(self) -> None:
        within("[0, 1)", speed=self.speed)
        within("[0, inf)", shift=self.shift, noise=self.noise)
        within("[0, 200]", gain_db=self.gain_db)  # more than float32 spans


def read_audio(item: Any, sample_rate: int, samples: int, augment: AudioAugment | None = None) -> Tensor:
    """Decode a sound, mix it to mono, resample it, and cut it to `samples` at most.

    item     the path of a file that libsndfile reads (wav, flac, ogg, mp3, ...), or a pair (waveform (S,) or
             (S, channels), its sample rate)
    augment  random changes, drawn from the global generators of `random` and torch; also cuts at a random place
             instead of the middle

    Full scale is 1, for integers that of their type: int16 figures are divided by 32768, int32 by 2^31, uint8 are
    (x - 128) / 128. Floating-point samples beyond 1 have no full scale: the sound is divided by its peak, the largest
    absolute sample of all channels over the whole file or waveform, so that every cut has the same factor, and a
    warning says so once. To know the peak, a float WAV longer than the cut is read through the first time; a lossy file
    (ogg, mp3) only where the cut itself goes beyond 1. What augmentation or resampling lift beyond 1 is clipped.

    Returns float32 (S,) in [-1, 1], 1 <= S <= samples. InputError if the file is no sound, or a broken one, or shorter
    than 25 ms, or has samples that are not finite.
    """
    # A slower sound is longer: fewer samples of the file fill the clip.
    speed = 1.0 if augment is None else random.uniform(1 - augment.speed, 1 + augment.speed)
    seconds = samples / sample_rate * speed
    place = 0.5 if augment is None else random.random()
    if isinstance(item, str | os.PathLike):
        wave, rate = read_samples(item, seconds, place)
    else:
        wave, rate = _from_pair(item)
        wave = _cut(levelled(wave, peak_of(wave), item).reshape(len(wave), -1), round(seconds * rate), place)
    mono = torch.from_numpy(np.ascontiguousarray(wave.mean(axis=1)))
    mono = _resample(mono, rate, sample_rate, item)
    if len(mono) < min(samples, int(SHORTEST * sample_rate)):
        raise InputError(
            f"{name_of(item)} lasts {1000 * len(wave) / rate:.1f} ms, less than one window of {1000 * SHORTEST:.0f} "
            "ms: take it out, or give a longer recording"
        )
    if speed != 1.0:
        mono = F.interpolate(mono[None, None], size=max(1, round(len(mono) / speed)), mode="linear")[0, 0]
    mono = mono[:samples]
    if augment is not None:
        mono = _change(mono, sample_rate, augment)
    return mono.clamp(-1, 1)


#: Offset and full scale of integer samples, as in WAV files.
SCALES = {"int16": (0, 2**15), "int32": (0, 2**31), "uint8": (128, 2**7)}


def _from_pair(item: Any) -> tuple[np.ndarray, int]:
    """(waveform, rate) -> float32 (S,) or (S, channels), integers at their full scale, and the rate."""
    if not isinstance(item, tuple | list) or len(item) != 2:
        raise InputError(f"a sound is a {type(item).__name__}; it must be a path or a pair (waveform, sample rate)")
    wave, rate = np.asarray(item[0]), item[1]
    if wave.ndim not in (1, 2) or wave.size == 0 or (wave.dtype.kind != "f" and wave.dtype.name not in SCALES):
        raise InputError(
            f"a waveform is {wave.dtype} {wave.shape}; it must be float, int16, int32 or uint8, "
            "of shape (S,) or (S, channels)"
        )
    try:
        rate = int(rate)
    except (TypeError, ValueError, OverflowError):
        rate = 0
    if rate < 1:
        raise InputError(f"a waveform has a sample rate of {item[1]!r}; it must be 1 Hz at least, such as 16000")
    if wave.dtype.kind == "f":
        return wave.astype(np.float32), rate
    zero, scale = SCALES[wave.dtype.name]
    return (wave.astype(np.float32) - zero) / scale, rate


def _cut(wave: np.ndarray, wanted: int, place: float) -> np.ndarray:
    start = int(max(0, len(wave) - wanted) * place)
    return wave[start : start + max(wanted, 1)]


def _resample(wave: Tensor, rate: int, wanted: int, item: Any) -> Tensor:
    if rate == wanted:
        return wave
    if not wanted / 64 <= rate <= wanted * 64:
        raise InputError(
            f"{name_of(item)} has a sample rate of {rate} Hz, too far from {wanted} Hz: is its header broken?"
        )
    # torchaudio's filter bank has wanted x rate entries, in lowest terms: 44099 to 16000 Hz would take gigabytes.
    # A ratio of numbers to 1000 is exact for all common rates, and off by 0.05 % at most, a hundredth of a semitone.
    ratio = Fraction(rate, wanted).limit_denominator(1000)
    return _resampler(ratio.numerator, ratio.denominator)(wave)


@lru_cache(maxsize=16)
def _resampler(rate: int, wanted: int) -> Any:
    from torchaudio.transforms import Resample

    return Resample(rate, wanted)


def _change(wave: Tensor, sample_rate: int, augment: AudioAugment) -> Tensor:
    if augment.shift:
        by = round(random.uniform(-augment.shift, augment.shift) * sample_rate)
        by = max(-len(wave), min(len(wave), by))
        wave = F.pad(wave, (by, -by))
    if augment.gain_db:
        wave = wave * 10 ** (random.uniform(-augment.gain_db, augment.gain_db) / 20)
    if augment.noise:
        wave = wave + random.uniform(0, augment.noise) * torch.randn_like(wave)
    return wave
