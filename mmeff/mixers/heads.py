"""Splitting a width into attention heads, and what each head computes."""

import torch.nn.functional as F
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

from mmeff.errors import whole, within

#: Not cuDNN's, torch's first choice on Hopper: its backward pass gives NaN for q where L % 128 == 64 and a row's
#: logits are strongly negative (pytorch issue 196678; met while training on 64 tokens).
BACKENDS = [SDPBackend.FLASH_ATTENTION, SDPBackend.EFFICIENT_ATTENTION, SDPBackend.MATH]


def count_heads(dim: int, head_dim: int, name: str = "dim") -> int:
    """dim / head_dim, one head if dim is smaller. ValueError if it does not divide."""
    whole(1, **{name: dim, "head_dim": head_dim})
    head_dim = min(head_dim, dim)
    if dim % head_dim:
        raise ValueError(f"head_dim {head_dim} does not divide {name} {dim}")
    return dim // head_dim


def inner_width(dim: int, expand: float) -> int:
    """expand * dim, rounded down. ValueError if that is less than one channel."""
    whole(1, dim=dim)
    within("(0, inf)", expand=expand)
    if expand * dim < 1:
        raise ValueError(f"expand {expand} of dim {dim} leaves no inner channel")
    return int(expand * dim)


def split_heads(x: Tensor, heads: int, parts: int = 1) -> tuple[Tensor, ...]:
    """(B, L, parts H K) -> `parts` tensors (B, H, L, K)."""
    B, L, D = x.shape
    return x.view(B, L, parts, heads, D // (parts * heads)).permute(2, 0, 3, 1, 4).unbind(0)


def merge_heads(x: Tensor) -> Tensor:
    """(B, H, L, K) -> (B, L, H K)."""
    return x.transpose(1, 2).flatten(2)


def attend(
    q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None = None, dropout: float = 0.0, causal: bool = False
) -> Tensor:
    """softmax(q k^T / sqrt(K) + mask) v, by torch's fused kernels. q (..., L, K), k and v (..., S, K) -> (..., L, K).

    mask is True where q may look, or is added; it broadcasts to (..., L, S).
    """
    with sdpa_kernel(BACKENDS):
        return F.scaled_dot_product_attention(q, k, v, attn_mask=mask, dropout_p=dropout, is_causal=causal)
