"""Short depthwise convolution along the tokens, in several directions at once, with its bias and SiLU."""

from .op import short_conv

__all__ = ["short_conv"]
