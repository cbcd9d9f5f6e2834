"""Pyramid: stages of growing width on a shrinking grid (Swin, VMamba, MambaVision)."""

import inspect
import math
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn

from mmeff.backbones.base import Backbone, Downsampler
from mmeff.backbones.block import Block, Channels, Mixers, run
from mmeff.errors import whole, within
from mmeff.feedforward import MLP
from mmeff.mixers import Attention
from mmeff.tokens import Tokens, zero_padding


class Downsample(Downsampler):
    """Halves every axis of the grid (rounding up) and changes the width: norm, smooth, keep every second, project.

    The smoothing is one depthwise filter of three taps, the same along every axis, so that one module serves
    sequences, images and spectrograms: y[2i] = w_0 x[2i-1] + w_1 x[2i] + w_2 x[2i+1] for each axis in turn.
    """

    def __init__(self, dim: int, out_dim: int):
        super().__init__()
        whole(1, dim=dim, out_dim=out_dim)
        self.norm = nn.LayerNorm(dim)
        self.taps = nn.Parameter(torch.tensor([0.25, 0.5, 0.25]).repeat(dim, 1)[:, None])  # (D, 1, 3)
        self.project = nn.Linear(dim, out_dim)

    def forward(self, tokens: Tokens) -> Tokens:
        x, grid, lengths = tokens
        x = zero_padding(self.norm(x), lengths)
        B, _, D = x.shape
        for axis, n in enumerate(grid):
            after = math.prod(grid[axis + 1 :])
            x = x.reshape(-1, n, after, D).transpose(1, 2).reshape(-1, n, D)  # every line along this axis
            x = F.conv1d(x.mT, self.taps.to(x.dtype), stride=2, padding=1, groups=D).mT
            half = x.shape[1]
            x = x.reshape(-1, after, half, D).transpose(1, 2)
            grid = (*grid[:axis], half, *grid[axis + 1 :])
        if lengths is not None:
            rows = lengths * tokens.grid[0] // math.prod(tokens.grid)
            lengths = (rows + 1) // 2 * math.prod(grid[1:])
        return Tokens(self.project(x.reshape(B, -1, D)), grid, lengths)


class Stage(nn.Module):
    """An optional downsampling, then blocks."""

    def __init__(self, downsample: Downsampler | None, blocks: list[Block]):
        super().__init__()
        self.downsample = downsample
        self.blocks = nn.ModuleList(blocks)

    def forward(self, tokens: Tokens, recompute: bool) -> Tokens:
        if self.downsample is not None:
            tokens = self.downsample(tokens)
        return tokens._replace(x=run(self.blocks, *tokens, recompute))


class Pyramid(Backbone):
    """Stages on grids that halve from one to the next, then a norm."""

    def __init__(
        self,
        dims: list[int] = [64, 128, 256],  # noqa: B006 (jsonargparse wants a plain default)
        depths: list[int] = [2, 2, 2],  # noqa: B006
        mixer: Mixers = Attention,
        channel: Channels = MLP,
        drop_path: float = 0.0,
        recompute: bool = False,
        downsample: Callable[[int, int], Downsampler] = Downsample,
        layer_scale: float | None = None,
    ):
        """
        Args:
            dims: width of each stage.
            depths: number of blocks of each stage.
            mixer: token mixer; a list gives one for each stage ([convolution, scan, attention]).
            channel: channel mixer, likewise; null for blocks without one.
            drop_path: chance of leaving out the last block's branches in training; rises linearly from 0 at the first.
            recompute: save memory by computing activations again in the backward pass, all but the results of scans
                and of attention.
            downsample: between two stages, from one width to the next.
            layer_scale: first value of a learned factor per channel on each branch; null for none.
        """
        super().__init__()
        whole(1, dims=dims, depths=depths)
        within("[0, 1)", drop_path=drop_path)
        mixers = mixer if isinstance(mixer, list) else [mixer] * len(dims)
        channels = channel if isinstance(channel, list) else [channel] * len(dims)
        if not len(dims) == len(depths) == len(mixers) == len(channels):
            raise ValueError(
                f"stages do not agree: {len(dims)} dims, {len(depths)} depths, {len(mixers)} mixers, "
                f"{len(channels)} channel mixers"
            )
        self.in_dim, self.out_dim = dims[0], dims[-1]
        self.recompute = recompute
        rates = iter(torch.linspace(0, drop_path, sum(depths)).tolist())
        self.stages = nn.ModuleList()
        for i, (dim, depth, make_mixer, make_channel) in enumerate(zip(dims, depths, mixers, channels, strict=True)):
            blocks = [
                Block(dim, make_mixer(dim), make_channel(dim) if make_channel else None, next(rates), layer_scale)
                for _ in range(depth)
            ]
            self.stages.append(Stage(downsample(dims[i - 1], dim) if i else None, blocks))
        self.norm = nn.LayerNorm(dims[-1])

    def features(self, tokens: Tokens) -> list[Tokens]:
        found = []
        for stage in self.stages:
            tokens = stage(tokens, self.recompute)
            found.append(tokens)
        return [*found[:-1], tokens._replace(x=self.norm(tokens.x))]

    def forward(self, tokens: Tokens) -> Tokens:
        return self.features(tokens)[-1]

    @classmethod
    def resized(cls, arguments: dict[str, Any], width: int | None = None, depth: int | None = None) -> dict[str, Any]:
        """All stages are widened alike; the depth stays, for it is one of each stage."""
        if width is None:
            return arguments
        dims = arguments.get("dims") or inspect.signature(cls).parameters["dims"].default
        return {**arguments, "dims": [round(dim * width / dims[0]) for dim in dims]}

    def layers(self) -> list[nn.Module]:
        blocks: list[nn.Module] = []
        for stage in self.stages:
            blocks += [m for m in (stage.downsample, *stage.blocks) if m is not None]  # type: ignore[union-attr]
        return [*blocks, self.norm]
