"""The data modules: images, sounds, texts, series, and several of them in one training run."""

import os
from dataclasses import replace
from functools import partial
from typing import Literal

import numpy as np

from mmeff.data.base import ClassificationData, Part, make_part
from mmeff.data.examples import Examples, Source
from mmeff.data.splits import SplitRule
from mmeff.errors import InputError, whole, within
from mmeff.signals import DataSpec
from mmeff.signals.audio import SHORTEST, AudioAugment, read_audio
from mmeff.signals.files.image import image_size
from mmeff.signals.files.series import read_steps
from mmeff.signals.image import ImageAugment, rand_augment, read_image
from mmeff.signals.series import SeriesAugment, read_series
from mmeff.signals.text import is_blank


class ImageData(ClassificationData):
    """Images with labels, brought to one size: the largest central part of that shape, resized.

    Args:
        source: Where the images come from, as `ImageFolder`, `FileTable` or `Digits`.
        size: Height and width, one number for a square; by default those of the first image (up to 512).
        channels: 3 for colour, 1 for grey; by default 3 for files, and what the first array has for arrays.
        augment: Random changes of training images; by default none.
        batch_size: Images per training step and process.
        split: How examples are divided; by default `AsGiven()`.
        num_workers: Processes that read; by default none if the images are in memory and few, else one a core up to 16.
        seed: Of the order of the examples and of the augmentation.
    """

    def __init__(
        self,
        source: Source,
        size: int | tuple[int, int] | None = None,
        channels: Literal[1, 3] | None = None,
        augment: ImageAugment | None = None,
        batch_size: int = 64,
        split: SplitRule | None = None,
        num_workers: int | None = None,
        seed: int = 0,
    ):
        super().__init__(num_workers, seed)
        if size is not None:
            whole(1, size=size)
            size = (size, size) if isinstance(size, int) else size
            if len(size) != 2:
                raise InputError(f"size is {size}; it must be a height and a width")
        if channels not in (1, 3, None):
            raise InputError(f"channels is {channels!r}; it must be 1 (grey) or 3 (colour)")
        self.source, self.size, self.channels, self.augment = source, size, channels, augment
        self.batch_size, self.split = batch_size, split

    def load(self) -> dict[str, Part]:
        examples = self.source.examples()
        if len(examples) == 0:
            raise InputError("the source has no examples")
        size, channels = self.size or _size_of_first(examples), self.channels or _channels_of_first(examples)
        preprocessing = {"size": list(size), "channels": channels}
        read = None
        if self.augment is not None:
            read = partial(read_image, **preprocessing, augment=self.augment)
            if self.augment.rand_augment is not None:
                rand_augment(self.augment.rand_augment, *size, channels)
        return {"image": make_part("image", examples, self.split, preprocessing, read, self.batch_size, self.seed)}


class AudioData(ClassificationData):
    """Sounds with labels, in mono at one sample rate. Shorter sounds keep their length, longer ones are cut.

    Args:
        source: Where the sounds come from, as `AudioFolder`, `FileTable`, `SpeechCommands` or `Tones`.
        sample_rate: Samples per second that sounds are resampled to.
        seconds: Longest sound: what is longer is cut, at random in training, to its middle otherwise.
        augment: Random changes of training sounds; by default none.
        batch_size: Sounds per training step and process.
        split: How examples are divided; by default `AsGiven()`.
        num_workers: Processes that read; by default none if the sounds are in memory and few, else one a core up to 16.
        seed: Of the order of the examples, of the cuts and of the augmentation.
    """

    def __init__(
        self,
        source: Source,
        sample_rate: int = 16000,
        seconds: float = 1.0,
        augment: AudioAugment | None = None,
        batch_size: int = 64,
        split: SplitRule | None = None,
        num_workers: int | None = None,
        seed: int = 0,
    ):
        super().__init__(num_workers, seed)
        whole(1, **{"data.sample_rate": sample_rate})  # tokenizers have one as well
        within(f"[{SHORTEST}, inf)", **{"data.seconds": seconds})
        self.source, self.sample_rate, self.seconds = source, sample_rate, seconds
        self.augment = augment or AudioAugment()
        self.batch_size, self.split = batch_size, split

    def load(self) -> dict[str, Part]:
        examples = self.source.examples()
        samples = round(self.sample_rate * self.seconds)
        preprocessing = {"sample_rate": self.sample_rate, "samples": samples}
        read = partial(read_audio, **preprocessing, augment=self.augment)
        return {"audio": make_part("audio", examples, self.split, preprocessing, read, self.batch_size, self.seed)}


class TextData(ClassificationData):
    """Texts with labels: strings as they are, in Unicode's composed form (NFC).

    Args:
        source: Where the texts come from, as `TextTable`, `TextFolder` or `Glosses`.
        batch_size: Texts per training step and process.
        split: How examples are divided; by default `AsGiven()`.
        num_workers: Processes that prepare batches; by default none, as strings need none.
        seed: Of the order of the examples.
    """

    def __init__(
        self,
        source: Source,
        batch_size: int = 64,
        split: SplitRule | None = None,
        num_workers: int | None = None,
        seed: int = 0,
    ):
        super().__init__(num_workers, seed)
        self.source, self.batch_size, self.split = source, batch_size, split

    def load(self) -> dict[str, Part]:
        examples = self.source.examples()
        for item, name in zip(examples.items, examples.ids, strict=True):
            if is_blank(item):
                raise InputError(f"{name}: the text is empty: fill it in or take the row out")
        return {"text": make_part("text", examples, self.split, {}, None, self.batch_size, self.seed)}


