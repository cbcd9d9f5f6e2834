"""What a user is told: errors with a message of one line."""

import difflib
import os
import re
import signal
from argparse import ArgumentError
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from numbers import Integral, Real
from typing import Any


class InputError(ValueError):
    """What the user gave cannot be used. The message names the file, key or column, and what to do about it."""


class TrainingError(RuntimeError):
    """A run had to end early. The message says why, what was saved, and how to go on."""


class Interrupted(Exception):
    """A signal ended the run; the message says what was saved. `code` is the exit code, 128 + the signal's number."""

    def __init__(self, message: str, code: int):
        super().__init__(message)
        self.code = code


def interrupted_by(error: BaseException) -> int | None:
    """The number of the signal that an exception came of, or None: Ctrl-C alone where no number is told."""
    found: BaseException | None = error
    while found is not None:
        if isinstance(found, KeyboardInterrupt):
            return found.args[0] if found.args and isinstance(found.args[0], int) else signal.SIGINT
        found = found.__context__
    return None


def whole(least: int, **options: Any) -> None:
    """InputError for the first option that is not an integer of `least` or more. Each entry of a list counts alone."""
    for name, value in options.items():
        if not all(_is(Integral, entry) and entry >= least for entry in _entries(value)):
            each = "each entry must be" if isinstance(value, list | tuple) else "it must be"
            raise InputError(f"{name} is {value!r}; {each} a whole number of at least {least}")


def within(interval: str, **options: Any) -> None:
    """InputError for the first option that is not a number in the interval, as "[0, 1)". NaN lies in none."""
    low, high = map(float, interval[1:-1].split(","))
    for name, value in options.items():
        for entry in _entries(value):
            inside = _is(Real, entry) and low <= entry <= high
            if not inside or (entry == low and interval[0] == "(") or (entry == high and interval[-1] == ")"):
                each = "each entry must be" if isinstance(value, list | tuple) else "it must be"
                raise InputError(f"{name} is {value!r}; {each} in {interval}")


def meant(given: str, choices: Sequence[str], otherwise: str = "") -> str:
    """What to say of a name that is none of the choices: the one nearest to it; else `otherwise`, or the first ten."""
    near = difflib.get_close_matches(given, choices, 1, cutoff=0.5)
    more = ", ..." if len(choices) > 10 else ""
    return f"did you mean {near[0]!r}?" if near else otherwise or f"choose one of {', '.join(choices[:10])}{more}"


def _is(kind: type, value: Any) -> bool:
    return isinstance(value, kind) and not isinstance(value, bool)


def _entries(value: Any) -> list[Any]:
    """The entries of a list, of which one is required; any other value alone."""
    return [value] if not isinstance(value, list | tuple) else list(value) or [None]


def spelled(path: str | bytes | os.PathLike[Any]) -> str:
    """A path as text of one line: bytes that are not UTF-8 and control characters as "\\xe9", "\\n"."""
    text = os.fsencode(path).decode(errors="backslashreplace")
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


@contextmanager
def as_input_error(what: str = "", *others: type[Exception]) -> Iterator[None]:
    """What parsers and classes say of values that they refuse, as an InputError that begins with "what: "."""
    try:
        yield
    except InputError:
        raise
    except (ArgumentError, TypeError, ValueError, *others) as error:
        reason = shorten(str(error))
        raise InputError(f"{what}: {reason}" if what else reason) from error


def shown(text: str) -> str:
    """A name or value out of a file, for a message: short, on one line, without codes that a terminal obeys."""
    text = text[:100] + "..." if len(text) > 100 else text
    return text if text.isprintable() else ascii(text)


def shorten(message: str) -> str:
    """What jsonargparse says over many lines of a value deep in a recipe, as "key.of.the.value: what is wrong"."""
    text = " ".join(message.split())
    keys = re.findall(r'Parser key "([^"]+)"', text)
    reason = re.split(r"Parser key \"[^\"]*\": ", text)[-1]
    given = re.search(r"Given value: (.*?)(?: - | Given value|$)", reason)
    reason = reason.partition(" Given value type")[0]
    # Of the members of a union each says why it does not fit: those of the innermost one that are more than None.
    causes = re.split(r"(?:^| )- ", reason.rpartition("Errors:")[2])
    causes = [cause.strip() for cause in causes if cause.strip() and "<class 'NoneType'>" not in cause]
    reason = " or ".join(causes).replace("Expected a ", "expected ").replace("typing.Literal", "one of ")
    reason = re.sub(r"<class '([^']+)'>", r"\1", reason)
    reason += f"; got {given[1]}" if given and "expected" in reason and len(given[1]) < 60 else ""
    return f"{'.'.join(keys)}: {reason}" if keys else reason
