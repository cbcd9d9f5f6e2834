"""Images: reading, augmentation, batches, pictures."""

import math
import os
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from mmeff.errors import InputError, whole, within
from mmeff.signals.base import Sheet, Signal, whole_number, wrong
from mmeff.signals.files.image import pixels_of, read_pixels

#: Most pixels of an image.
PIXELS = 2**26


class Image(Signal):
    """Raw: float32 (C, H, W) in [0, 1], all of one size."""

    name, unit, rate = "image", "px", "images/s"
    target, question, least = 1024.0, "An image of 1024 px", 16.0
    sheet = Sheet(columns=6, width=1.65, height=1.65)
    features, penalties = "pixels at 16 x 16", (1e-3, 1e-2, 1e-1)
    keys = ("size", "channels")

    def check(self, preprocessing: dict[str, Any], where: str) -> None:
        size, channels = preprocessing["size"], preprocessing["channels"]
        if not isinstance(size, list | tuple) or len(size) != 2 or not all(whole_number(n, PIXELS) for n in size):
            raise wrong(f"{where}.size", "it must be a height and a width in pixels", size)
        if size[0] * size[1] > PIXELS:
            raise wrong(f"{where}.size", f"an image has at most {PIXELS} pixels", size)
        if not whole_number(channels, 3) or channels == 2:
            raise wrong(f"{where}.channels", "it must be 1 (grey) or 3 (colour)", channels)

    def read(self, item: Any, **preprocessing: Any) -> Tensor:
        return read_image(item, **preprocessing)

    def item(self, given: Any, **preprocessing: Any) -> Any:
        if isinstance(given, Tensor):
            return given.detach().cpu().numpy()
        if hasattr(given, "convert") and hasattr(given, "mode"):  # one of Pillow's
            return np.asarray(given.convert("L" if preprocessing["channels"] == 1 else "RGB"))
        return given

    def suffixes(self) -> tuple[str, ...]:
        return image_suffixes()

    def collate(self, raws: Sequence[Tensor], **preprocessing: Any) -> tuple[Tensor, None]:
        return torch.stack(list(raws)), None

    def length(self, **preprocessing: Any) -> float:
        return max(preprocessing["size"])

    def random(self, length: float, batch: int, **preprocessing: Any) -> Tensor:
        return torch.rand(batch, preprocessing["channels"], int(length), int(length))

    def shape(self, raw: Tensor) -> float:
        return min(1.5, raw.shape[1] / raw.shape[2])

    def draw(self, ax: Any, raw: Tensor, width: float, **preprocessing: Any) -> str:
        """In colour if there are 3 channels, else grey."""
        pixels = raw.permute(1, 2, 0) if len(raw) == 3 else raw.mean(0)
        smooth = "nearest" if max(raw.shape[1:]) < 100 else "antialiased"
        ax.imshow(pixels.clamp(0, 1).numpy(), cmap="gray", vmin=0, vmax=1, interpolation=smooth)
        return ""

    def compact(self, raw: Tensor, **preprocessing: Any) -> np.ndarray:
        return F.interpolate(raw[None], (16, 16), mode="area").flatten().numpy()


SIGNAL = Image()

#: Of what Pillow opens: drawings, videos and arrays of measurements, which are no photographs.
NO_PHOTOGRAPHS = ("BUFR", "EPS", "FITS", "GRIB", "HDF5", "IPTC", "MPEG", "WMF")


@lru_cache(1)
def image_suffixes() -> tuple[str, ...]:
    """Those of the photographs that this installation of Pillow opens, its plugins' included, the usual ones first."""
    from PIL import Image

    formats = Image.registered_extensions()  # loads the plugins too
    read = {suffix for suffix, name in formats.items() if name in Image.OPEN and name not in NO_PHOTOGRAPHS}
    read |= {".mpo"} if "JPEG" in Image.OPEN else set()  # what many cameras write; opened as JPEG
    usual = [suffix for suffix in (".png", ".jpg", ".jpeg", ".webp", ".gif", ".bmp", ".tif") if suffix in read]
    return (*usual, *sorted(read.difference(usual)))


