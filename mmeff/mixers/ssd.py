"""State space duality, Mamba-2's mixer: a state with one decay a head, in one direction or in both."""

import math
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mmeff.errors import whole
from mmeff.mixers.base import Mixer
from mmeff.mixers.conv import odd
from mmeff.mixers.heads import count_heads, inner_width
from mmeff.norm import RMSNorm
from mmeff.widths import aligned
from mmeff_kernels.decay import decay_attention
from mmeff_kernels.short_conv import Side, short_conv


class SSDMixer(Mixer):
    """What mixers of state space duality in K directions have in common: projections, and the parameters of H heads.

    [z, (u, B_1, C_1, ..., B_K, C_K), (dt_1, ..., dt_K)] = W_in tokens: E channels of z and of u, `state` numbers of
    each B and C, which all heads share, and of each dt one a head; the rest of W_in fills its width up to a multiple of
    8 and is not read. Step sizes are softplus(dt_k + b), A = -exp(A_log). All directions share b, A and D, initialised
    as Mamba-2's.
    """

    def __init__(self, dim: int, expand: float, head_dim: int, state: int, K: int = 1) -> None:
        super().__init__()
        E = inner_width(dim, expand)
        whole(1, state=state)
        self.heads = H = count_heads(E, head_dim, "expand * dim")
        self.convolved = (E, *[state] * 2 * K)
        sizes = (E, sum(self.convolved), K * H)
        self.sizes = (*sizes, aligned(sum(sizes)) - sum(sizes))
        self.in_proj = nn.Linear(dim, sum(self.sizes), bias=False)
        dt = torch.empty(H).uniform_(math.log(1e-3), math.log(1e-1)).exp()
        self.dt_bias = nn.Parameter(dt + torch.log(-torch.expm1(-dt)))  # softplus(bias) = dt
        self.A_log = nn.Parameter(torch.empty(H).uniform_(1, 16).log())
        self.D = nn.Parameter(torch.ones(H))
        for parameter in (self.dt_bias, self.A_log, self.D):
            parameter._no_weight_decay = True  # pyright: ignore[reportAttributeAccessIssue]
        self.out = nn.Linear(E, dim, bias=False)

    def steps(self, dt: Tensor) -> Tensor:
        """softplus(dt + b), (..., H), fp32 at least."""
        return F.softplus(dt.to(torch.promote_types(dt.dtype, torch.float32)) + self.dt_bias)

    def by_heads(self, convolved: Tensor) -> tuple[Tensor, ...]:
        """u (B, L, H, V), then B and C of each direction, (B, L, H, state): all heads read one memory."""
        u, *shared = convolved.split(self.convolved, dim=-1)
        return u.unflatten(2, (self.heads, -1)), *(t.unsqueeze(2).expand(-1, -1, self.heads, -1) for t in shared)


class SequenceConv(nn.Module):
    """silu of a depthwise convolution along the sequence: (B, L, D) -> (B, L, D), 0 in the padding."""

    def __init__(self, dim: int, conv: int, side: Side) -> None:
        super().__init__()
        odd(conv=conv) if side == "centred" else whole(1, conv=conv)
        self.side: Side = side
        self.weight = nn.Parameter(torch.empty(dim, conv).uniform_(-(conv**-0.5), conv**-0.5))
        self.bias = nn.Parameter(torch.empty(dim).uniform_(-(conv**-0.5), conv**-0.5))

    def forward(self, x: Tensor, lengths: Tensor | None) -> Tensor:
        return short_conv(x, self.weight[None], self.bias[None], sides=[self.side], lengths=lengths)[0]


def ssd(
    u: Tensor, dt: Tensor, A: Tensor, B: Tensor, C: Tensor,
    direction: Literal["forward", "backward", "both"], lengths: Tensor | None,
) -> Tensor:  # fmt: skip
    """S_t = exp(dt_t A) S_{t-1} + B_t (dt_t u_t)^T,  o_t = S_t^T C_t; for "both" a token reads its own input once.

    u (B, L, H, V), dt (B, L, H), A (H,), B and C (B, L, H, state) -> o (B, L, H, V), 0 in the padding.
    """
    v = (dt[..., None] * u).to(u.dtype)
    o, _ = decay_attention(C, B, v, dt * A, direction=direction, diagonal="first", scale=1.0, lengths=lengths)
    return o


class _SSD(SSDMixer):
    """[z, (u, B, C), dt] = W_in tokens, (u, B, C) through silu(conv);  W_out rms_norm(silu(z) * (o + D u)), where

    S_t = exp(dt_t A) S_{t-1} + B_t (dt_t u_t)^T,  o_t = S_t^T C_t, with one dt and A a head, and B and C of all heads.
    dt, A, decays and states are fp32, under autocast too.
    """

    direction: Literal["forward", "both"] = "forward"
    side: Side = "causal"

    def __init__(self, dim: int, expand: float, head_dim: int, state: int, conv: int) -> None:
        super().__init__(dim, expand, head_dim, state)
        self.conv = SequenceConv(sum(self.convolved), conv, self.side)
        self.norm = RMSNorm(self.out.in_features, eps=1e-5)

    def forward(self, x: Tensor, grid: tuple[int, ...], lengths: Tensor | None = None) -> Tensor:
        z, inner, dt, _ = self.in_proj(x).split(self.sizes, dim=-1)
        u, B, C = self.by_heads(self.conv(inner, lengths))
        o = ssd(u, self.steps(dt), -self.A_log.exp(), B, C, self.direction, lengths)
        return self.out(self.norm(F.silu(z) * (o + self.D[:, None] * u).flatten(2)))


class SSD(_SSD):
    """The state space model with one decay a head, causal in row-major order. O(L).

    Source: Dao and Gu, Mamba-2, arXiv 2405.21060, section 7.1.
    """

    causal = True

    def __init__(self, dim: int, expand: float = 2, head_dim: int = 64, state: int = 64, conv: int = 4) -> None:
        """
        Args:
            dim: width of the tokens.
            expand: inner width as a multiple of dim.
            head_dim: inner channels of a head; must divide the inner width, and is reduced to it where that is smaller.
            state: numbers kept for each inner channel.
            conv: tokens that the short convolution sees.
        """
        super().__init__(dim, expand, head_dim, state, conv)


class BiSSD(_SSD):
    """SSD from both ends with the same parameters, a token's own input counted once, in one pass. O(L).

    What token j leaves with token i has decayed by all that lies between, and by i itself.

    Source: Dao and Gu, Mamba-2, arXiv 2405.21060, section 7.1; both directions tied as in LION-S, arXiv 2502.16249. The
    convolution is centred, as Hydra's, arXiv 2407.09941.
    """

    direction = "both"
    side = "centred"

    def __init__(self, dim: int, expand: float = 2, head_dim: int = 64, state: int = 64, conv: int = 7) -> None:
        """
        Args:
            dim: width of the tokens.
            expand: inner width as a multiple of dim.
            head_dim: inner channels of a head; must divide the inner width, and is reduced to it where that is smaller.
            state: numbers kept for each inner channel and direction.
            conv: tokens that the short convolution sees, odd.
        """
        super().__init__(dim, expand, head_dim, state, conv)
