"""Plots: what is drawn of which rows, and where names go."""

from itertools import pairwise

import pytest
from matplotlib.image import imread
from rows import ABOUT, row, three_signals, timed

from mmeff.compare import plots
from mmeff.compare.drawing import looks, panel
from mmeff.compare.facts import facts
from mmeff.compare.labels import Box, around, away_from, height_for, spread_out
from mmeff.compare.plots import frontier, pictures, write_plots


def test_each_recipe_gets_the_plots_that_it_has_values_for(tmp_path):
    rows = three_signals()
    names = {picture.name for picture in pictures(rows)}
    assert {"training-digits", "memory-tones", "training-glosses"} < names
    assert not [name for name in names if "latency" in name or "flops" in name], "nothing of this was measured"
    write_plots(tmp_path / "plots", rows)
    assert {path.stem for path in (tmp_path / "plots").glob("*.png")} == names
    assert all(path.read_bytes().startswith(b"\x89PNG") for path in (tmp_path / "plots").iterdir())


def test_lines_are_in_times_attentions_where_that_was_measured_at_every_length():
    lengths = (512, 4096)
    rows = [timed(name, length, 3.0) for name in ("attention", "vim") for length in lengths]
    assert pictures(rows)[0].title.startswith("Training throughput, times attention's")
    assert "at 512 to 4096 tokens" in pictures(rows)[0].alt
    for fewer in (rows[1:], rows[2:], rows[:2]):
        assert pictures(fewer)[0].title.startswith("Training throughput against length")


def test_what_is_drawn_is_the_share_of_attention(monkeypatch, tmp_path):
    ends = {}
    monkeypatch.setattr(plots, "names_at_ends", lambda ax, at, style: ends.update(at))
    rows = [
        timed("attention", 512, 9.0),
        timed("attention", 4096, 4.0),
        timed("vim", 512, 3.0),
        timed("vim", 4096, 8.0),
    ]
    write_plots(tmp_path, rows)
    assert ends == {"attention": (4096, 1.0), "vim": (4096, 2.0)}
    write_plots(tmp_path, rows[1:])
    assert ends["vim"] == (4096, 8.0 * 4096), "tokens a second"


def test_a_plot_grows_with_its_names_and_its_caption(tmp_path):
    def size(name, names, below):
        with panel(tmp_path / name, "t", "x", "y", below, height=height_for(names)):
            pass
        return imread(tmp_path / name).shape[0]

    few, many, long = size("a.png", "ab", ""), size("b.png", "a" * 40, ""), size("c.png", "ab", "word " * 200)
    assert few < min(many, long)


def test_one_length_is_no_line():
    assert not pictures([timed("vim", 512, 1.0), timed("attention", 512, 2.0)])


def test_accuracy_is_shown_at_the_length_where_most_were_trained():
    rows = [row(name, 128, accuracy=0.8, train_seconds=2.0) for name in ("vim", "gla")]
    rows += [row("vim", 512, accuracy=0.9, train_seconds=9.0)]
    (picture,) = pictures(rows)
    assert picture.name == "accuracy-train_seconds-glosses" and "128 tokens" in picture.title
    assert "vim, gla" in picture.alt or "gla, vim" in picture.alt


def test_the_frontier_is_what_no_cheaper_one_beats():
    assert frontier([(3, 5.0), (1, 2.0), (2, 1.0), (2, 4.0), (4, 5.0)]) == [(1, 2.0), (2, 4.0), (3, 5.0)]


def test_twenty_contenders_look_different_and_attention_stands_out():
    names = ["attention", *map(str, range(24))]
    style = looks(names)
    assert len({(look.colour, look.dash) for look in style.values()}) == len(names)
    assert style["attention"].width > max(style[name].width for name in names[1:])


@pytest.mark.parametrize("heights", [[0, 0, 0], [10, 50, 90], [95, 96, 97, 98], [40, 41, 60, 61, 62]])
def test_names_at_ends_are_apart_in_order_and_within_bounds(heights):
    placed = spread_out(heights, 10, 0, 100)
    assert all(b - a >= 10 - 1e-9 for a, b in pairwise(placed))
    assert placed[0] >= 0 and placed[-1] <= 100
    if heights == [10, 50, 90]:
        assert placed == heights, "what has room stays"


def test_names_around_points_leave_them_free():
    box = around(50, 50, 0.0, 8, 30, 10)
    assert box == Box(58, 45, 88, 55)
    assert away_from(box, 50, 50) == 8 and away_from(box, 60, 50) == 0
    assert box.shared(Box(80, 50, 100, 100)) == 8 * 5 and box.area() == 300


def test_facts_of_a_run_are_plain():
    found = dict(facts({**ABOUT, "cpu_model": ["a", 1]}))
    assert list(found) == ["Device", "CPU threads", "Versions", "Commit", "Date", "Cpu model", "Command"]
    assert found["Cpu model"] == "a 1"
