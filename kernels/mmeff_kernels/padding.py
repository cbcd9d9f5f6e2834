"""Padded, packed and empty rows, for the paths in plain torch."""

from collections.abc import Sequence

import torch
from torch import Tensor


def without_padding(x: Tensor, lengths: Tensor | None) -> Tensor:
    """x (B, L, ...) with zeros past each row's end; x itself if no row is padded. Selected, not multiplied: the padding
    may hold NaN."""
    if lengths is None:
        return x
    padding = torch.arange(x.shape[1], device=x.device) >= lengths.to(x.device)[:, None]
    return x.masked_fill(padding.reshape(*padding.shape, *[1] * (x.dim() - 2)), 0)


def nothing(shape: Sequence[int], dtype: torch.dtype, *given: Tensor | None) -> Tensor:
    """Zeros of a shape: what an operator returns where there is no token. The gradients of all that is given are 0."""
    first, *more = (t.flatten()[:0].sum() for t in given if t is not None)
    return (sum(more, first) * first.new_zeros(shape)).to(dtype)


class Packing:
    """S sequences in one row (1, L, ...) as S padded rows (S, longest, ...), and back."""

    def __init__(self, cu_seqlens: Tensor):
        self.lengths = cu_seqlens.diff()
        longest, L = int(self.lengths.max()), int(cu_seqlens[-1])
        start = cu_seqlens[:-1]
        # What lies behind a sequence is another one's: padding all the same.
        self.place = (start[:, None] + torch.arange(longest, device=start.device)).clamp(0, L - 1)
        self.row = torch.arange(len(start), device=start.device).repeat_interleave(self.lengths)
        self.column = torch.arange(L, device=start.device) - start.repeat_interleave(self.lengths)

    def pad(self, x: Tensor) -> Tensor:
        return x[0, self.place]

    def unpad(self, x: Tensor) -> Tensor:
        return x[self.row, self.column][None]
