"""Sounds: every kind of file, any sample rate, cutting, padding, augmentation."""

import os
import random
import re
import struct
import warnings

import numpy as np
import pytest
import torch

from mmeff.data import AudioAugment, AudioData, AudioFolder, collate, read_raw
from mmeff.errors import InputError
from mmeff.signals import DataSpec
from mmeff.signals.audio import read_audio
from mmeff.signals.files.audio import read_samples

SPEC = DataSpec("audio", ("a", "b"), preprocessing={"sample_rate": 8000, "samples": 8000})


def pitch(wave, rate):
    """The strongest frequency, in Hz."""
    return float(torch.fft.rfft(wave).abs().argmax()) * rate / len(wave)


@pytest.mark.parametrize("name", ["a.wav", "a.flac", "a.ogg", "a.mp3"])
@pytest.mark.parametrize(("rate", "channels"), [(8000, 1), (16000, 2), (44100, 2)])
def test_kinds_of_files(write_sound, name, rate, channels):
    wave = read_raw(SPEC, str(write_sound(name, 0.5, rate, channels)))
    assert wave.dtype == torch.float32 and wave.ndim == 1
    assert len(wave) == pytest.approx(4000, abs=400 if name == "a.mp3" else 1)
    assert pitch(wave, 8000) == pytest.approx(440, abs=3)
    assert wave.abs().max().item() == pytest.approx(0.5, abs=0.05)


@pytest.mark.parametrize("rate", [7999, 11025, 22050, 44099, 48000])
def test_any_rate_keeps_pitch_and_length(rate):
    wave = np.sin(2 * np.pi * 440 * np.arange(rate) / rate).astype(np.float32)
    out = read_audio((wave, rate), 16000, 20000)
    assert abs(len(out) - 16000) <= 16000 * 5e-4  # odd ratios are rounded to 0.05 %
    assert rate % 25 or abs(len(out) - 16000) <= 1
    assert pitch(out, 16000) == pytest.approx(440, abs=1.1)


def test_channels_are_averaged():
    wave = np.stack([np.full(200, 0.5), np.full(200, -0.1)], 1).astype(np.float32)
    torch.testing.assert_close(read_audio((wave, 8000), 8000, 8000), torch.full((200,), 0.2))


def test_long_sounds_are_cut_in_the_middle_and_at_random_in_training(tmp_path):
    import soundfile

    ramp = np.linspace(0, 1, 1000, dtype=np.float32)
    soundfile.write(tmp_path / "a.wav", ramp, 8000, subtype="FLOAT")
    for item in (str(tmp_path / "a.wav"), (ramp, 8000)):
        middle = read_audio(item, 8000, 200)
        assert len(middle) == 200 and middle.mean().item() == pytest.approx(0.5, abs=0.01)
        starts = {round(read_audio(item, 8000, 200, AudioAugment())[0].item(), 4) for _ in range(20)}
        assert len(starts) > 5 and min(starts) >= 0 and max(starts) <= 0.8


def test_batches_are_padded_to_tenths_of_a_second():
    batch = collate("audio", SPEC, [torch.ones(1201), torch.ones(700)])
    assert batch["audio"].shape == (2, 1600)
    assert batch["lengths"].tolist() == [1201, 700]
    assert batch["audio"].sum(1).tolist() == [1201, 700] and batch["audio"][1, :700].eq(1).all()
    short = DataSpec("audio", ("a", "b"), preprocessing={"sample_rate": 8000, "samples": 1000})
    assert collate("audio", short, [torch.ones(990)])["audio"].shape == (1, 1000)


@pytest.mark.parametrize(
    "augment", [AudioAugment(shift=0.02), AudioAugment(gain_db=6), AudioAugment(noise=0.1), AudioAugment(speed=0.2)]
)
def test_augmentations(augment):
    wave = (0.5 * np.sin(np.arange(2000) / 5)).astype(np.float32)
    plain = read_audio((wave, 8000), 8000, 8000)
    random.seed(0)  # a shift of 0 samples is rare, not impossible
    seen = [read_audio((wave, 8000), 8000, 8000, augment) for _ in range(8)]
    assert not any(len(x) == len(plain) and torch.equal(x, plain) for x in seen)
    assert all(x.abs().max() <= 1 and torch.isfinite(x).all() for x in seen)
    assert all((len(x) == 2000) == (augment.speed == 0) for x in seen)
    assert torch.equal(read_audio((wave, 8000), 8000, 8000, AudioAugment()), plain)


