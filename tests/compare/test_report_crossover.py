"""Crossings against curves whose crossing is known: powers of the length are straight in logarithms."""

import pytest
from rows import row, timed

from mmeff.compare.crossover import in_words, race
from mmeff.compare.quantities import BY_KEY

LENGTHS = (128, 512, 2048, 8192)
TRAINING = BY_KEY["training"]


def curve(name: str, tokens_a_second, spread: float = 0.001):
    """Rows whose training handles so many tokens a second at each length."""
    return [timed(name, length, tokens_a_second(length) / length, spread) for length in LENGTHS]


def test_a_crossing_lies_where_the_powers_meet():
    found = race([*curve("attention", lambda x: 1e8 / x), *curve("vim", lambda x: 5e4)], TRAINING)
    (crossing,) = found.crossings
    assert crossing.backbone == "vim" and crossing.ahead
    assert crossing.length == pytest.approx(2000) and crossing.value == pytest.approx(5e4)
    assert in_words(found, "tokens") == "Pass attention: vim at 2k tokens"


def test_less_memory_is_better():
    rows = [row("attention", x, memory=x**2 / 1e3) for x in LENGTHS]
    rows += [row("vim", x, memory=x / 1.0) for x in LENGTHS] + [row("linear", x, memory=x / 1e3) for x in LENGTHS]
    found = race(rows, BY_KEY["memory"])
    assert [(c.backbone, pytest.approx(c.length), c.ahead) for c in found.crossings] == [("vim", 1000, True)]
    assert found.ahead == ("linear",)


def test_who_falls_behind_and_who_never_meets_is_said():
    rows = curve("attention", lambda x: 1e4) + curve("slow", lambda x: 1e3)
    rows += curve("late", lambda x: 1e7 / x) + curve("equal", lambda x: 1e4)
    found = race(rows, TRAINING)
    assert in_words(found, "tokens") == (
        "Fall behind attention: late at 1k tokens; behind attention wherever they differ: slow; "
        "within the spread of attention: equal"
    )


def test_what_lies_within_the_spread_is_no_crossing():
    noise = dict(zip(LENGTHS, (1.02, 0.98, 1.02, 0.98), strict=True))
    rows = curve("attention", lambda x: 1e4, 0.05) + curve("same", lambda x: 1e4 * noise[x], 0.05)
    found = race(rows, TRAINING)
    assert not found.crossings and found.level == ("same",)
    rows += curve("passes", lambda x: {128: 5e3, 512: 1.01e4, 2048: 0.99e4, 8192: 5e4}[x], 0.05)
    assert [c.backbone for c in race(rows, TRAINING).crossings] == ["passes"], "once, though the lines touch thrice"


def test_without_attention_there_is_no_race():
    assert race(curve("vim", lambda x: 1.0), TRAINING) is None
    assert race([timed("attention", 128, 1.0), *curve("vim", lambda x: 1.0)], TRAINING) is None
