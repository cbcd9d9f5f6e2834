"""Tokens -> logits: pooling over the real tokens of each row, then one linear map."""

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Literal

import torch
from torch import Tensor, nn

from mmeff.errors import whole, within
from mmeff.tokens import Tokens, valid_mask

__all__ = ["AttentionPool", "Head", "MaxPool", "MeanPool", "Pool", "TokenPool"]


class Pool(nn.Module, ABC):
    """Tokens -> (B, D). Built as `Cls(dim, ...)`."""

    @abstractmethod
    def forward(self, tokens: Tokens) -> Tensor: ...


class MeanPool(Pool):
    """The mean of the real tokens."""

    def __init__(self, dim: int):
        super().__init__()
        whole(1, dim=dim)

    def forward(self, tokens: Tokens) -> Tensor:
        x, _, lengths = tokens
        if lengths is None:
            return x.mean(1)
        mask = valid_mask(lengths, x.shape[1])[..., None]
        return x.masked_fill(~mask, 0).sum(1) / lengths[:, None].to(x.dtype)


class MaxPool(Pool):
    """The largest value of each channel over the real tokens."""

    def __init__(self, dim: int):
        super().__init__()
        whole(1, dim=dim)

    def forward(self, tokens: Tokens) -> Tensor:
        x, _, lengths = tokens
        if lengths is not None:
            x = x.masked_fill(~valid_mask(lengths, x.shape[1])[..., None], float("-inf"))
        return x.amax(1)


class TokenPool(Pool):
    """One token: the first, the middle or the last real one. The last suits causal mixers, which have seen all by then.

    An extra class token would break the grid that 2-D mixers rely on; a token of the grid does not.
    """

    def __init__(self, dim: int, at: Literal["first", "middle", "last"] = "last"):
        super().__init__()
        whole(1, dim=dim)
        self.at = at

    def forward(self, tokens: Tokens) -> Tensor:
        x, _, lengths = tokens
        if lengths is None:
            lengths = torch.full((len(x),), x.shape[1], device=x.device)
        index = {"first": torch.zeros_like(lengths), "middle": lengths // 2, "last": lengths - 1}[self.at]
        return x[torch.arange(len(x), device=x.device), index]


class AttentionPool(Pool):
    """A learned query per head looks at all real tokens: y_h = sum_t softmax_t(q_h . x_t / sqrt(D)) (V x_t)_h."""

    def __init__(self, dim: int, heads: int = 4):
        super().__init__()
        whole(1, dim=dim, heads=heads)
        if dim % heads:
            raise ValueError(f"dim {dim} does not divide into {heads} heads")
        self.query = nn.Parameter(torch.randn(heads, dim) * dim**-0.5)
        self.value = nn.Linear(dim, dim)

    def forward(self, tokens: Tokens) -> Tensor:
        x, _, lengths = tokens
        scores = x @ self.query.mT.to(x.dtype) * x.shape[-1] ** -0.5  # (B, L, heads)
        if lengths is not None:
            scores = scores.masked_fill(~valid_mask(lengths, x.shape[1])[..., None], float("-inf"))
        weights = scores.float().softmax(1).to(x.dtype)
        v = self.value(x).unflatten(-1, (len(self.query), -1))  # (B, L, heads, D / heads)
        return torch.einsum("blh,blhd->bhd", weights, v).flatten(1)


class Head(nn.Module):
    """Pool, dropout, linear: Tokens -> logits (B, classes)."""

    def __init__(self, dim: int, classes: int, pool: Callable[[int], Pool] = MeanPool, dropout: float = 0.0):
        super().__init__()
        whole(1, dim=dim, classes=classes)
        within("[0, 1)", dropout=dropout)
        self.pool = pool(dim)
        self.dropout = nn.Dropout(dropout)
        self.linear = nn.Linear(dim, classes)
        nn.init.trunc_normal_(self.linear.weight, std=0.02)  # first guesses near uniform
        nn.init.zeros_(self.linear.bias)

    def forward(self, tokens: Tokens) -> Tensor:
        return self.linear(self.dropout(self.pool(tokens)))
