"""Whether the short convolution is right on a device: every implementation against torch's own in float64."""

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from ..finding import Finding, compare_implementations, draw
from .op import Side, short_conv

SIDES: tuple[Side, ...] = ("causal", "anticausal")
SHAPES = {"x": (2, 70, 40), "weight": (2, 40, 4), "bias": (2, 40)}


def check(device: torch.device) -> Iterator[Finding]:
    """Two directions over padded rows: y and every gradient."""
    lengths = torch.tensor([70, 33], device=device)

    def run(tensors: dict[str, Tensor], impl: Any) -> Tensor:
        x, weight, bias = (tensors[name] for name in SHAPES)
        return short_conv(x, weight, bias, sides=SIDES, lengths=lengths, impl=impl)

    yield from compare_implementations("short_conv", draw(SHAPES), run, device)
