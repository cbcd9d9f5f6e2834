"""The definition of linear attention with a decaying state: a loop over the tokens."""

import math

import torch
from torch import Tensor


def decay_reference(
    q: Tensor, k: Tensor, v: Tensor, g: Tensor, own: Tensor | None, state: Tensor, before: bool = False
) -> tuple[Tensor, Tensor]:
    """One direction, over q, k (B, L, H, K), v (B, L, H, V), g (B, L, H, K or 1) and the state (B, H, K, V) met first:

        S_t = exp(g_t) S_{t-1} + k_t v_t^T
        o_t = q_t^T (exp(g_t) S_{t-1} + own k_t v_t^T), or with `before` o_t = q_t^T (S_{t-1} + own k_t v_t^T)

    own     (H, K) or (1,): the weight of a token's own input; None: it is not read
    before  whether a token reads the state before it decays (RWKV)

    Returns o (B, L, H, V) and the last state.
    """
    outputs = []
    for t in range(q.shape[1]):
        decayed = g[:, t].exp()[..., None] * state
        written = k[:, t, :, :, None] * v[:, t, :, None]
        read = state if before else decayed
        if own is not None:
            read = read + own[..., None] * written
        outputs.append((q[:, t, :, :, None] * read).sum(-2))
        state = decayed + written
    return torch.stack(outputs, dim=1), state


def decay_step(
    q: Tensor, k: Tensor, v: Tensor, g: Tensor, state: Tensor, *, bonus: Tensor | None = None,
    scale: float | None = None,
) -> tuple[Tensor, Tensor]:  # fmt: skip
    """One token of `decay_attention`'s forward direction, for streams: q, k (B, H, K), v (B, H, V), g (B, H) or
    (B, H, K), state (B, H, K, V) fp32 -> o (B, H, V) in v's dtype, and the next state."""
    if scale is None:
        scale = 1 / math.sqrt(q.shape[-1])
    wide = state.dtype
    g = g if g.dim() == 3 else g[..., None]
    own = torch.ones(1, dtype=wide, device=q.device) if bonus is None else bonus.to(wide)
    row = [t.unsqueeze(1).to(wide) for t in (q, k, v, g)]
    o, state = decay_reference(row[0] * scale, row[1], row[2], row[3], own, state, before=bonus is not None)
    return o[:, 0].to(v.dtype), state
