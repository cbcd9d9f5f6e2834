"""Linear attention: a sum over all tokens, read by every token."""

from torch import Tensor, nn

from mmeff.mixers.base import Mixer
from mmeff.mixers.conv import GridConv
from mmeff.mixers.heads import count_heads
from mmeff.mixers.rotary import rotation_of
from mmeff.tokens import zero_padding
from mmeff_kernels.full_sum import full_sum, full_sum_qkvpacked


class LinearAttention(Mixer):
    """o_i = r(phi(q_i))^T S / (phi(q_i)^T z),  S = sum_j r(phi(k_j)) v_j^T,  z = sum_j phi(k_j),  phi = elu + 1. O(L).

    r rotates by the position, in the numerator alone, so that the denominator stays positive. `local` adds a
    depthwise convolution of v: without it the sum over all tokens has little sense of the neighbourhood. The
    projections have no biases: that of the norm before stands for them, and on an H200 the sums that are their
    gradients took a sixth of a training step.

    Source: Katharopoulos et al., arXiv 2006.16236, eq. 5; rotation and convolution as in MILA, arXiv 2405.16605.
    """

    def __init__(self, dim: int, head_dim: int = 64, rotary: bool = True, local: bool = True, kernel: int = 3) -> None:
        """
        Args:
            dim: width of the tokens.
            head_dim: width of a head; must divide dim, and is reduced to dim where that is smaller.
            rotary: rotate queries and keys by their positions on the grid; needs heads of an even width.
            local: add a depthwise convolution of the values.
            kernel: size of that convolution, odd.
        """
        super().__init__()
        self.rotary = rotary
        self.heads = count_heads(dim, head_dim)
        if rotary and dim // self.heads % 2:
            raise ValueError(f"rotary turns pairs of features: head_dim {dim // self.heads} must be even")
        self.qkv = nn.Linear(dim, 3 * dim, bias=False)
        self.local = GridConv(dim, kernel) if local else None
        self.out = nn.Linear(dim, dim, bias=False)

    def forward(self, x: Tensor, grid: tuple[int, ...], lengths: Tensor | None = None) -> Tensor:
        qkv = self.qkv(x).unflatten(2, (3, self.heads, -1))  # (B, L, 3, H, K)
        turns = rotation_of(qkv, grid) if self.rotary else None
        if self.local is None:
            return self.out(full_sum_qkvpacked(qkv, rotation=turns, lengths=lengths).flatten(2))
        q, k, v = qkv.unbind(2)
        o = full_sum(q, k, v, rotation=turns, lengths=lengths).flatten(2)
        return self.out(o + self.local(zero_padding(v.flatten(2), lengths), grid))
