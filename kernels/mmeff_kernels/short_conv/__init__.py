"""Short depthwise convolution along the tokens, in several directions at once, with its bias and SiLU."""

from .op import Side, short_conv

__all__ = ["Side", "short_conv"]
