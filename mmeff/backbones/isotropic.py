"""Isotropic: the same width and grid from the first block to the last (ViT, Vim, AuM)."""

from torch import nn

from mmeff.backbones.base import Backbone
from mmeff.backbones.block import Block, Channels, Mixers, run
from mmeff.errors import InputError, whole, within
from mmeff.feedforward import MLP
from mmeff.mixers import Attention
from mmeff.tokens import Tokens


class Isotropic(Backbone):
    """`depth` blocks of one width, then a norm. Lists of mixers and channel mixers are tiled over the depth."""

    def __init__(
        self,
        dim: int = 192,
        depth: int = 12,
        mixer: Mixers = Attention,
        channel: Channels = MLP,
        drop_path: float = 0.0,
        recompute: bool = False,
        layer_scale: float | None = None,
    ):
        """
        Args:
            dim: width.
            depth: number of blocks.
            mixer: token mixer of each block; a list is a pattern that repeats ([scan, scan, attention]).
            channel: channel mixer of each block, likewise; null for blocks without one (Vim, MambaOut).
            drop_path: chance of leaving out the last block's branches in training; rises linearly from 0 at the first.
            recompute: save memory by computing activations again in the backward pass, all but the results of scans
                and of attention.
            layer_scale: first value of a learned factor per channel on each branch; null for none.
        """
        super().__init__()
        whole(1, dim=dim, depth=depth)
        within("[0, 1)", drop_path=drop_path)
        self.in_dim = self.out_dim = dim
        self.recompute = recompute
        mixers = mixer if isinstance(mixer, list) else [mixer]
        channels = channel if isinstance(channel, list) else [channel]
        if not mixers or not channels:
            raise InputError(
                f"a backbone has {len(mixers)} mixers and {len(channels)} channel mixers; a list of them needs one"
            )
        self.blocks = nn.ModuleList()
        for i in range(depth):
            make_mixer, make_channel = mixers[i % len(mixers)], channels[i % len(channels)]
            rate = drop_path * i / max(depth - 1, 1)
            parts = make_mixer(dim), make_channel(dim) if make_channel else None
            self.blocks.append(Block(dim, *parts, rate, layer_scale))
        self.norm = nn.LayerNorm(dim)

    def forward(self, tokens: Tokens) -> Tokens:
        x = run(self.blocks, tokens.x, tokens.grid, tokens.lengths, self.recompute)
        return tokens._replace(x=self.norm(x))

    def layers(self) -> list[nn.Module]:
        return [*self.blocks, self.norm]
