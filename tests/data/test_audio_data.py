"""Sounds: every kind of file, any sample rate, cutting, padding, augmentation."""

import struct

import numpy as np
import pytest
import torch

from mmeff.data import AudioAugment, AudioData, AudioFolder, collate, read_raw
from mmeff.data.audio import read_audio
from mmeff.errors import InputError
from mmeff.spec import DataSpec

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


def test_level_is_kept_within_full_scale():
    assert read_audio((np.full(200, 3, np.float32), 8000), 8000, 8000).eq(1).all()


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


@pytest.mark.parametrize("wave", [np.zeros(8, np.int16), np.zeros((1, 2, 3), np.float32)])
def test_wrong_waveforms(wave):
    with pytest.raises(InputError, match=r"must be float \(S,\)"):
        read_raw(SPEC, (wave, 8000))


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
