"""Kinds of signals: all that is known of images, sounds, texts and series, one module each.

A kind has the name of its module: `of("image")` is `mmeff.signals.image.SIGNAL`. Outside this package, the tokenizers
and the data modules nothing asks which kind a signal is of.
"""

from mmeff.signals.base import Signal, names, of
from mmeff.signals.spec import DataSpec, collate, read_raw

__all__ = ["DataSpec", "Signal", "collate", "names", "of", "read_raw"]
