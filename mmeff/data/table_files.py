"""Files of tables: CSV, TSV, JSON Lines and Parquet as rows; folders of a table a split."""

import bz2
import csv
import gzip
import json
import lzma
import re
import sys
import warnings
import zlib
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from mmeff.data.split_names import split_names, split_words
from mmeff.errors import InputError

Row = dict[str, Any]
OPENERS = {".xz": lzma.open, ".gz": gzip.open, ".bz2": bz2.open}
KINDS = (".csv", ".tsv", ".jsonl", ".ndjson", ".parquet")


def kind_of(path: Path) -> tuple[str, str]:
    """(".csv", ".gz") of "a.csv.gz"; (".csv", "") of "a.csv"; ("", ...) of what is no table."""
    suffixes = [suffix.lower() for suffix in path.suffixes]
    packed = suffixes.pop() if suffixes and suffixes[-1] in OPENERS else ""
    kind = suffixes[-1] if suffixes else ""
    return (kind if kind in KINDS and not (packed and kind == ".parquet") else ""), packed


def tables_in(folder: Path) -> list[tuple[str, Path]]:
    """(split, table) of the tables that are named for a split: train.csv, a_test.tsv, val-00000-of-00002.parquet.

    InputError if none is for training, or if a split has tables of two kinds; a warning of the other tables.
    """
    tables = [path for path in sorted(folder.iterdir()) if path.is_file() and path.name[0] != "." and kind_of(path)[0]]
    stems = {path: re.sub(r"-\d+-of-\d+.*", "", path.name[: -len("".join(kind_of(path)))]) for path in tables}
    splits = split_names(stems.values())
    if "train" not in splits.values():
        splits = split_words(stems.values())  # reviews_train.csv
    found = [(splits[stems[path]], path) for path in tables if stems[path] in splits]
    others = [path.name for path in tables if stems[path] not in splits]
    if "train" not in {split for split, _ in found}:
        there = f"its tables are {', '.join(path.name for path in tables[:5])}" if tables else "it has no table"
        raise InputError(
            f"{folder.absolute()} has no table for training, such as train.csv ({there}): give `path` a table, or "
            "{train: path, test: path}"
        )
    for split, path in found:
        if other := [
            name for one, name in found if one == split and (stems[name], kind_of(name)) != (stems[path], kind_of(path))
        ]:
            raise InputError(
                f"{folder.absolute()} has two tables for the {split} split, {path.name} and {other[0].name}: take one "
                "out, or give `path` as {train: path, test: path}"
            )
    if others:
        warnings.warn(f"{folder}: left out: {', '.join(others[:8])}, which name no split", stacklevel=2)
    return found


def read_table(
    path: Path, separator: str | None, header: bool | list[str], wanted: Iterable[str]
) -> tuple[list[str], list[tuple[int, Row]]]:
    """Column names, and each row with its line (its row in Parquet). InputError if the table cannot be read.

    wanted  columns that will be read; others may lack in the rows
    """
    kind, packed = kind_of(path)
    if not kind:
        raise InputError(f"{path}: a table must end in {', '.join(KINDS)} (text tables also in .gz, .bz2 or .xz)")
    if not path.is_file():
        raise InputError(f"{path.absolute()} is not found: give `path` a table")
    if header is not True and kind not in (".csv", ".tsv"):
        raise InputError(f"{path} names its columns itself: `header` is for .csv and .tsv, leave it out")
    try:
        if kind == ".parquet":
            names, rows = _read_parquet(path, set(wanted))
        else:
            with OPENERS.get(packed, open)(path, "rt", encoding="utf-8-sig", newline="") as file:
                if kind in (".jsonl", ".ndjson"):
                    names, rows = _read_jsonl(file)
                else:
                    names, rows = _read_csv(file, separator or ("\t" if kind == ".tsv" else ","), header)
    except UnicodeDecodeError as error:
        raise InputError(f"{path} is not UTF-8 text (byte {error.start}): save it as UTF-8") from None
    except (csv.Error, OSError, EOFError, lzma.LZMAError, zlib.error) as error:
        raise InputError(f"{path} cannot be read: {' '.join(str(error).split())}") from None
    except InputError as error:
        raise InputError(f"{path.name}:{error}") from None
    if not rows:
        raise InputError(f"{path} is empty: it has no row of data. Fill it, or give `path` another")
    return names, rows


def _read_csv(file: Any, separator: str, header: bool | list[str]) -> tuple[list[str], list[tuple[int, Row]]]:
    csv.field_size_limit(sys.maxsize)  # an article may be longer than the 131,072 characters that csv allows a cell
    # Strict, because a stray quotation mark would otherwise swallow the lines after it in silence.
    reader = csv.reader(file, delimiter=separator, strict=True)
    names = header if isinstance(header, list) else next(filter(None, reader), []) if header else []
    if any("\0" in name for name in names):
        raise InputError("1: the header has NUL bytes: this is not a table of text")
    if twice := [name for k, name in enumerate(names) if name in names[:k]]:
        raise InputError(f"1: the header has two columns {twice[0]!r}: rename one")
    rows, line = [], reader.line_num + 1
    for cells in reader:
        if cells:
            names = names or [str(number) for number in range(1, len(cells) + 1)]
            if cells == names and not rows:
                raise InputError(f"{line}: the first line is the header already: leave the option header out")
            if len(cells) != len(names):
                first = "the header" if header else "the first line"
                raise InputError(f"{line}: {len(cells)} cells where {first} has {len(names)}; quote the separator")
            rows.append((line, dict(zip(names, cells, strict=True))))
        line = reader.line_num + 1
    return names, rows


def _read_jsonl(file: Any) -> tuple[list[str], list[tuple[int, Row]]]:
    rows: list[tuple[int, Row]] = []
    for line, text in enumerate(file, 1):
        if not text.strip():
            continue
        try:
            row = json.loads(text, object_pairs_hook=_fields)
        except InputError as error:
            raise InputError(f"{line}: {error}") from None
        except RecursionError:
            raise InputError(f"{line}: no table: lists or objects are nested too deeply") from None
        except ValueError as error:  # no JSON, or an integer of more digits than Python takes
            raise InputError(f"{line}: no JSON: {error}") from None
        if not isinstance(row, dict):
            raise InputError(f"{line}: a line must be an object with named fields")
        rows.append((line, row))
    return list(dict.fromkeys(name for _, row in rows for name in row)), rows


def _fields(pairs: list[tuple[str, Any]]) -> Row:
    row = dict(pairs)
    if len(row) < len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise InputError(f"the field {twice!r} is there twice: take one out")
    return row


def _read_parquet(path: Path, wanted: set[str]) -> tuple[list[str], list[tuple[int, Row]]]:
    import pyarrow
    import pyarrow.parquet

    try:
        with pyarrow.parquet.ParquetFile(path) as file:
            names = file.schema_arrow.names
            if twice := [name for name in wanted if names.count(name) > 1]:
                raise InputError(f"1: there are two columns {twice[0]!r}: rename one")
            rows = file.read(columns=[name for name in names if name in wanted]).to_pylist()
    except (pyarrow.ArrowException, ValueError) as error:
        if isinstance(error, InputError):
            raise
        raise OSError(error) from None
    return names, list(enumerate(rows, 1))
