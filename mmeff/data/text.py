"""Texts for classification."""

import unicodedata

from mmeff.data.base import ClassificationData, Part, make_part
from mmeff.data.examples import Source
from mmeff.data.splits import SplitRule
from mmeff.errors import InputError


def read_text(item: str) -> str:
    """The string in Unicode's composed form (NFC). InputError if there is nothing but white space."""
    if not item.strip():
        raise InputError("the text is empty: it has nothing but white space")
    return unicodedata.normalize("NFC", item)


class TextData(ClassificationData):
    """Texts with labels: strings as they are, in Unicode's composed form (NFC).

    Args:
        source: Where the texts come from, as `TextTable` or `Glosses`.
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
            if not item.strip():
                raise InputError(f"{name}: the text is empty: fill it in or take the row out")
        return {"text": make_part("text", examples, self.split, {}, None, self.batch_size, self.seed)}
