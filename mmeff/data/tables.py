"""Tables of texts or of paths: a row an example."""

import difflib
import os
import re
import warnings
from abc import abstractmethod
from collections import Counter
from pathlib import Path
from typing import Any, Literal

from mmeff.data import split_names
from mmeff.data.cells import cell_text, same
from mmeff.data.examples import Examples, Source, warn_of_shared
from mmeff.data.table_files import Row, read_table, tables_in
from mmeff.errors import InputError

#: A column by its name, or by its number from 1 in a table without a header.
Column = str | int
#: What a column says of a split: a word, a fold's number, true or false.
Value = str | int | bool
#: Labels that some tool wrote where a value was missing.
MISSING = ("nan", "NaN", "<NA>", "NaT")


class Table(Source):
    """What tables of texts and of files share; their arguments are described there."""

    def __init__(
        self,
        path: str | dict[str, str],
        items: list[Column],
        label: Column,
        split: Column | None,
        splits: dict[str, Value | list[Value]] | None,
        group: Column | None,
        header: bool | list[str],
        separator: str | None,
        label_separator: str | None,
    ):
        if separator == r"\t":
            separator = "\t"
        if separator is not None and (len(separator) != 1 or separator in '"\r\n\0'):
            raise InputError(f"separator is {separator!r}; it must be one character, as ';', and no quotation mark")
        if label_separator == "":
            raise InputError("label_separator is empty; it must be one character at least, as '|'")
        if splits is not None and split is None:
            raise InputError("splits says what the values of the column `split` mean: name that column too")
        if split is not None and isinstance(path, dict):
            raise InputError("path names the splits, and so does the column `split`: leave one out")
        if not items:
            raise InputError("text names no column: give one at least")
        self.path, self.items = path, [str(name) for name in items]
        self.label, self.split, self.group = (None if name is None else str(name) for name in (label, split, group))
        self.splits = None if splits is None else _by_value(splits)
        self.header, self.separator, self.label_separator = header, separator, label_separator

    @abstractmethod
    def item(self, row: Row, table: Path, where: str) -> str | None:
        """The item of a row; None for one that is left out."""

    def examples(self) -> Examples:
        items, labels, ids, splits, groups = [], [], [], [], []
        wanted = [*self.items, *(name for name in (self.label, self.split, self.group) if name is not None)]
        for split, table in self._tables():
            names, rows = read_table(table, self.separator, self.header, wanted)
            for column in wanted:
                if column not in names:
                    raise InputError(f"{table} has no column {column!r}; it has {self._known(column, names, wanted)}")
            for line, row in rows:
                where = f"{table.name}:{line}"
                item = self.item(row, table, where)
                if item is None:
                    continue
                items.append(item)
                labels.append(_label(row.get(str(self.label)), self.label_separator, where, str(self.label)))
                ids.append(where)
                if self.split is not None:
                    splits.append(cell_text(row.get(self.split), where, self.split))
                elif split:
                    splits.append(split)
                if self.group is not None:
                    groups.append(cell_text(row.get(self.group), where, self.group))
                    if not groups[-1]:
                        raise InputError(f"{where}: the group (column {self.group!r}) is empty: fill it in")
        if self.split is not None:
            splits = _splits(splits, ids, self.split, self.splits)
        for where, one in zip(ids, labels, strict=True):
            if type(one) is not type(labels[0]):
                raise InputError(
                    f"{where}: column {self.label!r} has lists of labels in some rows and single ones in others"
                )
        for name in MISSING:
            if number := labels.count(name):
                where = ids[labels.index(name)]
                warnings.warn(
                    f"{number} row(s) have the label {name!r}, such as {where}: a missing value?", stacklevel=2
                )
        return Examples(items=items, labels=labels, ids=ids, split=splits or None, group=groups or None)

    def _tables(self) -> list[tuple[str, Path]]:
        """(its split or "", a table) each."""
        if isinstance(self.path, str | os.PathLike):
            path = Path(self.path).expanduser()
            if not path.is_dir():
                return [("", path)]
            if self.split is not None:
                raise InputError(
                    f"{path} is a folder of a table a split: leave the column `split` out, or name a table"
                )
            return tables_in(path)
        return split_names.files_by_split(self.path)

    def _known(self, column: str, names: list[str], wanted: list[str]) -> str:
        near = difflib.get_close_matches(column, names, 1, cutoff=0)
        hint = f"; did you mean {near[0]!r}?" if near else ""
        if self.header is False:
            hint = "; without a header, columns are named by their numbers"
        elif len(names) == 1 < len(wanted):
            hint = ": if another character than a comma or tab separates its cells, give `separator`"
        elif self.header is True and not set(names) & set(wanted):
            hint += " If its first line is data, give header: false"
        more = f" and {len(names) - 8} more" if names[8:] else ""
        return f"{', '.join(repr(name[:30]) for name in names[:8])}{more}{hint}"


