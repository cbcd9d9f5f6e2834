"""Images: every kind of file, sizing, augmentation."""

import os
import struct
import zlib

import numpy as np
import pytest
import torch

from mmeff.data import Affine, ByRatio, Examples, ImageAugment, ImageData, ImageFolder, read_raw
from mmeff.errors import InputError
from mmeff.signals import DataSpec
from mmeff.signals.audio import read_audio
from mmeff.signals.files.image import image_size, read_pixels
from mmeff.signals.image import rand_augment, read_image


def rgb(path, size=(4, 4)):
    image = read_image(str(path), size, 3)
    assert image.shape == (3, *size) and image.dtype == torch.float32
    return [round(value, 2) for value in image.mean((1, 2)).tolist()]


@pytest.mark.parametrize(
    ("name", "mode", "colour", "expected"),
    [
        ("a.png", "RGB", (255, 0, 0), [1, 0, 0]),
        ("a.png", "P", 0, [0, 0, 0]),
        ("a.png", "L", 51, [0.2, 0.2, 0.2]),
        ("a.png", "1", 1, [1, 1, 1]),
        ("a.png", "I;16", 13107, [0.2, 0.2, 0.2]),
        ("a.tif", "F", 0.2, [0.2, 0.2, 0.2]),
        ("a.png", "RGBA", (255, 0, 0, 0), [1, 1, 1]),
        ("a.png", "RGBA", (255, 0, 0, 255), [1, 0, 0]),
        ("a.png", "LA", (0, 51), [0.8, 0.8, 0.8]),
        ("a.bmp", "RGB", (0, 0, 255), [0, 0, 1]),
        ("a.webp", "RGB", (255, 255, 255), [1, 1, 1]),
    ],
)
def test_kinds_of_files(write_image, name, mode, colour, expected):
    assert rgb(write_image(name, mode, colour=colour)) == pytest.approx(expected, abs=0.011)


def test_cmyk_jpeg(write_image):
    red, green, blue = rgb(write_image("a.jpg", "CMYK", colour=(0, 255, 255, 0)))
    assert red > 0.95 and green < 0.05 and blue < 0.05


def test_transparent_palette(tmp_path):
    from PIL import Image

    image = Image.new("P", (4, 4), 1)
    image.putpalette([0, 0, 0, 255, 0, 0])
    image.save(tmp_path / "a.png", transparency=1)
    assert rgb(tmp_path / "a.png") == [1, 1, 1]


def tiff_entry(tag: int, kind: int, value: bytes) -> bytes:
    """An EXIF entry whose value lies within it; kinds are 3 (16 bits) and 4 (32 bits)."""
    return struct.pack("<HHI", tag, kind, 1) + value.ljust(4, b"\0")


def with_exif(path, *entries: bytes, end: bytes = bytes(4)):
    """A corner of an image, white on black at the top left, 8 wide and 16 high, saved with EXIF in any condition."""
    from PIL import Image

    pixels = np.zeros((16, 8), np.uint8)
    pixels[:8, :4] = 255
    exif = b"Exif\0\0II*\0" + struct.pack("<IH", 8, len(entries)) + b"".join(entries) + end
    Image.fromarray(pixels).save(path, exif=exif, quality=95)
    return str(path)


