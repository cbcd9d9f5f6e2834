"""Depthwise convolution that runs on sequences and on images with the same weights."""

import torch.nn.functional as F
from torch import Tensor, nn

from mmeff.errors import InputError, whole


def odd(**sizes: int) -> None:
    """InputError for the first size that is not odd and positive: only such a convolution is centred."""
    whole(1, **sizes)
    for name, size in sizes.items():
        if size % 2 == 0:
            raise InputError(f"{name} is {size}; it must be odd")


class GridConv(nn.Module):
    """Depthwise convolution over the grid, centred, zeros outside: (B, L, D) -> (B, L, D).

    One k x k kernel a channel. A 1-D grid of L tokens is an image of 1 x L pixels: it meets the kernel's middle row
    alone. So one module, and one checkpoint, serves both; the other rows are idle on a 1-D grid.
    """

    def __init__(self, dim: int, kernel: int) -> None:
        super().__init__()
        whole(1, dim=dim)
        odd(kernel=kernel)
        self.conv = nn.Conv2d(dim, dim, kernel, padding=kernel // 2, groups=dim)

    def forward(self, x: Tensor, grid: tuple[int, ...]) -> Tensor:
        """x (B, L, D), zero in the padding. ValueError if the grid has more than 2 axes."""
        if len(grid) > 2:
            raise ValueError(f"GridConv serves grids of 1 or 2 axes, not {grid}")
        channels_first = x.transpose(1, 2).unflatten(2, grid)
        if len(grid) == 2:
            y = self.conv(channels_first)
        else:
            k = self.conv.kernel_size[0]
            row = self.conv.weight[:, :, k // 2 : k // 2 + 1]
            # As an image of one row: torch's 2-D kernels leave the channels innermost, those for 1-D are 3x slower.
            y = F.conv2d(channels_first.unsqueeze(2), row, self.conv.bias, padding=(0, k // 2), groups=len(row))
        return y.flatten(2).transpose(1, 2)
