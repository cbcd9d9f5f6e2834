"""Padding, for the paths in plain torch."""

import torch
from torch import Tensor


def without_padding(x: Tensor, lengths: Tensor | None) -> Tensor:
    """x (B, L, ...) with zeros past each row's end; x itself if no row is padded. Selected, not multiplied: the padding
    may hold NaN."""
    if lengths is None:
        return x
    padding = torch.arange(x.shape[1], device=x.device) >= lengths.to(x.device)[:, None]
    return x.masked_fill(padding.reshape(*padding.shape, *[1] * (x.dim() - 2)), 0)
