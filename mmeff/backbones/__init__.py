"""Tokens -> Tokens: blocks of one token mixer and one channel mixer, stacked."""

from mmeff.backbones.base import Backbone, Downsampler
from mmeff.backbones.block import Block
from mmeff.backbones.isotropic import Isotropic
from mmeff.backbones.pyramid import Downsample, Pyramid

__all__ = ["Backbone", "Block", "Downsample", "Downsampler", "Isotropic", "Pyramid"]
