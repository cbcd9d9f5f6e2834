"""Softmax attention inside windows that tile the grid."""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mmeff.errors import whole
from mmeff.mixers.base import Mixer
from mmeff.mixers.heads import attend, count_heads, merge_heads, split_heads
from mmeff.tokens import valid_mask, zero_padding


class WindowAttention(Mixer):
    """o_i = sum_j softmax_j(q_i^T k_j / sqrt(K) + b(i - j)) v_j over the j in i's window. O(L window^ndim).

    Windows of `window` tokens an axis tile the grid: squares on a 2-D grid, stretches on a 1-D one. A grid that is no
    multiple of the window is padded and the padding masked. With `shift` the tiles are moved by half a window, without
    wrapping around; blocks that alternate the two let the image mix over depth. b is learned, one value a head and a
    relative position; on a 1-D grid it is the row of zero vertical distance.

    Source: Liu et al., Swin, arXiv 2103.14030, eq. 4.
    """

    def __init__(self, dim: int, window: int = 7, shift: bool = False, head_dim: int = 32) -> None:
        """
        Args:
            dim: width of the tokens.
            window: tokens of a window along each axis.
            shift: move the tiles by half a window.
            head_dim: width of a head; must divide dim, and is reduced to dim where that is smaller.
        """
        super().__init__()
        whole(1, window=window)
        self.window = window
        # Tokens of room before the first one; the first tile then holds window // 2 of them, as in Swin.
        self.room = -(window // 2) % window if shift else 0
        self.heads = count_heads(dim, head_dim)
        self.qkv = nn.Linear(dim, 3 * dim)
        self.out = nn.Linear(dim, dim)
        self.bias = nn.Parameter(torch.zeros(self.heads, 2 * window - 1, 2 * window - 1))
        nn.init.trunc_normal_(self.bias, std=0.02)

    def forward(self, x: Tensor, grid: tuple[int, ...], lengths: Tensor | None = None) -> Tensor:
        if len(grid) > 2:
            raise ValueError(f"WindowAttention serves grids of 1 or 2 axes, not {grid}")
        height, width = grid if len(grid) == 2 else (1, *grid)
        # A 1-D grid is an image of one row, with windows of one row.
        wh, ww = (self.window if len(grid) == 2 else 1), self.window
        # Room before the first token moves the tiles; room after the last completes them.
        top, left = (self.room if wh > 1 else 0), self.room
        room = (left, -(width + left) % ww, top, -(height + top) % wh)

        def windows(tokens: Tensor) -> Tensor:
            """(B, L, D) -> (B, number of windows, tokens of a window, D)."""
            tiles = F.pad(tokens.unflatten(1, (height, width)), (0, 0, *room))
            tiles = tiles.unflatten(2, (-1, ww)).unflatten(1, (-1, wh))  # (B, rows, wh, columns, ww, D)
            return tiles.transpose(2, 3).flatten(3, 4).flatten(1, 2)

        real = x.new_ones(1, x.shape[1], dtype=torch.bool) if lengths is None else valid_mask(lengths, x.shape[1])
        x = zero_padding(x, lengths)  # what lies there could overflow, and 0 * inf is NaN
        seen = windows(real[..., None].to(x.dtype)).squeeze(-1) > 0  # (B or 1, n, S)
        tiles = windows(self.qkv(x))  # (B, n, S, 3 D)
        B, n = tiles.shape[:2]
        q, k, v = (t.unflatten(0, (B, n)) for t in split_heads(tiles.flatten(0, 1), self.heads, parts=3))

        # A window without real tokens sees all: what an empty softmax gives is up to the kernel that serves it.
        seen = seen | ~seen.any(-1, keepdim=True)
        scores = self._relative_bias(wh, ww).to(q.dtype).expand(len(seen), n, -1, -1, -1)
        mask = scores.masked_fill(~seen[:, :, None, None], -math.inf)
        o = attend(q, k, v, mask)  # (B, n, H, S, K)

        rows, columns = (height + room[2] + room[3]) // wh, (width + room[0] + room[1]) // ww
        o = merge_heads(o.flatten(0, 1)).view(B, rows, columns, wh, ww, x.shape[-1])
        o = o.transpose(2, 3).flatten(3, 4).flatten(1, 2)[:, top : top + height, left : left + width]
        return self.out(o.flatten(1, 2))

    def _relative_bias(self, wh: int, ww: int) -> Tensor:
        """(H, S, S): the bias of each pair of tokens of a wh x ww window."""
        y, x = (torch.arange(size, device=self.bias.device) for size in (wh, ww))
        dy = (y[:, None] - y + self.window - 1)[:, None, :, None]
        dx = (x[:, None] - x + self.window - 1)[None, :, None, :]
        return self.bias[:, dy, dx].flatten(3, 4).flatten(1, 2)
