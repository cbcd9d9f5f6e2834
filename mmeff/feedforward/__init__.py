"""Channel mixers: what transforms each token by itself."""

from mmeff.feedforward.base import ChannelMixer
from mmeff.feedforward.mlp import MLP, SwiGLU
from mmeff.feedforward.moe import MoE

__all__ = ["MLP", "ChannelMixer", "MoE", "SwiGLU"]