@pytest.mark.parametrize(
    ("orientation", "shape", "corner"),
    [
        (1, (16, 8), "top left"),
        (2, (16, 8), "top right"),
        (3, (16, 8), "bottom right"),
        (4, (16, 8), "bottom left"),
        (5, (8, 16), "top left"),
        (6, (8, 16), "top right"),
        (7, (8, 16), "bottom right"),
        (8, (8, 16), "bottom left"),
        (0, (16, 8), "top left"),
        (9, (16, 8), "top left"),
        (65535, (16, 8), "top left"),
    ],
)
def test_exif_turns_the_image(tmp_path, orientation, shape, corner):
    path = with_exif(tmp_path / "a.jpg", tiff_entry(0x0112, 3, struct.pack("<H", orientation)))
    assert image_size(path) == shape
    image = read_image(path, shape, 1)[0]
    top, left = (name in corner for name in ("top", "left"))
    middle = (shape[0] // 2, shape[1] // 2)
    quarter = image[slice(0, middle[0]) if top else slice(middle[0], None)]
    quarter = quarter[:, slice(0, middle[1]) if left else slice(middle[1], None)]
    assert quarter.mean() > 0.95 and image.mean() == pytest.approx(0.25, abs=0.02)


@pytest.mark.parametrize("name", ["a.tif", "a.webp", "a.png"])
def test_other_files_are_turned_as_well(tmp_path, name):
    from PIL import Image

    pixels = np.zeros((16, 8), np.uint8)
    pixels[:8, :4] = 255
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(pixels).save(tmp_path / name, exif=exif)
    assert image_size(tmp_path / name) == (8, 16)
    assert read_image(tmp_path / name, (8, 16), 1)[0, :4, 8:].mean() > 0.95


def test_pillow_images_are_read_as_files_are():
    from PIL import Image

    image = Image.new("P", (8, 8), 1)
    image.putpalette([0, 0, 0, 255, 0, 51])
    assert read_image(image, (4, 4), 3).mean((1, 2)).tolist() == pytest.approx([1, 0, 0.2])
    assert read_image(Image.new("RGBA", (8, 8), (255, 0, 0, 0)), (4, 4), 1).eq(1).all()


@pytest.mark.parametrize("rest", ["a unit beyond 16 bits", "an offset beyond the end", "a pointer to nothing", "cut"])
def test_exif_that_is_broken_elsewhere_still_turns_the_image_or_leaves_it(tmp_path, rest):
    turned = tiff_entry(0x0112, 3, struct.pack("<H", 6))
    broken = {
        "a unit beyond 16 bits": tiff_entry(0x0128, 4, struct.pack("<I", 70000)),
        "an offset beyond the end": struct.pack("<HHII", 0x011A, 5, 1, 10**6),
        "a pointer to nothing": tiff_entry(0x8769, 4, struct.pack("<I", 10**6)),
        "cut": b"\x12",
    }[rest]
    image = read_image(with_exif(tmp_path / "a.jpg", turned, broken, end=b""), (8, 16), 1)[0]
    assert rest == "cut" or image[:4, 8:].mean() > 0.95


def png_chunk(kind: bytes, data: bytes, checksum: int | None = None) -> bytes:
    found = zlib.crc32(kind + data) if checksum is None else checksum
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", found)


LARGE = zlib.compress(bytes(5_000_000))


@pytest.mark.parametrize(
    ("chunks", "at"),
    [
        ([png_chunk(b"zTXt", b"key\0\0" + LARGE)], 33),
        ([png_chunk(b"iTXt", b"key\0\1\0\0\0" + LARGE)], 33),
        ([png_chunk(b"iCCP", b"key\0\0" + LARGE)], 33),
        ([png_chunk(b"zTXt", b"key\0\0" + LARGE)], -12),  # after the pixels
        ([png_chunk(b"tEXt", b"key\0text", checksum=0)], 33),
        ([png_chunk(b"pHYs", b"1")], 33),
    ],
)
def test_texts_and_profiles_of_a_png_are_none_of_its_pixels(write_image, chunks, at):
    path = write_image("a.png", colour=(255, 0, 51))
    content = path.read_bytes()
    turned = png_chunk(b"eXIf", b"II*\0" + struct.pack("<IH", 8, 1) + tiff_entry(0x0112, 3, b"\6\0") + bytes(4))
    path.write_bytes(content[:33] + turned + content[33:at] * (at < 0) + b"".join(chunks) + content[at:])
    assert rgb(path) == [1, 0, 0.2]
    assert image_size(path) == (10, 8)


def test_a_jpeg_without_its_end_marker_alone_is_whole(tmp_path):
    from PIL import Image

    noise = np.random.default_rng(0).integers(0, 256, (8, 8, 3), dtype=np.uint8)
    Image.fromarray(noise).resize((64, 48)).save(tmp_path / "a.jpg")
    content, expected = (tmp_path / "a.jpg").read_bytes(), read_image(tmp_path / "a.jpg", (48, 64), 3)
    (tmp_path / "b.jpg").write_bytes(content[:-2])
    assert torch.equal(read_image(tmp_path / "b.jpg", (48, 64), 3), expected)
    for cut in (*range(3, 12), 40, 200):
        (tmp_path / "b.jpg").write_bytes(content[:-cut])
        with pytest.raises(InputError, match=r"b\.jpg is not an image that can be read: image file is truncated"):
            read_image(tmp_path / "b.jpg", (4, 4), 3)


@pytest.mark.parametrize(
    ("name", "mode", "colour"),
    [
        ("a.jpg", "RGB", (255, 0, 51)),
        ("a.jpg", "CMYK", (0, 255, 204, 0)),
        ("a.png", "RGBA", (255, 0, 51, 255)),
        ("a.png", "P", (255, 0, 51)),
        ("a.png", "1", 1),
        ("a.png", "L", 51),
        ("a.png", "LA", (0, 51)),
        ("a.png", "I;16", 13107),
        ("a.tif", "F", 0.2),
    ],
)
def test_large_images_come_smaller(write_image, monkeypatch, name, mode, colour):
    path = write_image(name, mode, (70, 50), colour)
    whole = read_image(path, (4, 4), 3)
    monkeypatch.setattr("mmeff.signals.files.image.MOST_PIXELS", 300)
    h, w, _ = read_pixels(path, 3).shape
    assert h * w <= 300 and w / h == pytest.approx(1.4, abs=0.2) and image_size(path) == (50, 70)
    torch.testing.assert_close(read_image(path, (4, 4), 3), whole, atol=0.02, rtol=0)


@pytest.mark.parametrize("name", ["a.gif", "a.png", "a.webp", "a.tif"])
def test_the_first_of_several_frames_or_pages(tmp_path, name):
    from PIL import Image

    red, blue = (Image.new("RGB", (8, 8), colour) for colour in ("red", "blue"))
    red.save(tmp_path / name, save_all=True, append_images=[blue])
    assert rgb(tmp_path / name) == [1, 0, 0]


def test_16_bits(tmp_path):
    pixel = struct.pack(">HHH", 65535, 0, 13107)
    header = png_chunk(b"IHDR", struct.pack(">IIBBBBB", 3, 2, 16, 2, 0, 0, 0))
    pixels = png_chunk(b"IDAT", zlib.compress((b"\0" + pixel * 3) * 2))
    (tmp_path / "a.png").write_bytes(b"\x89PNG\r\n\x1a\n" + header + pixels + png_chunk(b"IEND", b""))
    assert rgb(tmp_path / "a.png") == [1, 0, 0.2]


def test_a_grey_of_16_bits_that_stands_for_nothing(tmp_path):
    from PIL import Image

    Image.new("I;16", (4, 4), 7).save(tmp_path / "a.png", transparency=7)
    assert rgb(tmp_path / "a.png") == [1, 1, 1]


@pytest.mark.parametrize("size", [(1, 1), (10_000, 1), (1, 10_000)])
def test_extreme_shapes(write_image, size):
    assert rgb(write_image("a.jpg", size=size)) == [1, 0, 0]


def test_names_that_are_not_utf8(write_image):
    path = os.fsdecode(b"caf\xe9.png")
    folder = write_image("a.png").rename(write_image("a.png").parent / path).parent
    assert rgb(folder / path) == [1, 0, 0]
    (folder / path).write_bytes(b"no image")
    with pytest.raises(InputError, match=r"/caf\\xe9\.png is not an image") as caught:
        read_image(folder / path, (4, 4), 3)
    assert str(caught.value).encode()


@pytest.mark.parametrize("read", [lambda path: read_image(path, (4, 4), 3), lambda path: read_audio(path, 8000, 8000)])
def test_what_is_no_file(tmp_path, read):
    os.mkfifo(tmp_path / "a.png")
    (tmp_path / "b.png").symlink_to("b.png")
    for name, message in (
        ("", "is a folder, not a file"),
        ("a.png", "is not a regular file but a pipe"),
        ("b.png", "b.png cannot be opened: Too many levels of symbolic links"),
        ("c" * 300, "cannot be opened: File name too long"),
        ("c\0.png", r"c\\x00\.png cannot be opened"),
    ):
        with pytest.raises(InputError, match=message):
            read(str(tmp_path / name))


def test_sizing_takes_the_central_part():
    pixels = np.zeros((4, 12), np.uint8)
    pixels[:, 4:8] = 255
    assert read_image(pixels, (4, 4), 1).eq(1).all()
    assert read_image(pixels, (2, 2), 3).eq(1).all()
    assert read_image(pixels.T, (8, 8), 1).eq(1).all()
    assert read_image(pixels, (2, 6), 1).shape == (1, 2, 6)
    assert read_image(np.zeros((1, 100_000), np.uint8), (28, 28), 1).shape == (1, 28, 28)


def test_grey_of_colour_is_luma():
    green = np.zeros((2, 2, 3), np.uint8)
    green[..., 1] = 255
    assert read_image(green, (2, 2), 1).mean().item() == pytest.approx(0.587, abs=0.005)


def test_the_array_is_left_as_it_was():
    pixels = np.full((8, 8), 200, np.uint8)
    read_image(pixels, (8, 8), 1, ImageAugment(erase=1.0, flip=True))
    assert (pixels == 200).all()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "is empty"),
        (
            b"no image at all",
            "an image that can be read: its kind is unknown to Pillow, it begins with b'no image at '",
        ),
        (None, "is not found"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 8 8\n%%EndComments\n", "it is PostScript"),
        (
            b"\x89PNG\r\n\x1a\n"
            + png_chunk(b"IHDR", struct.pack(">IIBBBBB", 30_000, 30_000, 8, 2, 0, 0, 0))
            + png_chunk(b"IDAT", b""),
            r"too large: Image size \(900000000 pixels\) exceeds limit of 178956970 pixels",
        ),
    ],
)
def test_broken_files(tmp_path, content, message):
    path = tmp_path / "a.png"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(InputError, match=rf"a\.png.*{message}"):
        read_raw(DataSpec("image", ("a", "b"), preprocessing={"size": [4, 4], "channels": 3}), str(path))