class TextTable(Table):
    """Texts in a table: .csv, .tsv, .jsonl (each also .gz, .bz2, .xz) in UTF-8, or .parquet.

    Args:
        path: The table; or {"train": path, "val": path, "test": path} (val and test may be missing); or a folder with
            tables so named (train.csv, dev.csv, test.csv).
        text: Column of the text, or several columns, joined with a space.
        label: Column of the label.
        split: Column that says train, val or test (or another usual name: dev, Testing, eval), or is_valid with true
            and false.
        splits: What other values of that column mean: {test: 5, val: [1, 2]} for folds, of which the rest is train;
            {val: true}; {test: held-out}.
        group: Column of a key (author, patient) that `ByGroup` must not divide.
        header: Whether the first line names the columns; false: they are named 1, 2, 3; or a list of their names.
        separator: What separates the cells; by default a comma in .csv, a tab in .tsv.
        label_separator: What separates the labels of a multi-label cell ("sport|politics"); an empty cell has none.
    """

    def __init__(
        self,
        path: str | dict[str, str],
        text: Column | list[Column] = "text",
        label: Column = "label",
        split: Column | None = None,
        group: Column | None = None,
        separator: str | None = None,
        label_separator: str | None = None,
        header: bool | list[str] = True,
        splits: dict[str, Value | list[Value]] | None = None,
    ):
        texts = text if isinstance(text, list) else [text]
        super().__init__(path, texts, label, split, splits, group, header, separator, label_separator)

    def item(self, row: Row, table: Path, where: str) -> str:
        return " ".join(filter(None, (cell_text(row.get(name), where, name) for name in self.items)))


class FileTable(Table):
    """Paths of images or of sounds in a table: .csv, .tsv, .jsonl (each also .gz, .bz2, .xz) in UTF-8, or .parquet.

    Args:
        path: The table; or {"train": path, "val": path, "test": path} (val and test may be missing); or a folder with
            tables so named (train.csv, dev.csv, test.csv).
        file: Column of the path, relative to `root`.
        label: Column of the label.
        split: Column that says train, val or test (or another usual name: dev, Testing, eval), or is_valid with true
            and false.
        splits: What other values of that column mean: {test: 5, val: [1, 2]} for folds, of which the rest is train;
            {val: true}; {test: held-out}.
        group: Column of a key (patient, speaker) that `ByGroup` must not divide.
        header: Whether the first line names the columns; false: they are named 1, 2, 3; or a list of their names.
        separator: What separates the cells; by default a comma in .csv, a tab in .tsv.
        label_separator: What separates the labels of a multi-label cell ("cat|dog"); an empty cell has none.
        root: Folder that paths are relative to; by default that of the table.
        missing: What is done about files that are not there: "refuse" them, or "skip" and count them.
    """

    def __init__(
        self,
        path: str | dict[str, str],
        file: Column = "file",
        label: Column = "label",
        split: Column | None = None,
        group: Column | None = None,
        separator: str | None = None,
        label_separator: str | None = None,
        header: bool | list[str] = True,
        splits: dict[str, Value | list[Value]] | None = None,
        root: str | None = None,
        missing: Literal["refuse", "skip"] = "refuse",
    ):
        super().__init__(path, [file], label, split, splits, group, header, separator, label_separator)
        if missing not in ("refuse", "skip"):
            raise InputError(f'missing is {missing!r}; it must be "refuse" or "skip"')
        self.root, self.missing = root, missing
        self._absent: list[str] = []

    def item(self, row: Row, table: Path, where: str) -> str | None:
        (column,) = self.items
        name = cell_text(row.get(column), where, column)
        base = table.parent if self.root is None else Path(self.root).expanduser()
        path = os.path.join(base, os.path.expanduser(name))
        if name and os.path.isfile(path):
            return path
        self._absent.append(f"{where}: the file {name!r} of column {column!r} is not in {base.absolute()}")
        return None

    def examples(self) -> Examples:
        self._absent = []
        if self.root is not None and not Path(self.root).expanduser().is_dir():
            raise InputError(
                f"{Path(self.root).expanduser().absolute()} is no folder: give `root` one, or leave it out"
            )
        found = super().examples()
        if self._absent:
            others = len(self._absent) - 1
            said = f"{self._absent[0]}{f', nor are {others} others' if others else ''}"
            if self.missing == "refuse" or not len(found):
                raise InputError(f"{said}. Correct the paths, give `root`, or set missing: skip")
            warnings.warn(
                f"{len(self._absent)} of {len(self._absent) + len(found)} files skipped: {said}", stacklevel=2
            )
        warn_of_shared(found)
        found.ids = list(found.items)  # predictions and mistakes are of files, not of rows
        return found


