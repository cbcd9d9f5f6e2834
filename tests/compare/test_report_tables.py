"""Tables: every row stands in them, with its unit and its spread, and the worst is as visible as the best."""

import csv
import re

import pytest
from rows import ABOUT, row, run, three_signals, timed

from mmeff.compare.quantities import BY_KEY, number, short
from mmeff.compare.ranking import marks
from mmeff.compare.report import write_report
from mmeff.compare.table import table, write_csv, write_markdown
from mmeff.errors import InputError


def cells(line: str) -> list[str]:
    return [cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]]


@pytest.mark.parametrize(
    ("signal", "length", "unit", "value"),
    [("image", 224, "images/s", "10.00"), ("audio", 10, "s of audio/s", "100.0"), ("text", 512, "tokens/s", "5,120")],
)
def test_a_rate_is_in_the_signals_own_unit_with_its_quartiles(signal, length, unit, value):
    lines = table([timed("vim", length, 10.0, 0.1, signal=signal)], [BY_KEY["training"]]).splitlines()
    assert cells(lines[0])[-1] == f"training throughput, {unit}"
    scale = float(value.replace(",", "")) / 10
    assert cells(lines[2])[-1] == f"{value} [{number(9 * scale, 4)}, {number(11 * scale, 4)}]"


def test_best_and_worst_are_marked_among_equals_alone():
    fast, slow, middle = timed("a", 512, 9), timed("b", 512, 3), timed("c", 512, 5)
    longer, other = timed("a", 1024, 1), timed("a", 512, 20, recipe="agnews")
    found = marks([fast, slow, middle, longer, other], BY_KEY["training"])
    assert found == {fast: "best", slow: "worst"}
    small, large = row("a", 512, memory=3.0), row("b", 512, memory=8.0)
    assert marks([small, large], BY_KEY["memory"]) == {small: "best", large: "worst"}
    assert not marks([timed("a", 512, 3), timed("b", 512, 3)], BY_KEY["training"])


def test_every_row_stands_in_the_markdown_and_errors_in_theirs(tmp_path):
    rows = three_signals()
    write_markdown(tmp_path / "table.md", rows, ABOUT)
    text = (tmp_path / "table.md").read_text()
    for fact in ("a test's device", "2026-11-24T05:00:00", "torch 2.11.0", "abc123", "mmeff compare -c some.yaml"):
        assert fact in text
    tables = [line for line in text.splitlines() if line.startswith("|")]
    assert len(tables) == len(rows) + 2 * 3
    assert len({len(cells(line)) for line in tables}) == 1, "the pipe of an error is no border"
    assert text.count("out of memory: 3 GiB \\| \\<all\\> of 2 GiB |") == 3
    assert "**10.00**" in text or "**100.0**" in text
    assert "*60.00*" in text
    assert "one seed (its spread is unknown)" in text


def test_the_csv_holds_every_field(tmp_path):
    rows = three_signals()
    write_csv(tmp_path / "results.csv", rows)
    with open(tmp_path / "results.csv", newline="") as file:
        found = list(csv.DictReader(file))
    assert [each["backbone"] for each in found] == [each.backbone for each in rows]
    assert float(found[0]["training_high"]) == rows[0].training_high
    assert found[0]["latency_p50"] == "" and found[-1]["error"].startswith("out of memory")


def test_accuracy_of_several_seeds_has_a_spread_and_of_one_seed_none():
    read = BY_KEY["accuracy"].read
    several, one = row("a", 9, accuracy=0.9, accuracy_spread=0.02, seeds=3), row("a", 9, accuracy=0.9, seeds=1)
    assert read(several) == (pytest.approx(90), pytest.approx(88), pytest.approx(92), "± 2.0")
    assert read(one) == (pytest.approx(90), pytest.approx(89), pytest.approx(91), "")


def test_the_sampling_error_of_the_test_split_counts():
    read = BY_KEY["accuracy"].read
    # 90 % of 96: (86.4 + 2) / 100 are 0.884, sqrt(0.884 x 0.116 / 100) is 0.0320, and 1.96 / sqrt(2) of it 4.44 points.
    for tested, seeds, reach in ((96, 0.0, 4.44), (96, 0.03, 5.36), (10**8, 0.03, 3.0)):
        found = read(row("a", 9, accuracy=0.9, accuracy_spread=seeds, seeds=3, tested=tested))
        assert found is not None and found.high - 90 == pytest.approx(reach, abs=0.01) == 90 - found.low
        assert found.spread == f"± {reach:.1f}"
    one = read(row("a", 9, accuracy=1.0, seeds=1, tested=20))
    assert one is not None and one.low < 93 and one.spread  # all of 20 right is not all of all


def test_numbers_read_well():
    assert [number(4096), number(12345.6), number(0.01234), number(0.0)] == ["4,096", "12,300", "0.0123", "0"]
    assert [number(0.9996), number(99.97), number(1_085_000.0, 4)] == ["1.00", "100", "1,085,000"]
    assert [short(224), short(2100), short(16384), short(2.55), short(3e6)] == ["224", "2.1k", "16k", "2.5", "3M"]


def test_a_report_of_what_is_not_there_says_so(tmp_path):
    with pytest.raises(InputError, match=r"no results at .*results.parquet"):
        write_report(tmp_path)


def test_a_report_of_no_rows_is_a_report(tmp_path):
    write_report(run(tmp_path, []))
    assert "Nothing is measured yet" in (tmp_path / "table.md").read_text()
    assert "Nothing is measured yet" in (tmp_path / "report.html").read_text()
