"""The public layer normalisation."""

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from ..dispatch import choose

Impl = Literal["auto", "triton", "torch"]
#: Channels that the Triton kernels can hold.
LIMIT = 8192


def layer_norm(
    x: Tensor,
    weight: Tensor,
    bias: Tensor,
    eps: float = 1e-5,
    *,
    dtype: torch.dtype | None = None,
    impl: Impl = "auto",
) -> Tensor:
    """Layer normalisation: y = (x - mean(x)) / sqrt(var(x) + eps) * weight + bias, over the last axis.

    x             (..., D)
    weight, bias  (D,)
    dtype         of y; x's by default. A pass that only turns fp32 into bf16 for a matrix product is saved
    impl          "triton": one pass forward and one backward, on CUDA. "torch": torch's own. "auto": "torch", or
                  "triton" on CUDA, but for fp64 and D > 8192

    Source: Ba, Kiros and Hinton, arXiv 1607.06450.

    Returns y (..., D); computed in fp32 (in fp64 if x is), under autocast too.

    ValueError if the shapes do not fit together, or `impl` cannot serve them.
    """
    if _serves(impl, {"x": x}, weight, bias):
        from . import kernel

        x, weight, bias = _contiguous(x, weight.float(), bias.float())
        given = weight, bias, eps, dtype or x.dtype
        return kernel.LayerNorm.apply(x, *given) if torch.is_grad_enabled() else kernel.normalise(x, None, *given)[1]
    return _norm(x, weight, bias, eps, dtype or x.dtype)


def add_layer_norm(
    x: Tensor,
    branch: Tensor,
    weight: Tensor,
    bias: Tensor,
    eps: float = 1e-5,
    *,
    dtype: torch.dtype | None = None,
    impl: Impl = "auto",
) -> tuple[Tensor, Tensor]:
    """A residual sum and its layer normalisation: s = x + branch,  y = layer_norm(s), in one pass.

    x       (..., D), the residual stream
    branch  (..., D), what is added to it
    dtype   of y; x's by default

    Returns s in x's dtype (as `x += branch` gives it), and y. All else as in `layer_norm`.
    """
    if branch.shape != x.shape:
        raise ValueError(f"branch must be {tuple(x.shape)}, as x, not {tuple(branch.shape)}")
    if _serves(impl, {"x": x, "branch": branch}, weight, bias):
        from . import kernel

        x, branch, weight, bias = _contiguous(x, branch, weight.float(), bias.float())
        given = x, branch, weight, bias, eps, dtype or x.dtype
        return kernel.AddLayerNorm.apply(*given) if torch.is_grad_enabled() else kernel.normalise(*given)
    s = (x + branch).to(x.dtype)
    return s, _norm(s, weight, bias, eps, dtype or x.dtype)


def _contiguous(*tensors: Tensor) -> tuple[Tensor, ...]:
    return tuple(t.contiguous() for t in tensors)


def _norm(x: Tensor, weight: Tensor, bias: Tensor, eps: float, dtype: torch.dtype) -> Tensor:
    with torch.autocast(x.device.type, enabled=False):
        wide = torch.float64 if x.dtype == torch.float64 else torch.float32
        return F.layer_norm(x.to(wide), x.shape[-1:], weight.to(wide), bias.to(wide), eps).to(dtype)


def _serves(impl: Impl, given: dict[str, Tensor], weight: Tensor, bias: Tensor) -> bool:
    """Whether the Triton kernels are to serve. ValueError if the arguments do not fit together, or cannot be served."""
    x = given["x"]
    if x.dim() == 0 or x.shape[-1] == 0:
        raise ValueError(f"x must be (..., D) with D of 1 or more, not {tuple(x.shape)}")
    for name, tensor in (("weight", weight), ("bias", bias)):
        if tensor.shape != x.shape[-1:]:
            raise ValueError(
                f"{name} must be {tuple(x.shape[-1:])} beside x {tuple(x.shape)}, not {tuple(tensor.shape)}"
            )
    for name, tensor in (*given.items(), ("weight", weight), ("bias", bias)):
        if tensor.device != x.device:
            raise ValueError(f"{name} is on {tensor.device}, x on {x.device}")
        if not tensor.is_floating_point():
            raise ValueError(f"{name} must be floating point, not {tensor.dtype}")
    beyond = "" if x.shape[-1] <= LIMIT else f"serves D up to {LIMIT}, x is {tuple(x.shape)}"
    chosen = choose(impl, Impl, given, beyond, opaque=False)
    return chosen == "triton" and x.numel() > 0  # torch's own knows empty rows
