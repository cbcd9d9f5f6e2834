"""Sound files -> samples: a part of a file, at the level of the whole, as far as the file can be read."""

import math
import os
import warnings
from collections.abc import Iterator
from functools import lru_cache
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from mmeff.errors import InputError, spelled
from mmeff.signals.files.check import check_file, unreadable
from mmeff.signals.files.unsized import mp3_counts, sized

if TYPE_CHECKING:
    from soundfile import SoundFile

#: Frames that a byte holds at most: 65,535 of silence in the 12 bytes of a block of FLAC. Where libsndfile says more,
#: the header counts nothing; to seek there can take for ever.
DENSEST = 10_000
#: Kinds of samples that have no full scale.
FLOATS = ("FLOAT", "DOUBLE")

Path = str | os.PathLike[Any]


class Whole(NamedTuple):
    """What a whole file holds: frames that can be read, largest absolute sample, sample rate."""

    frames: int
    peak: float
    rate: int


def read_samples(path: Path, seconds: float, place: float) -> tuple[np.ndarray, int]:
    """At most `seconds` of a file, cut at `place` (0 first, 1 last): float32 (S, channels), and its sample rate.

    Samples beyond 1 are divided by the peak of the file (see `mmeff.data.audio.read_audio`). A file whose header counts
    too much, or nothing, is read from its beginning as far as it goes. InputError says why a file cannot be read.
    """
    import soundfile

    found = check_file(path)
    stamp = (os.fsencode(path), found.st_size, found.st_mtime_ns)
    wave, partly, reason = None, False, None
    try:
        try:
            # As bytes: soundfile cannot encode names that are not UTF-8.
            with soundfile.SoundFile(stamp[0]) as file:  # pyright: ignore[reportArgumentType]
                rate, frames = file.samplerate, file.frames
                wanted = max(round(seconds * rate), 1)
                if _counts(file, stamp):
                    if partly := frames > wanted:
                        file.seek(int((frames - wanted) * place))
                    wave = file.read(min(wanted, frames), dtype="float32", always_2d=True)
                    floats = partly and file.subtype in FLOATS
        except soundfile.SoundFileError as error:
            reason = error
        if wave is None or len(wave) < min(wanted, frames):
            whole = _survey(*stamp)
            if not whole.frames:
                raise InputError(f"{spelled(path)} is empty: it has no samples. Replace it or take it out")
            rate = whole.rate
            wanted = max(round(seconds * rate), 1)
            wave = _from_the_beginning(stamp[0], int(max(0, whole.frames - wanted) * place), wanted)
            return levelled(wave, whole.peak, path), rate
        peak = peak_of(wave)
        # All decoders of lossy formats overshoot a little: the rest of a file is decoded only if this part does.
        if floats or (partly and peak > 1):
            peak = _survey(*stamp).peak
        return levelled(wave, peak, path), rate
    except InputError:
        raise
    except (soundfile.SoundFileError, OSError, OverflowError, MemoryError, TypeError, ValueError) as error:
        first = error if isinstance(error, OSError) else reason or error
        # libsndfile's own words; the whole error repeats the path
        raise unreadable(path, "a sound", getattr(first, "error_string", first)) from None


def peak_of(wave: np.ndarray) -> float:
    """Largest absolute sample, 0 if there is none; NaN if one sample is NaN."""
    return float(max(wave.max(), -wave.min())) if wave.size else 0.0


_told = False


def levelled(wave: np.ndarray, peak: float, item: Any) -> np.ndarray:
    """The samples, divided by the peak if it is beyond 1. Warns the first time. InputError if it is not finite."""
    global _told
    if not math.isfinite(peak):
        raise InputError(f"{name_of(item)} has samples that are not numbers (NaN or infinite)")
    if peak <= 1:
        return wave
    if not _told:
        _told = True
        warnings.warn(
            f"{name_of(item)} has samples up to {peak:.6g}, beyond full scale (1): it is divided by that peak, as is "
            "every sound that goes beyond 1 (said once)",
            stacklevel=2,
        )
    return wave / np.float32(peak)


def name_of(item: Any) -> str:
    """A file, or a pair (waveform, sample rate), in messages."""
    return spelled(item) if isinstance(item, str | os.PathLike) else f"a waveform {np.shape(item[0])}"


def _counts(file: "SoundFile", stamp: tuple[bytes, int, int]) -> bool:
    """Whether the header's count of frames can be relied on to cut a part out of the file."""
    if not 0 < file.frames < DENSEST * stamp[1]:
        return False
    if file.format != "MP3" or mp3_counts(os.fsdecode(stamp[0])):
        return True
    return abs(_survey(*stamp).frames - file.frames) <= file.frames // 100


@lru_cache(maxsize=2**16)
def _survey(path: bytes, size: int, changed: int) -> Whole:
    """Reads a whole file, once as long as it does not change. Warns if it ends before its header says so."""
    frames, peak = 0, 0.0
    with _opened(path) as file:
        for block in _blocks(file):
            frames, peak = frames + len(block), float(np.maximum(peak, peak_of(block)))  # NaN stays
        if frames < 0.99 * file.frames and file.frames < DENSEST * size and file.name == path:
            warnings.warn(
                f"{spelled(path)} ends after {frames / file.samplerate:.2f} s, where its header promises "
                f"{file.frames / file.samplerate:.2f} s: it is read as far as it goes",
                stacklevel=2,
            )
        return Whole(frames, peak, file.samplerate)


def _from_the_beginning(path: bytes, start: int, wanted: int) -> np.ndarray:
    kept, at = [], 0
    with _opened(path) as file:
        for block in _blocks(file):
            kept.append(block[max(0, start - at) : max(0, start + wanted - at)])
            at += len(block)
            if at >= start + wanted:
                break
    return np.concatenate(kept)


def _opened(path: bytes) -> "SoundFile":
    """The file, or a copy in memory whose header reaches to its end, if its own says nothing."""
    import soundfile

    file, reason = None, None
    try:
        file = soundfile.SoundFile(path)  # pyright: ignore[reportArgumentType]
    except soundfile.SoundFileError as error:
        reason = error
    if file is not None and file.frames > 0 and (file.format != "MP3" or mp3_counts(os.fsdecode(path))):
        return file
    if file is not None:
        file.close()
    with open(path, "rb") as content:
        data = content.read()
    try:
        return soundfile.SoundFile(sized(data))
    except soundfile.SoundFileError as error:
        raise reason or error from None


def _blocks(file: "SoundFile") -> Iterator[np.ndarray]:
    """All that can be read, in short blocks: the one in which a broken file ends is lost."""
    import soundfile

    # soundfile would seek after each read, to where a wrong header makes libsndfile fail.
    file.seekable = lambda: False
    begun = False
    while True:
        try:
            block = file.read(4096, dtype="float32", always_2d=True)
        except soundfile.SoundFileError:
            if not begun:
                raise
            return
        if not len(block):
            return
        begun = True
        yield block
