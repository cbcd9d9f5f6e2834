"""Sound (B, S) -> Tokens on a (time, frequency) or a (time,) grid."""

from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mmeff.errors import InputError, whole, within
from mmeff.tokenizers.base import Tokenizer, check_raw
from mmeff.tokenizers.dropout import TokenDropout
from mmeff.tokenizers.moments import moments
from mmeff.tokenizers.positions import Positions, SinusoidalPositions
from mmeff.tokens import Tokens, valid_mask, zero_padding


def lengths_of(raw: Tensor, lengths: Tensor | None) -> Tensor:
    """lengths (B,) of raw (B, S), S where none are given. InputError if either has another shape or type."""
    check_raw(raw, "(B, S)", "[-1, 1]")
    if lengths is None:
        return torch.full((len(raw),), raw.shape[1], device=raw.device)
    if lengths.shape != raw.shape[:1] or lengths.is_floating_point() or lengths.dtype == torch.bool:
        raise InputError(
            f"lengths are {lengths.dtype} {tuple(lengths.shape)} beside sounds {tuple(raw.shape)}; they must be "
            "integers (B,), in samples"
        )
    return lengths


def silent_padding(raw: Tensor, lengths: Tensor) -> Tensor:
    """raw (B, S) with zeros past each clip's end, where windows of its last frames reach."""
    return raw.masked_fill(~valid_mask(lengths, raw.shape[1]), 0)


