from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from mmeff.tokenizers import (
    AudioFrames,
    AudioPatches,
    AudioWave,
    NoPositions,
    SinusoidalPositions,
    SpecAugment,
    Tokenizer,
)
from mmeff.tokenizers.audio import LogMel
from mmeff.tokens import valid_mask

RATE = 8000
LENGTHS = torch.tensor([1, 79, 80, 81, 2345, 8000])
BUILDERS: dict[str, Callable[[], Tokenizer]] = {
    "patches": lambda: AudioPatches(16, LogMel(RATE, 32), patch=[8, 16]),
    "overlapping patches": lambda: AudioPatches(16, LogMel(RATE, 32), patch=[8, 16], stride=[5, 10]),
    "patches with gaps": lambda: AudioPatches(16, LogMel(RATE, 32), patch=[2, 8], stride=[7, 8]),
    "frames": lambda: AudioFrames(16, LogMel(RATE, 32)),
    "every third frame": lambda: AudioFrames(16, LogMel(RATE, 32), stride=3),
    "wave": lambda: AudioWave(16, [5, 4, 4]),
}


@pytest.fixture(params=BUILDERS)
def tokenizer(request: pytest.FixtureRequest) -> Tokenizer:
    torch.manual_seed(0)
    built = BUILDERS[request.param]().eval()
    built.fit([torch.randn(2000) * 0.1])
    return built


def clips() -> Tensor:
    torch.manual_seed(1)
    return 0.1 * torch.randn(len(LENGTHS), 8000) * valid_mask(LENGTHS, 8000)


def test_a_clip_in_a_batch_is_the_clip_alone(tokenizer: Tokenizer) -> None:
    raw = clips()
    x, _, lengths = tokenizer(raw, LENGTHS)
    assert lengths is not None
    for i, n in enumerate(LENGTHS):
        alone, _, alone_lengths = tokenizer(raw[i : i + 1, :n], LENGTHS[i : i + 1])
        assert lengths[i] == alone.shape[1] and torch.equal(lengths[i : i + 1], alone_lengths)
        torch.testing.assert_close(x[i, : lengths[i]], alone[0], atol=1e-5, rtol=0)


@pytest.mark.parametrize("garbage", [1e6, float("nan"), float("inf")])
def test_what_lies_past_the_end_of_a_clip_is_not_heard(tokenizer: Tokenizer, garbage: float) -> None:
    raw = clips()
    clean = tokenizer(raw, LENGTHS)
    dirty = tokenizer(raw.masked_fill(~valid_mask(LENGTHS, 8000), garbage), LENGTHS)
    real = valid_mask(clean.lengths, clean.x.shape[1])
    torch.testing.assert_close(dirty.x[real], clean.x[real], atol=1e-5, rtol=0)
    assert dirty.x.isfinite().all()


def test_no_lengths_are_full_lengths(tokenizer: Tokenizer) -> None:
    raw = clips()[-2:]
    tokens = tokenizer(raw)
    full, _, lengths = tokenizer(raw, torch.tensor([8000, 8000]))
    assert torch.equal(tokens.x, full) and tokens.lengths is None
    assert lengths is not None and lengths.tolist() == [full.shape[1]] * 2, "and then none is padded"


