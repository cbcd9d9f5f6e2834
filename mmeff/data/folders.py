"""Folders of files: a folder a class, names that a pattern reads, or labels in files beside."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from mmeff.data.examples import Examples, Source, warn_of_shared
from mmeff.data.layout import Placed, by_folder, by_pattern, passed_over, warn_of_left_out
from mmeff.data.scan import Scan, count, folder, scan
from mmeff.data.split_names import split_names
from mmeff.errors import InputError
from mmeff.signals.audio import sound_suffixes
from mmeff.signals.image import image_suffixes
from mmeff.signals.text import text_lines


class ImageFolder(Source):
    """Images under `root`: `<class>/**/x.png`, or `train/<class>/...` beside `val/` and `test/`.

    All that Pillow opens is read. The splits may have any usual names (`Training`, `valid`, `dev`, `eval`, `test_set`).
    Each file is taken once, whatever links lead to it; what is left out is said.

    Args:
        root: The folder. Hidden files, and files outside a class folder, are left out.
        pattern: Regular expression that the path of a file relative to `root` must match in full, instead of class
            folders. Named groups: `label` (required), `group`, and `train`, `val` or `test`, of which the one that
            takes part in the match gives the split (none does: train).
        label_file: Suffix of a file beside each image that holds its label in one line, instead of class folders:
            ".txt" where `cat_01.txt` lies beside `cat_01.jpg`. Top folders may be the splits.
    """

    def __init__(self, root: str, pattern: str | None = None, label_file: str | None = None):
        self.root, self.pattern, self.label_file = root, pattern, label_file

    def examples(self) -> Examples:
        return folder_examples(self.root, image_suffixes(), self.pattern, self.label_file)


class AudioFolder(Source):
    r"""Sounds under `root`: `<class>/**/x.wav`, or `train/<class>/...` beside `val/` and `test/`.

    All that libsndfile opens is read. The splits may have any usual names (`Training`, `valid`, `dev`, `eval`,
    `test_set`). Each file is taken once, whatever links lead to it; what is left out is said.

    Args:
        root: The folder. Hidden files, and files outside a class folder, are left out.
        pattern: Regular expression that the path of a file relative to `root` must match in full, instead of class
            folders. Named groups: `label` (required), `group`, and `train`, `val` or `test`, of which the one that
            takes part in the match gives the split (none does: train). `<digit>_<speaker>_<take>.flac`, tested on
            takes 0 to 4: `(?P<label>\d)_(?P<group>[a-z]+)_((?P<test>[0-4])|\d+)\.flac`.
        label_file: Suffix of a file beside each sound that holds its label in one line, instead of class folders:
            ".txt" where `dog_01.txt` lies beside `dog_01.wav`. Top folders may be the splits.
    """

    def __init__(self, root: str, pattern: str | None = None, label_file: str | None = None):
        self.root, self.pattern, self.label_file = root, pattern, label_file

    def examples(self) -> Examples:
        return folder_examples(self.root, sound_suffixes(), self.pattern, self.label_file)


class TextFolder(Source):
    """Texts under `root`, a .txt file in UTF-8 each: `<class>/**/x.txt`, or `train/<class>/...` beside `val/`, `test/`.

    The splits may have any usual names (`Training`, `valid`, `dev`, `eval`, `test_set`). Blank lines are left out.

    Args:
        root: The folder. Hidden files, and files outside a class folder, are left out.
        pattern: Regular expression that the path of a file relative to `root` must match in full, instead of class
            folders. Named groups: `label` (required), `group`, and `train`, `val` or `test`, of which the one that
            takes part in the match gives the split (none does: train).
    """

    def __init__(self, root: str, pattern: str | None = None):
        self.root, self.pattern = root, pattern

    def examples(self) -> Examples:
        return folder_examples(self.root, (".txt",), self.pattern, None, lambda path: "\n".join(text_lines(path)))


def folder_examples(
    root: str,
    suffixes: tuple[str, ...],
    pattern: str | None,
    label_file: str | None,
    read: Callable[[str], Any] = str,
) -> Examples:
    """The files under root, `read(path)` each."""
    if pattern is not None and label_file is not None:
        raise InputError("pattern and label_file both give the label: leave one out")
    base = folder(root)
    found = scan(base, suffixes)
    if pattern is not None:
        placed = by_pattern(base, found, pattern)
    elif label_file is not None:
        placed = _by_label_file(base, found, label_file if label_file.startswith(".") else f".{label_file}")
    else:
        placed = by_folder(base, found)
    kept = _once(base, found, placed)
    examples = Examples(
        items=[found.real.get(one.name, one.name) for one in kept],
        labels=[one.label for one in kept],
        ids=[one.name for one in kept],
        split=[one.split for one in kept] if kept[0].split else None,
        group=[one.group for one in kept] if pattern is not None and "(?P<group>" in pattern else None,
    )
    if found.real:
        warn_of_shared(examples)
    examples.items = [read(f"{base}/{name}") for name in examples.ids]
    return examples


def _once(root: Path, found: Scan, placed: list[Placed]) -> list[Placed]:
    """Each file where it really lies, without the links to it; one that lies elsewhere once per class and split."""
    if not found.real:
        return placed
    own = {f"{found.start}/{one.name}" for one in placed if one.name not in found.real}
    kept: dict[tuple[str, str, str], Placed] = {}
    for one in placed:
        real = found.real.get(one.name)
        if real is None or real not in own:
            kept.setdefault((real or one.name, one.label, one.split), one)
    if len(kept) < len(placed):
        there = {one.name for one in kept.values()}
        first = next(one.name for one in placed if one.name not in there)
        n = count(len(placed) - len(kept))
        warn_of_left_out(root, [f"{n}, such as {first}: a link to one that has its place already"])
    return list(kept.values())


def _by_label_file(root: Path, found: Scan, suffix: str) -> list[Placed]:
    """The label of each file in a file of the same name with another suffix; splits are top folders."""
    if suffix in (".json", ".xml", ".csv"):
        raise InputError(f"label_file is {suffix!r}: a label file holds a label and nothing else, as .txt does")
    heads = dict.fromkeys(name.split("/")[0] if "/" in name else "" for name in found.files)
    splits = split_names(heads)
    if len(splits) < len(heads) or "train" not in splits.values():
        splits = {}
    placed, lacking = [], []
    for name in found.files:
        path = (root / name).with_suffix(suffix)
        if not path.is_file():
            lacking.append(name)
            continue
        lines = text_lines(path)
        if len(lines) > 1:
            raise InputError(f"{path} has {len(lines)} lines of text: a label file holds one label, in one line")
        placed.append(Placed(name, lines[0], splits.get(name.split("/")[0], "")))
    if lacking:
        raise InputError(
            f"{len(lacking)} of {len(found.files)} files of {root.absolute()} have no {suffix} beside them, such as "
            f"{lacking[0]}: add the label files, or take the others out"
        )
    own = f": {suffix} is not read"
    warn_of_left_out(root, [one for one in passed_over(found, 1) if not one.endswith(own)])
    return placed
