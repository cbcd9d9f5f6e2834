"""Tokens: the one type that crosses every boundary between a raw signal and a backbone."""

from typing import NamedTuple

import torch
from torch import Tensor


class Tokens(NamedTuple):
    """A batch of token sequences that lie on a grid.

    x        (B, L, D)
    grid     prod(grid) == L, tokens in row-major order: (L,) text, (T,) or (T, F) audio, (H, W) image.
             The axis that is padded comes first, so padding is always a suffix of the sequence: a spectrogram
             is (time, frequency), and a clip of half the length fills the first half of its tokens.
    lengths  (B,) int64, how many leading tokens of each row are real; a whole number of slices of the first axis.
             None means that every row is full.
    """

    x: Tensor
    grid: tuple[int, ...]
    lengths: Tensor | None = None


def valid_mask(lengths: Tensor, L: int) -> Tensor:
    """(B, L) bool: True where a token is real."""
    return torch.arange(L, device=lengths.device) < lengths[:, None]


def zero_padding(x: Tensor, lengths: Tensor | None) -> Tensor:
    """x (B, L, D) with zeros in the padding, whatever was there, NaN included; x itself if no row is padded."""
    return x if lengths is None else x.masked_fill(~valid_mask(lengths, x.shape[1])[..., None], 0)
