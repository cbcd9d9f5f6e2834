"""Which backbone to take: the fastest, the smallest and the most accurate for a clip, an image and a text."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from math import log

from mmeff import signals
from mmeff.compare.quantities import BY_KEY, Measured, Quantity, distinct, number
from mmeff.compare.schema import Row

QUESTIONS = {
    "training": "Fastest in training",
    "inference": "Fastest in inference",
    "memory": "Least memory in training",
    "accuracy": "Most accurate",
}
#: A length is near another up to this factor.
NEAR = 1.5
#: So many are named as equals; of more only the first, with the number of the others.
EQUALS = 4


@dataclass(frozen=True)
class Answer:
    """One question's answer: the names of the best, if they are few that cannot be told apart, and margins in words;
    no name where all are alike."""

    question: str
    names: tuple[str, ...]
    text: str


@dataclass(frozen=True)
class Choice:
    """The answers for one signal. `note` says where they were measured, or that nothing near was."""

    signal: str
    title: str
    note: str
    answers: tuple[Answer, ...]


def choose(rows: Sequence[Row]) -> list[Choice]:
    """A choice for each kind of signal, whether or not it was measured."""
    return [_choose(name, [row for row in rows if row.signal == name]) for name in signals.names()]


def _choose(name: str, rows: list[Row]) -> Choice:
    target, title = signals.of(name).target, signals.of(name).question
    if not rows:
        return Choice(name, title, "Not measured in this run.", ())
    found = asked_for(rows)
    here, length = lengths_name(found[0]), found[0].length
    near = max(length / target, target / length) <= NEAR
    said = f"Measured at {here}" if near else f"Nothing near it was measured; the nearest is {here}"
    failed = sorted(f"{row.backbone} ({row.error})" for row in found if row.error)
    note = f"{said} (recipe {found[0].recipe})." + (f" Failed there: {'; '.join(failed)}." if failed else "")
    answers = []
    for key, question in QUESTIONS.items():
        able = found if key != "accuracy" else nearest([row for row in rows if row.accuracy is not None], target)
        elsewhere = bool(able) and able[0].length != length
        answers.append(answer(question, BY_KEY[key], able, f" at {lengths_name(able[0])}" if elsewhere else ""))
    return Choice(name, title, note, tuple(answers))


def asked_for(rows: Sequence[Row]) -> list[Row]:
    """Of one signal's rows those of the length nearest to its target where speed was measured, failures included."""
    target = signals.of(rows[0].signal).target
    timed = nearest([row for row in rows if row.training or row.inference] or rows, target)
    return [row for row in rows if (row.recipe, row.length) == (timed[0].recipe, timed[0].length)]


def nearest(rows: Sequence[Row], target: float) -> list[Row]:
    """The rows of the length nearest to the target by ratio, of the recipe that has most there."""
    if not rows:
        return []
    length = min({row.length for row in rows}, key=lambda each: (abs(log(each / target)), each))
    there = [row for row in rows if row.length == length]
    recipe = Counter(row.recipe for row in there).most_common(1)[0][0]
    return [row for row in there if row.recipe == recipe]


def lengths_name(row: Row) -> str:
    return f"{row.length:g} {row.unit}"


def answer(question: str, quantity: Quantity, rows: Sequence[Row], where: str = "") -> Answer:
    """The best of the rows, all that lie within its spread, and how far the next and attention are."""
    values = {row.backbone: found for row in rows if (found := quantity.read(row)) is not None}
    ranked = sorted(values, key=lambda name: -quantity.better * values[name].value)
    if not ranked:
        return Answer(question, (), "not measured")
    best, unit = ranked[0], quantity.unit_of(rows[0])
    tied = [name for name in ranked if not distinct(values[name], values[best])]
    text = f"{quantity.show(values[best])} {unit} {values[best].spread}".rstrip() + where
    if len(ranked) == 1:
        return Answer(question, (best,), f"{text}; no other was measured")
    others = [name for name in ranked if name not in tied]
    shown = [*others[:1], *(["attention"] if "attention" in others[1:] else [])]
    margins = [f"{margin(quantity, values[best], values[name])} {name}" for name in shown]
    alike = "within the spread of each other" if values[best].spread else "too close to tell apart"
    if not others:
        return Answer(question, (), f"{text}: all {alike}")
    if len(tied) > EQUALS:
        tied, text = tied[:1], f"{text}: {len(tied) - 1} others lie within its spread"
    elif len(tied) > 1:
        text += f": {alike}"
    return Answer(question, tuple(tied), "; ".join([text, *margins]))


def margin(quantity: Quantity, best: Measured, other: Measured) -> str:
    """How much better the first is, as the words before the name of the second."""
    if quantity.key == "accuracy":
        return f"{best.value - other.value:.1f} points above"
    if quantity.better > 0:
        return f"{number(best.value / other.value)} times"
    return f"{number(best.value / other.value, 2)} of"
