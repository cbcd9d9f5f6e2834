"""One signal into memory, and several into a batch: the same for training and for a new file."""

from collections.abc import Sequence
from typing import Any

import torch

from mmeff.spec import DataSpec


def read_raw(spec: DataSpec, item: Any) -> Any:
    """The raw signal of an item, prepared as `spec` says: what a model that was trained under `spec` must be shown.

    item  the path of an image or sound; a Pillow image, or an array (H, W) or (H, W, C) uint8; a pair (waveform (S,) or
          (S, channels), float, int16, int32 or uint8, its sample rate); a string

    Returns float32 (C, H, W) in [0, 1], float32 (S,) in [-1, 1], or a string. InputError if it cannot be read.
    """
    if spec.modality == "image":
        from mmeff.data.image import read_image

        return read_image(item, **spec.preprocessing)
    if spec.modality == "audio":
        from mmeff.data.audio import read_audio

        return read_audio(item, **spec.preprocessing)
    if spec.modality == "text":
        from mmeff.data.text import read_text

        return read_text(item)
    raise ValueError(f'modality is {spec.modality!r}; it must be "image", "audio" or "text"')


def collate(key: str, spec: DataSpec, raws: Sequence[Any]) -> dict[str, Any]:
    """A batch without labels: {"task": key, modality: raw batch}, and for audio "lengths" (B,) int64 in samples.

    Images (B, C, H, W); sounds (B, S), zeros after each one's end, S the longest length rounded up to a tenth of a
    second, so that the shapes of batches are few; texts a list.
    """
    if spec.modality == "text":
        return {"task": key, "text": list(raws)}
    if spec.modality == "image":
        return {"task": key, "image": torch.stack(list(raws))}
    lengths = torch.tensor([len(raw) for raw in raws])
    step = max(1, spec.preprocessing["sample_rate"] // 10)
    longest = int(lengths.max())
    batch = torch.zeros(len(raws), min(-(-longest // step) * step, max(longest, spec.preprocessing["samples"])))
    for row, raw in zip(batch, raws, strict=True):
        row[: len(raw)] = raw
    return {"task": key, "audio": batch, "lengths": lengths}
