"""Channel mixers of one or two hidden layers."""

import torch.nn.functional as F
from torch import Tensor, nn

from mmeff.errors import whole, within
from mmeff.feedforward.base import ChannelMixer
from mmeff.widths import aligned


def hidden_width(dim: int, ratio: float) -> int:
    """ratio * dim, rounded up to a multiple of 8. ValueError if it is less than one channel."""
    whole(1, dim=dim)
    within("(0, inf)", ratio=ratio)
    hidden = int(ratio * dim)
    if hidden < 1:
        raise ValueError(f"ratio {ratio} of dim {dim} leaves no hidden channel")
    return aligned(hidden)


class MLP(ChannelMixer):
    """y = W2 gelu(W1 x + b1) + b2."""

    def __init__(self, dim: int, ratio: float = 4.0, dropout: float = 0.0) -> None:
        """
        Args:
            dim: width of the tokens.
            ratio: hidden width as a multiple of dim, rounded up to a multiple of 8.
            dropout: probability of dropping a hidden channel in training.
        """
        super().__init__()
        within("[0, 1)", dropout=dropout)
        hidden = hidden_width(dim, ratio)
        self.expand = nn.Linear(dim, hidden)
        self.dropout = nn.Dropout(dropout)
        self.out = nn.Linear(hidden, dim)

    def forward(self, x: Tensor, lengths: Tensor | None = None) -> Tensor:
        return self.out(self.dropout(F.gelu(self.expand(x))))


class SwiGLU(ChannelMixer):
    """y = W2 (silu(W_g x) * W_1 x). With ratio 8/3 it has as many parameters as an MLP with ratio 4.

    Source: Shazeer, arXiv 2002.05202, eq. 6.
    """

    def __init__(self, dim: int, ratio: float = 8 / 3, dropout: float = 0.0) -> None:
        """
        Args:
            dim: width of the tokens.
            ratio: hidden width as a multiple of dim, rounded up to a multiple of 8.
            dropout: probability of dropping a hidden channel in training.
        """
        super().__init__()
        within("[0, 1)", dropout=dropout)
        hidden = hidden_width(dim, ratio)
        self.expand = nn.Linear(dim, 2 * hidden, bias=False)
        self.dropout = nn.Dropout(dropout)
        self.out = nn.Linear(hidden, dim, bias=False)

    def forward(self, x: Tensor, lengths: Tensor | None = None) -> Tensor:
        gate, value = self.expand(x).chunk(2, dim=-1)
        return self.out(self.dropout(F.silu(gate) * value))
