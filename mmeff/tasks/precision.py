"""Half precision in which sounds stay whole."""

from typing import Any, Literal

from lightning.pytorch.plugins import HalfPrecision


class HalfButSounds(HalfPrecision):
    """Weights, activations and inputs in bf16 or fp16, but waveforms in fp32.

    A waveform of 8 significant bits has noise at -50 dB in every band of its spectrogram, quiet ones included, and a
    model that was trained on it would hear other sounds at prediction.
    """

    def __init__(self, precision: Literal["bf16-true", "16-true"]):
        super().__init__(precision)

    def convert_input(self, data: Any) -> Any:
        """Of a batch of `mmeff.data`."""
        whole = {key: value for key, value in data.items() if key == "audio"}
        return {**super().convert_input({key: value for key, value in data.items() if key not in whole}), **whole}
