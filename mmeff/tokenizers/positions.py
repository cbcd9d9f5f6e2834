"""Position embeddings that are added to tokens on a grid of any shape."""

import math
from abc import ABC, abstractmethod

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mmeff.errors import whole, within
from mmeff.tokens import Tokens
from mmeff_kernels.kept import kept


class Positions(nn.Module, ABC):
    """Tokens -> Tokens with positions added. Built as `Cls(dim, ...)`."""

    @abstractmethod
    def forward(self, tokens: Tokens) -> Tokens: ...


class NoPositions(Positions):
    """Leaves tokens as they are: for mixers that know the order (scans, convolutions, rotary attention)."""

    def __init__(self, dim: int):
        super().__init__()
        whole(1, dim=dim)

    def forward(self, tokens: Tokens) -> Tokens:
        return tokens


class LearnedPositions(Positions):
    """One learned vector per cell of `grid`.

    A batch of full rows on another grid gets the table resampled (bicubic, as ViT does for other image sizes).
    A padded batch gets the table's first cells along the padded axis instead, because a table that was stretched to
    the longest row would make each row depend on its neighbours; it raises ValueError past the table's end.
    """

    def __init__(self, dim: int, grid: list[int] = [14, 14]):  # noqa: B006 (jsonargparse wants a plain default)
        super().__init__()
        whole(1, dim=dim, grid=grid)
        self.grid = tuple(grid)
        self.table = nn.Parameter(torch.empty(math.prod(grid), dim))
        nn.init.trunc_normal_(self.table, std=0.02)
        self.table._no_weight_decay = True  # type: ignore[attr-defined]

    def forward(self, tokens: Tokens) -> Tokens:
        x, grid, lengths = tokens
        if len(grid) != len(self.grid):
            raise ValueError(f"learned positions on a {self.grid} grid cannot serve tokens on a {grid} grid")
        table = self.table
        if grid != self.grid:
            table = self._resampled(grid) if lengths is None else self._cropped(grid)
        return tokens._replace(x=x + table)

    def _resampled(self, grid: tuple[int, ...]) -> Tensor:
        table = self.table.unflatten(0, self.grid)  # (H, W, D)
        with torch.autocast(table.device.type, enabled=False):
            for axis, (old, new) in enumerate(zip(self.grid, grid, strict=True)):
                weights = resampling(old, new, table.dtype, table.device)
                table = (weights @ table.movedim(axis, -2)).movedim(-2, axis)
        return table.flatten(0, -2)

    def _cropped(self, grid: tuple[int, ...]) -> Tensor:
        if grid[0] > self.grid[0] or grid[1:] != self.grid[1:]:
            raise ValueError(
                f"learned positions on a {self.grid} grid end before the {grid} grid of this padded batch: "
                "give them a larger grid, or take SinusoidalPositions"
            )
        return self.table[: math.prod(grid)]


@kept
def resampling(old: int, new: int, dtype: torch.dtype, device: torch.device) -> Tensor:
    """Weights (new, old) of bicubic interpolation along an axis, made once for its sizes: products with them stand for
    `F.interpolate`, which with its gradient takes 1.6 ms of each step on an H200 (14 x 14 to 78 x 78 cells, 192 wide).
    """
    unit = torch.eye(old, dtype=torch.float32)[None, :, :, None]  # each old cell as an image of its own channel
    return F.interpolate(unit, size=(new, 1), mode="bicubic")[0, :, :, 0].T.to(device, dtype)


class SinusoidalPositions(Positions):
    """Fixed sines and cosines, an equal share of the width for each axis of the grid, times one learned scale.

    For axis coordinate p and frequency w_k = 10000^(-k/m), k < m: sin(p w_k), cos(p w_k)
    (Vaswani et al. 2017, section 3.5, one axis after the other).
    """

    def __init__(self, dim: int, scale: float = 0.1):
        super().__init__()
        whole(1, dim=dim)
        within("(-inf, inf)", scale=scale)
        self.dim = dim
        self.scale = nn.Parameter(torch.tensor(float(scale)))

    def forward(self, tokens: Tokens) -> Tokens:
        x, grid, _ = tokens
        m = self.dim // (2 * len(grid))  # frequencies an axis
        if m == 0:
            raise ValueError(f"width {self.dim} is too small for sinusoids on {len(grid)} axes")
        w = 10000.0 ** (-torch.arange(m, device=x.device, dtype=torch.float32) / m)
        axes = torch.meshgrid(*(torch.arange(n, device=x.device, dtype=torch.float32) for n in grid), indexing="ij")
        angles = torch.stack(axes).reshape(len(grid), -1, 1) * w  # (axes, L, m)
        table = torch.cat([angles.sin(), angles.cos()], dim=-1).permute(1, 0, 2).flatten(1)  # (L, axes * 2m)
        table = F.pad(table, (0, self.dim - table.shape[1]))
        return tokens._replace(x=x + (self.scale * table).to(x.dtype))
