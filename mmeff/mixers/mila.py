"""Linear attention in a Mamba block: a gate and a convolution in place of the recurrence."""

import torch.nn.functional as F
from torch import Tensor, nn

from mmeff.mixers.base import Mixer
from mmeff.mixers.conv import GridConv
from mmeff.mixers.heads import count_heads
from mmeff.mixers.rotary import rotation_of
from mmeff.tokens import zero_padding
from mmeff_kernels.full_sum import full_sum


class MILA(Mixer):
    """[x, z] = W_in tokens,  u = silu(dwconv(x)),  [q, k] = W_qk u;  W_out (silu(z) * (o + dwconv(u))). O(L).

    o is linear attention over all tokens with u itself as values, o_i = sum_j r(phi(q_i))^T r(phi(k_j)) u_j /
    sum_j phi(q_i)^T phi(k_j), phi = elu + 1; features, sums and quotients are fp32, under autocast too. r rotates by
    the position on the grid, in the numerator alone: with the convolutions, it stands for Mamba's forget gate.

    Source: Han et al., arXiv 2405.16605, figure 3; r turns every head by the same angles, the released code has the
    frequencies of one table spread over all heads.
    """

    def __init__(self, dim: int, head_dim: int = 32, kernel: int = 3) -> None:
        """
        Args:
            dim: width of the tokens.
            head_dim: width of a head, even; must divide dim, and is reduced to dim where that is smaller.
            kernel: size of both convolutions along each axis, odd.
        """
        super().__init__()
        self.heads = count_heads(dim, head_dim)
        if dim // self.heads % 2:
            raise ValueError(f"rotary turns pairs of features: head_dim {dim // self.heads} must be even")
        self.in_proj = nn.Linear(dim, 2 * dim)
        self.conv = GridConv(dim, kernel)
        self.qk = nn.Linear(dim, 2 * dim)
        self.local = GridConv(dim, kernel)
        self.out = nn.Linear(dim, dim)

    def forward(self, x: Tensor, grid: tuple[int, ...], lengths: Tensor | None = None) -> Tensor:
        inner, z = self.in_proj(x).chunk(2, dim=-1)
        u = F.silu(self.conv(zero_padding(inner, lengths), grid))
        q, k, v = (t.unflatten(2, (self.heads, -1)) for t in (*self.qk(u).chunk(2, dim=-1), u))
        o = full_sum(q, k, v, rotation=rotation_of(q, grid), lengths=lengths).flatten(2)
        # Once more without padding: the first convolution has written into its border.
        return self.out(F.silu(z) * (o + self.local(zero_padding(u, lengths), grid)))
