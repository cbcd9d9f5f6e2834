"""Token mixers: what moves information between tokens, one mechanism a file."""

from mmeff.mixers.attention import Attention
from mmeff.mixers.base import Mixer
from mmeff.mixers.gated_conv import GatedConv
from mmeff.mixers.linear_attention import LinearAttention
from mmeff.mixers.parallel import Parallel
from mmeff.mixers.scan2d import SS2D, SeparableScan, TimeFrequency, WavefrontScan
from mmeff.mixers.selective_scan import BiMamba, Mamba
from mmeff.mixers.sliding_attention import SlidingAttention
from mmeff.mixers.window_attention import WindowAttention

__all__ = [
    "SS2D",
    "Attention",
    "BiMamba",
    "GatedConv",
    "LinearAttention",
    "Mamba",
    "Mixer",
    "Parallel",
    "SeparableScan",
    "SlidingAttention",
    "TimeFrequency",
    "WavefrontScan",
    "WindowAttention",
]
