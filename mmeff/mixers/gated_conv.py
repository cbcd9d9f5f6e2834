"""Gated depthwise convolution: a Mamba block without its scan."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mmeff.errors import whole, within
from mmeff.mixers.base import Mixer
from mmeff.mixers.conv import GridConv
from mmeff.tokens import zero_padding
from mmeff.widths import aligned


class GatedConv(Mixer):
    """[g, i, c] = W1 x,  y = W2 (gelu(g) * [i, dwconv(c)]).

    The convolution runs over the 2-D grid, or over the sequence of a 1-D one (see `GridConv`).

    Source: Yu and Wang, MambaOut, arXiv 2405.07992, section 4.1.
    """

    def __init__(self, dim: int, expand: float = 8 / 3, kernel: int = 7, conv_ratio: float = 1.0) -> None:
        """
        Args:
            dim: width of the tokens.
            expand: inner width as a multiple of dim, rounded up to a multiple of 8.
            kernel: size of the convolution along each axis, odd.
            conv_ratio: channels that are convolved, as a multiple of dim.
        """
        super().__init__()
        whole(1, dim=dim)
        within("(0, inf)", expand=expand, conv_ratio=conv_ratio)
        hidden, convolved = aligned(int(expand * dim)), int(conv_ratio * dim)
        if not 1 <= convolved <= hidden:
            raise ValueError(
                f"conv_ratio {conv_ratio} gives {convolved} convolved channels of {hidden} inner ones (dim {dim}, "
                f"expand {expand}): at least 1 and at most all must be"
            )
        self.sizes = (hidden, hidden - convolved, convolved)
        self.expand = nn.Linear(dim, sum(self.sizes))
        self.conv = GridConv(convolved, kernel)
        self.out = nn.Linear(hidden, dim)

    def forward(self, x: Tensor, grid: tuple[int, ...], lengths: Tensor | None = None) -> Tensor:
        gate, identity, convolved = self.expand(x).split(self.sizes, dim=-1)
        convolved = self.conv(zero_padding(convolved, lengths), grid)
        return self.out(F.gelu(gate) * torch.cat([identity, convolved], dim=-1))
