"""Vision-RWKV: averages over all tokens, weighted by keys and by distance."""

import torch
from torch import Tensor, nn

from mmeff.errors import whole
from mmeff.mixers.base import Mixer
from mmeff.mixers.shift import q_shift
from mmeff.norm import LayerNorm
from mmeff.tokens import valid_mask, zero_padding
from mmeff_kernels.selective_scan import selective_scan_routes


class VisionRWKV(Mixer):
    """wkv_t = (sum_{i != t} e^(k_i - (|t - i| - 1) w / T) v_i + e^(k_t + u / T) v_t) / (the same without v). O(L).

    W_out (sigmoid(r) * wkv), T the row's own number of tokens, w and u one number a channel: where w is negative,
    tokens far away weigh more. r, k and v are projections of mu * x + (1 - mu) * q_shift(x), each with its own mu.
    Weights, sums and quotients are fp32, under autocast too.

    Source: Duan et al., arXiv 2403.02308, section 3 (Bi-WKV); u / T and initial values, here those of a first layer, as
    in its released code.
    """

    def __init__(self, dim: int, norm: bool = False) -> None:
        """
        Args:
            dim: width of the tokens.
            norm: normalise wkv over its channels, as the released code can.
        """
        super().__init__()
        whole(1, dim=dim)
        self.r, self.k, self.v = (nn.Linear(dim, dim, bias=False) for _ in range(3))
        self.norm = LayerNorm(dim) if norm else nn.Identity()
        self.out = nn.Linear(dim, dim, bias=False)
        rise, zigzag = torch.arange(dim) / dim, 0.5 * ((torch.arange(dim) + 1) % 3 - 1)
        self.mix = nn.Parameter(torch.stack([rise**0.5, rise, rise]))  # mu of r, k and v
        self.w = nn.Parameter(-5 + 8 * torch.linspace(0, 1, dim) ** 0.7)
        self.u = nn.Parameter(torch.tensor(0.3).log() + zigzag)
        for parameter in (self.mix, self.w, self.u):
            parameter._no_weight_decay = True  # pyright: ignore[reportAttributeAccessIssue]

    def forward(self, x: Tensor, grid: tuple[int, ...], lengths: Tensor | None = None) -> Tensor:
        x = zero_padding(x, lengths)
        shifted, mix = q_shift(x, grid), self.mix.to(x.dtype)
        r, k, v = (
            project(torch.lerp(shifted, x, mu)) for project, mu in zip((self.r, self.k, self.v), mix, strict=True)
        )
        y = bi_wkv(k, v, self.w, self.u, lengths).to(r.dtype)
        return self.out(torch.sigmoid(r) * self.norm(y))


def bi_wkv(k: Tensor, v: Tensor, w: Tensor, u: Tensor, lengths: Tensor | None = None) -> Tensor:
    """wkv (B, L, D) of k, v (B, L, D) and w, u (D,), fp32 at least; 0 in the padding.

    Two scans, one from each end, give s_t = sum_i e^(-|t - i| w / T) x_i of x = e^k v and of x = e^k. Numerator and
    denominator are e^(w / T) (s_t + (e^((u - w) / T) - 1) x_t); the quotient cancels the first factor, and the largest
    e^k of the row. Where a token outweighs all others, what is left of s_t is a share of e^((u - w) / T): close to 1,
    but in rows of very few tokens.
    """
    B, L, _ = k.shape
    k = k.to(torch.promote_types(k.dtype, torch.float32))
    T = k.new_full((1,), L) if lengths is None else lengths.clamp_min(1)
    rate = (1 / T.to(k.dtype)).view(-1, 1, 1)
    if lengths is not None:
        k = k.masked_fill(~valid_mask(T, L)[..., None], -torch.inf)
    # At most 1. Within a row the distance changes a weight by a factor of e^|w| at most, so that no sum overflows or
    # vanishes, and the scan may grow instead of decay where w is negative.
    weight = (k - k.detach().amax(1, keepdim=True)).exp()
    x = torch.cat([weight * v, weight], dim=-1)
    one, A = rate.new_ones(B, L, 1), -w.to(k.dtype).repeat(2)[:, None]
    s, _ = selective_scan_routes(
        x, rate.expand_as(x), A, one, one, routes=("forward", "backward"), diagonal="first", lengths=lengths
    )  # rate * s_t
    own = rate * torch.expm1((u - w) * rate)
    above, below = (s + own.repeat(1, 1, 2) * x).chunk(2, dim=-1)
    return above / (below + torch.finfo(k.dtype).tiny)
