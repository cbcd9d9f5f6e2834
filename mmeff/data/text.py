"""Texts for classification."""

import re
import unicodedata
from pathlib import Path

from mmeff.data.base import ClassificationData, Part, make_part
from mmeff.data.examples import Source
from mmeff.data.splits import SplitRule
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


class TextData(ClassificationData):
    """Texts with labels: strings as they are, in Unicode's composed form (NFC).

    Args:
        source: Where the texts come from, as `TextTable`, `TextFolder` or `Glosses`.
        batch_size: Texts per training step and process.
        split: How examples are divided; by default `AsGiven()`.
        num_workers: Processes that prepare batches; by default none, as strings need none.
        seed: Of the order of the examples.
    """

    def __init__(
        self,
        source: Source,
        batch_size: int = 64,
        split: SplitRule | None = None,
        num_workers: int | None = None,
        seed: int = 0,
    ):
        super().__init__(num_workers, seed)
        self.source, self.batch_size, self.split = source, batch_size, split

    def load(self) -> dict[str, Part]:
        examples = self.source.examples()
        for item, name in zip(examples.items, examples.ids, strict=True):
            if is_blank(item):
                raise InputError(f"{name}: the text is empty: fill it in or take the row out")
        return {"text": make_part("text", examples, self.split, {}, None, self.batch_size, self.seed)}
