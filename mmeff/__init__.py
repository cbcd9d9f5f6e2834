"""mmeff: efficient backbones for every signal.

`mmeff.load(run)` gives a trained model back; the parts are in mmeff.tokenizers, mixers, backbones, tasks and data.
Importing this package alone imports nothing heavy.
"""

from typing import Any

__version__ = "0.1.0"
__all__ = ["__version__", "load"]  # pyright: ignore[reportUnsupportedDunderAll]


def __getattr__(name: str) -> Any:
    if name == "load":
        from mmeff.checkpoint import load

        return load
    raise AttributeError(f"module 'mmeff' has no attribute {name!r}")
