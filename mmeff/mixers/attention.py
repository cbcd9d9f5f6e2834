"""Softmax attention over all tokens."""

from torch import Tensor, nn

from mmeff.errors import within
from mmeff.mixers.base import Mixer
from mmeff.mixers.heads import attend, count_heads, merge_heads, split_heads
from mmeff.mixers.rotary import rotate
from mmeff.tokens import valid_mask, zero_padding


class Attention(Mixer):
    """o_i = sum_j softmax_j(q_i^T k_j / sqrt(K)) v_j, over all j, or over j <= i if causal. O(L^2).

    Source: Vaswani et al., arXiv 1706.03762, eq. 1.
    """

    def __init__(
        self, dim: int, head_dim: int = 64, causal: bool = False, rotary: bool = True, dropout: float = 0.0
    ) -> None:
        """
        Args:
            dim: width of the tokens.
            head_dim: width of a head; must divide dim, and is reduced to dim where that is smaller.
            causal: whether a token sees only itself and those before it, in row-major order.
            rotary: rotate queries and keys by their positions on the grid.
            dropout: probability of dropping an attention weight in training.
        """
        super().__init__()
        within("[0, 1)", dropout=dropout)
        self.causal = causal
        self.rotary = rotary
        self.dropout = dropout
        self.heads = count_heads(dim, head_dim)
        self.qkv = nn.Linear(dim, 3 * dim)
        self.out = nn.Linear(dim, dim)

    def forward(self, x: Tensor, grid: tuple[int, ...], lengths: Tensor | None = None) -> Tensor:
        x = zero_padding(x, lengths)  # what lies there could overflow, and 0 * inf is NaN
        q, k, v = split_heads(self.qkv(x), self.heads, parts=3)  # (B, H, L, K)
        if self.rotary:
            q, k = rotate(q, grid), rotate(k, grid)
        # Causal attention never looks at a suffix, and without a mask the fused kernels serve all cases.
        mask = None
        if lengths is not None and not self.causal:
            mask = valid_mask(lengths, x.shape[1])[:, None, None]
        dropout = self.dropout if self.training else 0.0
        o = attend(q, k, v, mask, dropout, self.causal)
        return self.out(merge_heads(o))
