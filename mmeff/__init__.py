"""mmeff: efficient backbones for every signal.

    model = mmeff.load("runs/digits")
    model.predict("my_digit.png")

`mmeff.load(run)` gives a trained model back; the parts are in mmeff.tokenizers, mixers, feedforward, backbones, heads,
tasks and data. Importing this package alone imports nothing heavy.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mmeff.checkpoint import export, load
    from mmeff.errors import InputError
    from mmeff.predict import Prediction
    from mmeff.tokens import Tokens

__version__ = "0.1.0"

_HOME = {
    "Prediction": "predict",
    "InputError": "errors",
    "Tokens": "tokens",
    "export": "checkpoint",
    "load": "checkpoint",
}
_PARTS = ("backbones", "compare", "data", "feedforward", "heads", "mixers", "tasks", "tokenizers")

__all__ = ["InputError", "Prediction", "Tokens", "__version__", "export", "load"]


def __getattr__(name: str) -> Any:
    if name in _HOME:
        return getattr(import_module(f"{__name__}.{_HOME[name]}"), name)
    if name in _PARTS:
        return import_module(f"{__name__}.{name}")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}; it has {', '.join(__dir__())}")


def __dir__() -> list[str]:
    return sorted({*__all__, *_PARTS})
