"""Half precision in which some raw signals stay whole."""

from typing import Any, Literal

from lightning.pytorch.plugins import HalfPrecision

from mmeff import signals


class HalfButRaw(HalfPrecision):
    """Weights, activations and inputs in bf16 or fp16, but waveforms in fp32, and what else is `Signal.whole`."""

    def __init__(self, precision: Literal["bf16-true", "16-true"]):
        super().__init__(precision)
        self.kept = {name for name in signals.names() if signals.of(name).whole}

    def convert_input(self, data: Any) -> Any:
        """Of a batch of `mmeff.data`."""
        whole = {key: value for key, value in data.items() if key in self.kept}
        return {**super().convert_input({key: value for key, value in data.items() if key not in whole}), **whole}