def _label(value: Any, separator: str | None, where: str, column: str) -> str | tuple[str, ...]:
    if isinstance(value, list):
        return tuple(cell_text(name, where, column) for name in value)
    text = cell_text(value, where, column)
    if separator is not None:
        return tuple(name.strip() for name in text.split(separator) if name.strip())
    if not text:
        raise InputError(f"{where}: the label (column {column!r}) is empty")
    return text


def _by_value(splits: dict[str, Value | list[Value]]) -> dict[str, str]:
    """{a value in the form of `same`: its split}."""
    found: dict[str, str] = {}
    for split, values in splits.items():
        if split not in ("train", "val", "test"):
            raise InputError(f"splits: {split!r} is no split: its keys are train, val and test, as in {{val: {split}}}")
        for value in values if isinstance(values, list) else [values]:
            if found.setdefault(same(value), split) != split:
                raise InputError(f"splits: {value!r} is in {found[same(value)]} and in {split}: leave one out")
    return found


def _splits(said: list[str], ids: list[str], column: str, chosen: dict[str, str] | None) -> list[str]:
    """The split of each row from what its column says."""
    usual = split_names.split_names(dict.fromkeys(said))
    forms = {word: same(word) for word in dict.fromkeys(said)}
    flag = re.fullmatch(r"is_?(\w+)", column.casefold())
    held = split_names.split_names([flag[1]]).get(flag[1]) if flag else None
    if chosen is None and held in ("val", "test") and set(forms.values()) <= {"true", "false", "1", "0"}:
        chosen = {form: held if form in ("true", "1") else "train" for form in forms.values()}
    for form in chosen or ():
        if form not in forms.values():
            raise InputError(f"splits: no row says {form!r} in column {column!r}; it says {_some(said)}")
    rest = None if chosen is None or "train" in chosen.values() else "train"
    meant = {word: (chosen or {}).get(forms[word]) or usual.get(word) or rest for word in forms}
    for where, word in zip(ids, said, strict=True):
        if not word:
            raise InputError(f"{where}: the split (column {column!r}) is empty: fill it in")
        if meant[word] is None:
            form = "train: true, test: false" if held == "train" else f"test: {word}"
            raise InputError(
                f"{where}: column {column!r} says {word!r}, which names no split ({split_names.EXAMPLES}): correct it, "
                f"or say what it means, as splits: {{{form}}}"
            )
    return [str(meant[word]) for word in said]


def _some(words: list[str]) -> str:
    counts = Counter(words).most_common()
    return ", ".join(repr(word) for word, _ in counts[:6]) + (" ..." if counts[6:] else "")