class LogMel(nn.Module):
    """Log-mel spectrogram, normalised to zero mean and unit variance over the training clips.

    (B, S) -> (B, T, M): Hann windows every 10 ms, T = 1 + S // hop, power in M mel bands, natural logarithm.
    AST and AuM take M = 128 (Gong et al. 2021, section 2.1); theirs are Kaldi's, with dither and pre-emphasis.
    Frames past a clip's end are zero, which is the mean. All in fp32, whatever dtype the model is converted to.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, sample_rate: int = 16000, mels: int = 128, window_ms: float = 25.0, f_max: float | None = None):
        """
        Args:
            sample_rate: samples a second of the sound that comes in.
            mels: mel bands.
            window_ms: length of a window. A longer one tells harmonics apart, 50 ms those of a voice of 80 Hz.
            f_max: upper end of the highest band in Hz. None: half the sample rate.
        """
        super().__init__()
        from torchaudio.transforms import MelSpectrogram

        whole(51, sample_rate=sample_rate)  # so that 10 ms are a sample
        whole(1, mels=mels)
        within(f"[{1000 / sample_rate:g}, 10000]", window_ms=window_ms)
        if f_max is not None:
            within(f"(0, {sample_rate / 2}]", f_max=f_max)
        self.sample_rate, self.mels = sample_rate, mels
        self.window_ms = window_ms
        window, self.hop = round(window_ms / 1000 * sample_rate), round(0.010 * sample_rate)
        n_fft = 2 ** (2 * window - 1).bit_length()  # finer than the window, so that no low mel band is empty
        self.spectrogram = MelSpectrogram(
            sample_rate,
            n_fft=n_fft,
            win_length=window,
            hop_length=self.hop,
            f_max=f_max,
            n_mels=mels,
            pad_mode="constant",
        )
        self.register_buffer("mean", torch.zeros(()))
        self.register_buffer("std", torch.ones(()))

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> "LogMel":
        """Move to another device, but keep the dtype: a power spectrum needs the range and precision of fp32."""

        def keep_dtype(tensor: Tensor) -> Tensor:
            new = fn(tensor)
            return new if new.dtype == tensor.dtype else tensor.to(new.device)

        return super()._apply(keep_dtype, recurse)

    def check(self, preprocessing: dict[str, Any]) -> None:
        sample_rate, own = preprocessing["sample_rate"], self.sample_rate
        if sample_rate != own:
            raise InputError(
                f"the data has sounds at {sample_rate} Hz and the tokenizer is built for {own} Hz: "
                f"set data.sample_rate to {own} or the tokenizer's log_mel.sample_rate to {sample_rate}"
            )
        longest = 1000 * preprocessing["samples"] / sample_rate
        if self.window_ms > longest:
            raise InputError(
                f"window_ms is {self.window_ms} and sounds have {longest:g} ms at most: give the tokenizer's log_mel a "
                "shorter window, such as 25, or the data more seconds"
            )

    def fit(self, clips: Sequence[Tensor]) -> None:
        mean, std = moments(self._log(clip[None]).flatten(1) for clip in clips)
        self.mean.copy_(mean[0])
        self.std.copy_(std[0])

    def forward(self, raw: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        """-> (B, T, M) and the true number of frames of each clip (B,)."""
        frames = 1 + lengths // self.hop
        x = (self._log(silent_padding(raw, lengths)) - self.mean) / self.std
        return zero_padding(x, frames), frames

    def _log(self, raw: Tensor) -> Tensor:
        with torch.autocast(raw.device.type, enabled=False):
            return self.spectrogram(raw.float()).clamp_min(1e-8).log().mT


class SpecAugment(nn.Module):
    """Hides one random band of at most `frequency` mel bands and one of at most `time` frames of each clip in training.

    A hidden value becomes the mean, zero (Park et al. 2019). A time band covers at most half of the clip.
    """

    def __init__(self, frequency: int = 24, time: int = 48):
        super().__init__()
        whole(0, frequency=frequency, time=time)
        self.frequency, self.time = frequency, time

    def forward(self, x: Tensor, frames: Tensor) -> Tensor:
        """x (B, T, M), frames (B,)."""
        if not self.training:
            return x
        _, T, M = x.shape
        wide = torch.minimum(torch.full_like(frames, self.time), frames // 2)
        keep_t = self._band(T, frames, wide, x)[:, :, None]
        keep_f = self._band(M, torch.full_like(frames, M), torch.full_like(frames, min(self.frequency, M)), x)
        return x * keep_t * keep_f[:, None, :]

    @staticmethod
    def _band(n: int, size: Tensor, widest: Tensor, x: Tensor) -> Tensor:
        """(B, n) zeros on one band an example, at most `widest` wide within the first `size` cells, ones elsewhere."""
        u = torch.rand(2, len(size), device=x.device)
        width = (u[0] * (widest + 1)).long()
        start = (u[1] * (size - width + 1)).long()
        cell = torch.arange(n, device=x.device)
        return ((cell < start[:, None]) | (cell >= (start + width)[:, None])).to(x.dtype)


class AudioPatches(Tokenizer):
    """Patches of a log-mel spectrogram on a (time, frequency) grid (AST, AuM)."""

    signal = "audio"

    def __init__(
        self,
        dim: int,
        log_mel: LogMel | None = None,
        patch: list[int] = [16, 16],  # noqa: B006 (jsonargparse wants a plain default)
        stride: list[int] | None = None,
        positions: Callable[[int], Positions] = SinusoidalPositions,
        spec_augment: SpecAugment | None = None,
        token_dropout: float = 0.0,
    ):
        """
        Args:
            dim: width of the tokens, given by the backbone.
            log_mel: the spectrogram. None: 128 bands of sound at 16 kHz.
            patch: frames and mel bands of a patch.
            stride: frames and mel bands from one patch to the next. None: `patch`.
            positions: what is added to the tokens to say where they are.
            spec_augment: bands of time and frequency to hide in training.
            token_dropout: share of tokens zeroed in training.
        """
        super().__init__()
        stride = patch if stride is None else stride
        whole(1, dim=dim, patch=patch, stride=stride)
        if len(patch) != 2 or len(stride) != 2:
            raise ValueError(f"patch and stride are [frames, mel bands], got {patch} and {stride}")
        self.patch, self.stride = (patch[0], patch[1]), (stride[0], stride[1])
        self.log_mel = log_mel or LogMel()
        self.spec_augment = spec_augment
        self.project = nn.Conv2d(1, dim, self.patch, self.stride)
        self.dropout = TokenDropout(token_dropout)
        self.positions = positions(dim)
        if self.log_mel.mels < self.patch[1]:
            raise ValueError(f"a patch of {self.patch[1]} mel bands does not fit into mels = {self.log_mel.mels}")

    def check(self, preprocessing: dict[str, Any]) -> None:
        self.log_mel.check(preprocessing)
        frames = 1 + preprocessing["samples"] // self.log_mel.hop
        if self.patch[0] > frames:
            raise InputError(
                f"patch is {list(self.patch)} and sounds have {frames} frames of 10 ms at most: give the tokenizer a "
                "patch of fewer frames, or the data more seconds"
            )

    def fit(self, raw: Sequence[Tensor]) -> None:
        self.log_mel.fit(raw)

    def forward(self, raw: Tensor, lengths: Tensor | None = None) -> Tokens:
        x, frames = self.log_mel(raw, lengths_of(raw, lengths))
        if self.spec_augment is not None:
            x = self.spec_augment(x, frames)
        (p, _), (s, _) = self.patch, self.stride
        rows = 1 + (frames - p).clamp_min(0).add(s - 1) // s  # patches that cover every true frame
        missing = p - x.shape[1] if x.shape[1] < p else -(x.shape[1] - p) % s
        x = F.pad(x, (0, 0, 0, missing))[:, None].to(self.project.weight.dtype)
        x = self.project(x)  # (B, D, T', F')
        grid = (x.shape[2], x.shape[3])
        return self.positions(Tokens(self.dropout(x.flatten(2).mT), grid, None if lengths is None else rows * grid[1]))


class AudioFrames(Tokenizer):
    """Log-mel frames as one sequence: two convolutions over time, the second with a stride (Whisper's stem).

    x = GELU(conv(GELU(conv(log-mel)))), kernel 3, `stride` frames of 10 ms a token (Radford et al. 2022, section 2.2).
    """

    signal = "audio"

    def __init__(
        self,
        dim: int,
        log_mel: LogMel | None = None,
        stride: int = 2,
        positions: Callable[[int], Positions] = SinusoidalPositions,
        spec_augment: SpecAugment | None = None,
        token_dropout: float = 0.0,
    ):
        """
        Args:
            dim: width of the tokens, given by the backbone.
            log_mel: the spectrogram. None: 80 bands of sound at 16 kHz.
            stride: frames a token.
            positions: what is added to the tokens to say where they are.
            spec_augment: bands of time and frequency to hide in training.
            token_dropout: share of tokens zeroed in training.
        """
        super().__init__()
        whole(1, dim=dim, stride=stride)
        self.stride = stride
        self.log_mel = log_mel or LogMel(mels=80)
        self.spec_augment = spec_augment
        self.conv1 = nn.Conv1d(self.log_mel.mels, dim, 3, 1, 1)
        self.conv2 = nn.Conv1d(dim, dim, 3, stride, 1)
        self.dropout = TokenDropout(token_dropout)
        self.positions = positions(dim)

    def check(self, preprocessing: dict[str, Any]) -> None:
        self.log_mel.check(preprocessing)

    def fit(self, raw: Sequence[Tensor]) -> None:
        self.log_mel.fit(raw)

    def forward(self, raw: Tensor, lengths: Tensor | None = None) -> Tokens:
        x, frames = self.log_mel(raw, lengths_of(raw, lengths))
        if self.spec_augment is not None:
            x = self.spec_augment(x, frames)
        x = x.to(self.conv1.weight.dtype)
        x = zero_padding(F.gelu(self.conv1(x.mT)).mT, frames)
        x = F.gelu(self.conv2(x.mT)).mT
        true = None if lengths is None else (frames - 1) // self.stride + 1
        return self.positions(Tokens(self.dropout(x), (x.shape[1],), true))


class AudioWave(Tokenizer):
    """Strided convolutions on the raw waveform, no spectrogram (wav2vec 2.0's feature encoder, made narrower).

    Layer i: x = GELU(LayerNorm(conv_i x)), kernel k_i, stride s_i; one token every prod(s_i) samples
    (Baevski et al. 2020, section 2). Normalising over channels alone keeps padding and neighbours out of it.
    """

    signal = "audio"

    def __init__(
        self,
        dim: int,
        strides: list[int] = [5, 4, 4, 4],  # noqa: B006 (jsonargparse wants a plain default)
        width: int = 64,
        positions: Callable[[int], Positions] = SinusoidalPositions,
        token_dropout: float = 0.0,
    ):
        """
        Args:
            dim: width of the tokens, given by the backbone.
            strides: stride of each convolution; its kernel is twice as long. 5 * 4 * 4 * 4 = 320 samples a token.
            width: channels of the first convolution; doubled at each further one, up to `dim`.
            positions: what is added to the tokens to say where they are.
            token_dropout: share of tokens zeroed in training.
        """
        super().__init__()
        whole(1, dim=dim, strides=strides, width=width)
        self.strides = tuple(strides)
        widths = [min(width * 2**i, dim) for i in range(len(strides) - 1)] + [dim]
        self.convs = nn.ModuleList(
            nn.Conv1d(c_in, c_out, 2 * s, s) for c_in, c_out, s in zip([1, *widths], widths, strides, strict=False)
        )
        self.norms = nn.ModuleList(nn.LayerNorm(c) for c in widths)
        self.dropout = TokenDropout(token_dropout)
        self.positions = positions(dim)

    def forward(self, raw: Tensor, lengths: Tensor | None = None) -> Tokens:
        true = lengths_of(raw, lengths)
        x = silent_padding(raw, true)[..., None].to(next(self.parameters()).dtype)  # (B, S, 1)
        for conv, norm, s in zip(self.convs, self.norms, self.strides, strict=True):
            padded = F.pad(x.mT, (0, s + -x.shape[1] % s))  # windows start at every multiple of s and cover the end
            true = (true + s - 1) // s
            x = zero_padding(F.gelu(norm(conv(padded).mT)), true)
        return self.positions(Tokens(self.dropout(x), (x.shape[1],), None if lengths is None else true))