def test_shift_moves_the_sound(monkeypatch):
    wave = np.arange(1, 101, dtype=np.float32) / 100
    monkeypatch.setattr("random.uniform", lambda low, high: low)
    earlier = read_audio((wave, 1000), 1000, 1000, AudioAugment(shift=0.01))
    assert torch.equal(earlier, torch.cat([torch.from_numpy(wave[10:]), torch.zeros(10)]))
    assert read_audio((wave, 1000), 1000, 1000, AudioAugment(shift=5)).eq(0).all()


def voice(seconds: float = 1.0, rate: int = 8000) -> np.ndarray:
    """Two sines under a rising envelope: quiet at first, a peak near 0.8 in the last tenth."""
    t = np.arange(int(seconds * rate)) / rate
    wave = 0.5 * np.sin(2 * np.pi * 440 * t) + 0.3 * np.sin(2 * np.pi * 990 * t)
    return (np.linspace(0.1, 1, len(t)) * wave).astype(np.float32)


@pytest.mark.parametrize(
    ("name", "subtype"),
    [("a.wav", "FLOAT"), ("a.wav", "DOUBLE"), ("a.aiff", "FLOAT"), ("a.ogg", None), ("a.mp3", None), ("array", None)],
)
@pytest.mark.parametrize("factor", [1, 1.5, 5, 32767])
def test_sounds_beyond_full_scale_keep_their_shape_and_one_level(tmp_path, name, subtype, factor):
    import soundfile

    if factor > 5 and name in ("a.ogg", "a.mp3"):
        return  # their encoders clip it
    wave = voice()
    item = (wave * factor, 8000)
    if name != "array":
        item = str(tmp_path / name)
        soundfile.write(item, wave * factor, 8000, subtype=subtype)
    whole = read_audio(item, 8000, 16000).numpy()
    lossy = name in ("a.ogg", "a.mp3")
    expected = wave / np.abs(wave).max() if factor * np.abs(wave).max() > 1 else wave * factor
    assert np.abs(whole).max() == pytest.approx(np.abs(expected).max(), rel=0.1 if lossy else 1e-5)
    if len(whole) == len(wave):
        assert np.corrcoef(whole, wave)[0, 1] > (0.98 if lossy else 0.999999)
    # A quiet cut has the factor of the whole file, too. A lossy file is decoded whole only if its cut is too loud.
    middle = read_audio(item, 8000, 1000).numpy()
    start = (len(whole) - 1000) // 2
    if not lossy:
        np.testing.assert_allclose(middle, whole[start : start + 1000], atol=1e-6)
    elif factor == 5:
        assert np.abs(middle).max() == pytest.approx(np.abs(whole[start : start + 1000]).max(), rel=0.05)


def test_a_loud_sound_is_said_once(monkeypatch):
    monkeypatch.setattr("mmeff.signals.files.audio._told", False)
    with pytest.warns(UserWarning, match=r"a waveform \(8000,\) has samples up to 23.*, beyond full scale") as told:
        for factor in (30, 40):
            read_audio((voice() * factor, 8000), 8000, 8000)
    assert sum("beyond full scale" in str(one.message) for one in told) == 1


def test_integers_have_the_full_scale_of_their_type():
    wave = voice().astype(np.float64)
    for dtype, zero, scale in ((np.int16, 0, 2**15), (np.int32, 0, 2**31), (np.uint8, 128, 2**7)):
        figures = np.round(wave * (scale - 1) + zero).astype(dtype)
        np.testing.assert_allclose(read_audio((figures, 8000), 8000, 8000).numpy(), wave, atol=2 / scale + 1e-6)


def patched(content: bytes, *changes: tuple[int, bytes]) -> bytes:
    out = bytearray(content)
    for at, new in changes:
        out[at : at + len(new)] = new
    return bytes(out)


def flac_of(content: bytes, frames: int) -> bytes:
    """A FLAC whose header counts so many frames (36 bits; 0 for an unknown number)."""
    return patched(content, (21, bytes([content[21] & 0xF0]) + struct.pack(">I", frames)))


