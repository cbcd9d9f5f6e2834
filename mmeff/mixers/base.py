"""The interface of a token mixer."""

from abc import ABC, abstractmethod

from torch import Tensor, nn


class Mixer(nn.Module, ABC):
    """Moves information between tokens: (B, L, D) -> (B, L, D).

    A concrete mixer is built as `Cls(dim, ...)` with defaults for all else. What lies in the padding (see `Tokens`)
    never changes a real token; outputs in the padding are unspecified but finite.
    """

    #: True if token t never sees a token after t.
    causal: bool = False
    #: Numbers of axes of the grids that it serves.
    axes: tuple[int, ...] = (1, 2)

    @abstractmethod
    def forward(self, x: Tensor, grid: tuple[int, ...], lengths: Tensor | None = None) -> Tensor:
        """x (B, L, D), prod(grid) == L, lengths (B,) -> (B, L, D). ValueError if the mixer cannot serve this grid."""
