"""Multivariate time series: reading, augmentation, batches, pictures."""

import os
import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from mmeff.errors import InputError, spelled, within
from mmeff.signals.base import Sheet, Signal, padded, whole_number, wrong
from mmeff.signals.files.series import SUFFIXES, read_steps

#: Most channels of a series, and steps.
CHANNELS, STEPS = 10_000, 2**24


class Series(Signal):
    """Raw: float32 (S, C), S steps of C channels, of different lengths, in the unit of the file."""

    name, unit, rate, by_length = "series", "steps", "steps/s", True
    target, question, least = 1024.0, "A series of 1024 steps", 16.0
    sheet = Sheet(columns=4, width=2.6, height=1.1)
    features, penalties = "mean, deviation, least and greatest value of each channel", (1e-2, 1e-1, 1.0, 10.0)
    keys = ("channels", "steps", "columns")

    def check(self, preprocessing: dict[str, Any], where: str) -> None:
        channels, steps, columns = (preprocessing[key] for key in self.keys)
        if not whole_number(channels, CHANNELS):
            raise wrong(f"{where}.channels", f"it must be from 1 to {CHANNELS}", channels)
        if not whole_number(steps, STEPS):
            raise wrong(f"{where}.steps", f"it must be from 1 to {STEPS}", steps)
        named = isinstance(columns, list | tuple) and all(isinstance(name, str) for name in columns)
        if not named or len(columns) not in (0, channels):
            raise wrong(f"{where}.columns", "it must be a name for each channel, or empty", columns)

    def read(self, item: Any, **preprocessing: Any) -> Tensor:
        return read_series(item, **preprocessing)

    def item(self, given: Any, **preprocessing: Any) -> Any:
        return given.detach().cpu().numpy() if isinstance(given, Tensor) else given

    def suffixes(self) -> tuple[str, ...]:
        return SUFFIXES

    def collate(self, raws: Sequence[Tensor], **preprocessing: Any) -> tuple[Tensor, Tensor]:
        """Padded to the longest, rounded up to a tenth of the longest there may be."""
        return padded(raws, max(1, preprocessing["steps"] // 10), preprocessing["steps"])

    def length(self, **preprocessing: Any) -> float:
        return preprocessing["steps"]

    def random(self, length: float, batch: int, **preprocessing: Any) -> Tensor:
        return torch.randn(batch, int(length), preprocessing["channels"])

    def draw(self, ax: Any, raw: Tensor, width: float, **preprocessing: Any) -> str:
        """A line a channel, each scaled to its own range; of more than eight the first eight."""
        low, high = raw.amin(0), raw.amax(0)
        lines = ((raw - low) / (high - low).clamp_min(1e-12))[:, :8]
        ax.plot(lines.numpy(), linewidth=0.8)
        return f"{len(raw)} steps"

    def compact(self, raw: Tensor, **preprocessing: Any) -> np.ndarray:
        return torch.cat([raw.mean(0), raw.std(0, correction=0), raw.amin(0), raw.amax(0)]).numpy()


SIGNAL = Series()


@dataclass(frozen=True)
class SeriesAugment:
    """Random changes of training series, in the order of the arguments; the defaults change nothing.

    Args:
        speed: Stretches time by a factor of 1 - speed to 1 + speed, by linear interpolation.
        drop: Cuts off up to this share of the steps at each end.
        scale: Multiplies each channel by 1 - scale to 1 + scale.
        noise: Adds white noise of a standard deviation drawn from 0 to this, as a share of the channel's own deviation.
    """

    speed: float = 0.0
    drop: float = 0.0
    scale: float = 0.0
    noise: float = 0.0

    def __post_init__(self) -> None:
        within("[0, 1)", speed=self.speed, scale=self.scale)
        within("[0, 0.5)", drop=self.drop)
        within("[0, inf)", noise=self.noise)


def read_series(
    item: Any, channels: int, steps: int, columns: Sequence[str] = (), augment: SeriesAugment | None = None
) -> Tensor:
    """A series of at most `steps` steps, (S, channels) float32.

    item     the path of a file (see `mmeff.signals.files.series.read_steps`), or an array (S, C); (S,) of one channel
    columns  names of the columns of a table that are its channels, in order; by default all of it
    augment  random changes, drawn from the global generators of `random` and torch; also cuts at a random place what
             is longer, instead of the middle

    InputError if it cannot be read, has other channels, no step, or a value that is not finite: fill gaps in before.
    """
    where = spelled(item) if isinstance(item, str | os.PathLike) else "the series"
    found = read_steps(item, columns) if isinstance(item, str | os.PathLike) else np.asarray(item)
    if found.dtype.kind not in "fiub" or found.ndim not in (1, 2):
        raise InputError(f"{where} is {found.dtype} {found.shape}; it must be numbers of shape (S, {channels})")
    if not found.size:
        raise InputError(f"{where} is empty: it has no step. Replace it or take it out")
    series = torch.from_numpy(found.reshape(len(found), -1).astype(np.float32))
    C = series.shape[1]
    if channels != C:
        raise InputError(
            f"{where} has {C} channels and the model takes {channels}: name them in `columns`, or leave the others out"
        )
    if not series.isfinite().all():
        step, channel = (int(i) for i in (~series.isfinite()).nonzero()[0])
        name = repr(columns[channel]) if columns else channel + 1
        raise InputError(
            f"{where} has a value that is not finite, the first in channel {name} at step {step + 1}: fill it in"
        )
    if augment is not None:
        series = _change(series, augment)
    start = int(max(0, len(series) - steps) * (0.5 if augment is None else random.random()))
    return series[start : start + steps]


def _change(series: Tensor, augment: SeriesAugment) -> Tensor:
    if augment.speed:
        factor = random.uniform(1 - augment.speed, 1 + augment.speed)
        size = max(1, round(len(series) * factor))
        series = F.interpolate(series.mT[None], size=size, mode="linear", align_corners=size > 1)[0].mT
    if augment.drop:
        head, tail = (int(random.uniform(0, augment.drop) * len(series)) for _ in range(2))
        series = series[head : len(series) - tail]
    if augment.scale:
        series = series * (1 + augment.scale * (2 * torch.rand(series.shape[1]) - 1))
    if augment.noise:
        deviation = series.std(0, correction=0)
        series = series + random.uniform(0, augment.noise) * deviation * torch.randn_like(series)
    return series
