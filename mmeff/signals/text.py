"""Texts: reading, batches, pictures."""

import os
import re
import unicodedata
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from mmeff.errors import InputError
from mmeff.signals.base import Sheet, Signal

#: Categories of characters that show nothing: spaces, controls, and marks such as the zero-width space.
INVISIBLE = {"Zs", "Zl", "Zp", "Cc", "Cf", "Cs"}


class Text(Signal):
    """Raw: strings, of different lengths."""

    name, unit, rate, by_length = "text", "tokens", "tokens/s", True
    target, question, least = 4096.0, "A text of 4k tokens", 16.0
    example, strings = '-t "a text"', True
    sheet = Sheet(columns=3, width=3.8, height=0.66, captions=1)
    features, penalties = "TF-IDF of words and pairs of words", (10.0,)
    keys = ()

    def check(self, preprocessing: dict[str, Any], where: str) -> None:
        pass  # there are no values

    def read(self, item: Any, **preprocessing: Any) -> str:
        return read_text(item)

    def item(self, given: Any, **preprocessing: Any) -> Any:
        if isinstance(given, os.PathLike):
            raise InputError(
                f"this model reads texts: give strings, not the path {os.fspath(given)!r}. "
                "mmeff.data.text_lines(path) gives the lines of a file"
            )
        if not isinstance(given, str):
            raise InputError(f"this model reads texts: give strings, not {type(given).__name__}")
        return given

    def suffixes(self) -> tuple[str, ...]:
        return (".txt",)

    def items(self, path: str) -> list[str]:
        try:
            return text_lines(path)
        except InputError as error:
            wanted = "This model reads text: give .txt files with one text a line, or a text after -t"
            raise InputError(f"{error}. {wanted}") from error

    def collate(self, raws: Sequence[str], **preprocessing: Any) -> tuple[list[str], None]:
        return list(raws), None

    def draw(self, ax: Any, raw: str, width: float, **preprocessing: Any) -> str:
        from mmeff.lettering import wrapped

        ax.text(0, 1, wrapped(raw, width), va="top", fontsize=8, linespacing=1.3, color="#333333")
        return ""

    def compact(self, raw: str, **preprocessing: Any) -> str:
        return raw

    def featurise(self, kept: Sequence[str]) -> Callable[[Sequence[str]], Any]:
        from sklearn.feature_extraction.text import TfidfVectorizer

        # Words of one letter and of no letters count too: a text of digits or of ideographs is no empty one.
        vectoriser = TfidfVectorizer(ngram_range=(1, 2), sublinear_tf=True, token_pattern=r"\w+|[^\w\s]")
        vectoriser.fit(kept)
        return vectoriser.transform


SIGNAL = Text()


def read_text(item: str) -> str:
    """The string in Unicode's composed form (NFC), without white space around it, for training and prediction alike.

    InputError if it has no visible character. Control characters among others (NUL, form feed) are kept.
    """
    if is_blank(item):
        raise InputError("the text is empty: it has no visible character")
    return unicodedata.normalize("NFC", item).strip()


def is_blank(text: str) -> bool:
    return all(unicodedata.category(character) in INVISIBLE for character in text)


def text_lines(path: str | Path) -> list[str]:
    """The texts of a .txt file, one a line, for training and for prediction alike.

    UTF-8, with or without a byte order mark; lines end at LF, CR LF or CR alone (not at U+2028, U+0085 or a form feed,
    which texts may hold); blank lines are left out. InputError if the file cannot be read, is not UTF-8, or has none.
    """
    try:
        content = Path(path).read_bytes()
    except OSError as error:
        raise InputError(f"{path}: {error.strerror}") from None
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise InputError(f"{path} is not a text in UTF-8 (byte {error.start}): save it as UTF-8") from None
    if text.count("\0") * 3 > len(text):  # UTF-16 of plain English, without its mark
        raise InputError(f"{path} is not a text in UTF-8: a third of it is NUL. Save it as UTF-8")
    lines = [line for line in re.split(r"\r\n|\r|\n", text) if not is_blank(line)]
    if not lines:
        raise InputError(f"{path} is empty: it has no line of text")
    return lines