def unsized(name: str, content: bytes) -> bytes:
    """The file as a writer leaves it that cannot go back to its header."""
    data = content.find(b"data")
    if name == "zero.wav":
        return patched(content, (4, bytes(4)), (data + 4, bytes(4)))
    if name == "ones.wav":
        return patched(content, (4, b"\xff" * 4), (data + 4, b"\xff" * 4))
    if name == "list.wav":
        content = content[:data] + b"LIST\4\0\0\0INFO" + content[data:]
        return patched(content, (data + 16, bytes(4)))
    if name == "a.rf64":
        return patched(content, (content.find(b"ds64") + 8, bytes(24)))
    if name == "a.caf":
        return patched(content, (data + 4, b"\xff" * 8))
    if name == "a.au":
        return patched(content, (8, bytes(4)))
    if name == "zero.flac":
        return flac_of(content, 0)
    if name == "much.flac":
        return flac_of(content, 10**6)
    last = content.rfind(b"OggS")
    if name in ("zero.ogg", "much.ogg", "zero.opus"):
        page = patched(content[last:], (6, struct.pack("<q", 10**7 if name == "much.ogg" else 0)), (22, bytes(4)))
        return content[:last] + patched(page, (22, struct.pack("<I", ogg_checksum(page))))
    tag = max(content.find(b"Xing"), content.find(b"Info"))
    if name == "none.mp3":
        return patched(content, (tag, b"none"))
    return patched(content, (tag + 8, bytes(4) if name == "zero.mp3" else b"\0\1\0\0"))


def ogg_checksum(page: bytes) -> int:
    found = 0
    for byte in page:
        found ^= byte << 24
        for _ in range(8):
            found = (found << 1) ^ (0x104C11DB7 if found & 0x80000000 else 0)
    return found


@pytest.mark.parametrize("place", [0.0, 0.5, 1.0])
@pytest.mark.parametrize(
    "name",
    [
        *("zero.wav", "ones.wav", "list.wav", "a.rf64", "a.caf", "a.au", "zero.flac", "much.flac"),
        *("zero.ogg", "much.ogg", "zero.opus", "zero.mp3", "much.mp3", "none.mp3"),
    ],
)
@pytest.mark.filterwarnings("ignore:.*it is read as far as it goes")
def test_headers_that_count_nothing_or_too_much(tmp_path, name, place):
    import soundfile

    # Silence first: an MP3's first frame is then no measure of the others.
    wave, path = np.concatenate([np.zeros(8000), voice(4.0)]).astype(np.float32), tmp_path / name
    opus = {"format": "OGG", "subtype": "OPUS"} if name == "zero.opus" else {}
    soundfile.write(path, wave, 8000, **opus)
    path.write_bytes(unsized(name, path.read_bytes()))
    whole, rate = read_samples(path, 100, place)
    kind = name.partition(".")[2]
    lossy = kind in ("mp3", "ogg", "opus")
    # MP3 adds silence at both ends; libsndfile drops the last page of a broken Opus.
    room = {"mp3": 2500, "ogg": 300, "opus": 10_000}.get(kind, 0)
    assert rate == 8000 and len(whole) == pytest.approx(len(wave), abs=room)
    cut, _ = read_samples(str(path), 1.0, place)
    start = int((len(whole) - 8000) * place)
    assert cut.shape == (8000, 1)
    np.testing.assert_allclose(cut, whole[start : start + 8000], atol=0.01 if lossy else 1e-6)


