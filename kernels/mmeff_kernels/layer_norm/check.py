"""Whether the layer normalisation is right on a device: every implementation against float64."""

from collections.abc import Iterator

import torch
from torch import Tensor

from ..finding import Finding, compare
from .op import Impl, layer_norm

SHAPES = {"x": (3, 67, 100), "weight": (100,), "bias": (100,)}


def check(device: torch.device) -> Iterator[Finding]:
    """fp32 and bf16, rows that fill no tile: y and every gradient."""
    impls: tuple[Impl, ...] = ("torch", "triton") if device.type == "cuda" else ("torch",)
    generator = torch.Generator().manual_seed(0)
    drawn = {name: torch.randn(shape, generator=generator) for name, shape in SHAPES.items()}
    for impl in impls:
        for dtype, bound in ((torch.float32, 1e-5), (torch.bfloat16, 1e-2)):
            tensors = {
                name: tensor.to(device, dtype if name == "x" else torch.float32).requires_grad_()
                for name, tensor in drawn.items()
            }
            yield compare(
                f"layer_norm, {impl}, {str(dtype).removeprefix('torch.')}",
                bound,
                tensors,
                lambda tensors=tensors, impl=impl: (_of(tensors, impl),),
                lambda wide: (_of(wide, "torch"),),
                ("y",),
            )


def _of(tensors: dict[str, Tensor], impl: Impl) -> Tensor:
    return layer_norm(tensors["x"], tensors["weight"], tensors["bias"], impl=impl)
