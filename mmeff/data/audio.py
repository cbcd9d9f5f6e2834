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

from mmeff.data.base import ClassificationData, Part, make_part
from mmeff.data.examples import Source
from mmeff.data.splits import SplitRule
from mmeff.errors import InputError

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
        if not 0 <= self.speed < 1 or min(self.shift, self.gain_db, self.noise) < 0:
            raise InputError(f"{self}: nothing may be negative, and speed must be less than 1")


def read_audio(item: Any, sample_rate: int, samples: int, augment: AudioAugment | None = None) -> Tensor:
    """Decode a sound, mix it to mono, resample it, and cut it to `samples` at most.

    item     the path of a file that libsndfile reads (wav, flac, ogg, mp3, ...), or a pair (waveform (S,) or
             (S, channels), its sample rate)
    augment  random changes, drawn from the global generators of `random` and torch; also cuts at a random place
             instead of the middle

    Returns float32 (S,) in [-1, 1], 1 <= S <= samples. InputError if the file is no sound, or a broken one, or shorter
    than 25 ms.
    """
    # A slower sound is longer: fewer samples of the file fill the clip.
    speed = 1.0 if augment is None else random.uniform(1 - augment.speed, 1 + augment.speed)
    seconds = samples / sample_rate * speed
    place = 0.5 if augment is None else random.random()
    if isinstance(item, str | os.PathLike):
        wave, rate = _decode(item, seconds, place)
    else:
        wave, rate = np.asarray(item[0]), int(item[1])
        if wave.dtype.kind != "f" or wave.ndim not in (1, 2):
            raise InputError(f"a waveform is {wave.dtype} {wave.shape}; it must be float (S,) or (S, channels)")
        wave = wave.astype(np.float32)
        wave = _cut(wave.reshape(len(wave), -1), round(seconds * rate), place)
    name = item if isinstance(item, str | os.PathLike) else f"a waveform {np.shape(item[0])}"
    if len(wave) == 0:
        raise InputError(f"{name} is empty: it has no samples. Replace it or take it out")
    if not np.isfinite(wave).all():
        raise InputError(f"{name} has samples that are not numbers (NaN or infinite)")
    mono = torch.from_numpy(np.ascontiguousarray(wave.mean(axis=1)))
    mono = _resample(mono, rate, sample_rate, name)
    if len(mono) < min(samples, int(SHORTEST * sample_rate)):
        raise InputError(
            f"{name} lasts {1000 * len(wave) / rate:.1f} ms, less than one window of {1000 * SHORTEST:.0f} ms: "
            "take it out, or give a longer recording"
        )
    if speed != 1.0:
        mono = F.interpolate(mono[None, None], size=max(1, round(len(mono) / speed)), mode="linear")[0, 0]
    mono = mono[:samples]
    if augment is not None:
        mono = _change(mono, sample_rate, augment)
    return mono.clamp(-1, 1)


def _decode(path: str | os.PathLike[str], seconds: float, place: float) -> tuple[np.ndarray, int]:
    """At most `seconds` of a file, cut at `place` (0 first, 1 last): float32 (S, channels), and its sample rate."""
    import soundfile

    if not os.path.exists(path):
        raise InputError(f"{path} is not found")
    if not os.path.getsize(path):
        raise InputError(f"{path} is empty: it has no bytes. Replace it or take it out")
    try:
        with soundfile.SoundFile(os.fspath(path)) as file:
            wanted = round(seconds * file.samplerate)
            if file.frames > wanted:
                file.seek(int((file.frames - wanted) * place))
            return file.read(min(max(wanted, 1), file.frames), dtype="float32", always_2d=True), file.samplerate
    except (soundfile.SoundFileError, OverflowError, MemoryError, ValueError) as error:
        reason = getattr(error, "error_string", error)  # libsndfile's own words; the whole error repeats the path
        raise InputError(
            f"{path} is not a sound that can be read: {str(reason).rstrip('.')}. Replace it or take it out"
        ) from None


def _cut(wave: np.ndarray, wanted: int, place: float) -> np.ndarray:
    start = int(max(0, len(wave) - wanted) * place)
    return wave[start : start + max(wanted, 1)]


def _resample(wave: Tensor, rate: int, wanted: int, name: Any) -> Tensor:
    if rate == wanted:
        return wave
    if not wanted / 64 <= rate <= wanted * 64:
        raise InputError(f"{name} has a sample rate of {rate} Hz, too far from {wanted} Hz: is its header broken?")
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


@dataclass(frozen=True)
class _TrainingReader:
    preprocessing: dict[str, Any]
    augment: AudioAugment

    def __call__(self, item: Any) -> Tensor:
        return read_audio(item, **self.preprocessing, augment=self.augment)


class AudioData(ClassificationData):
    """Sounds with labels, in mono at one sample rate. Shorter sounds keep their length, longer ones are cut.

    Args:
        source: Where the sounds come from, as `AudioFolder`, `FileTable`, `SpeechCommands` or `Tones`.
        sample_rate: Samples per second that sounds are resampled to.
        seconds: Longest sound: what is longer is cut, at random in training, to its middle otherwise.
        augment: Random changes of training sounds; by default none.
        batch_size: Sounds per training step and process.
        split: How examples are divided; by default `AsGiven()`.
        num_workers: Processes that read; by default none if the sounds are in memory and few, else one a core up to 16.
        seed: Of the order of the examples, of the cuts and of the augmentation.
    """

    def __init__(
        self,
        source: Source,
        sample_rate: int = 16000,
        seconds: float = 1.0,
        augment: AudioAugment | None = None,
        batch_size: int = 64,
        split: SplitRule | None = None,
        num_workers: int | None = None,
        seed: int = 0,
    ):
        super().__init__(num_workers, seed)
        if sample_rate < 1:
            raise InputError(f"data.sample_rate is {sample_rate}; it must be 1 Hz at least, such as 16000")
        if seconds < SHORTEST:
            raise InputError(f"data.seconds is {seconds}; sounds need {SHORTEST} at least, one window")
        self.source, self.sample_rate, self.seconds = source, sample_rate, seconds
        self.augment = augment or AudioAugment()
        self.batch_size, self.split = batch_size, split

    def load(self) -> dict[str, Part]:
        examples = self.source.examples()
        samples = round(self.sample_rate * self.seconds)
        preprocessing = {"sample_rate": self.sample_rate, "samples": samples}
        read = _TrainingReader(preprocessing, self.augment)
        return {"audio": make_part("audio", examples, self.split, preprocessing, read, self.batch_size, self.seed)}
