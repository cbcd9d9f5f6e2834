"""Whether decaying states are right on a device: all implementations against the loop over tokens in float64."""

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from ..finding import Finding, compare_implementations, draw
from .op import decay_attention

#: Tokens that fill no chunk.
SIZES = {"q": (2, 70, 2, 24), "k": (2, 70, 2, 24), "v": (2, 70, 2, 20)}


def check(device: torch.device) -> Iterator[Finding]:
    """o and every gradient in both directions, with padded rows: a gate for each head, and for each feature."""
    lengths = torch.tensor([70, 33], device=device)
    for name, gates in (("a head", {"g": (2, 70, 2)}), ("a feature", {"g": (2, 2, 70, 2, 24), "bonus": (2, 24)})):

        def run(tensors: dict[str, Tensor], impl: Any) -> Tensor:
            q, k, v, g = (tensors[key] for key in "qkvg")
            options = {"direction": "both", "diagonal": "first", "bonus": tensors.get("bonus"), "lengths": lengths}
            return decay_attention(q, k, v, -torch.nn.functional.softplus(g), **options, impl=impl)[0]

        yield from compare_implementations(
            f"decay, a gate of {name}",
            draw({**SIZES, **gates}),
            run,
            device,
            ("q", "k", "v"),
            lambda wide, run=run: run(wide, "reference"),
        )
