"""The public layer normalisation."""

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from ..arguments import check_impl, check_triton

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
    check_impl(impl, Impl)
    if x.dim() == 0 or x.numel() == 0:
        raise ValueError(f"x must be (..., D) and not empty, not {tuple(x.shape)}")
    for name, tensor in (("weight", weight), ("bias", bias)):
        if tensor.shape != x.shape[-1:]:
            raise ValueError(
                f"{name} must be {tuple(x.shape[-1:])} beside x {tuple(x.shape)}, not {tuple(tensor.shape)}"
            )
        if tensor.device != x.device:
            raise ValueError(f"{name} is on {tensor.device}, x on {x.device}")
    if impl == "triton":
        check_triton({"x": x})
        if x.shape[-1] > LIMIT:
            raise ValueError(f"impl 'triton' serves D up to {LIMIT}, x is {tuple(x.shape)}")
    if impl == "auto":
        served = x.is_cuda and x.dtype != torch.float64 and x.shape[-1] <= LIMIT
        impl = "triton" if served and not torch.compiler.is_compiling() else "torch"
    dtype = dtype or x.dtype
    if impl == "triton":
        from .kernel import LayerNorm

        return LayerNorm.apply(x.reshape(-1, x.shape[-1]), weight.float(), bias.float(), eps, dtype).view(x.shape)
    with torch.autocast(x.device.type, enabled=False):
        wide = torch.float64 if x.dtype == torch.float64 else torch.float32
        return F.layer_norm(x.to(wide), x.shape[-1:], weight.to(wide), bias.to(wide), eps).to(dtype)
