"""Decaying states in plain torch: chunks of tokens as matrix products, states from chunk to chunk."""

import torch
import torch.nn.functional as F
from torch import Tensor

#: Tokens of a chunk.
CHUNK = 64


def decay_chunked(
    q: Tensor, k: Tensor, v: Tensor, g: Tensor, own: Tensor | None, state: Tensor, before: bool = False
) -> tuple[Tensor, Tensor]:
    """What `decay_reference` does, of the same arguments, chunk by chunk.

    With G the sum of g from a chunk's first token on, token t reads from an earlier token s of its chunk with a weight
    of exp(R_t - G_s), R = G (`before`: G without g_t), from the state that the chunk meets with exp(R_t), and token s
    leaves to the next chunk what it has with exp(G_last - G_s). No exponent is positive if no g is.
    """
    L = q.shape[1]
    C = min(CHUNK, 1 << (L - 1).bit_length())
    n = -(-L // C)
    q, k, v, g = (
        F.pad(t.transpose(1, 2), (0, 0, 0, n * C - L)).unflatten(2, (n, C)) for t in (q, k, v, g)
    )  # (B, H, n, C, ...); what is added decays nothing and writes nothing
    G = g.cumsum(-2)
    R = G - g if before else G
    last = G[..., -1:, :]
    written = (k * (last - G).exp()).mT @ v
    decay = last.mT.exp()
    met = []
    for i in range(n):
        met.append(state)
        state = decay[:, :, i] * state + written[:, :, i]
    o = (q * R.exp()) @ torch.stack(met, dim=2)
    if own is not None:
        o = o + (q * k * own[..., None, None, :]).sum(-1, keepdim=True) * v
    o = o + (_alike(q, k, v, R, G) if g.shape[-1] == 1 else _apart(q, k, v, R, G))
    return o.flatten(2, 3)[:, :, :L].transpose(1, 2), state


def _alike(q: Tensor, k: Tensor, v: Tensor, R: Tensor, G: Tensor) -> Tensor:
    """Reads from earlier tokens of the chunk where all features of a head decay alike."""
    later = torch.ones(q.shape[-2], q.shape[-2], dtype=torch.bool, device=q.device).triu()
    weights = (R - G.mT).masked_fill(later, -torch.inf).exp()
    return (q @ k.mT * weights) @ v


def _apart(q: Tensor, k: Tensor, v: Tensor, R: Tensor, G: Tensor) -> Tensor:
    """Reads from earlier tokens of the chunk where each feature has its own decay: exp(R_t - G_s) is split at a token
    between s and t, exp(R_t - G_middle) exp(G_middle - G_s), so that neither factor can overflow. Blocks of 2 w tokens
    are halved at one level for the pairs that lie in different halves, and those within a half wait for the next."""
    o = torch.zeros_like(v)
    w = q.shape[-2] // 2
    while w:
        (_, q2), (k1, _), (v1, _), (_, R2), (G1, _) = (t.unflatten(-2, (-1, 2, w)).unbind(-3) for t in (q, k, v, R, G))
        middle = G1[..., -1:, :]
        weights = (q2 * (R2 - middle).exp()) @ (k1 * (middle - G1).exp()).mT
        o = o + F.pad((weights @ v1).unsqueeze(-3), (0, 0, 0, 0, 1, 0)).flatten(-4, -2)
        w //= 2
    return o
