"""Softmax attention in a window that slides along the sequence."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mmeff.errors import whole
from mmeff.mixers.base import Mixer
from mmeff.mixers.heads import attend, count_heads, merge_heads, split_heads
from mmeff.mixers.rotary import rotate
from mmeff.tokens import valid_mask, zero_padding


class SlidingAttention(Mixer):
    """o_i = sum_j softmax_j(q_i^T k_j / sqrt(K)) v_j over |i - j| <= window, in row-major order. O(L window).

    Queries are cut into blocks of `window` tokens; each block meets itself and its two neighbours, which hold all that
    it may see, so the work is three blocks of keys a block of queries.

    Source: Beltagy et al., Longformer, arXiv 2004.05150, section 3.1 (without dilation or global tokens).
    """

    def __init__(self, dim: int, window: int = 64, head_dim: int = 64, rotary: bool = True) -> None:
        """
        Args:
            dim: width of the tokens.
            window: tokens seen on each side.
            head_dim: width of a head; must divide dim, and is reduced to dim where that is smaller.
            rotary: rotate queries and keys by their positions on the grid.
        """
        super().__init__()
        whole(1, window=window)
        self.window = window
        self.rotary = rotary
        self.heads = count_heads(dim, head_dim)
        self.qkv = nn.Linear(dim, 3 * dim)
        self.out = nn.Linear(dim, dim)

    def forward(self, x: Tensor, grid: tuple[int, ...], lengths: Tensor | None = None) -> Tensor:
        L, W = x.shape[1], self.window
        x = zero_padding(x, lengths)  # what lies there could overflow, and 0 * inf is NaN
        q, k, v = split_heads(self.qkv(x), self.heads, parts=3)  # (B, H, L, K)
        if self.rotary:
            q, k = rotate(q, grid), rotate(k, grid)
        real = x.new_ones(1, L, dtype=torch.bool) if lengths is None else valid_mask(lengths, L)

        # n blocks of W queries; one more block of keys at each end. (B, H, n, W, K) and (B, H, n, 3 W, K).
        extra = -L % W
        q = F.pad(q, (0, 0, 0, extra)).unflatten(2, (-1, W))
        k, v = (F.pad(t, (0, 0, W, W + extra)).unfold(2, 3 * W, W).transpose(3, 4) for t in (k, v))
        seen = F.pad(real, (W, W + extra)).unfold(1, 3 * W, W)[:, None, :, None]  # (B or 1, 1, n, 1, 3 W)
        query = torch.arange(W, device=x.device)[:, None] + W
        key = torch.arange(3 * W, device=x.device)
        near = (query - key).abs() <= W
        # A query in the padding sees its own key: what an empty softmax gives is up to the kernel that serves it.
        mask = (near & seen) | (query == key)
        o = attend(q, k, v, mask)
        o = o.flatten(2, 3)[:, :, :L]
        return self.out(merge_heads(o))
