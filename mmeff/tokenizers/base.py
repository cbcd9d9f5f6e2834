"""The interface of a tokenizer."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any

from torch import Tensor, nn

from mmeff.errors import InputError
from mmeff.signals import DataSpec
from mmeff.tokens import Tokens


def check_raw(raw: Any, shape: str, scale: str) -> None:
    """InputError unless the batch is a floating-point tensor with as many axes as `shape` names, as "(B, S)"."""
    axes = shape.count(",") + 1
    if not isinstance(raw, Tensor) or not raw.is_floating_point() or raw.ndim != axes:
        found = f"{raw.dtype} {tuple(raw.shape)}" if isinstance(raw, Tensor) else type(raw).__name__
        raise InputError(
            f"the raw batch is {found}; it must be a floating-point tensor {shape} in {scale}: divide integers by "
            "their full scale"
        )


class Tokenizer(nn.Module, ABC):
    """Raw signal -> Tokens. Built as `Cls(dim, ...)`; does no I/O; all that it learned travels in its state_dict.

    signal  which kind it takes: "image" (B, C, H, W) float in [0, 1], "audio" (B, S) float in [-1, 1] with lengths (B,)
            in samples, "text", a list of B strings, or "series" (B, S, C) float with lengths (B,) in steps.
    """

    signal: str

    @abstractmethod
    def forward(self, raw: Any, lengths: Tensor | None = None) -> Tokens: ...

    def accept(self, spec: DataSpec) -> None:
        """InputError if it does not take the data of this spec."""
        if self.signal != spec.signal:
            raise InputError(
                f"{type(self).__name__} reads {self.signal}, but the data is {spec.signal}: "
                "give model.tokenizer one of that kind (`mmeff list`)"
            )
        self.check(spec.preprocessing)

    def check(self, preprocessing: dict[str, Any]) -> None:
        """InputError if signals prepared so (`DataSpec.preprocessing`) cannot be read. Called before `fit`."""

    def fit(self, raw: Sequence[Any]) -> None:
        """Learn what must be known before training (statistics, a vocabulary) from raw training examples, one by one.

        Called once, with a sample of the training split. Tokenizers that need nothing ignore it.
        """

    def length(self, spec: DataSpec) -> float:
        """Of the longest signal that is trained on, in the unit of its kind."""
        return spec.kind.length(**spec.preprocessing)

    def random(self, spec: DataSpec, length: float, batch: int) -> Any:
        """A batch of random raw signals of a length, each of them full: what speed is measured on."""
        return spec.kind.random(length, batch, **spec.preprocessing)

    def report(self) -> str | None:
        """What to tell the user about the signals that were read since the last report, as that some were cut."""
        return None
