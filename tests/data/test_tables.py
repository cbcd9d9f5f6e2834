"""Tables: what their cells may hold, splits by any column, tables without a header, files that are not there."""

import datetime
import json
import warnings
from collections import Counter
from pathlib import Path

import pytest

from mmeff.data import FileTable, TextData, TextTable
from mmeff.errors import InputError

NAN = float("nan")


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def refused(source, *parts):
    with pytest.raises(InputError) as caught:
        source.examples()
    for part in parts:
        assert part in str(caught.value)
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 400


def write_parquet(name, **columns):
    import pyarrow
    import pyarrow.parquet

    pyarrow.parquet.write_table(pyarrow.table(columns), name)


NO_TEXT = {
    "nan": NAN,
    "-inf": -float("inf"),
    "an object with fields": {"a": 1},
    "a list": [["a"]],
}


@pytest.mark.parametrize("column", ["text", "label"])
@pytest.mark.parametrize("what", NO_TEXT)
def test_cells_that_are_no_text_are_refused_by_row_and_column(what, column):
    value = NO_TEXT[what]
    rows = [{"text": "a", "label": "x"}, {"text": "a", "label": "x"}]
    rows[1][column] = value
    Path("t.jsonl").write_text("\n".join(map(json.dumps, rows)))
    refused(TextTable("t.jsonl"), f"t.jsonl:2: column '{column}' has {what}")
    filler = {"nan": 1.0, "-inf": 1.0, "a list": [["b"]], "an object with fields": {"a": 2}}[what]
    good = ["a", "b"]
    write_parquet("t.parquet", **{"text": good, "label": good, column: [filler, value]})
    row = 2 if isinstance(filler, float) else 1
    refused(TextTable("t.parquet"), f"t.parquet:{row}: column '{column}' has {what}")
    write_parquet("b.parquet", **{"text": good, "label": good, column: [b"x", b"y"]})
    refused(TextTable("b.parquet"), f"b.parquet:1: column '{column}' has bytes")


def test_cells_of_other_types_that_are_labels():
    for values, labels in (
        ([1.0, 0.0], ["1", "0"]),  # whole numbers, as pandas keeps them where one was missing
        ([1, 0], ["1", "0"]),
        ([2.5, 3.0], ["2.5", "3"]),
        ([True, False], ["True", "False"]),
        ([datetime.date(2020, 1, 2)] * 2, ["2020-01-02"] * 2),
        ([["b", "a"], []], [("b", "a"), ()]),
        (["cafe\u0301 ", "caf\u00e9"], ["caf\u00e9"] * 2),
    ):
        write_parquet("t.parquet", text=["a", "b"], label=values)
        assert TextTable("t.parquet").examples().labels == labels
    write_parquet("t.parquet", text=["a", "b"], label=[1.0, None])
    refused(TextTable("t.parquet"), "t.parquet:2: the label (column 'label') is empty")
    Path("t.csv").write_text("text,label\na,nan\nb,x\n")
    with pytest.warns(UserWarning, match=r"1 row\(s\) have the label 'nan', such as t\.csv:2: a missing value\?"):
        TextTable("t.csv").examples()


def test_groups_have_one_form_and_none_is_empty():
    Path("t.csv").write_text("text,label,who\na,x,Jose\u0301\nb,y,Jos\u00e9 \n", encoding="utf-8")
    assert TextTable("t.csv", group="who").examples().group == ["Jos\u00e9"] * 2
    write_parquet("t.parquet", text=["a", "b"], label=["x", "y"], who=["Ann", None])
    refused(TextTable("t.parquet", group="who"), "t.parquet:2: the group (column 'who') is empty")


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ('{"text": "a", "label": ' + "[" * 100_000 + "]" * 100_000 + "}", "nested too deeply"),
        ('{"text": "a", "label": 1e999}', "column 'label' has inf"),
        ('{"text": "a", "label": ' + "9" * 5000 + "}", "Exceeds the limit"),
        ("[1, 2]", "a line must be an object with named fields"),
        ("5", "a line must be an object with named fields"),
        ('"x"', "a line must be an object with named fields"),
        ("null", "a line must be an object with named fields"),
        ('{"text": "a", "label": "x", "label": "y"}', "the field 'label' is there twice"),
        (r'{"text": "a", "label": "x\u0000"}', r"the label 'x\x00' has a control character"),
        ('{"text": "a", "label": ["x", ["y"]]}', "column 'label' has a list"),
        ('{"text": "a", "label": "x"} {}', "no JSON: Extra data"),
    ],
)
def test_lines_that_are_no_rows(line, message):
    Path("t.jsonl").write_text('{"text": "a", "label": "x"}\n' + line)
    refused(TextTable("t.jsonl"), "t.jsonl:2: ", message)


