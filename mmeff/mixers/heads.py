"""Splitting a width into attention heads."""

from torch import Tensor


def count_heads(dim: int, head_dim: int) -> int:
    """dim / head_dim, one head if dim is smaller. ValueError if it does not divide."""
    head_dim = min(head_dim, dim)
    if head_dim < 1 or dim % head_dim:
        raise ValueError(f"head_dim {head_dim} does not divide dim {dim}")
    return dim // head_dim


def split_heads(x: Tensor, heads: int, parts: int = 1) -> tuple[Tensor, ...]:
    """(B, L, parts H K) -> `parts` tensors (B, H, L, K)."""
    B, L, _ = x.shape
    return x.view(B, L, parts, heads, -1).permute(2, 0, 3, 1, 4).unbind(0)


def merge_heads(x: Tensor) -> Tensor:
    """(B, H, L, K) -> (B, L, H K)."""
    return x.transpose(1, 2).flatten(2)
