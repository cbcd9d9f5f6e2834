"""The definition of order-free linear attention: the dense matrix of weights of one token on another."""

import torch
from torch import Tensor

from .features import Feature, elementwise


def full_sum_reference(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    feature: Feature = "elu+1",
    *,
    normalize: bool = True,
    rotation: tuple[Tensor, Tensor] | None = None,
    scale: float = 1.0,
    eps: float = 1e-12,
    segments: Tensor | None = None,
) -> Tensor:
    """`full_sum` by its L x L weights; segments (B, L) integers: a token sees those of its own number, which for
    padding is -1."""
    q, k = elementwise(q, feature), elementwise(k, feature)
    weights = torch.einsum("blhk,bmhk->bhlm", q, k)
    rotated = torch.einsum("blhk,bmhk->bhlm", rotate(q, rotation), rotate(k, rotation))
    if segments is not None:
        apart = (segments[:, :, None] != segments[:, None]) | (segments == -1)[:, None]
        weights, rotated = (t.masked_fill(apart[:, None], 0) for t in (weights, rotated))
        v = v.masked_fill((segments == -1)[..., None, None], 0)
    o = torch.einsum("bhlm,bmhv->blhv", rotated, v) * scale
    return o / (weights.sum(-1).transpose(1, 2)[..., None] + eps) if normalize else o


def rotate(x: Tensor, rotation: tuple[Tensor, Tensor] | None) -> Tensor:
    """x (B, L, H, K) with each pair of features k, k + K / 2 turned by an angle, whose cos and sin are (L, K / 2)."""
    if rotation is None:
        return x
    cos, sin = (table.to(x.dtype)[:, None] for table in rotation)
    real, imaginary = x.chunk(2, dim=-1)
    return torch.cat([real * cos - imaginary * sin, real * sin + imaginary * cos], dim=-1)