@pytest.mark.parametrize("S", [1, 79, 80, 81, 399, 400, 8000])
def test_a_frame_every_ten_milliseconds(S: int) -> None:
    x, frames = LogMel(RATE, 32)(torch.randn(1, S), torch.tensor([S]))
    assert x.shape == (1, 1 + S // 80, 32) and frames.tolist() == [1 + S // 80]


@pytest.mark.parametrize("rate", [8000, 16000, 22050, 44100])
def test_no_mel_band_is_empty(rate: int) -> None:
    assert (LogMel(rate, 128).spectrogram.mel_scale.fb.sum(0) > 0).all()


def test_a_tone_rings_in_its_band() -> None:
    log_mel = LogMel(16000, 64)
    tone = torch.sin(2 * torch.pi * 1000 * torch.arange(16000) / 16000)[None]
    loudest = log_mel(tone, torch.tensor([16000]))[0][0, 50].argmax()
    assert log_mel.spectrogram.mel_scale.fb[:, loudest].argmax() == pytest.approx(1000 * 1024 / 16000, abs=2)


def test_spectrograms_are_normalised_by_the_training_clips() -> None:
    torch.manual_seed(0)
    sounds = [torch.randn(n) * level for n, level in ((3000, 0.1), (5000, 0.5), (200, 0.01))]
    log_mel = LogMel(RATE, 32)
    log_mel.fit(sounds)
    values = torch.cat([log_mel(s[None], torch.tensor([len(s)]))[0].flatten() for s in sounds])
    assert values.mean().abs() < 1e-5 and values.std(correction=0) == pytest.approx(1, abs=1e-5)


def test_silence_is_finite() -> None:
    log_mel = LogMel(RATE, 32)
    log_mel.fit([torch.zeros(800)])
    assert log_mel(torch.zeros(1, 800), torch.tensor([800]))[0].isfinite().all()


@pytest.mark.parametrize(
    ("S", "patch", "stride", "grid"),
    [
        (8000, [16, 16], None, (7, 2)),  # 101 frames, 32 bands
        (8000, [16, 16], [10, 10], (10, 2)),  # 101 = 9 * 10 + 16 - 5
        (8000, [1, 32], None, (101, 1)),
        (80, [16, 16], None, (1, 2)),  # 2 frames: less than a patch
        (16 * 80 - 80, [16, 8], None, (1, 4)),  # 16 frames: exactly one
        (16 * 80, [16, 8], None, (2, 4)),
    ],
)
def test_patches_lie_on_a_time_by_frequency_grid(
    S: int, patch: list[int], stride: list[int] | None, grid: tuple[int, int]
) -> None:
    tokenizer = AudioPatches(8, LogMel(RATE, 32), patch=patch, stride=stride, positions=NoPositions)
    tokens = tokenizer(torch.randn(1, S), torch.tensor([S]))
    assert tokens.grid == grid and tokens.lengths is not None and tokens.lengths.tolist() == [grid[0] * grid[1]]


def test_time_is_the_first_axis_of_the_grid() -> None:
    tokenizer = AudioPatches(8, LogMel(RATE, 32), patch=[8, 16], positions=NoPositions).eval()
    raw = torch.zeros(1, 8000)
    raw[:, 4000:] = torch.randn(4000)
    x, grid, _ = tokenizer(raw)
    quiet = x.unflatten(1, grid)[0, : grid[0] // 2 - 1]
    torch.testing.assert_close(quiet, quiet[:1].expand_as(quiet), atol=1e-5, rtol=0)


def test_frames_and_waves_have_as_many_tokens_as_strides_say() -> None:
    frames = AudioFrames(8, LogMel(RATE, 32), stride=2)(torch.randn(1, 8000))
    assert frames.grid == (51,)  # 101 frames
    wave = AudioWave(8, [5, 4, 4, 4])(torch.randn(1, 8001))
    assert wave.grid == (26,)  # a token every 320 samples, the last one begun


def test_what_does_not_fit_is_refused() -> None:
    with pytest.raises(ValueError, match="mels = 8"):
        AudioPatches(8, LogMel(RATE, 8))
    with pytest.raises(ValueError, match="frames, mel bands"):
        AudioPatches(8, RATE, patch=[16])
    short = {"sample_rate": RATE, "samples": RATE // 10}
    with pytest.raises(ValueError, match="window_ms is 200 and sounds have 100 ms at most"):
        AudioFrames(8, LogMel(RATE, 32, window_ms=200)).check(short)
    with pytest.raises(ValueError, match=r"patch is \[16, 16\] and sounds have 11 frames"):
        AudioPatches(8, LogMel(RATE, 32)).check(short)


def test_spec_augment_hides_no_more_than_it_says() -> None:
    torch.manual_seed(0)
    frames = torch.tensor([40, 7]).repeat(200)
    out = SpecAugment(frequency=6, time=10)(torch.ones(400, 40, 20), frames)
    hidden_t = (out == 0).all(2).sum(1)
    hidden_f = (out == 0).all(1).sum(1)
    assert hidden_t[::2].max() == 10 and hidden_t[1::2].max() == 3  # at most half of a short clip
    assert hidden_f.max() == 6 and hidden_t.min() == 0 and hidden_f.min() == 0
    assert ((out == 0) | (out == 1)).all()
    for row in (out == 0).all(2)[:50]:  # one band: it starts at most once
        assert (row.int().diff() == 1).sum() + row[0].int() <= 1


def test_spec_augment_rests_outside_training() -> None:
    augment = SpecAugment(8, 8)
    x = torch.randn(2, 30, 20)
    assert augment.eval()(x, torch.tensor([30, 30])) is x
    tokenizer = AudioPatches(8, LogMel(RATE, 32), spec_augment=augment, positions=SinusoidalPositions)
    raw = torch.randn(1, 8000)
    torch.manual_seed(0)
    assert not torch.equal(tokenizer.train()(raw).x, tokenizer.eval()(raw).x)
    assert torch.equal(tokenizer(raw).x, tokenizer(raw).x)
