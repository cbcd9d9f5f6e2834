"""Whether the short convolution is right on a device: every implementation against float64."""

from collections.abc import Iterator
from typing import Any

import torch

from ..finding import Finding, compare
from .op import Impl, Side, short_conv

SIDES: tuple[Side, ...] = ("causal", "anticausal")


def check(device: torch.device) -> Iterator[Finding]:
    """Two directions over padded rows, in fp32 and bf16: y and every gradient. Torch's own convolution defines it."""
    impls: tuple[Impl, ...] = ("torch", "triton") if device.type == "cuda" else ("torch",)
    generator = torch.Generator().manual_seed(0)
    shapes = {"x": (2, 70, 40), "weight": (2, 40, 4), "bias": (2, 40)}
    drawn = {name: torch.randn(shape, generator=generator) for name, shape in shapes.items()}
    options: dict[str, Any] = {"sides": SIDES, "lengths": torch.tensor([70, 33], device=device)}
    for impl in impls:
        for dtype, bound in ((torch.float32, 1e-5), (torch.bfloat16, 1e-2)):
            tensors = {
                name: tensor.to(device, dtype if name == "x" else torch.float32).requires_grad_()
                for name, tensor in drawn.items()
            }
            yield compare(
                f"short_conv, {impl}, {str(dtype).removeprefix('torch.')}",
                bound,
                tensors,
                lambda tensors=tensors, impl=impl: (short_conv(**tensors, **options, impl=impl),),
                lambda wide: (short_conv(**wide, **options, impl="torch"),),
                ("y",),
            )
