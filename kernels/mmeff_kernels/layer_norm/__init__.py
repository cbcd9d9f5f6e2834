"""Layer normalisation from one type to another in one pass, alone or of a residual sum."""

from .op import add_layer_norm, layer_norm

__all__ = ["add_layer_norm", "layer_norm"]
