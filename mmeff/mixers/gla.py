"""Gated linear attention: each feature of the state forgets at a rate that the token decides."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mmeff.errors import whole, within
from mmeff.mixers.base import Mixer
from mmeff.mixers.conv import GridConv
from mmeff.mixers.heads import count_heads
from mmeff.norm import RMSNorm
from mmeff.tokens import zero_padding
from mmeff_kernels.decay import decay_attention

#: Root that is taken of the gates: they start near 1, and memory is long.
ROOT = 16


class GLA(Mixer):
    """S_t = diag(alpha_t) S_{t-1} + k_t v_t^T,  o_t = S_t^T q_t / sqrt(K),  alpha = sigmoid(W_2 W_1 u)^(1/16). O(L).

    Both directions share q, k and v, each has its own alpha, and o is their mean. Each contains the token itself, so
    the diagonal counts twice, as published. With `local`, u = silu(dwconv(x)) and the output chooses between it and the
    memory: W_out silu(z n(o) + (1 - z) n(u)), z = sigmoid(W_z u), n = rms_norm of each head. Without, u = x and
    W_out (silu(W_z u) * n(o)). Gates, decays and states are fp32, under autocast too.

    Source: Yang et al., arXiv 2312.06635, section 4.4 (`causal`, without `local`); Liao et al., ViG, arXiv 2405.18425,
    direction-wise gating and 2D gating locality injection (`local`).
    """

    def __init__(
        self,
        dim: int,
        head_dim: int = 64,
        expand_k: float = 0.5,
        rank: int = 16,
        causal: bool = False,
        local: bool = True,
        kernel: int = 3,
    ) -> None:
        """
        Args:
            dim: width of the tokens.
            head_dim: values of a head; must divide dim, and is reduced to dim where that is smaller.
            expand_k: queries and keys of a head as a multiple of its values.
            rank: rank of the projection that gives alpha.
            causal: whether a token sees only itself and those before it, in row-major order; needs local = false.
            local: take all from a depthwise convolution of the tokens, and let the output choose between it and o.
            kernel: size of that convolution along each axis, odd.
        """
        super().__init__()
        if causal and local:
            raise ValueError("causal needs local = false: the convolution of local is centred, it sees later tokens")
        self.causal = causal
        self.heads = H = count_heads(dim, head_dim)
        V = dim // H
        whole(1, rank=rank)
        within("(0, inf)", expand_k=expand_k)
        self.features = K = int(expand_k * V)
        if K < 1:
            raise ValueError(f"expand_k {expand_k} gives no queries and keys to a head of {V} values")
        self.conv = GridConv(dim, kernel) if local else None
        self.sizes = (H * K, H * K, dim, dim, rank)
        self.in_proj = nn.Linear(dim, sum(self.sizes))
        self.decay = nn.Linear(rank, (1 if causal else 2) * H * K)
        self.norm = RMSNorm(V, eps=1e-5)
        self.local_norm = RMSNorm(V, eps=1e-5) if local else None
        self.out = nn.Linear(dim, dim, bias=False)

    def forward(self, x: Tensor, grid: tuple[int, ...], lengths: Tensor | None = None) -> Tensor:
        x = zero_padding(x, lengths)  # what lies there could overflow, and 0 * inf is NaN
        u = x if self.conv is None else F.silu(self.conv(x, grid))
        *qkvz, low_rank = self.in_proj(u).split(self.sizes, dim=-1)
        q, k, v, z = (t.unflatten(2, (self.heads, -1)) for t in qkvz)
        direction, scale = ("forward", 1.0) if self.causal else ("both", 0.5)
        o, _ = decay_attention(
            q, k, v, self.log_alpha(low_rank), direction=direction, scale=scale * self.features**-0.5, lengths=lengths
        )
        o = self.norm(o.to(self.norm.weight.dtype))  # under autocast too: torch's fused norm takes one type
        if self.local_norm is None:
            return self.out((F.silu(z) * o).flatten(2))
        near = self.local_norm(u.unflatten(2, (self.heads, -1)).to(self.local_norm.weight.dtype))
        return self.out(F.silu(near + torch.sigmoid(z) * (o - near)).flatten(2))

    def log_alpha(self, low_rank: Tensor) -> Tensor:
        """(B, L, rank) -> (2, B, L, H, K), of both directions, or (B, L, H, K)."""
        wide = torch.promote_types(low_rank.dtype, torch.float32)
        g = self.decay(low_rank).to(wide).unflatten(2, (-1, self.heads, self.features))
        return F.logsigmoid(g[:, :, 0] if self.causal else g.movedim(2, 0)) / ROOT
