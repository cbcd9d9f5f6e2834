"""The interface of a channel mixer."""

from abc import ABC, abstractmethod

from torch import Tensor, nn


class ChannelMixer(nn.Module, ABC):
    """Transforms each token by itself: (B, L, D) -> (B, L, D). A concrete one is built as `Cls(dim, ...)`.

    A mixture of experts may leave a scalar in `aux_loss` after each training forward; the task adds it to its loss.
    """

    aux_loss: Tensor | None = None

    @abstractmethod
    def forward(self, x: Tensor, lengths: Tensor | None = None) -> Tensor:
        """x (B, L, D) -> (B, L, D). lengths (B,) only keeps padding out of statistics over tokens."""
