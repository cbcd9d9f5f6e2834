"""Mean and standard deviation over more values than fit into memory at once."""

from collections.abc import Iterable

import torch
from torch import Tensor


def moments(parts: Iterable[Tensor]) -> tuple[Tensor, Tensor]:
    """Parts (C, n), n differing -> mean (C,) and standard deviation (C,), at least 1e-3, over all; in float64.

    mean = sum x / N, std^2 = sum x^2 / N - mean^2.
    """
    count, total, squares = 0, torch.zeros(()), torch.zeros(())
    for part in parts:
        wide = part.double()
        count, total, squares = count + wide.shape[1], total + wide.sum(1), squares + wide.square().sum(1)
    mean = total / count
    return mean, (squares / count - mean.square()).clamp_min(0).sqrt().clamp_min(1e-3)
