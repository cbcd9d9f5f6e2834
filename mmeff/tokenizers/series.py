"""Multivariate time series (B, S, C) -> Tokens on a (time,) grid."""

from collections.abc import Callable, Sequence
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mmeff.errors import InputError, whole
from mmeff.tokenizers.base import Tokenizer, check_raw
from mmeff.tokenizers.dropout import TokenDropout
from mmeff.tokenizers.moments import moments
from mmeff.tokenizers.positions import Positions, SinusoidalPositions
from mmeff.tokens import Tokens, valid_mask, zero_padding


class ChannelNorm(nn.Module):
    """(x - mean) / std of each channel: over the training series, or over each series alone.

    Of a series alone level and scale are lost, and what was recorded with other gains looks alike (Kim et al. 2022,
    "Reversible instance normalization"). What is past the end of a series becomes zero, the mean.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, channels: int, scaling: Literal["data", "series"]):
        super().__init__()
        whole(1, channels=channels)
        if scaling not in ("data", "series"):
            raise InputError(f'scaling is {scaling!r}; it must be "data" or "series"')
        self.scaling = scaling
        self.register_buffer("mean", torch.zeros(channels))
        self.register_buffer("std", torch.ones(channels))

    def fit(self, series: Sequence[Tensor]) -> None:
        mean, std = moments(one.mT for one in series)
        self.mean.copy_(mean)
        self.std.copy_(std)

    def forward(self, x: Tensor, lengths: Tensor) -> Tensor:
        x = zero_padding((x - self.mean) / self.std, lengths)
        if self.scaling == "data":
            return x
        real = valid_mask(lengths, x.shape[1])[..., None]
        n = lengths.clamp_min(1)[:, None, None]
        x = (x - x.sum(1, keepdim=True) / n) * real
        return x / (x.square().sum(1, keepdim=True) / n).sqrt().clamp_min(1e-3)


class SeriesPatches(Tokenizer):
    """One linear map of each stretch of steps, all channels together (patches of Nie et al. 2023, "A time series is
    worth 64 words", which map each channel alone).

    x_t = W vec(steps t * stride, ..., t * stride + patch - 1) + b, as many as cover every step.
    """

    signal = "series"

    def __init__(
        self,
        dim: int,
        channels: int = 1,
        patch: int = 16,
        stride: int | None = None,
        scaling: Literal["data", "series"] = "data",
        positions: Callable[[int], Positions] = SinusoidalPositions,
        token_dropout: float = 0.0,
    ):
        """
        Args:
            dim: width of the tokens, given by the backbone.
            channels: of the series.
            patch: steps of a patch.
            stride: steps from one patch to the next; less than `patch` overlaps them. None: `patch`.
            scaling: of each channel to mean 0 and variance 1, over the training series ("data"), or over each series
                alone ("series"), which forgets its level.
            positions: what is added to the tokens to say where they are.
            token_dropout: share of tokens zeroed in training.
        """
        super().__init__()
        self.channels, self.patch, self.stride = channels, patch, patch if stride is None else stride
        whole(1, dim=dim, channels=channels, patch=patch, stride=self.stride)
        self.norm = ChannelNorm(channels, scaling)
        self.project = nn.Linear(patch * channels, dim)
        self.dropout = TokenDropout(token_dropout)
        self.positions = positions(dim)

    def check(self, preprocessing: dict[str, Any]) -> None:
        if preprocessing["channels"] != self.channels:
            raise InputError(
                f"the data has series of {preprocessing['channels']} channels and the tokenizer is built for "
                f"{self.channels}: set the tokenizer's channels to {preprocessing['channels']}"
            )

    def fit(self, raw: Sequence[Tensor]) -> None:
        self.norm.fit(raw)

    def forward(self, raw: Tensor, lengths: Tensor | None = None) -> Tokens:
        check_raw(raw, "(B, S, C)", "any unit")
        if raw.shape[2] != self.channels:
            raise InputError(f"the tokenizer is built for series (B, S, {self.channels}) and got {tuple(raw.shape)}")
        true = torch.full((len(raw),), raw.shape[1], device=raw.device) if lengths is None else lengths
        x, p, s = self.norm(raw, true), self.patch, self.stride
        missing = p - x.shape[1] if x.shape[1] < p else -(x.shape[1] - p) % s
        patches = F.pad(x, (0, 0, 0, missing)).unfold(1, p, s)  # (B, T, C, P)
        x = self.project(patches.flatten(2).to(self.project.weight.dtype))
        rows = None if lengths is None else 1 + (lengths - p).clamp_min(0).add(s - 1) // s
        return self.positions(Tokens(self.dropout(x), (x.shape[1],), rows))
