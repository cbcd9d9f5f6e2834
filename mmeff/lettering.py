"""Letters in pictures: what no installed font can draw becomes a box, and nothing runs out of its place."""

import unicodedata
from textwrap import wrap


def plain(text: str, limit: int, keep_end: bool = False) -> str:
    """One printable line of at most `limit` characters; of a longer one the beginning, or the end (for paths)."""
    text = text.encode("utf-8", "backslashreplace").decode()  # names of files may hold bytes that are no text
    text = "".join(c if c.isprintable() else " " for c in text)
    text = " ".join(text.split())
    # Chinese, Japanese and Korean letters are as wide as two others.
    limit = limit if len(text) + sum(map(_is_wide, text)) <= limit else limit - sum(map(_is_wide, text[:limit])) // 2
    if len(text) <= limit:
        return text
    return "…" + text[len(text) - limit + 1 :] if keep_end else text[: limit - 1] + "…"


def _is_wide(letter: str) -> bool:
    return unicodedata.east_asian_width(letter) in "WF"


def wrapped(text: str, width: float, lines: int = 4) -> str:
    """The first lines of a text, for a cell of so many inches."""
    text = plain(text, 2000)
    letters = int(width / 0.06)
    if sum(map(_is_wide, text)) > len(text) / 4:
        letters //= 2
    found = wrap(text, letters, max_lines=lines, placeholder=" …")
    return "\n".join(found)
