import pytest
import torch
import torch.nn.functional as F

from mmeff.tokenizers import ImagePatches, ImageStem, NoPositions
from mmeff.tokenizers.image import PixelNorm

SIZES = [(1, 1), (3, 50), (16, 16), (17, 31), (32, 8), (224, 200)]


@pytest.mark.parametrize(("H", "W"), SIZES)
@pytest.mark.parametrize(("patch", "stride"), [(16, None), (16, 10), (4, 4), (3, 5)])
def test_patches_cover_the_image_and_no_more(H: int, W: int, patch: int, stride: int | None) -> None:
    tokens = ImagePatches(8, patch, stride, positions=NoPositions)(torch.rand(2, 3, H, W))
    s = stride or patch
    for n, cells in zip((H, W), tokens.grid, strict=True):
        end = (cells - 1) * s + patch
        assert end >= n and (cells == 1 or end - s < n)


def test_a_token_is_the_linear_map_of_its_patch() -> None:
    tokenizer = ImagePatches(8, patch=4, stride=3, positions=NoPositions)
    image = torch.rand(1, 3, 10, 13)
    x, grid, _ = tokenizer(image)
    assert grid == (3, 4)
    patch = tokenizer.norm(image)[0, :, 6:10, 3:7]  # the cell (2, 1)
    expected = F.linear(patch.flatten(), tokenizer.project.weight.flatten(1), tokenizer.project.bias)
    torch.testing.assert_close(x[0, 2 * 4 + 1], expected)


def test_what_is_missing_to_a_patch_is_the_mean_colour() -> None:
    tokenizer = ImagePatches(8, patch=4, positions=NoPositions)
    tokenizer.fit([torch.rand(3, 9, 9) for _ in range(3)])
    image = torch.rand(1, 3, 6, 3)
    filled = tokenizer.norm.mean.expand(3, 8, 4).clone()
    filled[:, :6, :3] = image[0]
    torch.testing.assert_close(tokenizer(image).x, tokenizer(filled[None]).x)


@pytest.mark.parametrize(("H", "W"), SIZES)
def test_the_stem_halves_the_image_at_each_convolution(H: int, W: int) -> None:
    tokens = ImageStem(8, [4, 6, 8], positions=NoPositions).eval()(torch.rand(2, 3, H, W))
    assert tokens.grid == (-(-H // 8), -(-W // 8))


def test_pixels_are_normalised_by_the_training_images() -> None:
    torch.manual_seed(0)
    images = [torch.rand(2, h, 7) * torch.tensor([1.0, 0.2])[:, None, None] for h in (5, 9, 30)]
    norm = PixelNorm(2)
    norm.fit(images)
    pixels = torch.cat([norm(image[None])[0].flatten(1) for image in images], 1)
    torch.testing.assert_close(pixels.mean(1), torch.zeros(2), atol=1e-5, rtol=0)
    torch.testing.assert_close(pixels.std(1, correction=0), torch.ones(2))


def test_images_of_one_colour_stay_finite() -> None:
    norm = PixelNorm(1)
    norm.fit([torch.full((1, 4, 4), 0.3)])
    assert norm(torch.full((1, 1, 4, 4), 0.3)).abs().max() < 1e-3


@pytest.mark.parametrize("given", [1, 4])
def test_other_channels_are_refused_before_training(given: int) -> None:
    with pytest.raises(ValueError, match="`channels`"):
        ImagePatches(8).fit([torch.rand(given, 16, 16)])
    with pytest.raises(ValueError, match="`channels`"):
        ImagePatches(8)(torch.rand(2, given, 16, 16))


def test_a_patch_larger_than_the_images_is_refused_before_training() -> None:
    ImagePatches(8, patch=16).check({"size": [8, 16], "channels": 3})  # the shorter side is padded
    with pytest.raises(ValueError, match=r"patch is 1000 and the images have 8 x 16 pixels: .* such as 2"):
        ImagePatches(8, patch=1000).check({"size": [8, 16], "channels": 3})
