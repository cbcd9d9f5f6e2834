"""Feature maps of linear attention: what stands for exp(q^T k) as phi(q)^T phi(k).

`elementwise` are taken inside the kernels. The others change the number of features: give their results to `full_sum`
with `feature="identity"`.
"""

import math
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

Feature = Literal["elu+1", "relu", "identity"]


def elementwise(x: Tensor, feature: Feature) -> Tensor:
    """elu(x) + 1 (Katharopoulos et al., arXiv 2006.16236, eq. 7), relu(x), or x itself."""
    if feature == "elu+1":
        return F.elu(x) + 1
    return F.relu(x) if feature == "relu" else x


def softmax_pairs(x: Tensor) -> Tensor:
    """softmax([x, -x]) over the last axis, (..., K) -> (..., 2 K), x after a learned map of each head.

    Source: Hedgehog, Zhang et al., arXiv 2402.04347, section 4.1, in its form with a softmax.
    """
    return torch.cat([x, -x], dim=-1).softmax(-1)


def taylor(x: Tensor) -> Tensor:
    """[1, x, x x^T / sqrt(2)], x scaled by K^(-1/4): (..., K) -> (..., 1 + K + K^2), whose products are
    1 + s + s^2 / 2 for s = q^T k / sqrt(K): the exponential's first terms, never negative.

    Source: Based, Arora et al., arXiv 2402.18668, section 4.
    """
    x = x * x.shape[-1] ** -0.25
    squares = (x.unsqueeze(-1) * x.unsqueeze(-2)).flatten(-2) / math.sqrt(2)
    return torch.cat([torch.ones_like(x[..., :1]), x, squares], dim=-1)
