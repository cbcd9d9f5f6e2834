"""Non-causal state space duality: Mamba-2's state without its order."""

import torch.nn.functional as F
from torch import Tensor

from mmeff.mixers.conv import GridConv, odd
from mmeff.mixers.ssd import SSDMixer
from mmeff.norm import LayerNorm
from mmeff.tokens import zero_padding
from mmeff_kernels.full_sum import full_sum


class VSSD(SSDMixer):
    """[z, (u, B, C), dt] = W_in tokens, (u, B, C) through silu(dwconv);  W_out (z * layer_norm(o + D u)), where

    o_i = S^T C_i,  S = sum_j m_j B_j u_j^T,  m_j = dt_j |A|, over all tokens j, with one dt and A a head, and B and C
    of all heads. O(L).

    What tokens know of their order they have from the convolution. S grows with their number and nothing divides by
    it; as published, the norm of each token takes the scale out again. dt, m and sums are fp32, under autocast too.

    Source: Shi et al., arXiv 2407.18559, section 3; m > 0 and a z without activation as in its released code.
    """

    def __init__(self, dim: int, expand: float = 2, head_dim: int = 64, state: int = 64, conv: int = 3) -> None:
        """
        Args:
            dim: width of the tokens.
            expand: inner width as a multiple of dim.
            head_dim: inner channels of a head; must divide the inner width, and is reduced to it where that is smaller.
            state: numbers kept for each inner channel.
            conv: size of the depthwise convolution along each axis, odd.
        """
        super().__init__(dim, expand, head_dim, state)
        odd(conv=conv)
        self.conv = GridConv(sum(self.convolved), conv)
        self.norm = LayerNorm(self.out.in_features)

    def forward(self, x: Tensor, grid: tuple[int, ...], lengths: Tensor | None = None) -> Tensor:
        z, inner, dt, _ = self.in_proj(x).split(self.sizes, dim=-1)
        u, B, C = self.by_heads(F.silu(self.conv(zero_padding(inner, lengths), grid)))
        m = self.steps(dt) * self.A_log.exp()
        o = full_sum(C, B, (m[..., None] * u).to(u.dtype), "identity", normalize=False, lengths=lengths)
        return self.out(z * self.norm((o + self.D[:, None] * u).flatten(2)))
