"""The mLSTM: a matrix memory with exponential gates, in the block of Vision-LSTM."""

import torch
from torch import Tensor, nn
from torch.nn.functional import logsigmoid, silu

from mmeff.mixers.base import Mixer
from mmeff.mixers.conv import GridConv
from mmeff.mixers.heads import count_heads, inner_width
from mmeff.norm import HeadNorm
from mmeff.tokens import valid_mask, zero_padding
from mmeff_kernels.decay import decay_attention


class MLSTM(Mixer):
    """C_t = f_t C_{t-1} + i_t k_t v_t^T,  n_t = f_t n_{t-1} + i_t k_t,  h_t = C_t^T q_t / max(|n_t^T q_t|, 1). O(L).

    [x, z] = W_in tokens, c = silu(dwconv(x));  W_out (silu(z) * (group_norm(h) + skip * c)), a group a head. q and k
    (times 1 / sqrt(K)) are projections of c, v of x, within heads; i = exp and f = sigmoid of projections of all
    [q, k, v], two numbers a head. C meets the tokens in row-major order, with `reverse` from the last to the first:
    blocks take turns, for a token sees only one side of a row, and its neighbours by the convolution. Gates and states
    are fp32, under autocast too.

    Source: Beck et al., xLSTM, arXiv 2405.04517, eq. 19 to 27; block and initial values: Alkin et al., ViL, arXiv
    2406.04303, section 3, but q, k and v are projected within heads, where ViL's blocks of 4 channels leave matrix
    units idle.
    """

    def __init__(self, dim: int, expand: float = 2, head_dim: int = 64, kernel: int = 3, reverse: bool = False) -> None:
        """
        Args:
            dim: width of the tokens.
            expand: inner width as a multiple of dim.
            head_dim: inner channels of a head; must divide the inner width, and is reduced to it where that is smaller.
            kernel: size of the convolution along each axis, odd.
            reverse: run from the last token to the first.
        """
        super().__init__()
        E = inner_width(dim, expand)
        self.reverse = reverse
        self.heads = H = count_heads(E, head_dim, "expand * dim")
        K = E // H
        self.in_proj = nn.Linear(dim, 2 * E, bias=False)  # no bias: the padding stays zero for the convolution
        self.conv = GridConv(E, kernel)
        self.qk_weight, self.v_weight = nn.Parameter(torch.empty(H, K, 2 * K)), nn.Parameter(torch.empty(H, K, K))
        for weight in (self.qk_weight, self.v_weight):
            nn.init.trunc_normal_(weight, std=K**-0.5, a=-2 * K**-0.5, b=2 * K**-0.5)
        self.qk_gates, self.v_gates = nn.Parameter(torch.zeros(H, 2 * K, 2 * H)), nn.Parameter(torch.zeros(H, K, 2 * H))
        self.gate_bias = nn.Parameter(torch.cat([0.1 * torch.randn(H), torch.linspace(3, 6, H)]))  # of i, of f
        self.norm = HeadNorm(H, E)
        self.skip = nn.Parameter(torch.ones(E))
        for parameter in (self.gate_bias, self.skip):
            parameter._no_weight_decay = True  # pyright: ignore[reportAttributeAccessIssue]
        self.out = nn.Linear(E, dim, bias=False)

    def forward(self, x: Tensor, grid: tuple[int, ...], lengths: Tensor | None = None) -> Tensor:
        inner, z = self.in_proj(zero_padding(x, lengths)).chunk(2, dim=-1)
        c = silu(self.conv(inner, grid))
        qk = within_heads(c.unflatten(2, (self.heads, -1)), self.qk_weight)  # (B, L, H, 2 K)
        v = within_heads(inner.unflatten(2, (self.heads, -1)), self.v_weight)
        gates = within_heads(qk, self.qk_gates) + within_heads(v, self.v_gates)
        gates = gates.sum(2, dtype=torch.promote_types(x.dtype, torch.float32)) + self.gate_bias
        (q, k), (i, f) = qk.chunk(2, dim=-1), gates.chunk(2, dim=-1)
        h = mlstm(q, k, v, i, logsigmoid(f), self.reverse, lengths)
        return self.out(silu(z) * (self.norm(h) + self.skip * c))


def within_heads(x: Tensor, weight: Tensor) -> Tensor:
    """A linear map of each head: x (B, L, H, K), weight (H, K, N) -> (B, L, H, N)."""
    return torch.einsum("blhk,hkn->blhn", x, weight)


def mlstm(
    q: Tensor, k: Tensor, v: Tensor, i: Tensor, log_f: Tensor, reverse: bool = False, lengths: Tensor | None = None
) -> Tensor:
    """h (B, L, H, K) of q, k and v (B, L, H, K), i and log_f (B, L, H): the logarithms of both gates.

    Numerator, denominator and the 1 that it is at least are all taken times e^-m (see `stabilised`).
    """
    if lengths is not None:
        i = i.masked_fill(~valid_mask(lengths, q.shape[1])[..., None], -torch.inf)
    i, g, m = stabilised(i, log_f, reverse)
    written, direction = i.exp()[..., None].to(v.dtype), "backward" if reverse else "forward"
    above, _ = decay_attention(q, k, v * written, g, direction=direction, lengths=lengths)
    below, _ = decay_attention(q, k, written, g, direction=direction, lengths=lengths)
    least = (-m).exp().clamp_min(torch.finfo(m.dtype).tiny)[..., None]  # not 0, where q may be 0 too
    return (above / torch.maximum(below.abs(), least)).to(v.dtype)


def stabilised(i: Tensor, log_f: Tensor, reverse: bool = False) -> tuple[Tensor, Tensor, Tensor]:
    """i_t - m_t, log f_t + m_{t-1} - m_t and m_t, with m_t = max(log f_t + m_{t-1}, i_t); i = -inf writes nothing.

    The first two are the gates of the states times e^-m_t, and never positive. m cancels in h: it is a constant to the
    gradient, which is exact all the same. With F the sum of log f and c_t the largest i_s - F_s up to t, m = F + c: in
    fp64, for both grow along the row, and small differences are what is wanted.
    """
    if reverse:
        i, g, m = stabilised(i.flip(1), log_f.flip(1))
        return i.flip(1), g.flip(1), m.flip(1)
    with torch.no_grad():
        F = log_f.double().cumsum(1)
        c = (i.double() - F).cummax(1).values
        before = torch.cat([torch.full_like(c[:, :1], -torch.inf), c[:, :-1]], dim=1)
        # Where nothing was written yet, m is -inf; the state is 0, and any finite number does.
        m = torch.where(c.isinf(), 0, F + c)
        change = torch.where(before.isinf(), 0, before - c)
    g = change.to(log_f.dtype) + (log_f - log_f.detach())  # c_{t-1} - c_t to the bit, with the gradient of log f_t
    return (i.double() - m).to(i.dtype), g, m.to(i.dtype)
