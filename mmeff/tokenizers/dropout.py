"""Token dropout: whole tokens vanish in training."""

import torch
from torch import Tensor, nn

from mmeff.errors import within


class TokenDropout(nn.Module):
    """Sets each token's embedding to zero with probability `p` in training, without rescaling the others.

    The grid stays whole, so it serves every mixer; positions are added afterwards and tell where a token is missing.
    """

    def __init__(self, p: float = 0.0):
        super().__init__()
        within("[0, 1)", token_dropout=p)
        self.p = p

    def forward(self, x: Tensor) -> Tensor:
        if not self.training or self.p == 0:
            return x
        kept = torch.rand(x.shape[:2], device=x.device) >= self.p  # (B, L)
        return x * kept[..., None].to(x.dtype)
