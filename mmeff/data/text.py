"""Texts for classification."""

import re
import unicodedata
from pathlib import Path

from mmeff.errors import InputError

#: Categories of characters that show nothing: spaces, controls, and marks such as the zero-width space.
INVISIBLE = {"Zs", "Zl", "Zp", "Cc", "Cf", "Cs"}


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
