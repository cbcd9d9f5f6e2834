"""Rows come back from their file as they went in, with what stands beside them."""

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from mmeff.compare.schema import Row, signal_rate
from mmeff.compare.store import read_rows, write_rows
from mmeff.errors import InputError

ROW = Row("tones", "audio", "vim", "mmeff", 2.5, "s", tokens=126, inference=8.0, error=None)


def test_rows_come_back_with_where_they_were_measured(tmp_path: Path) -> None:
    about = {"device": "a CPU", "versions": {"torch": "2.11"}}
    other = Row("digits", "image", "attention", "mmeff", 28.0, "px", error="it failed")
    write_rows(tmp_path / "results.parquet", [ROW, other], about)
    assert read_rows(tmp_path / "results.parquet") == ([ROW, other], about)
    assert [path.name for path in tmp_path.iterdir()] == ["results.parquet"]


def test_other_files_are_refused(tmp_path: Path) -> None:
    pq.write_table(pa.table({"a": [1]}), tmp_path / "other.parquet")
    with pytest.raises(InputError, match="not written by mmeff compare"):
        read_rows(tmp_path / "other.parquet")
    (tmp_path / "text.parquet").write_text("no table")
    with pytest.raises(InputError, match="no Parquet file"):
        read_rows(tmp_path / "text.parquet")
    with pytest.raises(InputError, match="no Parquet file"):
        read_rows(tmp_path / "missing.parquet")


def test_rates_are_given_in_the_measure_of_the_signal() -> None:
    assert signal_rate(ROW, 8.0) == (20.0, "s of audio/s")
    assert signal_rate(Row("digits", "image", "vim", "mmeff", 28.0, "px"), 8.0) == (8.0, "images/s")
    assert signal_rate(Row("glosses", "text", "vim", "mmeff", 64.0, "tokens"), 8.0) == (512.0, "tokens/s")
