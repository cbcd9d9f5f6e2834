"""Image files -> pixels: whatever Pillow reads, turned upright, in bounded memory."""

import io
import math
import os
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np

from mmeff.errors import InputError, spelled
from mmeff.signals.files.check import check_file, unreadable

if TYPE_CHECKING:
    from PIL import Image

Path = str | os.PathLike[Any]
Read = TypeVar("Read", bound="np.ndarray | tuple[int, int]")

#: Pixels beyond which an image is made smaller by a whole factor while it is read.
MOST_PIXELS = 2**24

#: Chunks of a PNG that change its pixels, beside the critical ones.
PNG_CHUNKS = (b"tRNS", b"eXIf")


def read_pixels(path: Path, channels: int) -> np.ndarray:
    """uint8 (h, w) for 1 channel, (h, w, 3) for 3; of an image of several frames or pages the first.

    Upright (EXIF), transparency over white, 16 bits cut to 8, float values from 0 to 1. Images of more than 2^24 pixels
    come smaller by a whole factor: JPEGs are decoded so, others are averaged over squares. InputError names the file
    and says why it cannot be read.
    """
    return _reading(path, partial(_pixels, channels=channels))


def image_size(path: Path) -> tuple[int, int]:
    """Height and width of the upright image, as it is in the file. InputError as of `read_pixels`."""
    return _reading(path, _size)


def _reading(path: Path, read: Callable[[Any], Read]) -> Read:
    """What `read` takes out of the file, or out of what is left of it without its broken parts."""
    check_file(path)
    try:
        try:
            # As a file, not by its name: Pillow 13 maps what it opens by name into memory, and reads some turned TIFFs
            # there as if they were not.
            with open(path, "rb") as file:
                return read(file)
        except (InputError, MemoryError):
            raise
        # Pillow's decoders raise whatever a broken file makes them trip over: OSError, SyntaxError, struct.error...
        except Exception:
            if (mended := _mended(path, read)) is None:
                raise
            return mended
    except InputError as error:
        raise InputError(f"{spelled(path)}: {error}") from None
    except MemoryError:
        raise InputError(f"{spelled(path)} needs more memory than there is: make the image smaller") from None
    except Exception as error:
        raise _refusal(path, error) from None


def _refusal(path: Path, error: Exception) -> InputError:
    from PIL import Image, UnidentifiedImageError

    if isinstance(error, Image.DecompressionBombError):
        return InputError(
            f"{spelled(path)} is too large: {str(error).split(',')[0]} (twice PIL.Image.MAX_IMAGE_PIXELS, "
            "against files that fill the memory). Make the image smaller or take it out"
        )
    if isinstance(error, UnidentifiedImageError):
        with open(path, "rb") as file:
            return unreadable(path, "an image", f"its kind is unknown to Pillow, it begins with {file.read(12)!r}")
    return unreadable(path, "an image", error)


def _size(file: Any) -> tuple[int, int]:
    from PIL import Image

    with Image.open(file) as image:
        width, height = image.size
        # Of a TIFF, Pillow gives the size as it will be when it is upright.
        lies = _orientation(image) >= 5 and image.format != "TIFF"
        return (width, height) if lies else (height, width)


def _pixels(file: Any, channels: int) -> np.ndarray:
    from PIL import Image

    with Image.open(file) as image:
        if image.format == "EPS":  # Pillow would run it: PostScript is a program
            raise InputError("it is PostScript, which is not read. Convert it to PNG")
        return pixels_of(image, channels)


def pixels_of(image: "Image.Image", channels: int) -> np.ndarray:
    """The pixels of an open image, as `read_pixels` gives them. InputError if its values have no known scale."""
    from PIL import Image

    if image.width * image.height > MOST_PIXELS:
        small = _reduced(image)
    else:
        image.load()
        small = image
    turn = _orientation(image)
    upright = small if turn == 1 else small.transpose(Image.Transpose[_TRANSPOSES[turn]])
    return np.array(_as_rgb_or_grey(upright, channels))


