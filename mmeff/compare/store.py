"""Rows of a comparison as a Parquet file, which carries where and how they were measured."""

import json
import os
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any, get_args

import pyarrow as pa
import pyarrow.parquet as pq

from mmeff.compare.schema import Row
from mmeff.errors import InputError
from mmeff.signals.base import FORMER_NAME

#: Where `about` stands in the metadata of the file.
KEY = b"mmeff"

_TYPES = {str: pa.string(), int: pa.int64(), float: pa.float64()}


def _schema() -> pa.Schema:
    """A column for each field of a row, in order."""

    def column(kind: Any) -> pa.DataType:
        return _TYPES[kind if kind in _TYPES else get_args(kind)[0]]

    return pa.schema([(field.name, column(field.type)) for field in fields(Row)])


def write_rows(path: Path, rows: list[Row], about: dict[str, Any]) -> None:
    """Write the rows to a Parquet file, whole or not at all; `about` (device, versions, ...) goes along as JSON."""
    table = pa.Table.from_pylist([asdict(row) for row in rows], schema=_schema())
    partial = path.with_name(f".{path.name}.partial")
    pq.write_table(table.replace_schema_metadata({KEY: json.dumps(about).encode()}), partial)
    os.replace(partial, path)


def read_rows(path: Path) -> tuple[list[Row], dict[str, Any]]:
    """The rows of a file, and where and how they were measured."""
    try:
        table = pq.read_table(path)
    except (OSError, pa.ArrowException) as error:
        raise InputError(f"{path} is no Parquet file that can be read: {error}") from error
    stored = (table.schema.metadata or {}).get(KEY)
    if stored is None:
        raise InputError(f"{path} was not written by mmeff compare: give it a results.parquet of one of its runs")
    table = table.rename_columns(["signal" if name == FORMER_NAME else name for name in table.column_names])
    known = [field.name for field in fields(Row) if field.name in table.column_names]
    return [Row(**found) for found in table.select(known).to_pylist()], json.loads(stored)
