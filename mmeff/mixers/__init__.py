"""Token mixers: what moves information between tokens, one mechanism a file."""

from mmeff.mixers.attention import Attention
from mmeff.mixers.base import Mixer
from mmeff.mixers.corner_scan import SeparableScan, WavefrontScan
from mmeff.mixers.gated_conv import GatedConv
from mmeff.mixers.gla import GLA
from mmeff.mixers.hgrn2 import HGRN2
from mmeff.mixers.hydra import Hydra
from mmeff.mixers.linear_attention import LinearAttention
from mmeff.mixers.mila import MILA
from mmeff.mixers.mlstm import MLSTM
from mmeff.mixers.parallel import Parallel
from mmeff.mixers.retention import Retention
from mmeff.mixers.rwkv6 import RWKV6
from mmeff.mixers.scan2d import SS2D, TimeFrequency
from mmeff.mixers.selective_scan import BiMamba, Mamba
from mmeff.mixers.sliding_attention import SlidingAttention
from mmeff.mixers.ssd import SSD, BiSSD
from mmeff.mixers.vision_rwkv import VisionRWKV
from mmeff.mixers.vssd import VSSD
from mmeff.mixers.window_attention import WindowAttention

__all__ = [
    "GLA",
    "HGRN2",
    "MILA",
    "MLSTM",
    "RWKV6",
    "SS2D",
    "SSD",
    "VSSD",
    "Attention",
    "BiMamba",
    "BiSSD",
    "GatedConv",
    "Hydra",
    "LinearAttention",
    "Mamba",
    "Mixer",
    "Parallel",
    "Retention",
    "SeparableScan",
    "SlidingAttention",
    "TimeFrequency",
    "VisionRWKV",
    "WavefrontScan",
    "WindowAttention",
]
