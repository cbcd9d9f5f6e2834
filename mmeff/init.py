"""Initialisation of a whole model, in one place."""

import math

from torch import nn


def init_weights(model: nn.Module, depth: int) -> None:
    """Linear maps: truncated normal of variance 1 / fan-in; embeddings: normal, 0.02; biases zero.

    The last linear map of each residual branch, named `out`, is scaled by 1 / sqrt(2 depth), so that the
    residual stream keeps its variance (Radford et al. 2019, section 2.3). Convolutions and norms keep torch's own, and
    parameters that a module holds itself (those of the selective scan, for one) the values that it gave them.
    """
    for name, module in model.named_modules():
        if isinstance(module, nn.Linear):
            residual = name.rsplit(".", 1)[-1] == "out"
            std = module.in_features**-0.5 * (1 / math.sqrt(2 * depth) if residual else 1.0)
            nn.init.trunc_normal_(module.weight, std=std, a=-2 * std, b=2 * std)
            if module.bias is not None:
                nn.init.zeros_(module.bias)
        elif isinstance(module, nn.Embedding):
            nn.init.normal_(module.weight, std=0.02)
