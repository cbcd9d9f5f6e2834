"""Which backbone to take: the best where it was measured, with margins, ties and gaps said."""

from rows import row, three_signals, timed

from mmeff.compare.choice import choose


def answers(rows, signal="text"):
    (choice,) = [choice for choice in choose(rows) if choice.signal == signal]
    return choice, {answer.question: answer for answer in choice.answers}


def test_the_fastest_is_named_with_its_margins():
    rows = [timed("attention", 4096, 1.0), timed("vim", 4096, 4.0), timed("gla", 4096, 2.0), timed("vim", 512, 99.0)]
    choice, found = answers(rows)
    assert choice.note == "Measured at 4096 tokens (recipe glosses)."
    assert found["Fastest in training"].names == ("vim",)
    assert found["Fastest in training"].text.endswith("tokens/s [16,220, 16,550]; 2.00 times gla; 4.00 times attention")
    assert found["Fastest in inference"].text == "not measured"


def test_a_difference_within_the_spread_is_no_choice():
    rows = [timed("vim", 4096, 4.0, 0.1), timed("gla", 4096, 3.9, 0.1), timed("attention", 4096, 1.0)]
    _, found = answers(rows)
    assert found["Fastest in training"].names == ("vim", "gla")
    assert "within the spread of each other; 4.00 times attention" in found["Fastest in training"].text


def test_of_many_that_cannot_be_told_apart_only_the_first_is_named():
    rows = [timed(f"gla{i}", 4096, 4.0 - i / 100, 0.1) for i in range(6)] + [timed("vim", 4096, 1.0)]
    _, found = answers(rows)
    assert found["Fastest in training"].names == ("gla0",)
    assert found["Fastest in training"].text.endswith(": 5 others lie within its spread; 4.00 times vim")
    assert answers(rows[:6])[1]["Fastest in training"].text.endswith(": all within the spread of each other")
    _, found = answers(rows[2:])
    assert found["Fastest in training"].names == ("gla2", "gla3", "gla4", "gla5")


def test_accuracy_is_taken_where_it_was_measured():
    rows = [timed("vim", 4096, 4.0), row("vim", 128, accuracy=0.8, accuracy_spread=0.01, seeds=2)]
    rows += [row("gla", 128, accuracy=0.75, accuracy_spread=0.01, seeds=2)]
    _, found = answers(rows)
    assert found["Most accurate"].names == ("vim",)
    assert found["Most accurate"].text == "80.0 % ± 1.0 at 128 tokens; 5.0 points above gla"
    one_seed = [row("vim", 4096, accuracy=0.8, seeds=1), row("gla", 4096, accuracy=0.79, seeds=1)]
    _, found = answers(one_seed)
    assert found["Most accurate"].text == "80.0 %: all too close to tell apart"
    assert found["Most accurate"].names == (), "nobody is better"


def test_what_was_measured_far_off_or_not_at_all_is_said():
    choice, _ = answers([timed("vim", 128, 1.0)])
    assert choice.note.startswith("Nothing near it was measured; the nearest is 128 tokens")
    choice, found = answers([timed("vim", 128, 1.0)], "audio")
    assert choice.note == "Not measured in this run." and not found


def test_who_failed_there_is_said():
    for signal in ("image", "audio", "text"):
        choice, found = answers(three_signals(), signal)
        assert choice.note.endswith("Failed there: deit (out of memory: 3 GiB | <all> of 2 GiB).")
        assert found["Fastest in training"].names == ("vim",)
