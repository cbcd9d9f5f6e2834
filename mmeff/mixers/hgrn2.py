"""HGRN2: a gated recurrence whose gate is its key, what is forgotten makes room for what is written."""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mmeff.errors import within
from mmeff.mixers.base import Mixer
from mmeff.mixers.heads import count_heads
from mmeff.norm import RMSNorm
from mmeff.tokens import zero_padding
from mmeff_kernels.decay import decay_attention


class HGRN2(Mixer):
    """S_t = diag(f_t) S_{t-1} + (1 - f_t) v_t^T,  o_t = S_t^T silu(q_t) / sqrt(K),  f = b + (1 - b) sigmoid(W_f x);

    W_out rms_norm(o), [q, v] = W x. b is the least that a state keeps from a token to the next: as published it rises
    with the depth, from 0, but is learned for all layers together; here it is fixed, and recipes give each block its
    own. Not causal, o is the sum of both directions, the token's own input counted once: they share f, for an f of its
    own would need keys of its own and another pass. Gates, decays and states are fp32, under autocast too. O(L).

    Source: Qin et al., arXiv 2404.07904, section 3; b as in HGRN, arXiv 2311.04823.
    """

    def __init__(self, dim: int, head_dim: int = 64, lower_bound: float = 0.0, causal: bool = False) -> None:
        """
        Args:
            dim: width of the tokens.
            head_dim: width of a head; must divide dim, and is reduced to dim where that is smaller.
            lower_bound: b, at least 0 and less than 1.
            causal: whether a token sees only itself and those before it, in row-major order.
        """
        super().__init__()
        within("[0, 1)", lower_bound=lower_bound)
        self.causal = causal
        self.lower_bound = lower_bound
        self.heads = count_heads(dim, head_dim)
        self.in_proj = nn.Linear(dim, 3 * dim, bias=False)
        self.norm = RMSNorm(dim, eps=1e-5)
        self.out = nn.Linear(dim, dim, bias=False)

    def forward(self, x: Tensor, grid: tuple[int, ...], lengths: Tensor | None = None) -> Tensor:
        x = zero_padding(x, lengths)  # what lies there could overflow, and 0 * inf is NaN
        q, forget, v = self.in_proj(x).unflatten(2, (3, self.heads, -1)).unbind(2)  # (B, L, H, K) each
        k, g = self.gate(forget.to(torch.promote_types(x.dtype, torch.float32)))
        direction = "forward" if self.causal else "both"
        o, _ = decay_attention(F.silu(q), k.to(q.dtype), v, g, direction=direction, diagonal="first", lengths=lengths)
        # Under autocast too: torch's fused norm takes one type.
        return self.out(self.norm(o.flatten(2).to(self.norm.weight.dtype)))

    def gate(self, forget: Tensor) -> tuple[Tensor, Tensor]:
        """1 - f and log f, for f = b + (1 - b) sigmoid(forget).

        f = sigmoid(forget) / sigmoid(forget - log b), whose logarithm is finite wherever f would round to 0 or 1.
        """
        log_bound = math.log(self.lower_bound) if self.lower_bound else -math.inf
        log_f = F.logsigmoid(forget) - F.logsigmoid(forget - log_bound)
        return (1 - self.lower_bound) * torch.sigmoid(-forget), log_f