@pytest.mark.parametrize("name", ["a.png", "a.jpg", "a.gif", "a.tif", "a.webp"])
def test_truncated_files(tmp_path, name):
    from PIL import Image

    path = tmp_path / name
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)).save(path)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.raises(InputError, match=name):
        read_image(str(path), (4, 4), 3)


def test_values_out_of_range(write_image):
    with pytest.raises(InputError, match=r"a\.tif: its values reach from 7 to 7"):
        read_image(str(write_image("a.tif", "F", colour=7.0)), (4, 4), 3)
    with pytest.raises(InputError, match=r"a\.tif: it has values that are not numbers"):
        read_image(str(write_image("a.tif", "F", colour=float("nan"))), (4, 4), 3)


@pytest.mark.parametrize("array", [np.zeros((4, 4)), np.zeros((4, 4, 2), np.uint8), np.zeros((0, 4), np.uint8)])
def test_wrong_arrays(array):
    with pytest.raises(InputError, match="it must be uint8"):
        read_image(array, (4, 4), 1)


@pytest.mark.parametrize(
    "augment",
    [
        ImageAugment(crop_padding=2),
        ImageAugment(flip=True),
        ImageAugment(random_resized_crop=(0.3, 1.0)),
        ImageAugment(rand_augment="rand-m9-mstd0.5-inc1"),
        ImageAugment(affine=Affine(30, 0.2, 0.2)),
        ImageAugment(erase=0.9),
    ],
)
@pytest.mark.parametrize("channels", [1, 3])
def test_augmentations_change_images_within_bounds(augment, channels):
    pixels = np.random.default_rng(0).integers(0, 256, (12, 16, channels), dtype=np.uint8)
    plain = read_image(pixels, (12, 16), channels)
    seen = [read_image(pixels, (12, 16), channels, augment) for _ in range(12)]
    assert all(x.shape == plain.shape and x.min() >= 0 and x.max() <= 1 for x in seen)
    assert not all(torch.equal(x, plain) for x in seen)


