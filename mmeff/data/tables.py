"""Tables of texts or of paths: CSV, TSV, JSON Lines, Parquet."""

import bz2
import csv
import difflib
import gzip
import json
import lzma
import os
import sys
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

from mmeff.data.examples import Examples, Source
from mmeff.data.splits import SPLITS
from mmeff.errors import InputError

Row = dict[str, Any]
OPENERS = {".xz": lzma.open, ".gz": gzip.open, ".bz2": bz2.open}
KINDS = (".csv", ".tsv", ".jsonl", ".ndjson", ".parquet")


class TextTable(Source):
    """Texts in a table: .csv, .tsv, .jsonl (each also .gz, .bz2, .xz) in UTF-8, or .parquet; columns have names.

    Args:
        path: The table, or {"train": path, "val": path, "test": path} (val and test may be missing).
        text: Column of the text, or several columns, joined with a space.
        label: Column of the label.
        split: Column that says train, val (valid, validation) or test.
        group: Column of a key (author, patient) that `ByGroup` must not divide.
        separator: What separates the cells; by default a comma in .csv, a tab in .tsv.
        label_separator: What separates the labels of a multi-label cell ("sport|politics"); an empty cell has none.
    """

    def __init__(
        self,
        path: str | dict[str, str],
        text: str | list[str] = "text",
        label: str = "label",
        split: str | None = None,
        group: str | None = None,
        separator: str | None = None,
        label_separator: str | None = None,
    ):
        self.path, self.text = path, [text] if isinstance(text, str) else text
        self.columns = (label, split, group)
        self.separator, self.label_separator = separator, label_separator

    def examples(self) -> Examples:
        def join(row: Row, folder: Path, where: str) -> str:
            return " ".join(str(row[name]).strip() for name in self.text if row[name] is not None)

        return _examples(self.path, self.text, join, *self.columns, self.separator, self.label_separator)


class FileTable(Source):
    """Paths of images or of sounds in a table: .csv, .tsv, .jsonl (each also .gz, .bz2, .xz) in UTF-8, or .parquet.

    Args:
        path: The table, or {"train": path, "val": path, "test": path} (val and test may be missing).
        file: Column of the path, relative to the folder of the table.
        label: Column of the label.
        split: Column that says train, val (valid, validation) or test.
        group: Column of a key (patient, speaker) that `ByGroup` must not divide.
        separator: What separates the cells; by default a comma in .csv, a tab in .tsv.
        label_separator: What separates the labels of a multi-label cell ("cat|dog"); an empty cell has none.
    """

    def __init__(
        self,
        path: str | dict[str, str],
        file: str = "file",
        label: str = "label",
        split: str | None = None,
        group: str | None = None,
        separator: str | None = None,
        label_separator: str | None = None,
    ):
        self.path, self.file = path, file
        self.columns = (label, split, group)
        self.separator, self.label_separator = separator, label_separator

    def examples(self) -> Examples:
        def path_of(row: Row, folder: Path, where: str) -> str:
            name = str(row[self.file] or "").strip()
            path = os.path.join(folder, os.path.expanduser(name))
            if not name or not os.path.isfile(path):
                raise InputError(f"{where}: the file {name!r} of column {self.file!r} is not in {folder.absolute()}")
            return path

        return _examples(self.path, [self.file], path_of, *self.columns, self.separator, self.label_separator)


def _examples(
    path: str | dict[str, str],
    needed: list[str],
    item: Callable[[Row, Path, str], str],
    label: str,
    split: str | None,
    group: str | None,
    separator: str | None,
    label_separator: str | None,
) -> Examples:
    """The rows of one table, or of a table a split, with `item(row, folder, where)` for each."""
    tables = path if isinstance(path, dict) else {"": path}
    if not tables:
        raise InputError("path names no table: give one, or one for each of train, val and test")
    items, labels, ids, splits, groups = [], [], [], [], []
    for split_of_file, name in tables.items():
        if isinstance(path, dict) and split_of_file not in SPLITS:
            raise InputError(f"path: {split_of_file!r} is no split; its keys must be among train, val and test")
        table = Path(name).expanduser()
        names, rows = _read(table, separator)
        for column in [*needed, *filter(None, (label, split, group))]:
            if column not in names:
                near = difflib.get_close_matches(column, names, 1, cutoff=0)
                hint = f"; did you mean {near[0]!r}?" if near else ""
                raise InputError(f"{table} has no column {column!r}; it has {', '.join(map(repr, names))}{hint}")
        for line, row in rows:
            where = f"{table.name}:{line}"
            items.append(item(row, table.parent, where))
            labels.append(_label(row[label], label_separator, where, label))
            ids.append(where)
            if split is not None:
                splits.append(_split(row[split], where, split))
            elif split_of_file:
                splits.append(SPLITS[split_of_file])
            if group is not None:
                groups.append(str(row[group]))
    kind = type(labels[0])
    for where, one in zip(ids, labels, strict=True):
        if type(one) is not kind:
            raise InputError(f"{where}: column {label!r} has lists of labels in some rows and single ones in others")
    return Examples(items=items, labels=labels, ids=ids, split=splits or None, group=groups or None)


