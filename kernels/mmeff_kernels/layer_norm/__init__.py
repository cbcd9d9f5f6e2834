"""Layer normalisation from one type to another in one pass."""

from .op import layer_norm

__all__ = ["layer_norm"]
