"""Linear attention: a sum over all tokens, read by every token."""

import torch.nn.functional as F
from torch import Tensor, nn

from mmeff.mixers.base import Mixer
from mmeff.mixers.conv import GridConv
from mmeff.mixers.heads import count_heads, merge_heads, split_heads
from mmeff.mixers.rotary import rotate
from mmeff.tokens import zero_padding


class LinearAttention(Mixer):
    """o_i = r(phi(q_i))^T S / (phi(q_i)^T z),  S = sum_j r(phi(k_j)) v_j^T,  z = sum_j phi(k_j),  phi = elu + 1. O(L).

    r rotates by the position, in the numerator alone, so that the denominator stays positive. `local` adds a
    depthwise convolution of v: without it the sum over all tokens has little sense of the neighbourhood.

    Source: Katharopoulos et al., arXiv 2006.16236, eq. 5; rotation and convolution as in MILA, arXiv 2405.16605.
    """

    def __init__(self, dim: int, head_dim: int = 64, rotary: bool = True, local: bool = True, kernel: int = 3) -> None:
        """
        Args:
            dim: width of the tokens.
            head_dim: width of a head; must divide dim, and is reduced to dim where that is smaller.
            rotary: rotate queries and keys by their positions on the grid.
            local: add a depthwise convolution of the values.
            kernel: size of that convolution, odd.
        """
        super().__init__()
        self.rotary = rotary
        self.heads = count_heads(dim, head_dim)
        self.qkv = nn.Linear(dim, 3 * dim)
        self.local = GridConv(dim, kernel) if local else None
        self.out = nn.Linear(dim, dim)

    def forward(self, x: Tensor, grid: tuple[int, ...], lengths: Tensor | None = None) -> Tensor:
        q, k, values = self.qkv(x).chunk(3, dim=-1)
        # The feature map and the sums over thousands of tokens are taken in fp32 at least.
        q, k = (F.elu(t.float() if t.dtype.itemsize < 4 else t) + 1 for t in (q, k))
        k, values = zero_padding(k, lengths), zero_padding(values, lengths)
        (q,), (k,), (v,) = (split_heads(t, self.heads) for t in (q, k, values.to(k.dtype)))  # (B, H, L, K)
        # Means instead of sums, which cancel in the quotient, keep the numbers small.
        k = k / x.shape[1]
        z = k.sum(2, keepdim=True)
        weight = (q * z).sum(-1, keepdim=True).clamp_min(1e-6)  # 0 where every feature of q underflows
        if self.rotary:
            q, k = rotate(q, grid), rotate(k, grid)
        o = merge_heads(q @ (k.transpose(2, 3) @ v) / weight).to(values.dtype)
        if self.local is not None:
            o = o + self.local(values, grid)
        return self.out(o)