@dataclass(frozen=True)
class Affine:
    """A random affine map, each figure drawn evenly; what comes in from outside the image is 0.

    Args:
        degrees: Rotation by up to this angle either way.
        translate: Shift by up to this fraction of the height and of the width either way.
        scale: Magnification by 1 - scale to 1 + scale.
    """

    degrees: float = 0.0
    translate: float = 0.0
    scale: float = 0.0

    def __post_init__(self) -> None:
        within("[0, inf)", degrees=self.degrees)
        within("[0, 1)", translate=self.translate, scale=self.scale)


@dataclass(frozen=True)
class ImageAugment:
    """Random changes of training images, in the order of the arguments; the defaults change nothing.

    Args:
        random_resized_crop: Least and greatest fraction of the area that is cut out and resized, as [0.08, 1.0],
            with a ratio of width to height of 3/4 to 4/3; without it the central part is taken, as in validation.
        crop_padding: Zeros added on each side, of which as many are cut off again at random.
        flip: Whether half of the images are mirrored, left to right. Wrong for digits and letters.
        rand_augment: RandAugment (Cubuk et al. 2019, arXiv:1909.13719) in timm's notation, as "rand-m9-mstd0.5-inc1".
        affine: A random rotation, shift and magnification.
        erase: Probability that a rectangle is set to 0 (random erasing, Zhong et al. 2017, arXiv:1708.04896).
    """

    random_resized_crop: tuple[float, float] | None = None
    crop_padding: int = 0
    flip: bool = False
    rand_augment: str | None = None
    affine: Affine | None = None
    erase: float = 0.0

    def __post_init__(self) -> None:
        area = self.random_resized_crop
        if area is not None:
            within("(0, 1]", random_resized_crop=area)
            if len(area) != 2 or area[0] > area[1]:
                raise InputError(f"random_resized_crop is {area}; it must be two rising fractions of the area")
        whole(0, crop_padding=self.crop_padding)
        within("[0, 1]", erase=self.erase)


def read_image(
    item: Any, size: tuple[int, int] | list[int], channels: int, augment: ImageAugment | None = None
) -> Tensor:
    """Decode an image and bring it to size (H, W): its largest central part of that shape, resized (bilinear).

    item     the path of a file of any kind that Pillow reads (see `mmeff.signals.files.image.read_pixels`), a Pillow
             image, or a uint8 array (h, w) or (h, w, 1 | 3)
    augment  random changes, drawn from the global generators of `random`, numpy and torch

    Returns float32 (channels, H, W) in [0, 1]. InputError if the file is no image, or a broken one.
    """
    from torchvision.transforms.v2 import functional as tv

    if isinstance(item, str | os.PathLike):
        image = _as_tensor(read_pixels(item, channels), channels)
    elif hasattr(item, "getexif"):
        image = _as_tensor(pixels_of(item, channels), channels)
    else:
        image = _as_tensor(np.array(item), channels)  # a copy, which torch may write to
    h, w = image.shape[1:]
    H, W = size
    if augment is not None and augment.random_resized_crop is not None:
        top, left, height, width = _random_box(h, w, augment.random_resized_crop)
    else:
        height, width = max(1, min(h, round(w * H / W))), max(1, min(w, round(h * W / H)))
        top, left = (h - height) // 2, (w - width) // 2
    if (height, width) != (h, w):
        image = image[:, top : top + height, left : left + width]
    if (height, width) != (H, W):
        image = tv.resize(image, [H, W], antialias=True)
    if augment is not None:
        image = _change_pixels(image, augment)
    image = image.float().div_(255)
    if augment is not None and augment.affine is not None:
        image = _random_affine(image, augment.affine)
    if augment is not None and augment.erase > 0:
        image = _eraser(augment.erase)(image)
    return image