def _label(value: Any, separator: str | None, where: str, column: str) -> str | tuple[str, ...]:
    if isinstance(value, list):
        return tuple(dict.fromkeys(str(name).strip() for name in value))
    text = "" if value is None else str(value).strip()
    if separator is not None:
        return tuple(dict.fromkeys(name.strip() for name in text.split(separator) if name.strip()))
    if not text:
        raise InputError(f"{where}: the label (column {column!r}) is empty")
    return text


def _split(value: Any, where: str, column: str) -> str:
    name = str(value).strip().lower()
    if name not in SPLITS:
        raise InputError(f"{where}: column {column!r} says {value!r}; it must be one of {', '.join(SPLITS)}")
    return SPLITS[name]


def _read(path: Path, separator: str | None) -> tuple[list[str], list[tuple[int, Row]]]:
    """Column names, and each row with its line (its row in Parquet). InputError if the table cannot be read."""
    suffixes = [suffix.lower() for suffix in path.suffixes]
    packed = suffixes.pop() if suffixes and suffixes[-1] in OPENERS else ""
    kind = suffixes[-1] if suffixes else ""
    if kind not in KINDS or (packed and kind == ".parquet"):
        raise InputError(f"{path}: a table must end in {', '.join(KINDS)} (text tables also in .gz, .bz2 or .xz)")
    if not path.is_file():
        raise InputError(f"{path.absolute()} is not found: give `path` a table")
    try:
        if kind == ".parquet":
            names, rows = _read_parquet(path)
        else:
            with OPENERS.get(packed, open)(path, "rt", encoding="utf-8-sig", newline="") as file:
                if kind in (".jsonl", ".ndjson"):
                    names, rows = _read_jsonl(file)
                else:
                    names, rows = _read_csv(file, separator or ("\t" if kind == ".tsv" else ","))
    except UnicodeDecodeError as error:
        raise InputError(f"{path} is not UTF-8 text (byte {error.start}): save it as UTF-8") from None
    except (csv.Error, OSError, EOFError, lzma.LZMAError, zlib.error) as error:
        raise InputError(f"{path} cannot be read: {error}") from None
    except InputError as error:
        raise InputError(f"{path.name}:{error}") from None
    if not rows:
        raise InputError(f"{path} is empty: it has no row of data. Fill it, or give `path` another")
    return names, rows


def _read_csv(file: Any, separator: str) -> tuple[list[str], list[tuple[int, Row]]]:
    csv.field_size_limit(sys.maxsize)  # an article may be longer than the 131,072 characters that csv allows a cell
    # Strict, because a stray quotation mark would otherwise swallow the lines after it in silence.
    reader = csv.reader(file, delimiter=separator, strict=True)
    names = next(reader, [])
    if any("\0" in name for name in names):
        raise InputError("1: the header has NUL bytes: this is not a table of text")
    if twice := [name for k, name in enumerate(names) if name in names[:k]]:
        raise InputError(f"1: the header has two columns {twice[0]!r}: rename one")
    rows, line = [], reader.line_num + 1
    for cells in reader:
        if cells:
            if len(cells) != len(names):
                raise InputError(f"{line}: {len(cells)} cells where the header has {len(names)}; quote the separator")
            rows.append((line, dict(zip(names, cells, strict=True))))
        line = reader.line_num + 1
    return names, rows


def _read_jsonl(file: Any) -> tuple[list[str], list[tuple[int, Row]]]:
    rows: list[tuple[int, Row]] = []
    for line, text in enumerate(file, 1):
        if not text.strip():
            continue
        try:
            row = json.loads(text)
        except json.JSONDecodeError as error:
            raise InputError(f"{line}: no JSON: {error}") from None
        if not isinstance(row, dict):
            raise InputError(f"{line}: a line must be an object with named fields")
        rows.append((line, row))
    names = list(dict.fromkeys(name for _, row in rows for name in row))
    return names, [(line, {name: row.get(name) for name in names}) for line, row in rows]


def _read_parquet(path: Path) -> tuple[list[str], list[tuple[int, Row]]]:
    import pyarrow
    import pyarrow.parquet

    try:
        table = pyarrow.parquet.read_table(path)
    except pyarrow.ArrowException as error:
        raise OSError(error) from None
    return table.column_names, list(enumerate(table.to_pylist(), 1))
