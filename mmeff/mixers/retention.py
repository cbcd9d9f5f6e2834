"""Retention: linear attention that forgets at a fixed rate, another one for each head."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mmeff.mixers.base import Mixer
from mmeff.mixers.heads import count_heads, inner_width
from mmeff.mixers.rotary import rotate
from mmeff.norm import rms_norm
from mmeff_kernels.decay import decay_attention
from mmeff_kernels.kept import kept


class Retention(Mixer):
    """[q, k, v, z] = W_in tokens;  o_i = sum_j gamma_h^|i-j| r(q_i)^T r(k_j) v_j / sqrt(K),  gamma_h = 1 - 2^(-5-h);

    W_out (silu(z) * rms_norm(o)), each head h normalised by itself. j runs over all tokens, or over j <= i if causal.
    r rotates by the position on the grid; |i - j| counts tokens in row-major order. Decays and sums are fp32, under
    autocast too. O(L).

    Source: Sun et al., RetNet, arXiv 2307.08621, eq. 5 and 8; in both directions as LION-D, arXiv 2502.16249. The norm
    is that of the released code, without a mean or weights.
    """

    def __init__(self, dim: int, head_dim: int = 64, expand: float = 2, causal: bool = False) -> None:
        """
        Args:
            dim: width of the tokens.
            head_dim: queries and keys of a head; must divide dim, and is reduced to dim where that is smaller.
            expand: width of the values and of the gate as a multiple of dim.
            causal: whether a token sees only itself and those before it, in row-major order.
        """
        super().__init__()
        self.causal = causal
        self.heads = count_heads(dim, head_dim)
        E = inner_width(dim, expand)
        if E % self.heads:
            raise ValueError(f"expand {expand} of dim {dim} gives {E} values, which {self.heads} heads do not divide")
        self.sizes = (2 * dim, E, E)
        self.in_proj = nn.Linear(dim, sum(self.sizes), bias=False)
        self.out = nn.Linear(E, dim, bias=False)

    def forward(self, x: Tensor, grid: tuple[int, ...], lengths: Tensor | None = None) -> Tensor:
        qk, v, z = self.in_proj(x).split(self.sizes, dim=-1)
        qk = qk.unflatten(2, (2 * self.heads, -1)).transpose(1, 2)  # (B, 2 H, L, K): one rotation for both
        q, k = rotate(qk, grid).transpose(1, 2).chunk(2, dim=2)
        v = v.unflatten(2, (self.heads, -1))
        wide = torch.promote_types(x.dtype, torch.float32)
        g = log_gamma(self.heads, wide, x.device).expand(*x.shape[:2], -1)
        direction = "forward" if self.causal else "both"
        o, _ = decay_attention(q, k, v, g, direction=direction, diagonal="first", lengths=lengths)
        return self.out(F.silu(z) * rms_norm(o, eps=1e-5).flatten(2))


@kept
def log_gamma(heads: int, dtype: torch.dtype, device: torch.device) -> Tensor:
    """log(1 - 2^(-5-h)) of every head (H,), computed in fp64, once for a device."""
    return torch.log1p(-torch.exp2(-5 - torch.arange(heads, dtype=torch.float64))).to(device, dtype)