def test_strange_lines_that_are_rows():
    Path("t.jsonl").write_text(
        r'{"text": "a\u0000b\u2028c", "label": "\ud800", "more": {}}' + '\n{"text": 5, "label": 1}'
    )
    found = TextTable("t.jsonl").examples()
    assert (found.items, found.labels) == (["a\0b\u2028c", "5"], ["\\ud800", "1"])
    Path("t.jsonl").write_text(r'{"text": "\u0000\u200b", "label": "x"}')
    with pytest.raises(InputError, match=r"t\.jsonl:1: the text is empty"):
        TextData(TextTable("t.jsonl")).setup()


@pytest.mark.parametrize("separator", ["ab", "", '"', "\n", "\r", "\0"])
def test_separators_that_cannot_be(separator):
    with pytest.raises(InputError, match="it must be one character"):
        TextTable("t.csv", separator=separator)


def test_separators():
    with pytest.raises(InputError, match="label_separator is empty"):
        TextTable("t.csv", label_separator="")
    for separator in ("|", "\t", r"\t", ";", " "):
        Path("t.csv").write_text("text|label\na|x\n".replace("|", "\t" if separator == r"\t" else separator))
        assert TextTable("t.csv", separator=separator).examples().labels == ["x"]
    Path("t.csv").write_text("text;label\na;x\n")
    refused(TextTable("t.csv"), "no column 'text'; it has 'text;label'", "give `separator`")


def test_tables_without_a_header():
    Path("t.csv").write_text("good,1\nbad,0\n")
    refused(TextTable("t.csv"), "no column 'text'", "If its first line is data, give header: false")
    refused(TextTable("t.csv", header=False), "it has '1', '2'; without a header, columns are named by their numbers")
    refused(TextTable("t.csv", header=["text", "label", "x"]), "t.csv:1: 2 cells where the header has 3")
    for source in (
        TextTable("t.csv", 1, 2, header=False),
        TextTable("t.csv", "1", "2", header=False),
        TextTable("t.csv", header=["text", "label"]),
    ):
        found = source.examples()
        assert (found.items, found.labels, found.ids) == (["good", "bad"], ["1", "0"], ["t.csv:1", "t.csv:2"])
    Path("t.csv").write_text("\n\ntext,label\ngood,1\n")
    refused(TextTable("t.csv", header=["text", "label"]), "t.csv:3: the first line is the header already")
    assert TextTable("t.csv").examples().ids == ["t.csv:4"]
    Path("t.csv").write_text("a,1\nb\n")
    refused(TextTable("t.csv", 1, 2, header=False), "t.csv:2: 1 cells where the first line has 2")
    Path("t.jsonl").write_text('{"text": "a", "label": "x"}')
    refused(TextTable("t.jsonl", header=False), "names its columns itself")


def table(column, values):
    lines = [f"text,label,{column}", *(f"t{i},{i % 2},{value}" for i, value in enumerate(values))]
    Path("t.csv").write_text("\n".join(lines))


@pytest.mark.parametrize(
    ("column", "values", "splits", "counts"),
    [
        ("part", "Train DEV test", None, "train val test"),
        ("part", "training eval", None, "train test"),
        ("part", "training eval testing", None, "train val test"),
        ("part", "train held-out", {"test": "held-out"}, "train test"),
        ("part", "train val", {"test": "val"}, "train test"),
        ("fold", "1 2 3 4 5", {"test": 5, "val": [1, 2]}, "val val train train test"),
        ("fold", "1.0 2.0", {"test": 2}, "train test"),
        ("fold", "1 2", {"test": "2"}, "train test"),
        ("is_valid", "True False", None, "val train"),
        ("is_test", "0 1", None, "train test"),
        ("held", "TRUE false", {"val": True}, "val train"),
        ("is_train", "True False", {"train": True, "test": False}, "train test"),
    ],
)
def test_splits_by_a_column(column, values, splits, counts):
    table(column, values.split())
    assert TextTable("t.csv", split=column, splits=splits).examples().split == counts.split()


@pytest.mark.parametrize(
    ("values", "splits", "message"),
    [
        ("1 2 3", None, "t.csv:2: column 's' says '1', which names no split"),
        ("1 2 3", {"test": 9}, "splits: no row says '9' in column 's'; it says '1', '2', '3'"),
        ("1 2 3", {"train": [1], "test": 2}, "t.csv:4: column 's' says '3', which names no split"),
        ("train dev", {"dev": "val"}, "'dev' is no split: its keys are train, val and test, as in {val: dev}"),
        ("1 2", {"test": 1, "val": 1}, "splits: 1 is in test and in val"),
        ("true false", None, "say what it means, as splits: {test: true}"),
    ],
)
def test_splits_that_are_unclear(values, splits, message):
    table("s", values.split())
    with pytest.raises(InputError) as caught:
        TextTable("t.csv", split="s", splits=splits).examples()
    assert message in str(caught.value)


