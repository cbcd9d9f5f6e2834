"""Hydra: a quasiseparable matrix, made of a state from either end and a diagonal of its own."""

import torch.nn.functional as F
from torch import Tensor, nn

from mmeff.mixers.ssd import SequenceConv, SSDMixer, ssd
from mmeff.norm import RMSNorm


class Hydra(SSDMixer):
    """y_t = F_{t-1} + G_{t+1} + (W_D u_t + D) u_t;  W_out (silu(z) * rms_norm(y)). O(L).

    [z, (u, B_F, C_F, B_G, C_G), (dt_F, dt_G)] = W_in tokens, u, B and C through silu(conv). F = ssd(u, dt_F, A, B_F,
    C_F) starts at the first token, G with its own dt, B and C at the last; A and the bias of dt are common. A token
    takes them from its neighbours: its own input is the diagonal's alone. dt, A, decays and states are fp32, under
    autocast too.

    Source: Hwang et al., arXiv 2407.09941, section 3; initial values as in its released code.
    """

    def __init__(self, dim: int, expand: float = 2, head_dim: int = 64, state: int = 64, conv: int = 7) -> None:
        """
        Args:
            dim: width of the tokens.
            expand: inner width as a multiple of dim.
            head_dim: inner channels of a head; must divide the inner width, and is reduced to it where that is smaller.
            state: numbers kept for each inner channel and direction.
            conv: tokens that the short convolution sees, odd.
        """
        super().__init__(dim, expand, head_dim, state, K=2)
        nn.init.zeros_(self.A_log)
        E = self.out.in_features
        self.conv = SequenceConv(sum(self.convolved), conv, "centred")
        self.diagonal = nn.Linear(E, self.heads, bias=False)
        self.norm = RMSNorm(E, eps=1e-5)

    def forward(self, x: Tensor, grid: tuple[int, ...], lengths: Tensor | None = None) -> Tensor:
        z, inner, dt, _ = self.in_proj(x).split(self.sizes, dim=-1)
        u, B_F, C_F, B_G, C_G = self.by_heads(self.conv(inner, lengths))
        dt_F, dt_G = self.steps(dt.unflatten(2, (2, -1))).unbind(2)
        A = -self.A_log.exp()
        y = u * (self.diagonal(u.flatten(2)) + self.D)[..., None]
        # A row that ends before the others takes G from its padding, where it is 0.
        y[:, 1:] += ssd(u, dt_F, A, B_F, C_F, "forward", lengths)[:, :-1]
        y[:, :-1] += ssd(u, dt_G, A, B_G, C_G, "backward", lengths)[:, 1:]
        return self.out(F.silu(z) * self.norm(y.flatten(2)))
