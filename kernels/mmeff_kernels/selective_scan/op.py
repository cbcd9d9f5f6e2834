"""The public selective scan."""

from typing import Literal, get_args

import torch
from torch import Tensor

from .blocked import BlockedScan
from .reference import selective_scan_reference

Impl = Literal["auto", "torch", "reference"]


def selective_scan(
    x: Tensor,
    dt: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    D: Tensor | None = None,
    *,
    reverse: bool = False,
    lengths: Tensor | None = None,
    impl: Impl = "auto",
) -> Tensor:
    """Selective scan (S6): h_t = exp(dt_t A) h_{t-1} + dt_t B_t x_t,  y_t = C_t h_t + D x_t.

    x, dt    (B, L, D), dt >= 0, after its softplus
    A        (D, N), A <= 0
    B, C     (B, L, N)
    D        (D,) or None
    reverse  scan from the last token to the first
    lengths  (B,) real tokens a row; what lies after them is never read (its y and its gradients are 0), and a reverse
             scan starts at each row's own last token
    impl     "torch": blocks of time steps, gradient by hand. "reference": the definition, step by step.
             "auto": "torch". A named one never falls back to another.

    Returns y (B, L, D) in x's dtype. "torch" computes in fp32, in fp64 if any input is fp64, under autocast too;
    "reference" in the promoted dtype of the inputs. Gradients for x, dt, A, B, C, D; first order only with "torch".

    ValueError if the shapes do not fit together or `impl` does not exist.
    """
    _check(x, dt, A, B, C, D, lengths, impl)
    if impl == "reference":
        return selective_scan_reference(x, dt, A, B, C, D, reverse=reverse, lengths=lengths).to(x.dtype)
    if lengths is None:
        real = x, dt, B, C
    else:
        # With dt = 0 the state passes unchanged, so zeros are enough, for a reverse scan too. Selected, not multiplied:
        # the padding may hold NaN.
        padding = (torch.arange(x.shape[1], device=x.device) >= lengths[:, None])[..., None]
        real = tuple(tensor.masked_fill(padding, 0) for tensor in (x, dt, B, C))
    tensors = (*real[:2], A, *real[2:])
    double = any(tensor.dtype == torch.float64 for tensor in tensors)
    wide = [tensor.to(torch.float64 if double else torch.float32) for tensor in tensors]
    with torch.autocast(x.device.type, enabled=False):
        y = BlockedScan.apply(*wide, reverse)
    if D is not None:
        y = torch.addcmul(y, wide[0], D.to(y.dtype))
    return y.to(x.dtype)


def _check(
    x: Tensor, dt: Tensor, A: Tensor, B: Tensor, C: Tensor, D: Tensor | None, lengths: Tensor | None, impl: str
) -> None:
    if impl not in get_args(Impl):
        hint = "the Triton kernel does not exist yet; " if impl == "triton" else ""
        raise ValueError(f"impl {impl!r}: {hint}choose one of {', '.join(get_args(Impl))}")
    if x.dim() != 3 or A.dim() != 2:
        raise ValueError(f"x must be (B, L, D) and A (D, N), not {tuple(x.shape)} and {tuple(A.shape)}")
    rows, L, channels = x.shape
    N = A.shape[1]
    expected = {
        "dt": (dt, (rows, L, channels)),
        "A": (A, (channels, N)),
        "B": (B, (rows, L, N)),
        "C": (C, (rows, L, N)),
        "D": (D, (channels,)),
        "lengths": (lengths, (rows,)),
    }
    for name, (tensor, shape) in expected.items():
        if tensor is not None and tensor.shape != shape:
            raise ValueError(f"{name} must be {shape} beside x {tuple(x.shape)}, not {tuple(tensor.shape)}")
    if min(rows, L, channels, N) == 0:
        raise ValueError(f"nothing to scan: x {tuple(x.shape)}, A {tuple(A.shape)}")
