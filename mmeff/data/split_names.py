"""The names under which folders, files and tables know the train, val and test splits."""

import re
import unicodedata
from collections.abc import Iterable
from pathlib import Path

from mmeff.errors import InputError

TRAIN = ("train", "training", "trn")
VAL = ("val", "valid", "validation", "validate", "dev", "devel", "development")
TEST = ("test", "testing", "tst")
#: The test split beside a val split or beside train alone, the val split beside a test split.
EVAL = ("eval", "evaluation")
#: Words that say nothing beside one of those: "train_data", "Test Set", "val-images".
FILLERS = ("set", "data", "dataset", "split", "folder", "samples", "images", "image", "imgs", "img", "photos")
FILLERS += ("audio", "sounds", "clips", "recordings", "texts", "files")

SPLITS = {**dict.fromkeys(TRAIN, "train"), **dict.fromkeys(VAL, "val"), **dict.fromkeys(TEST, "test")}
KNOWN = {**SPLITS, **dict.fromkeys(EVAL, "eval")}
#: For messages.
EXAMPLES = "train, training, val, valid, validation, dev, test, testing, eval"


def split_names(names: Iterable[str]) -> dict[str, str]:
    """{name: "train", "val" or "test"} for those of the names that are usual for a split.

    Capitals, years ("val2017") and the words of FILLERS ("Test_Set", "traindata") are set aside.
    """
    found = {name: word for name in names if (word := _word(name)) is not None}
    held_out = "val" if "test" in found.values() else "test"
    return {name: held_out if word == "eval" else word for name, word in found.items()}


def files_by_split(paths: dict[str, str], what: str = "table") -> list[tuple[str, Path]]:
    """(split, file) of each of the files that a user names by their splits. InputError for another key, or for none."""
    if not paths:
        raise InputError(f"path names no {what}: give one, or one for each of train, val and test")
    named = split_names(paths)
    for name in paths:
        if name not in named:
            raise InputError(f"path: {name!r} is no split; its keys must be among train, val and test")
    return [(named[name], Path(file).expanduser()) for name, file in paths.items()]


def split_words(names: Iterable[str]) -> dict[str, str]:
    """{name: split} for those of the names in which one word is a usual name: "seg_train", not "trainer"."""
    words = {name: [KNOWN[word] for word in re.split(r"[\W_]+", _folded(name)) if word in KNOWN] for name in names}
    return {name: "test" if found[0] == "eval" else found[0] for name, found in words.items() if len(found) == 1}


def _folded(name: str) -> str:
    return unicodedata.normalize("NFKC", name).strip().casefold()


def _word(name: str) -> str | None:
    words = [word for word in re.split(r"[\W_]+|(?:19|20)\d\d$", _folded(name)) if word and word not in FILLERS]
    if len(words) != 1:
        return None
    (word,) = words
    return KNOWN.get(word) or KNOWN.get(re.sub(r"(data)?(set)?$", "", word))
