"""The definition of the selective scan: one step after the other, in any dtype."""

from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor


def selective_scan_reference(
    x: Tensor,
    dt: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    D: Tensor | None = None,
    *,
    z: Tensor | None = None,
    dt_bias: Tensor | None = None,
    dt_weight: Tensor | None = None,
    dt_softplus: bool = False,
    reverse: bool = False,
    lengths: Tensor | None = None,
    cu_seqlens: Tensor | None = None,
    initial_state: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """Selective scan (S6), per channel d with N states:

        h_t = exp(dt_t A) h_{t-1} + dt_t B_t x_t,    y_t = (C_t h_t + D x_t) silu(z_t)

    See `selective_scan` for the arguments and shapes. Returns y (B, L, D) and the last state (B, D, N), in the promoted
    dtype of the inputs.

    Source: Gu and Dao, Mamba, arXiv 2312.00752, Algorithm 2, with Euler's rule for B as in all released models.
    """
    if cu_seqlens is not None:
        return _packed(cu_seqlens, initial_state, x, dt, A, B, C, D, z, dt_bias, dt_weight, dt_softplus, reverse)
    L = x.shape[1]
    dt = step_sizes(dt, dt_weight, dt_bias, dt_softplus)
    B, C = (_per_channel(weights, x.shape[2]) for weights in (B, C))
    # unbind, not indexing: the gradient of an index fills a whole (B, L, D) tensor at every step.
    steps = [tensor.unbind(1) for tensor in (x, dt, B, C)]
    h = x.new_zeros(x.shape[0], *A.shape) if initial_state is None else initial_state
    ys: list[Tensor] = [x.new_empty(0)] * L
    for t in reversed(range(L)) if reverse else range(L):
        x_t, dt_t, B_t, C_t = (step[t] for step in steps)
        h_next = torch.exp(dt_t[:, :, None] * A) * h + (dt_t * x_t)[:, :, None] * B_t
        y = (h_next * C_t).sum(-1)
        y = y if D is None else y + D * x_t
        if lengths is None:
            h, ys[t] = h_next, y
        else:
            real = (t < lengths)[:, None]
            h, ys[t] = torch.where(real[..., None], h_next, h), torch.where(real, y, 0)
    y = torch.stack(ys, dim=1)
    return (y if z is None else y * F.silu(z)), h


def step_sizes(dt: Tensor, weight: Tensor | None, bias: Tensor | None, softplus: bool) -> Tensor:
    """dt (B, L, D), or in low-rank form (B, L, R) with its weight (D, R), as the recurrence takes it."""
    dt = dt if weight is None else F.linear(dt, weight)
    dt = dt if bias is None else dt + bias
    return F.softplus(dt) if softplus else dt


def _per_channel(weights: Tensor, channels: int) -> Tensor:
    """(B, L, N) or (B, L, G, N) -> (B, L, 1 or D, N): group g serves the channels g D / G to (g + 1) D / G - 1."""
    return weights[:, :, None] if weights.dim() == 3 else weights.repeat_interleave(channels // weights.shape[2], 2)


def _packed(
    cu_seqlens: Tensor,
    initial_state: Tensor | None,
    x: Tensor,
    dt: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    D: Tensor | None,
    z: Tensor | None,
    dt_bias: Tensor | None,
    dt_weight: Tensor | None,
    dt_softplus: bool,
    reverse: bool,
) -> tuple[Tensor, Tensor]:
    """Sequences one after the other in one row: each is scanned alone."""
    ends = cu_seqlens.tolist()
    ys, states = [], []
    for i, (start, end) in enumerate(pairwise(ends)):
        if start == end:
            states.append(x.new_zeros(1, *A.shape) if initial_state is None else initial_state[i : i + 1])
            continue
        one = [None if tensor is None else tensor[:, start:end] for tensor in (x, dt, B, C, z)]
        y, state = selective_scan_reference(
            *one[:2], A, *one[2:4], D,  # type: ignore[arg-type]
            z=one[4], dt_bias=dt_bias, dt_weight=dt_weight, dt_softplus=dt_softplus, reverse=reverse,
            initial_state=None if initial_state is None else initial_state[i : i + 1],
        )  # fmt: skip
        ys.append(y)
        states.append(state)
    return torch.cat(ys, 1), torch.cat(states)
