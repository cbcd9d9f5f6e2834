"""Images: every kind of file, sizing, augmentation."""

import numpy as np
import pytest
import torch

from mmeff.data import Affine, ByRatio, Examples, ImageAugment, ImageData, ImageFolder, read_raw
from mmeff.data.image import rand_augment, read_image
from mmeff.errors import InputError
from mmeff.spec import DataSpec


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


def test_exif_turns_the_image(tmp_path):
    from PIL import Image

    pixels = np.zeros((4, 8), np.uint8)
    pixels[:, :4] = 255  # the left half; turned clockwise it is the upper half
    image = Image.fromarray(pixels)
    exif = image.getexif()
    exif[0x0112] = 6
    image.save(tmp_path / "a.png", exif=exif)
    turned = read_image(str(tmp_path / "a.png"), (8, 4), 1)
    assert torch.equal(turned[0], torch.tensor([1.0, 0.0]).repeat_interleave(4)[:, None].expand(8, 4))


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
    ("content", "message"), [(b"", "is empty"), (b"no image", "not an image"), (None, "is not found")]
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
        (lambda s: ImageData(s, size=0), r"size is \(0, 0\)"),
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
