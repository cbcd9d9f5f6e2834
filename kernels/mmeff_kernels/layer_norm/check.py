"""Whether the layer normalisation is right on a device: every implementation against torch's own in float64."""

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from ..finding import Finding, compare_implementations, draw
from .op import add_layer_norm, layer_norm

#: Rows that fill no tile.
SHAPES = {"x": (3, 67, 100), "weight": (100,), "bias": (100,)}


def check(device: torch.device) -> Iterator[Finding]:
    """y and every gradient."""

    def run(tensors: dict[str, Tensor], impl: Any) -> Tensor:
        return layer_norm(tensors["x"], tensors["weight"], tensors["bias"], impl=impl)

    def added(tensors: dict[str, Tensor], impl: Any) -> Tensor:
        s, y = add_layer_norm(tensors["x"], tensors["branch"], tensors["weight"], tensors["bias"], impl=impl)
        return s + 2 * y

    yield from compare_implementations("layer_norm", draw(SHAPES), run, device)
    shapes = {**SHAPES, "branch": SHAPES["x"]}
    yield from compare_implementations("add_layer_norm", draw(shapes), added, device, ("x", "branch"))