def test_empty_splits_and_splits_said_twice():
    Path("t.jsonl").write_text('{"text": "a", "label": "x", "s": "train"}\n{"text": "a", "label": "x", "s": null}\n')
    refused(TextTable("t.jsonl", split="s"), "t.jsonl:2: the split (column 's') is empty")
    with pytest.raises(InputError, match="name that column too"):
        TextTable("t.csv", splits={"test": 5})
    with pytest.raises(InputError, match="text names no column"):
        TextTable("t.csv", [])
    with pytest.raises(InputError, match="leave one out"):
        TextTable({"train": "t.csv"}, split="s")


def test_a_folder_with_a_table_a_split():
    Path("d").mkdir()
    for name in ("Train.csv", "dev.tsv", "test_data.csv", "notes.md"):
        Path("d", name).write_text("text,label\nx,1\n".replace(",", "\t" if name == "dev.tsv" else ","))
    assert Counter(TextTable("d").examples().split) == {"train": 1, "val": 1, "test": 1}
    Path("d/sample.csv").write_text("")
    with pytest.warns(UserWarning, match=r"left out: sample\.csv"):
        TextTable("d").examples()
    refused(TextTable("d", split="x"), "leave the column `split` out")
    Path("d/train.tsv").write_text("")
    refused(TextTable("d"), "two tables for the train split, Train.csv and train.tsv")
    for name in ("train.tsv", "Train.csv"):
        Path("d", name).unlink()
    Path("d/dev.tsv").rename("d/reviews.dev.tsv")
    refused(TextTable("d"), "its tables are reviews.dev.tsv, sample.csv, test_data.csv")
    Path("d/reviews_train.csv").write_text("text,label\nx,1\n")
    with pytest.warns(UserWarning, match=r"left out: sample\.csv"):
        assert Counter(TextTable("d").examples().split) == {"train": 1, "val": 1, "test": 1}
    Path("e").mkdir()
    refused(TextTable("e"), "has no table for training, such as train.csv (it has no table)")
    for name in ("train-00000-of-00002-ab", "train-00001-of-00002-cd", "validation-00000-of-00001"):
        write_parquet(f"e/{name}.parquet", text=["a"], label=["b"])
    assert TextTable("e").examples().split == ["train", "train", "val"]


def test_files_that_are_not_there():
    Path("images").mkdir()
    for i in range(3):
        Path(f"images/{i}.png").write_bytes(b"x")
    Path("t.csv").write_text("file,label\n" + "".join(f"{i}.png,{i % 2}\n" for i in range(6)))
    here = Path.cwd()
    refused(FileTable("t.csv"), f"t.csv:2: the file '0.png' of column 'file' is not in {here}, nor are 5 others")
    refused(FileTable("t.csv", root="images"), "t.csv:5: the file '3.png'", "nor are 2 others", "or set missing: skip")
    with pytest.warns(UserWarning, match="3 of 6 files skipped: t.csv:5"):
        found = FileTable("t.csv", root=str(here / "images"), missing="skip").examples()
    assert (found.ids, found.labels) == ([str(here / f"images/{i}.png") for i in range(3)], ["0", "1", "0"])
    refused(FileTable("t.csv", missing="skip"), "nor are 5 others")
    refused(FileTable("t.csv", root="nowhere"), "nowhere is no folder")
    with pytest.raises(InputError, match='must be "refuse" or "skip"'):
        FileTable("t.csv", missing="ignore")  # type: ignore[arg-type]


def test_a_file_in_two_splits_or_classes_is_told():
    for name in "ab":
        Path(f"{name}.png").write_bytes(b"x")
    Path("t.csv").write_text("file,label,split\na.png,x,train\na.png,x,test\nb.png,x,train\nb.png,y,train\n")
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        FileTable("t.csv", split="split").examples()
    said = [str(one.message) for one in caught]
    assert len(said) == 2 and "1 files are in two splits" in said[0] and "1 files are in two classes" in said[1]


def test_both_tables_have_the_same_options():
    import inspect

    own = {"text", "file", "root", "missing"}
    text, file = ([p for p in inspect.signature(one).parameters if p not in own] for one in (TextTable, FileTable))
    assert text == file
    for one in (TextTable, FileTable):
        for name in inspect.signature(one).parameters:
            assert f"\n    {name}: " in inspect.getdoc(one)
