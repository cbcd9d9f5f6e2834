"""Sounds: reading, augmentation, batches, pictures."""

import os
import random
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from functools import lru_cache
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from mmeff.errors import InputError, within
from mmeff.signals.base import Sheet, Signal, padded, whole_number, wrong
from mmeff.signals.files.audio import levelled, name_of, peak_of, read_samples

#: Seconds of the shortest sound: one window of a spectrogram.
SHORTEST = 0.025

#: Most samples per second, and seconds, of a sound.
RATE, SECONDS = 2**22, 86_400


class Audio(Signal):
    """Raw: float32 (S,) in [-1, 1], mono, of different lengths.

    A waveform of 8 significant bits has noise at -50 dB in every band of its spectrogram, quiet ones included, and a
    model that was trained on it would hear other sounds at prediction: it stays whole.
    """

    name, unit, rate, by_length = "audio", "s", "s of audio/s", True
    target, question, least = 10.0, "A clip of 10 s", 0.1
    whole = True
    sheet = Sheet(columns=4, width=2.6, height=1.1)
    features, penalties = "log-mel statistics", (1e-2, 1e-1, 1.0)
    keys = ("sample_rate", "samples")

    def check(self, preprocessing: dict[str, Any], where: str) -> None:
        rate, samples = preprocessing["sample_rate"], preprocessing["samples"]
        if not whole_number(rate, RATE):
            raise wrong(f"{where}.sample_rate", f"it must be from 1 to {RATE} per second", rate)
        if not whole_number(samples, rate * SECONDS):
            raise wrong(f"{where}.samples", f"it must be from 1 to those of {SECONDS} seconds", samples)

    def read(self, item: Any, **preprocessing: Any) -> Tensor:
        return read_audio(item, **preprocessing)

    def item(self, given: Any, **preprocessing: Any) -> Any:
        if isinstance(given, str | os.PathLike):
            return given
        if not (isinstance(given, tuple) and len(given) == 2):
            raise InputError(
                "this model reads sounds: give a path, or a pair (waveform, sample rate), "
                f"not {type(given).__name__}; several of them in a list"
            )
        wave, rate = given
        return (wave.detach().cpu().numpy() if isinstance(wave, Tensor) else wave), rate

    def suffixes(self) -> tuple[str, ...]:
        return sound_suffixes()

    def collate(self, raws: Sequence[Tensor], **preprocessing: Any) -> tuple[Tensor, Tensor]:
        """Padded to the longest, rounded up to a tenth of a second."""
        return padded(raws, max(1, preprocessing["sample_rate"] // 10), preprocessing["samples"])

    def length(self, **preprocessing: Any) -> float:
        return preprocessing["samples"] / preprocessing["sample_rate"]

    def random(self, length: float, batch: int, **preprocessing: Any) -> Tensor:
        return 0.1 * torch.randn(batch, round(length * preprocessing["sample_rate"]))

    def draw(self, ax: Any, raw: Tensor, width: float, **preprocessing: Any) -> str:
        rate = preprocessing["sample_rate"]
        ax.imshow(log_mel(raw, rate).numpy(), cmap="magma", aspect="auto", origin="lower")
        return f"{len(raw) / rate:.2f} s"

    def compact(self, raw: Tensor, **preprocessing: Any) -> np.ndarray:
        return log_mel_statistics(raw, preprocessing["sample_rate"])


SIGNAL = Audio()

#: The suffixes of what libsndfile knows by a name of its own; RAW has no header, MAT4 and MAT5 are arrays.
SOUNDS = {
    "AIFF": ".aif .aiff .aifc",
    "AU": ".au .snd",
    "AVR": ".avr",
    "CAF": ".caf",
    "FLAC": ".flac",
    "HTK": ".htk",
    "IRCAM": ".sf .ircam",
    "MP3": ".mp3",
    "NIST": ".nist .sph",
    "OGG": ".ogg .oga .opus",
    "PAF": ".paf",
    "PVF": ".pvf",
    "RF64": ".rf64",
    "SD2": ".sd2",
    "SDS": ".sds",
    "SVX": ".svx .8svx .iff",
    "VOC": ".voc",
    "W64": ".w64",
    "WAV": ".wav .wave .bwf",
    "WVE": ".wve",
    "XI": ".xi",
}


@lru_cache(1)
def sound_suffixes() -> tuple[str, ...]:
    """Those of the sounds that this installation of libsndfile reads, the usual ones first."""
    import soundfile

    read = {suffix for name in soundfile.available_formats() for suffix in SOUNDS.get(name, "").split()}
    usual = [suffix for suffix in (".wav", ".flac", ".ogg", ".mp3") if suffix in read]
    return (*usual, *sorted(read.difference(usual)))


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


def log_mel_statistics(wave: Tensor, rate: int) -> np.ndarray:
    """Mean, deviation and maximum over time of 64 log-mel bands: (192,)."""
    from torchaudio.functional import melscale_fbanks

    window = max(16, round(0.025 * rate))
    size = 2 ** (2 * window - 1).bit_length()
    wave = F.pad(wave, (0, max(0, size - len(wave))))
    power = torch.stft(wave, size, window // 2, window, torch.hann_window(window), return_complex=True).abs().square()
    bands = melscale_fbanks(size // 2 + 1, 0.0, rate / 2, 64, rate)
    log_mel = (power.T @ bands).clamp_min(1e-8).log()  # (T, 64)
    return torch.cat([log_mel.mean(0), log_mel.std(0, correction=0), log_mel.amax(0)]).numpy()


def log_mel(wave: Tensor, sample_rate: int, bands: int = 64) -> Tensor:
    """(S,) -> (bands, T) in decibels, at most 80 below the loudest: a picture of a sound, not a feature.

    25 ms Hann windows every 10 ms; mel = 2595 log10(1 + f / 700 Hz), power averaged over equal steps of it.
    """
    n_fft = 2 ** int(np.ceil(np.log2(0.064 * sample_rate)))  # fine enough that no band is without a frequency
    window = torch.hann_window(round(0.025 * sample_rate))
    hop = max(1, round(0.01 * sample_rate))
    spectrum = torch.stft(
        wave.float(), n_fft, hop, len(window), window, pad_mode="constant", return_complex=True
    )  # (F, T)
    power = spectrum.abs().square()
    mel = torch.log10(1 + torch.linspace(0, sample_rate / 2, len(power)) / 700)
    band = (mel / mel[-1] * bands).long().clamp_max(bands - 1)
    sums = torch.zeros(bands, power.shape[1]).index_add(0, band, power)
    decibels = 10 * torch.log10(sums / band.bincount(minlength=bands).clamp_min(1)[:, None] + 1e-12)
    return decibels.clamp_min(float(decibels.max()) - 80)