@pytest.mark.parametrize("name", ["a.flac", "a.mp3", "a.ogg", "a.wav"])
def test_what_is_there_of_a_file_that_breaks_off(tmp_path, name):
    import soundfile

    noise = np.random.default_rng(0).uniform(-0.5, 0.5, 40_000).astype(np.float32)
    soundfile.write(tmp_path / name, noise, 8000)
    content = (tmp_path / name).read_bytes()
    (tmp_path / name).write_bytes(content[: len(content) // 2])
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        whole, _ = read_samples(tmp_path / name, 100, 0.5)
        cut, _ = read_samples(tmp_path / name, 1.0, 1.0)
    assert 8000 < len(whole) < 22_000 and np.abs(whole[-2000:]).max() > 0.2
    assert np.array_equal(cut, whole[-8000:]) or name in ("a.ogg", "a.mp3")
    # Headers of wav and ogg count nothing that is not there.
    message = rf"{name} ends after 2\.\d+ s, where its header promises 5\.00 s: it is read as far as it goes"
    assert sum(bool(re.search(message, str(one.message))) for one in told) == (name in ("a.flac", "a.mp3"))


def test_names_that_are_not_utf8(write_sound):
    path = write_sound("a.wav").rename(write_sound("a.wav").parent / os.fsdecode(b"caf\xe9.wav"))
    assert len(read_raw(SPEC, path)) == 4000
    path.write_bytes(b"no sound")
    with pytest.raises(InputError, match=r"/caf\\xe9\.wav is not a sound that can be read: Format not recognised\. "):
        read_raw(SPEC, str(path))


def riff(rate: int, data: bytes) -> bytes:
    form = struct.pack("<4sIHHIIHH", b"fmt ", 16, 1, 1, rate, 2 * rate & 0xFFFFFFFF, 2, 16)
    chunk = struct.pack("<4sI", b"data", len(data)) + data
    return b"RIFF" + struct.pack("<I", 4 + len(form) + len(chunk)) + b"WAVE" + form + chunk


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "is not found"),
        (b"", "is empty: it has no bytes"),
        (b"no sound at all", "not a sound"),
        (riff(8000, b""), "is empty: it has no samples"),
        (riff(8000, b"") + b"LIST\4\0\0\0INFO", "is empty: it has no samples"),
        (riff(0, bytes(100)), "not a sound|sample rate of 0 Hz"),
        (riff(1, bytes(100)), "sample rate of 1 Hz, too far from 8000 Hz"),
        (riff(4_000_000_000, bytes(100)), "not a sound|sample rate of"),
        (riff(8000, bytes(100))[:30], "not a sound"),
    ],
)
def test_broken_files(tmp_path, content, message):
    path = tmp_path / "a.wav"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(InputError, match=rf"a\.wav.*({message})") as caught:
        read_raw(SPEC, str(path))
    assert "\n" not in str(caught.value)


def test_samples_that_are_not_numbers():
    with pytest.raises(InputError, match=r"waveform \(3,\) has samples that are not numbers"):
        read_raw(SPEC, (np.array([0, np.nan, 0], np.float32), 8000))


@pytest.mark.parametrize(
    ("item", "message"),
    [
        ((np.zeros(800, np.int64), 8000), "a waveform is int64"),
        ((np.zeros(800, bool), 8000), "a waveform is bool"),
        ((np.zeros((1, 2, 3), np.float32), 8000), r"a waveform is float32 \(1, 2, 3\); it must be float, int16"),
        ((np.zeros((800, 0), np.float32), 8000), r"a waveform is float32 \(800, 0\)"),
        ((np.zeros(800, np.float32), 0), "a waveform has a sample rate of 0; it must be 1 Hz at least"),
        ((np.zeros(800, np.float32), float("nan")), "a sample rate of nan"),
        (np.zeros(800, np.float32), "a sound is a ndarray; it must be a path or a pair"),
        ((np.array([0.1] * 400 + [np.inf] * 400, np.float32), 8000), "samples that are not numbers"),
    ],
)
def test_wrong_waveforms(item, message):
    with pytest.raises(InputError, match=message):
        read_raw(SPEC, item)


def test_arguments():
    for build in (
        lambda: AudioAugment(speed=1.0),
        lambda: AudioAugment(noise=-1.0),
        lambda: AudioData(AudioFolder("."), seconds=0),
    ):
        with pytest.raises(InputError):
            build()


def test_a_batch_and_the_spec(sounds):
    data = AudioData(sounds(), 8000, 0.15, batch_size=4)
    data.setup()
    assert data.specs["audio"].preprocessing == {"sample_rate": 8000, "samples": 1200}
    for batch in (next(iter(data.train_dataloader())), next(iter(data.val_dataloader()))):
        assert batch["audio"].shape[1] in (800, 1200) and batch["audio"].dtype == torch.float32
        assert batch["lengths"].dtype == torch.int64 and batch["lengths"].max() <= 1200
    assert [len(batch["id"]) for batch in data.test_dataloader()] == [2]
    assert data.summary() == "audio: 20 examples, 2 classes, 16 train / 2 val / 2 test"
    assert all(800 <= len(wave) <= 1200 for wave in data.fit_sample()["audio"])
