"""Whether the selective scan is right on a device: every implementation against the definition in float64."""

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from ..finding import Finding, compare
from .op import Impl, selective_scan
from .reference import selective_scan_reference
from .routes import selective_scan_routes


def check(device: torch.device) -> Iterator[Finding]:
    """Each direction alone and both at once, with all options, in fp32 and bf16: y, the last states, every gradient."""
    impls: tuple[Impl, ...] = ("torch", "triton") if device.type == "cuda" else ("torch",)
    for impl in impls:
        for dtype, bound in ((torch.float32, 1e-5), (torch.bfloat16, 1e-2)):
            tensors = inputs(device, dtype)
            lengths, kind = torch.tensor([70, 33], device=device), str(dtype).removeprefix("torch.")
            for reverse in (False, True):
                options: dict[str, Any] = {"dt_softplus": True, "reverse": reverse, "lengths": lengths}
                own: dict[str, Any] = {**tensors, **options, "return_final_state": True, "impl": impl}
                direction = "reverse" if reverse else "forward"
                yield compare(
                    f"selective_scan {direction}, {impl}, {kind}",
                    bound,
                    tensors,
                    lambda own=own: selective_scan(**own),
                    lambda wide, options=options: selective_scan_reference(**wide, **options),
                    ("y", "last state"),
                )
            both = {k: t if k in ("x", "z") else torch.stack([t, t.flip(0)]) for k, t in tensors.items()}
            both = {name: tensor.detach().requires_grad_() for name, tensor in both.items()}
            options = {"dt_softplus": True, "lengths": lengths, "routes": ("forward", "backward")}
            yield compare(
                f"selective_scan both directions, {impl}, {kind}",
                bound,
                both,
                lambda own=both, options=options, impl=impl: selective_scan_routes(**own, **options, impl=impl),
                lambda wide, options=options: selective_scan_routes(**wide, **options, impl="reference"),
                ("y", "last states"),
            )


def inputs(device: torch.device, dtype: torch.dtype) -> dict[str, Tensor]:
    """Two rows of 70 tokens, 40 channels in 2 groups, 16 states."""
    generator = torch.Generator().manual_seed(0)
    shapes = {
        "x": (2, 70, 40), "dt": (2, 70, 40), "B": (2, 70, 2, 16), "C": (2, 70, 2, 16), "z": (2, 70, 40),
        "A": (40, 16), "D": (40,), "dt_bias": (40,), "initial_state": (2, 40, 16),
    }  # fmt: skip
    drawn = {name: torch.randn(shape, generator=generator) for name, shape in shapes.items()}
    drawn["A"] = -drawn["A"].abs()
    narrow = ("x", "dt", "B", "C", "z")
    return {k: t.to(device, dtype if k in narrow else torch.float32).requires_grad_() for k, t in drawn.items()}
