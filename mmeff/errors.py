"""The one error a user's input can raise."""


class InputError(ValueError):
    """What the user gave cannot be used. The message names the file, key or column, and what to do about it."""


class TrainingError(RuntimeError):
    """A run had to end early. The message says why, what was saved, and how to go on."""
