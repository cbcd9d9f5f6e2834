"""The interface of a backbone."""

from abc import ABC, abstractmethod

from torch import nn

from mmeff.tokens import Tokens


class Backbone(nn.Module, ABC):
    """Tokens -> Tokens. Knows nothing of the signal that the tokens came from.

    in_dim   width of the tokens it takes
    out_dim  width of the tokens it gives
    """

    in_dim: int
    out_dim: int

    @abstractmethod
    def forward(self, tokens: Tokens) -> Tokens: ...

    @abstractmethod
    def layers(self) -> list[nn.Module]:
        """Its layers from the input to the output, every parameter in exactly one: what layer-wise decay counts."""
