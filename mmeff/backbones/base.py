"""The interfaces of a backbone and of what shrinks its grid."""

from abc import ABC, abstractmethod
from typing import Any

from torch import nn

from mmeff.mixers import Mixer
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

    def features(self, tokens: Tokens) -> list[Tokens]:
        """The tokens of each stage, the last of them as `forward` returns them; a backbone has one stage by default."""
        return [self(tokens)]

    def serves(self, axes: int) -> bool:
        """Whether all mixers serve grids of so many axes."""
        return all(axes in module.axes for module in self.modules() if isinstance(module, Mixer))

    @classmethod
    def resized(cls, arguments: dict[str, Any], width: int | None = None, depth: int | None = None) -> dict[str, Any]:
        """The arguments of this class for another width of its first stage, and another depth where it has one."""
        new = {"dim": width, "depth": depth}
        return {**arguments, **{name: value for name, value in new.items() if value is not None}}

    @abstractmethod
    def layers(self) -> list[nn.Module]:
        """Its layers from the input to the output, every parameter in exactly one: what layer-wise decay counts."""


class Downsampler(nn.Module, ABC):
    """Tokens -> Tokens of another width on a smaller grid, between two stages. Built as `Cls(dim, out_dim, ...)`."""

    @abstractmethod
    def forward(self, tokens: Tokens) -> Tokens: ...
