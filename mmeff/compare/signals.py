"""Random signals of a length, in the form that a recipe's data has."""

import torch
from torch import Tensor

from mmeff.spec import DataSpec


def random_signals(spec: DataSpec, vocab: int, length: float, batch: int, device: torch.device) -> Tensor:
    """Images (batch, C, side, side), sounds (batch, S), or ids of text (batch, L) below `vocab`.

    length  side in pixels, seconds, or tokens
    """
    if spec.modality == "image":
        return torch.rand(batch, spec.preprocessing["channels"], int(length), int(length), device=device)
    if spec.modality == "audio":
        return 0.1 * torch.randn(batch, round(length * spec.preprocessing["sample_rate"]), device=device)
    return torch.randint(vocab, (batch, int(length)), device=device)


def own_length(spec: DataSpec, longest_text: int) -> float:
    """The length at which a recipe trains; of texts the longest."""
    if spec.modality == "image":
        return max(spec.preprocessing["size"])
    if spec.modality == "audio":
        return spec.preprocessing["samples"] / spec.preprocessing["sample_rate"]
    return longest_text
