"""RWKV-6: a state whose decay, and whose mixture of neighbours, the token decides."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mmeff.errors import whole
from mmeff.mixers.base import Mixer
from mmeff.mixers.heads import count_heads
from mmeff.mixers.shift import q_shift
from mmeff.norm import HeadNorm
from mmeff.tokens import zero_padding
from mmeff_kernels.decay import decay_attention


class RWKV6(Mixer):
    """S_t = diag(w_t) S_{t-1} + k_t v_t^T,  o_t = (S_{t-1} + diag(u) k_t v_t^T)^T r_t,  w = exp(-exp(d)). O(L).

    W_out (silu(W_g x_g) * group_norm(o)), a group a head. r, k, v, the gate and d = d_0 + tanh(x_d A) B each have a
    mixture x_i of the token x with what its neighbours give it, s = q_shift(x): x_i = x + (s - x) * (mu_i + m_i),
    [m_i] = tanh((x + (s - x) * mu) A_m) B_m. o is the sum of both directions; the token itself, with its weight u,
    counts once. d, decays and states are fp32, under autocast too.

    Source: Peng et al., arXiv 2404.05892, section 4.2; both directions, the shift within heads and initial values, here
    those of a first layer, as in the released code of Vision-RWKV, arXiv 2403.02308.
    """

    def __init__(self, dim: int, head_dim: int = 64, mix_rank: int = 32, decay_rank: int = 64) -> None:
        """
        Args:
            dim: width of the tokens.
            head_dim: width of a head; must divide dim, and is reduced to dim where that is smaller.
            mix_rank: rank of what each mixture takes from the token.
            decay_rank: rank of what the decay takes from the token.
        """
        super().__init__()
        whole(1, mix_rank=mix_rank, decay_rank=decay_rank)
        self.heads = count_heads(dim, head_dim)
        self.r, self.k, self.v, self.gate = (nn.Linear(dim, dim, bias=False) for _ in range(4))
        self.norm = HeadNorm(self.heads, dim)
        self.out = nn.Linear(dim, dim, bias=False)
        rise = torch.arange(dim) / dim
        self.mix = nn.Parameter(1 - rise)
        self.mixes = nn.Parameter(1 - torch.stack([rise, rise**0.5, rise, rise, rise**0.5]))  # of d, r, k, v, gate
        self.mix_down = nn.Parameter(torch.empty(dim, 5 * mix_rank).uniform_(-1e-4, 1e-4))
        self.mix_up = nn.Parameter(torch.empty(5, mix_rank, dim).uniform_(-1e-4, 1e-4))
        self.decay = nn.Parameter(-6 + 5 * torch.linspace(0, 1, dim) ** 0.7)
        self.decay_down = nn.Parameter(torch.empty(dim, decay_rank).uniform_(-1e-4, 1e-4))
        self.decay_up = nn.Parameter(torch.empty(decay_rank, dim).uniform_(-1e-4, 1e-4))
        zigzag = 0.1 * ((torch.arange(dim) + 1) % 3 - 1)
        self.bonus = nn.Parameter(zigzag.view(self.heads, -1))
        for parameter in (self.mix, self.mixes, self.decay, self.bonus):
            parameter._no_weight_decay = True  # pyright: ignore[reportAttributeAccessIssue]

    def forward(self, x: Tensor, grid: tuple[int, ...], lengths: Tensor | None = None) -> Tensor:
        x_d, x_r, x_k, x_v, x_g = self.mixtures(zero_padding(x, lengths), grid)
        r, k, v = (t.unflatten(2, (self.heads, -1)) for t in (self.r(x_r), self.k(x_k), self.v(x_v)))
        g = self.log_decay(x_d).unflatten(2, (self.heads, -1))
        o, _ = decay_attention(
            r, k, v, g, direction="both", diagonal="first", bonus=self.bonus, scale=1.0, lengths=lengths
        )
        return self.out(F.silu(self.gate(x_g)) * self.norm(o))

    def mixtures(self, x: Tensor, grid: tuple[int, ...]) -> Tensor:
        """x_i, (5, B, L, D); x is zero in the padding."""
        change = q_shift(x.unflatten(2, (self.heads, -1)), grid).flatten(2) - x
        low_rank = torch.tanh((x + change * self.mix) @ self.mix_down).unflatten(2, (5, -1))
        mixes = self.mixes[:, None, None] + torch.einsum("blir,ird->ibld", low_rank, self.mix_up)
        return torch.addcmul(x, change, mixes.to(x.dtype))

    def log_decay(self, x: Tensor) -> Tensor:
        """log w, (B, L, D)."""
        change = torch.tanh(x @ self.decay_down) @ self.decay_up
        return -torch.exp(self.decay + change.to(torch.promote_types(x.dtype, torch.float32)))
