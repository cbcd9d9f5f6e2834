"""Whether order-free linear attention is right on a device: all implementations against its weights in float64."""

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from ..finding import Finding, compare_implementations, draw
from .op import full_sum

#: Tokens that fill no tile; two blocks of features.
SHAPES = {"q": (2, 70, 2, 80), "k": (2, 70, 2, 80), "v": (2, 70, 2, 24)}


def check(device: torch.device) -> Iterator[Finding]:
    """o and every gradient, with a rotation and padded rows."""
    angles = draw({"angles": (70, 40)})["angles"].to(device)
    lengths = torch.tensor([70, 33], device=device)

    def run(tensors: dict[str, Tensor], impl: Any) -> Tensor:
        rotation = angles.cos(), angles.sin()
        return full_sum(tensors["q"], tensors["k"], tensors["v"], rotation=rotation, lengths=lengths, impl=impl)

    yield from compare_implementations(
        "full_sum", draw(SHAPES), run, device, ("q", "k", "v"), lambda wide: run(wide, "reference")
    )