def test_no_augmentation_is_the_plain_image():
    pixels = np.random.default_rng(0).integers(0, 256, (8, 8), dtype=np.uint8)
    assert torch.equal(read_image(pixels, (8, 8), 1, ImageAugment()), read_image(pixels, (8, 8), 1))
    still = read_image(pixels, (8, 8), 1, ImageAugment(affine=Affine()))
    torch.testing.assert_close(still, read_image(pixels, (8, 8), 1), atol=1e-5, rtol=0)


def test_affine_turns_without_distortion(monkeypatch):
    pixels = np.zeros((16, 32), np.uint8)
    pixels[6:10, 10:22] = 255  # a bar of 4 x 12, which a quarter turn stands upright
    monkeypatch.setattr("random.uniform", lambda low, high: high)
    turned = read_image(pixels, (16, 32), 1, ImageAugment(affine=Affine(degrees=90)))[0] > 0.5
    expected = torch.zeros(16, 32, dtype=torch.bool)
    expected[2:14, 14:18] = True
    assert torch.equal(turned, expected)


def test_strongest_posterizing_keeps_a_bit():
    pixels = np.full((8, 8, 3), 255, np.uint8)
    transform = rand_augment("rand-m10-n1-t0", 8, 8, 3)
    from PIL import Image
    from timm.data.auto_augment import posterize

    (op,) = [op for op in transform.ops if op.aug_fn is posterize]
    op.prob = 1.0
    assert np.asarray(op(Image.fromarray(pixels))).max() >= 128


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda s: ImageData(s, channels=4), "channels is 4"),
        (lambda s: ImageData(s, size=0), "size is 0"),
        (lambda s: ImageData(s, batch_size=0).setup(), "batch_size is 0"),
        (lambda s: ImageAugment(erase=2.0), "erase"),
        (lambda s: ImageAugment(random_resized_crop=(0.5, 0.1)), "random_resized_crop"),
        (lambda s: ImageAugment(affine=Affine(scale=1.5)), "scale"),
        (lambda s: ImageData(s, augment=ImageAugment(rand_augment="strong")).setup(), "timm's notation"),
    ],
)
def test_wrong_arguments(images, build, message):
    with pytest.raises(InputError, match=message):
        build(images())


