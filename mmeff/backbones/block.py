"""The block that every backbone repeats."""

import re
from collections.abc import Callable
from functools import partial
from typing import Any, Literal

from torch import Tensor, nn
from torch.utils.checkpoint import CheckpointPolicy, checkpoint, create_selective_checkpoint_contexts

from mmeff.errors import whole, within
from mmeff.feedforward import ChannelMixer
from mmeff.mixers import Mixer
from mmeff.norm import LayerNorm


class Block(nn.Module):
    """x = x + mixer(norm(x)); x = x + channel(norm(x)), the second line only if there is a channel mixer.

    Pre-norm residual (Xiong et al. 2020). The last branch is added by the next block, whose norm reads the sum:
    `branch` is what the block before left to be added to x, and a block returns x and its own. `drop_path` is the
    chance that a branch is left out for an example in training (stochastic depth, Huang et al. 2016). With
    `layer_scale` each branch is multiplied by a learned factor per channel that begins there (Touvron et al. 2021).
    """

    def __init__(
        self,
        dim: int,
        mixer: Mixer,
        channel: ChannelMixer | None,
        drop_path: float = 0.0,
        layer_scale: float | None = None,
    ):
        super().__init__()
        from timm.layers.drop import DropPath
        from timm.layers.layer_scale import LayerScale

        whole(1, dim=dim)
        within("[0, 1)", drop_path=drop_path)
        if layer_scale is not None:
            within("(0, inf)", layer_scale=layer_scale)
        self.norm1, self.mixer = LayerNorm(dim), mixer
        self.norm2, self.channel = (None, None) if channel is None else (LayerNorm(dim), channel)
        self.scale1 = nn.Identity() if layer_scale is None else LayerScale(dim, layer_scale)
        self.scale2 = nn.Identity() if layer_scale is None or channel is None else LayerScale(dim, layer_scale)
        self.drop = DropPath(drop_path) if drop_path else nn.Identity()

    def forward(
        self, x: Tensor, branch: Tensor | None, grid: tuple[int, ...], lengths: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        x, y = self.norm1.of_sum(x, branch)
        mixed: Tensor = self.drop(self.scale1(self.mixer(y, grid, lengths)))
        if self.norm2 is None or self.channel is None:
            return x, mixed
        x, y = self.norm2.of_sum(x, mixed)
        return x, self.drop(self.scale2(self.channel(y, lengths)))


MixerFactory = Callable[[int], Mixer]
ChannelFactory = Callable[[int], ChannelMixer]
# In this order: where a callable stands first, jsonargparse cannot write a list or a null back into YAML.
Mixers = list[MixerFactory] | MixerFactory
Channels = list[Literal[None] | ChannelFactory] | ChannelFactory | None


#: Operators whose results are kept where all else is computed again, for they take most of a block's time: the forward
#: passes of all our kernels that are torch operators (scans, linear attention), and torch's attention.
KEPT = re.compile(r"mmeff::\w+_forward|aten::_scaled_dot_product_\w*attention\w*")


def _keep(context: Any, operator: Any, *arguments: Any, **options: Any) -> CheckpointPolicy:
    kept = KEPT.fullmatch(operator._schema.name)
    return CheckpointPolicy.MUST_SAVE if kept else CheckpointPolicy.PREFER_RECOMPUTE


_CONTEXTS = partial(create_selective_checkpoint_contexts, _keep)


def run(blocks: nn.ModuleList, x: Tensor, grid: tuple[int, ...], lengths: Tensor | None, recompute: bool) -> Tensor:
    """All blocks in order; with `recompute`, activations inside a block are computed again in the backward pass, but
    for the results of scans and of attention."""
    # Tokens of a convolution lie channels first. Sums would keep that order, and every norm copy it.
    x, branch = x.contiguous(), None
    for block in blocks:
        if recompute and x.requires_grad:
            x, branch = checkpoint(block, x, branch, grid, lengths, use_reentrant=False, context_fn=_CONTEXTS)  # type: ignore[misc]
        else:
            x, branch = block(x, branch, grid, lengths)
    return x if branch is None else x + branch
