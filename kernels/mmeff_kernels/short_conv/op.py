"""The public short convolution."""

from collections.abc import Sequence
from typing import Literal, get_args

import torch
import torch.nn.functional as F
from torch import Tensor

from ..arguments import check_lengths, innermost
from ..dispatch import choose
from ..kept import kept
from ..padding import nothing, without_padding

Side = Literal["causal", "anticausal", "centred"]
Impl = Literal["auto", "triton", "torch"]


def short_conv(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    *,
    sides: Sequence[Side],
    silu: bool = True,
    lengths: Tensor | None = None,
    impl: Impl = "auto",
) -> Tensor:
    """Depthwise convolution of the tokens in K directions: y_k[l] = silu(bias_k + sum_w weight_kw x[l + o_k(w)]).

    x        (B, L, D); zeros are taken for what lies before it and after it
    weight   (K, D, W)
    bias     (K, D) or None
    sides    for each direction "causal": o(w) = w - (W - 1), as in Mamba; "anticausal": o(w) = (W - 1) - w, the same
             on the reversed tokens; "centred": o(w) = w - (W - 1) / 2, for odd W
    silu     whether silu is taken of the sum
    lengths  (B,) real tokens a row or None: what lies after them is never read, and y is 0 there. Their values are
             checked on the CPU alone
    impl     "triton": one pass over x for all directions, on CUDA. "torch": torch's convolution. "auto": "torch",
             or "triton" on CUDA, but for fp64

    Returns (K, B, L, D) in x's dtype; computed in fp32 (in fp64 if x is).

    ValueError if the shapes do not fit together, or `impl` cannot serve them.
    """
    _check(x, weight, bias, sides, lengths)
    chosen = choose(impl, Impl, {"x": x}, opaque=False)
    if x.numel() == 0:
        return nothing((len(sides), *x.shape), x.dtype, x, weight, bias)
    if chosen == "triton":
        from .kernel import ShortConv

        table = _table(tuple(sides), weight.shape[-1], x.device)
        with torch.autocast(x.device.type, enabled=False):
            weight, bias = weight.float().contiguous(), None if bias is None else bias.float().contiguous()
            return ShortConv.apply(innermost(x), weight, bias, lengths, table, silu)
    return _torch(x, weight, bias, sides, silu, lengths)


def _torch(
    x: Tensor, weight: Tensor, bias: Tensor | None, sides: Sequence[Side], silu: bool, lengths: Tensor | None
) -> Tensor:
    width, dtype = weight.shape[-1], x.dtype
    x = without_padding(x, lengths)
    wide = torch.float64 if x.dtype == torch.float64 else torch.float32
    x, ys = x.to(wide), []
    with torch.autocast(x.device.type, enabled=False):
        for k, side in enumerate(sides):
            before = {"causal": width - 1, "anticausal": 0, "centred": width // 2}[side]
            taps = weight[k].to(wide)[:, None, None]
            taps = taps.flip(-1) if side == "anticausal" else taps
            own = None if bias is None else bias[k].to(wide)
            # (B, D, 1, L), channels innermost in memory: torch's 2-D kernels keep it so, those for 1-D are 3x slower.
            around = F.pad(x, (0, 0, before, width - 1 - before)).mT.unsqueeze(2)
            y = F.conv2d(around, taps, own, groups=x.shape[2]).squeeze(2).mT
            y = F.silu(y) if silu else y
            ys.append(without_padding(y, lengths))
    return torch.stack(ys).to(dtype)


@kept
def _table(sides: tuple[Side, ...], width: int, device: torch.device) -> Tensor:
    """(K, 2) int32: o_k(0), and o_k(1) - o_k(0)."""
    rows = {"causal": (1 - width, 1), "anticausal": (width - 1, -1), "centred": (-(width // 2), 1)}
    return torch.tensor([rows[side] for side in sides], dtype=torch.int32, device=device)


def _check(x: Tensor, weight: Tensor, bias: Tensor | None, sides: Sequence[Side], lengths: Tensor | None) -> None:
    if x.dim() != 3 or x.shape[2] == 0:
        raise ValueError(f"x must be (B, L, D) with D of 1 or more, not {tuple(x.shape)}")
    if isinstance(sides, str) or not sides or any(side not in get_args(Side) for side in sides):
        raise ValueError(f"sides must name one of {', '.join(get_args(Side))} for each direction, not {sides!r}")
    channels = x.shape[2]
    K = len(sides)
    if weight.dim() != 3 or weight.shape[:2] != (K, channels) or weight.shape[2] == 0:
        raise ValueError(
            f"weight must be ({K}, {channels}, W) beside x {tuple(x.shape)} for {K} sides, not {tuple(weight.shape)}"
        )
    if "centred" in sides and weight.shape[2] % 2 == 0:
        raise ValueError(f"a centred convolution needs an odd width, weight is {tuple(weight.shape)}")
    if bias is not None and bias.shape != (K, channels):
        raise ValueError(f"bias must be {(K, channels)} beside x {tuple(x.shape)}, not {tuple(bias.shape)}")
    if lengths is not None:
        check_lengths(lengths, x)
    for name, tensor in (("x", x), ("weight", weight), ("bias", bias)):
        if tensor is not None and tensor.device != x.device:
            raise ValueError(f"{name} is on {tensor.device}, x on {x.device}")
        if tensor is not None and not tensor.is_floating_point():
            raise ValueError(f"{name} must be floating point, not {tensor.dtype}")