def test_a_batch_and_the_spec(images):
    data = ImageData(images(), size=(6, 10), channels=3, batch_size=4, seed=1)
    data.setup()
    spec = data.specs["image"]
    assert spec == DataSpec("image", ("even", "odd"), False, {"size": [6, 10], "channels": 3})
    batch = next(iter(data.train_dataloader()))
    assert batch["task"] == "image" and batch["image"].shape == (4, 3, 6, 10)
    assert batch["label"].dtype == torch.int64
    assert [int(name[1:]) % 2 for name in batch["id"]] == batch["label"].tolist()
    assert data.summary() == "image: 40 examples, 2 classes, 32 train / 4 val / 4 test"
    sample = data.fit_sample(7)["image"]
    assert len(sample) == 7 and sample[0].shape == (3, 6, 10)
    assert len(data.fit_sample()["image"]) == 32


def test_no_examples(given):
    with pytest.raises(InputError, match="no examples"):
        ImageData(given(Examples([], [], [])), size=8, channels=1).setup()


def test_size_of_the_first_image(write_image, images):
    data = ImageData(images())
    data.setup()
    assert data.specs["image"].preprocessing == {"size": [8, 8], "channels": 1}
    for name in ("a/1.png", "b/1.png", "a/2.png", "b/2.png"):
        path = write_image(name, size=(600, 3))
    with pytest.raises(InputError, match=r"size is not given and the first image, a/1\.png, has 3 x 600"):
        ImageData(ImageFolder(str(path.parents[1]))).setup()
    data = ImageData(ImageFolder(str(path.parents[1])), size=4, split=ByRatio(val=0, test=0.3))
    data.setup()
    assert data.specs["image"].preprocessing == {"size": [4, 4], "channels": 3}
    assert data.val_dataloader() == []


def test_multilabel_batches(given):
    pixels = list(np.zeros((12, 4, 4), np.uint8))
    labels = [("cat", "dog"), (), ("dog",)] * 4
    data = ImageData(given(Examples(pixels, labels, [str(i) for i in range(12)])), batch_size=3)
    data.setup()
    assert data.specs["image"].multilabel and data.specs["image"].classes == ("cat", "dog")
    expected = {0: [1.0, 1.0], 1: [0.0, 0.0], 2: [0.0, 1.0]}
    for batch in data.train_dataloader():
        assert batch["label"].dtype == torch.float32
        assert batch["label"].tolist() == [expected[int(name) % 3] for name in batch["id"]]


def test_no_test_split(given):
    pixels = list(np.zeros((4, 4, 4), np.uint8))
    split = ["train", "train", "val", "val"]
    data = ImageData(given(Examples(pixels, ["a", "b"] * 2, ["0", "1", "2", "3"], split)))
    data.setup()
    with pytest.raises(InputError, match="no test split"):
        data.test_dataloader()