#: EXIF orientation -> the name of Pillow's transposition.
_TRANSPOSES = {
    2: "FLIP_LEFT_RIGHT",
    3: "ROTATE_180",
    4: "FLIP_TOP_BOTTOM",
    5: "TRANSPOSE",
    6: "ROTATE_270",
    7: "TRANSVERSE",
    8: "ROTATE_90",
}


def _orientation(image: "Image.Image") -> int:
    """1 to 8 as EXIF says; 1 (upright) where it says nothing, something else or cannot be read."""
    try:
        value = image.getexif().get(0x0112, 1)
        return int(value) if value in _TRANSPOSES else 1
    except Exception:  # as many kinds as there are ways to break it; the pixels are whole
        return 1


def _reduced(image: "Image.Image") -> "Image.Image":
    scale = 1
    while scale < 8 and image.width * image.height > MOST_PIXELS * scale**2:
        scale *= 2
    image.draft(None, (max(1, image.width // scale), max(1, image.height // scale)))  # JPEG alone knows how
    image.load()
    small = image
    # A mean is taken of colours, not of their numbers in a palette, nor with a colour that stands for none.
    if image.mode.startswith("I;"):
        small = image.convert("I")  # Pillow takes no mean of 16 bits
    elif image.mode not in ("I", "F", "RGBA", "LA") and image.has_transparency_data:
        small = image.convert("RGBA")
    elif image.mode in ("1", "P"):
        small = image.convert("L" if image.mode == "1" else "RGB")
    factor = math.ceil(math.sqrt(small.width * small.height / MOST_PIXELS))
    return small if factor == 1 else small.reduce(factor)


def _as_rgb_or_grey(image: "Image.Image", channels: int) -> "Image.Image":
    from PIL import Image

    if image.mode == "F" or image.mode.startswith("I"):
        values = np.asarray(image).astype(np.float64)
        top = 1.0 if image.mode == "F" else 65535.0
        low, high = values.min(), values.max()
        if not (low >= 0 and high <= top):
            reason = f"its values reach from {low:g} to {high:g}, outside 0 to {top:g}"
            raise InputError("it has values that are not numbers (NaN)" if np.isnan(low) else f"{reason}: scale them")
        if isinstance(clear := image.info.get("transparency"), int):
            values[values == clear] = top
        image = Image.fromarray((values * (255 / top)).round().astype(np.uint8))
    if image.has_transparency_data:
        image = image.convert("RGBA")
        white = Image.new("RGBA", image.size, "white")
        image = Image.alpha_composite(white, image)
    return image.convert("RGB" if channels == 3 else "L")


def _mended(path: Path, read: Callable[[Any], Read]) -> Read | None:
    """What `read` takes out of a file that Pillow refuses although all pixels are there; None for all others."""
    with open(path, "rb") as file:
        data = file.read()
    if data.startswith(b"\x89PNG\r\n\x1a\n"):
        return read(io.BytesIO(_bare_png(data)))
    if data.startswith(b"\xff\xd8") and not data.endswith(b"\xff\xd9"):
        # The end marker is missing. If it is not alone, pixels depend on what stands in its place.
        fillings = (b"", b"\x55" * 4096, b"\xaa" * 4096)
        first, *others = (read(io.BytesIO(data + filling + b"\xff\xd9")) for filling in fillings)
        return first if all(np.array_equal(first, other) for other in others) else None
    return None


def _bare_png(data: bytes) -> bytes:
    """A PNG without texts and colour profiles, which may be broken or larger than Pillow lets them be."""
    kept, at = [data[:8]], 8
    while at + 12 <= len(data):
        size, kind = int.from_bytes(data[at : at + 4]), data[at + 4 : at + 8]
        if kind[:1].isupper() or kind in PNG_CHUNKS:
            kept.append(data[at : at + 12 + size])
        at += 12 + size
    return b"".join(kept)
