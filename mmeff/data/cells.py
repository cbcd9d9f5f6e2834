"""Values of a table's cells as texts."""

import datetime
import decimal
import math
import re
from typing import Any

from mmeff.errors import InputError

KINDS = {
    bytes: "bytes",
    list: "a list",
    dict: "an object with fields",
    tuple: "a list",
}


def cell_text(value: Any, where: str, column: str) -> str:
    """A cell as a string without white space around it; "" for a missing one.

    Whole floats lose their fraction: a column of whole numbers becomes one of floats (1 -> 1.0) wherever a tool met a
    missing value in it. InputError, which names row and column, for NaN and infinity, bytes, lists and objects.
    """
    if value is None:
        return ""
    if isinstance(value, str):
        return value.strip()
    if isinstance(value, float | decimal.Decimal):
        if not math.isfinite(value):
            raise InputError(
                f"{where}: column {column!r} has {value}, no text or finite number: fill it in or take it out"
            )
        return str(int(value)) if value == int(value) and abs(value) < 1e15 else str(value)
    if isinstance(value, bool | int | datetime.date | datetime.time):
        return str(value)
    kind = KINDS.get(type(value), f"a {type(value).__name__}")
    raise InputError(f"{where}: column {column!r} has {kind}, no text or number: convert it or name another column")


def same(value: Any) -> str:
    """The form in which cells and what a recipe says of them are compared: 5, "5", 5.0 and "5.0" are alike."""
    text = re.sub(r"^(-?\d+)\.0+$", r"\1", str(value).strip())
    return text.casefold()
