"""The definition of the selective scan: one step after the other, in any dtype."""

import torch
from torch import Tensor


def selective_scan_reference(
    x: Tensor,
    dt: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    D: Tensor | None = None,
    *,
    reverse: bool = False,
    lengths: Tensor | None = None,
) -> Tensor:
    """Selective scan (S6), per channel d with N states:

        h_t = exp(dt_t A) h_{t-1} + dt_t B_t x_t,    y_t = C_t h_t + D x_t,    h before the first token = 0

    x, dt    (B, L, D), dt >= 0
    A        (D, N), A <= 0
    B, C     (B, L, N), shared by the channels
    D        (D,) or None
    reverse  the same from the last token to the first: h_t = exp(dt_t A) h_{t+1} + dt_t B_t x_t
    lengths  (B,) tokens at t >= lengths[b] do not exist: no state starts or changes there, y is 0

    Returns y (B, L, D). Computes in the promoted dtype of the inputs.

    Source: Gu and Dao, Mamba, arXiv 2312.00752, Algorithm 2, with Euler's rule for B as in all released models.
    """
    L = x.shape[1]
    # unbind, not indexing: the gradient of an index fills a whole (B, L, D) tensor at every step.
    steps = [tensor.unbind(1) for tensor in (x, dt, B, C)]
    h = x.new_zeros(x.shape[0], *A.shape)
    ys: list[Tensor] = [x.new_empty(0)] * L
    for t in reversed(range(L)) if reverse else range(L):
        x_t, dt_t, B_t, C_t = (step[t] for step in steps)
        h_next = torch.exp(dt_t[:, :, None] * A) * h + (dt_t * x_t)[:, :, None] * B_t[:, None, :]
        y = (h_next * C_t[:, None, :]).sum(-1)
        y = y if D is None else y + D * x_t
        if lengths is None:
            h, ys[t] = h_next, y
        else:
            real = (t < lengths)[:, None]
            h, ys[t] = torch.where(real[..., None], h_next, h), torch.where(real, y, 0)
    return torch.stack(ys, dim=1)
