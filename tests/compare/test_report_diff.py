"""Two runs side by side: what counts as a regression, and what the exit code says."""

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from rows import row, run, timed

from mmeff.compare.diff import changes, compare_files
from mmeff.compare.noise import in_words, swings
from mmeff.errors import InputError


@pytest.mark.parametrize(
    ("first", "second", "verdicts"),
    [
        (timed("a", 512, 10, 0.05), timed("a", 512, 9.3, 0.05), [0]),  # the quartiles meet
        (timed("a", 512, 10, 0.02), timed("a", 512, 9.3, 0.02), [-1]),
        (timed("a", 512, 9.3, 0.02), timed("a", 512, 10, 0.02), [1]),
        (row("a", 9, latency_p50=2.0, latency_p95=2.2), row("a", 9, latency_p50=2.1, latency_p95=2.3), [0]),
        (row("a", 9, latency_p50=2.0, latency_p95=2.2), row("a", 9, latency_p50=2.4, latency_p95=2.5), [-1]),
        (row("a", 9, memory=100.0), row("a", 9, memory=103.0), [0]),
        (row("a", 9, memory=100.0), row("a", 9, memory=106.0), [-1]),
        (row("a", 9, accuracy=0.9, seeds=1), row("a", 9, accuracy=0.885, seeds=1), [0]),
        (row("a", 9, accuracy=0.9, seeds=1), row("a", 9, accuracy=0.87, seeds=1), [-1]),
        (
            row("a", 9, accuracy=0.9, accuracy_spread=0.02, seeds=3),
            row("a", 9, accuracy=0.87, accuracy_spread=0.02, seeds=3),
            [0],
        ),
        (row("a", 9, memory=100.0), row("a", 9, accuracy=0.9), []),
    ],
)
def test_worse_is_what_lies_beyond_the_spread_of_both(first, second, verdicts):
    assert [change.verdict for change in changes(first, second, ({}, {}))] == verdicts


def test_what_the_machine_may_have_done_is_no_verdict():
    first, second = timed("a", 512, 10, 0.02, latency_p50=2.0), timed("a", 512, 8, 0.02, latency_p50=2.5)
    assert [change.verdict for change in changes(first, second, ({}, {}))] == [-1, -1]
    for swung in (
        ({"training": (0.8, 1.1), "latency": (0.75, 1)}, {}),
        ({}, {"training": (1, 1.25), "latency": (1, 1.25)}),
    ):
        assert [change.verdict for change in changes(first, second, swung)] == [0, 0]
        assert [change.verdict for change in changes(second, first, swung[::-1])] == [0, 0]


def test_swings_are_what_contenders_have_in_common():
    """In every fifth round all take twice as long; one that is slow alone is no swing of the machine."""
    slow = [2.0 if i % 5 == 0 else 1.0 for i in range(40)]
    alone = [10.0 if i % 3 == 0 else 1.0 for i in range(40)]
    fields = [[{"training": slow}, {"training": [3 * t for t in slow]}, {"training": alone}], [{"training": [5.0] * 9}]]
    found = swings(fields)
    assert found["training"] == pytest.approx((0.5, 1.0)) and set(found) == {"training"}
    assert in_words(found) == "training -50 % to +0 %"
    assert swings([]) == {} and swings([[{}]]) == {}


def test_a_regression_on_one_device_fails_and_is_counted(tmp_path, capsys):
    before = [timed("vim", 512, 10, accuracy=0.9), timed("gla", 512, 10), timed("old", 512, 1)]
    after = [timed("vim", 512, 5, accuracy=0.95), timed("gla", 512, 10.01), timed("new", 1024, 1)]
    a, b = run(tmp_path / "a", before), run(tmp_path / "b", after)
    assert compare_files(a, b / "results.parquet") == 1
    said = capsys.readouterr().out
    vim = next(line for line in said.splitlines() if " vim " in line)
    assert (
        "0.50x" in vim
        and "+5.0 pt" in vim
        and "WORSE: training throughput 5,120 to 2,560; better: accuracy 90.0 to 95.0" in vim
    )
    assert "only in A: glosses, old at 512 tokens" in said and "only in B: glosses, new at 1024 tokens" in said
    assert "2 rows in both; beyond the spread of both: 1 worse, 1 better." in said
    assert compare_files(a, a) == 0
    assert compare_files(b, a) == 1, "accuracy fell"


def test_other_devices_are_no_regression(tmp_path, capsys):
    a, b = run(tmp_path / "a", [timed("vim", 512, 10)]), run(tmp_path / "b", [timed("vim", 512, 5)], device="slow")
    assert compare_files(a, b) == 0
    assert "differences of machines, not regressions" in capsys.readouterr().out


def test_what_fails_now_is_a_regression(tmp_path, capsys):
    a, b = run(tmp_path / "a", [timed("vim", 512, 10)]), run(tmp_path / "b", [row("vim", 512, error="out of [memory]")])
    assert compare_files(a, b) == 1
    assert "FAILED: out of [memory]" in capsys.readouterr().out
    assert compare_files(b, b) == 0


def test_wrong_files_are_named(tmp_path):
    good = run(tmp_path / "good", [timed("vim", 512, 10)])
    with pytest.raises(InputError, match=r"no results at .*nowhere"):
        compare_files(good, tmp_path / "nowhere")
    (tmp_path / "text.parquet").write_text("no table")
    with pytest.raises(InputError, match=r"text\.parquet"):
        compare_files(tmp_path / "text.parquet", good)
    pq.write_table(pa.table({"x": [1]}), tmp_path / "other.parquet")
    with pytest.raises(InputError, match=r"other\.parquet"):
        compare_files(good, tmp_path / "other.parquet")
    with pytest.raises(InputError, match="holds no rows"):
        compare_files(good, run(tmp_path / "empty", []))
    with pytest.raises(InputError, match="twice"):
        compare_files(good, run(tmp_path / "twice", [timed("vim", 512, 10), timed("vim", 512, 11)]))
