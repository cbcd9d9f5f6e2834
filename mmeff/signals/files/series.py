"""Files of series -> arrays: CSV and TSV, NPY and NPZ, Parquet."""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from mmeff.errors import InputError, meant, spelled
from mmeff.signals.files.check import check_file, unreadable

SUFFIXES = (".csv", ".tsv", ".npy", ".npz", ".parquet")


def read_steps(path: str | os.PathLike[Any], columns: Sequence[str] = ()) -> np.ndarray:
    """float64 (S, C): a row of the file a step, a column a channel.

    columns  names of the columns to take, of a table whose first line names them; by default all, in their order

    A CSV or TSV may have a header; its separator is what its suffix says, or a semicolon. An NPZ holds one array.
    InputError names the file, and the column and row of what is no number.
    """
    suffix = Path(os.fsdecode(path)).suffix.lower()
    if suffix not in SUFFIXES:
        raise InputError(f"{spelled(path)}: a series is a file that ends in {', '.join(SUFFIXES)}")
    check_file(path)
    try:
        if suffix in (".npy", ".npz"):
            found = _from_numpy(path)
            if columns:
                raise InputError(f"{spelled(path)} names no columns: leave `columns` out, or give tables")
            return found
        table = _from_parquet(path) if suffix == ".parquet" else _from_text(path, suffix)
    except InputError:
        raise
    except Exception as error:  # of numpy and pyarrow, which raise a dozen types for broken files
        raise unreadable(path, "a series", error) from error
    for name in columns:
        if name not in table.column_names:
            raise InputError(f"{spelled(path)} has no column {name!r}: {meant(name, table.column_names)}")
    chosen = list(columns) or table.column_names
    return np.stack([_numbers(path, name, table.column(name)) for name in chosen], 1)


def _from_numpy(path: Any) -> np.ndarray:
    found: Any = np.load(path, allow_pickle=False)
    if not isinstance(found, np.ndarray):
        names = list(found.files)
        if len(names) != 1:
            raise InputError(f"{spelled(path)} holds {len(names)} arrays ({', '.join(names[:5])}): one is a series")
        found = found[names[0]]
    return found


def _from_parquet(path: Any) -> Any:
    import pyarrow.parquet

    return pyarrow.parquet.read_table(path)


def _from_text(path: Any, suffix: str) -> Any:
    from pyarrow import csv

    with open(path, encoding="utf-8-sig", errors="replace") as file:
        first = file.readline().strip()
    separator = "\t" if suffix == ".tsv" else ";" if ";" in first else ","
    headless = all(_is_number(cell) for cell in first.split(separator))
    return csv.read_csv(
        os.fsencode(path).decode(errors="surrogateescape"),
        csv.ReadOptions(autogenerate_column_names=headless),
        csv.ParseOptions(delimiter=separator),
    )


def _is_number(cell: str) -> bool:
    try:
        float(cell.strip().strip('"'))
    except ValueError:
        return False
    return True


def _numbers(path: Any, name: str, column: Any) -> np.ndarray:
    import pyarrow as pa

    kind = column.type
    if not (pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_boolean(kind)):
        if pa.types.is_null(kind):
            raise InputError(f"{spelled(path)}: column {name!r} is empty: fill it in, or name the others in `columns`")
        raise InputError(
            f"{spelled(path)}: column {name!r} holds {kind}, no numbers: name the columns to take in `columns`"
        )
    if column.null_count:
        row = column.is_null().to_pylist().index(True) + 1
        raise InputError(f"{spelled(path)}: column {name!r} has no value in row {row}: fill it in")
    return column.to_numpy().astype(np.float64)