def _as_tensor(array: np.ndarray, channels: int) -> Tensor:
    """uint8 (h, w) or (h, w, 1 | 3) -> uint8 (channels, h, w)."""
    from torchvision.transforms.v2 import functional as tv

    if array.ndim == 2:
        array = array[..., None]
    if array.dtype != np.uint8 or array.ndim != 3 or array.shape[2] not in (1, 3) or array.size == 0:
        raise InputError(f"an image array is {array.dtype} {array.shape}; it must be uint8 (h, w) or (h, w, 1 | 3)")
    image = torch.from_numpy(array).permute(2, 0, 1)
    if image.shape[0] == channels:
        return image
    return image.expand(3, -1, -1) if channels == 3 else tv.rgb_to_grayscale(image)


def _random_box(h: int, w: int, area: tuple[float, float]) -> tuple[int, int, int, int]:
    from torchvision.transforms import RandomResizedCrop

    return RandomResizedCrop.get_params(torch.empty(1, h, w), list(area), [3 / 4, 4 / 3])


def _change_pixels(image: Tensor, augment: ImageAugment) -> Tensor:
    """The changes that leave pixels whole: uint8 (C, H, W) -> the same."""
    H, W = image.shape[1:]
    pad = augment.crop_padding
    if pad:
        top, left = random.randint(0, 2 * pad), random.randint(0, 2 * pad)
        image = F.pad(image, (pad, pad, pad, pad))[:, top : top + H, left : left + W]
    if augment.flip and random.random() < 0.5:
        image = image.flip(-1)
    if augment.rand_augment is not None:
        from torchvision.transforms.v2 import functional as tv

        changed = rand_augment(augment.rand_augment, H, W, len(image))(tv.to_pil_image(image.contiguous()))
        image = tv.pil_to_tensor(changed)
    return image


def _random_affine(image: Tensor, affine: Affine) -> Tensor:
    H, W = image.shape[1:]
    angle = math.radians(random.uniform(-affine.degrees, affine.degrees))
    scale = random.uniform(1 - affine.scale, 1 + affine.scale)
    dx, dy = (2 * random.uniform(-affine.translate, affine.translate) for _ in range(2))
    cos, sin = math.cos(angle) / scale, math.sin(angle) / scale
    # From output to input, in coordinates where each side of the image reaches from -1 to 1.
    a, b, c, d = cos, sin * H / W, -sin * W / H, cos
    theta = torch.tensor([[[a, b, -a * dx - b * dy], [c, d, -c * dx - d * dy]]])
    grid = F.affine_grid(theta, [1, *image.shape], align_corners=False)
    return F.grid_sample(image[None], grid, align_corners=False)[0]


@lru_cache
def rand_augment(config: str, H: int, W: int, channels: int) -> Any:
    """timm's RandAugment of PIL images. InputError if the notation is wrong."""
    from timm.data.auto_augment import posterize, rand_augment_transform

    fill = (128, 128, 128) if channels == 3 else 128
    try:
        transform = rand_augment_transform(config, {"translate_const": int(0.45 * min(H, W)), "img_mean": fill})
    except (AssertionError, ValueError, KeyError) as error:
        raise InputError(
            f"rand_augment {config!r} is not in timm's notation, as rand-m9-mstd0.5-inc1: {error}"
        ) from None
    for op in transform.ops:
        if op.aug_fn is posterize:
            op.level_fn = _AtLeastOneBit(op.level_fn)
    return transform


@dataclass(frozen=True)
class _AtLeastOneBit:
    """timm's bits to keep in posterizing, but 1 instead of 0: a black image, which Pillow 13 refuses to make."""

    level_fn: Callable[[float, Any], tuple[int]]

    def __call__(self, level: float, hparams: Any) -> tuple[int]:
        return (max(1, self.level_fn(level, hparams)[0]),)


@lru_cache
def _eraser(probability: float) -> Any:
    from timm.data.random_erasing import RandomErasing

    return RandomErasing(probability, mode="const", device="cpu")
