"""The selective scan under mamba-ssm's name, arguments and channel-first layout."""

from torch import Tensor

from .op import selective_scan


def selective_scan_fn(
    u: Tensor,
    delta: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    D: Tensor | None = None,
    z: Tensor | None = None,
    delta_bias: Tensor | None = None,
    delta_softplus: bool = False,
    return_last_state: bool = False,
) -> Tensor | tuple[Tensor, Tensor]:
    """`selective_scan` for code written for `mamba_ssm.ops.selective_scan_interface.selective_scan_fn`.

    u, delta, z    (B, D, L)
    A              (D, N), real
    B, C           (B, N, L), (B, G, N, L), or (D, N) where they do not depend on the input
    D, delta_bias  (D,)

    Returns y (B, D, L) in u's dtype, with `return_last_state` also h after the last token, (B, D, N).

    ValueError for complex A, and where the shapes do not fit together.
    """
    if u.dim() != 3:
        raise ValueError(f"u must be (B, D, L), not {tuple(u.shape)}")
    if A.is_complex():
        raise ValueError("A is complex, as in S4D: only real A is served, as all released Mamba models have it")
    y, state = selective_scan(
        u.mT, delta.mT, A, *_channel_last(u, B, C), D, z=None if z is None else z.mT,
        dt_bias=delta_bias, dt_softplus=delta_softplus, return_final_state=True,
    )  # fmt: skip
    return (y.mT, state) if return_last_state else y.mT


def _channel_last(u: Tensor, B: Tensor, C: Tensor) -> tuple[Tensor, Tensor]:
    """B and C as (B, L, N) or both as (B, L, G, N); what is constant in time has a group for each channel."""
    rows, channels, L = u.shape
    groups = channels if B.dim() == 2 or C.dim() == 2 else max(*(w.shape[1] if w.dim() == 4 else 1 for w in (B, C)))

    def lay(weights: Tensor) -> Tensor:
        if weights.dim() == 2:
            return weights.expand(rows, L, *weights.shape)
        weights = weights.permute(0, 3, 1, 2) if weights.dim() == 4 else weights.mT[:, :, None]
        return weights.repeat_interleave(groups // weights.shape[2], 2)

    return lay(B), lay(C)
