"""The interface of a channel mixer."""

from abc import ABC, abstractmethod
from typing import Any

from torch import Tensor, nn


class ChannelMixer(nn.Module, ABC):
    """Transforms each token by itself: (B, L, D) -> (B, L, D). A concrete one is built as `Cls(dim, ...)`.

    A mixture of experts may leave a scalar in `aux_loss` after each training forward; the task adds it to its loss.
    """

    aux_loss: Tensor | None = None

    def __getstate__(self) -> dict[str, Any]:
        # The loss of the last step hangs on its graph, which can be neither pickled nor copied.
        return {name: value for name, value in self.__dict__.items() if name != "aux_loss"}

    @abstractmethod
    def forward(self, x: Tensor, lengths: Tensor | None = None) -> Tensor:
        """x (B, L, D) -> (B, L, D). lengths (B,) only keeps padding out of statistics over tokens."""