class SeriesData(ClassificationData):
    """Multivariate time series with labels. Shorter series keep their length, longer ones are cut.

    Args:
        source: Where the series come from, as `SeriesFolder`, `SeriesArrays`, `FileTable` or `Vowels`.
        steps: Longest series: what is longer is cut, at random in training, to its middle otherwise; by default the
            longest there is, where all are in memory.
        columns: Names of the columns that are the channels, of tables; by default all.
        augment: Random changes of training series; by default none.
        batch_size: Series per training step and process.
        split: How examples are divided; by default `AsGiven()`.
        num_workers: Processes that read; by default none if the series are in memory and few, else one a core up to 16.
        seed: Of the order of the examples, of the cuts and of the augmentation.
    """

    def __init__(
        self,
        source: Source,
        steps: int | None = None,
        columns: list[str] | None = None,
        augment: SeriesAugment | None = None,
        batch_size: int = 64,
        split: SplitRule | None = None,
        num_workers: int | None = None,
        seed: int = 0,
    ):
        super().__init__(num_workers, seed)
        if steps is not None:
            whole(1, **{"data.steps": steps})
        self.source, self.steps, self.columns = source, steps, columns or []
        self.augment = augment or SeriesAugment()
        self.batch_size, self.split = batch_size, split

    def load(self) -> dict[str, Part]:
        examples = self.source.examples()
        if len(examples) == 0:
            raise InputError("the source has no examples")
        first = examples.items[0]
        on_disk = isinstance(first, str | os.PathLike)
        if on_disk and self.steps is None:
            raise InputError("steps is not given and the series are in files: give the longest that is to be read")
        shape = (read_steps(first, self.columns) if on_disk else np.asarray(first)).shape
        preprocessing = {
            "channels": shape[1] if len(shape) == 2 else 1,
            "steps": self.steps or max(map(len, examples.items)),
            "columns": self.columns,
        }
        read = partial(read_series, **preprocessing, augment=self.augment)
        return {"series": make_part("series", examples, self.split, preprocessing, read, self.batch_size, self.seed)}


class JointData(ClassificationData):
    """Several data modules as one: each batch is of one of them, in training in a random schedule.

    An epoch sees each training example of a part as often as `passes` says, so that a small part is seen often enough
    and a large one not too often; validation and test take the parts one after the other, once.
    The names of the parts are the keys of `specs`, and what a batch carries as "task".

    Args:
        parts: A data module for each name, as {"digits": ImageData, "tones": AudioData}; two may share a modality.
        passes: How often an epoch goes over a part, by its name; once where none is given.
        num_workers: Processes that prepare batches; by default none if all parts are in memory and small.
        seed: Of the schedule, and of the sample that tokenizers learn from.
    """

    def __init__(
        self,
        parts: dict[str, ClassificationData],
        passes: dict[str, int] | None = None,
        num_workers: int | None = None,
        seed: int = 0,
    ):
        super().__init__(num_workers, seed)
        if not parts:
            raise InputError("JointData has no parts: name one data module at least")
        for name, data in parts.items():
            if not name or "." in name:
                raise InputError(f"JointData: {name!r} cannot name a part: a name is not empty and has no full stop")
            if isinstance(data, JointData):
                raise InputError(f"JointData: part {name!r} is itself a JointData: list its parts instead")
        for name, count in (passes or {}).items():
            if name not in parts:
                raise InputError(f"JointData: passes names {name!r}; the parts are {', '.join(parts)}")
            whole(1, **{f"passes of {name!r}": count})
        self.modules, self.passes = dict(parts), dict(passes or {})

    def test_all(self, specs: dict[str, DataSpec]) -> None:
        if set(specs) != set(self.modules):
            raise InputError(f"the model was trained on {', '.join(specs)}, the data is {', '.join(self.modules)}")
        for name, data in self.modules.items():
            data.test_all({name: specs[name]})

    def load(self) -> dict[str, Part]:
        parts = {}
        for name, data in self.modules.items():
            data.setup()
            (part,) = data.parts.values()
            splits = {split: replace(signals, key=name) for split, signals in part.splits.items()}
            if "train" in splits:
                splits["train"] = replace(splits["train"], passes=self.passes.get(name, 1))
            parts[name] = Part(part.spec, splits)
        return parts


def _size_of_first(examples: Examples) -> tuple[int, int]:
    item = examples.items[0]
    H, W = image_size(item) if isinstance(item, str | os.PathLike) else np.shape(item)[:2]
    if max(H, W) > 512:
        raise InputError(f"size is not given and the first image, {examples.ids[0]}, has {H} x {W} pixels: give a size")
    return H, W


def _channels_of_first(examples: Examples) -> int:
    item = examples.items[0]
    return 3 if isinstance(item, str | os.PathLike) or np.shape(item)[2:] == (3,) else 1
