"""Token shift: a token takes a part of its channels from each of its neighbours."""

import torch
import torch.nn.functional as F
from torch import Tensor


def q_shift(x: Tensor, grid: tuple[int, ...]) -> Tensor:
    """Every neighbour on the grid gives a part of the channels, the last axis: (B, L, ..., C) -> (B, L, ..., C).

    On a 2-D grid quarters come from the left, from the right, from above and from below, on a 1-D one halves from the
    token before and from the one after; zeros from outside. Channels that do not divide stay. x is zero in the padding.

    Source: Duan et al., Vision-RWKV, arXiv 2403.02308, section 3 (Q-Shift), for images.
    """
    sides = [(axis, step) for axis in range(len(grid), 0, -1) for step in (1, -1)]
    size, rest = divmod(x.shape[-1], len(sides))
    *parts, stay = x.unflatten(1, grid).split([size] * len(sides) + [rest], dim=-1)
    moved = [_moved(part, axis, step) for part, (axis, step) in zip(parts, sides, strict=True)]
    return torch.cat([*moved, stay], dim=-1).flatten(1, len(grid))


def _moved(x: Tensor, axis: int, step: int) -> Tensor:
    """x a step further along an axis: what leaves is cut off, what enters is zero."""
    return F.pad(x, [0, 0] * (x.dim() - 1 - axis) + [step, -step])
