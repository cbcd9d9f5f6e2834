"""Images (B, C, H, W) -> Tokens on an (H', W') grid."""

from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mmeff.errors import InputError, whole
from mmeff.tokenizers.base import Tokenizer, check_raw
from mmeff.tokenizers.dropout import TokenDropout
from mmeff.tokenizers.moments import moments
from mmeff.tokenizers.positions import LearnedPositions, Positions
from mmeff.tokens import Tokens


class PixelNorm(nn.Module):
    """(x - mean) / std per channel, the statistics taken once from training images."""

    mean: Tensor
    std: Tensor

    def __init__(self, channels: int):
        super().__init__()
        whole(1, channels=channels)
        self.register_buffer("mean", torch.full((channels, 1, 1), 0.5))
        self.register_buffer("std", torch.full((channels, 1, 1), 0.25))

    def check(self, channels: int) -> None:
        own = len(self.mean)
        if channels != own:
            raise InputError(
                f"the data has images of {channels} channels and the tokenizer is built for {own}: "
                f"set data.channels to {own} or the tokenizer's channels to {channels}"
            )

    def fit(self, images: Sequence[Tensor]) -> None:
        for image in images:
            self._check(image[None])
        mean, std = moments(image.flatten(1) for image in images)
        self.mean.copy_(mean[:, None, None])
        self.std.copy_(std[:, None, None])

    def forward(self, x: Tensor) -> Tensor:
        self._check(x)
        return (x - self.mean) / self.std

    def _check(self, x: Tensor) -> None:
        check_raw(x, "(B, C, H, W)", "[0, 1]")
        if x.shape[1] != len(self.mean):
            raise ValueError(
                f"the tokenizer was built for images (B, {len(self.mean)}, H, W) and got {tuple(x.shape)}: "
                "make its `channels` and the data's `channels` equal"
            )


class ImagePatches(Tokenizer):
    """One linear map of each patch (ViT). H and W that no whole number of patches fills are padded with the mean.

    x_ij = W vec(patch_ij) + b, patches of `patch` x `patch` pixels every `stride` pixels
    (Dosovitskiy et al. 2020, equation 1).
    """

    signal = "image"

    def __init__(
        self,
        dim: int,
        patch: int = 16,
        stride: int | None = None,
        channels: int = 3,
        positions: Callable[[int], Positions] = LearnedPositions,
        token_dropout: float = 0.0,
    ):
        """
        Args:
            dim: width of the tokens, given by the backbone.
            patch: side of a patch in pixels.
            stride: pixels from one patch to the next; less than `patch` overlaps them. None: `patch`.
            channels: colours of the images.
            positions: what is added to the tokens to say where they are.
            token_dropout: share of tokens zeroed in training.
        """
        super().__init__()
        self.patch, self.stride = patch, patch if stride is None else stride
        whole(1, dim=dim, patch=patch, stride=self.stride)
        self.norm = PixelNorm(channels)
        self.project = nn.Conv2d(channels, dim, patch, self.stride)
        self.dropout = TokenDropout(token_dropout)
        self.positions = positions(dim)

    def check(self, preprocessing: dict[str, Any]) -> None:
        self.norm.check(preprocessing["channels"])
        H, W = preprocessing["size"]
        if self.patch > max(H, W):
            raise InputError(
                f"patch is {self.patch} and the images have {H} x {W} pixels: set the tokenizer's patch to a part of "
                f"that, such as {max(1, max(H, W) // 8)}, or data.size to more"
            )

    def fit(self, raw: Sequence[Tensor]) -> None:
        self.norm.fit(raw)

    def forward(self, raw: Tensor, lengths: Tensor | None = None) -> Tokens:
        x = self.norm(raw)
        bottom, right = (self._missing(n) for n in x.shape[2:])
        if bottom or right:  # F.pad copies where nothing is added, too
            x = F.pad(x, (0, right, 0, bottom))
        patches = x.unfold(2, self.patch, self.stride).unfold(3, self.patch, self.stride)  # (B, C, H', W', P, P)
        grid = (patches.shape[2], patches.shape[3])
        # As one product: torch's convolution takes several times as long on a GPU, and leaves channels first.
        pixels = patches.permute(0, 2, 3, 1, 4, 5).flatten(3).flatten(1, 2)
        x = F.linear(pixels, self.project.weight.flatten(1), self.project.bias)
        return self.positions(Tokens(self.dropout(x), grid))

    def _missing(self, n: int) -> int:
        """Pixels to add to an axis of n so that patches cover all of it."""
        return self.patch - n if n < self.patch else -(n - self.patch) % self.stride


class ImageStem(Tokenizer):
    """A convolutional stem: 3 x 3 convolutions of stride 2, each with BatchNorm and GELU, then a 1 x 1 to `dim`.

    Sees edges before tokens are formed, which small data sets and small models need (Xiao et al. 2021, "Early
    convolutions help transformers see better", section 4).
    """

    signal = "image"

    def __init__(
        self,
        dim: int,
        widths: list[int] = [32, 64],  # noqa: B006 (jsonargparse wants a plain default)
        channels: int = 3,
        positions: Callable[[int], Positions] = LearnedPositions,
        token_dropout: float = 0.0,
    ):
        """
        Args:
            dim: width of the tokens, given by the backbone.
            widths: channels after each convolution; each one halves the image, so [32, 64] makes 4 x 4 pixels a token.
            channels: colours of the images.
            positions: what is added to the tokens to say where they are.
            token_dropout: share of tokens zeroed in training.
        """
        super().__init__()
        whole(1, dim=dim, widths=widths)
        self.norm = PixelNorm(channels)
        layers: list[nn.Module] = []
        for c_in, c_out in zip([channels, *widths], widths, strict=False):
            layers += [nn.Conv2d(c_in, c_out, 3, 2, 1, bias=False), nn.BatchNorm2d(c_out), nn.GELU()]
        self.stem = nn.Sequential(*layers)
        self.project = nn.Conv2d(widths[-1], dim, 1)
        self.dropout = TokenDropout(token_dropout)
        self.positions = positions(dim)

    def check(self, preprocessing: dict[str, Any]) -> None:
        self.norm.check(preprocessing["channels"])

    def fit(self, raw: Sequence[Tensor]) -> None:
        self.norm.fit(raw)

    def forward(self, raw: Tensor, lengths: Tensor | None = None) -> Tokens:
        x = self.project(self.stem(self.norm(raw)))
        grid = (x.shape[2], x.shape[3])
        return self.positions(Tokens(self.dropout(x.flatten(2).mT), grid))
