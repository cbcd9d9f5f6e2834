"""At which length one contender passes another: two curves through measured points, straight on log-log axes."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from math import exp, log

from mmeff.compare.quantities import Measured, Quantity, distinct, short
from mmeff.compare.ranking import by_backbone
from mmeff.compare.schema import Row

REFERENCE = "attention"


@dataclass(frozen=True)
class Crossing:
    """`backbone` becomes better than attention (`ahead`), or worse, at `length`, where both have `value`."""

    backbone: str
    length: float
    value: float
    ahead: bool


@dataclass(frozen=True)
class Race:
    """Every backbone against attention: the crossings, and who else is ahead, behind or within its spread throughout.

    Lengths at which two differ by no more than the spread do not count.
    """

    crossings: tuple[Crossing, ...]
    ahead: tuple[str, ...]
    behind: tuple[str, ...]
    level: tuple[str, ...]


def race(rows: Sequence[Row], quantity: Quantity) -> Race | None:
    """None where attention was not measured at two lengths."""
    curves = {name: points(those, quantity) for name, those in by_backbone(rows).items()}
    reference = curves.pop(REFERENCE, {})
    if len(reference) < 2:
        return None
    crossed: list[Crossing] = []
    ahead, behind, level = [], [], []
    for name, curve in curves.items():
        common = sorted(set(curve) & set(reference))
        clear = [x for x in common if distinct(curve[x], reference[x])]
        better = {x: (curve[x].value > reference[x].value) == (quantity.better > 0) for x in clear}
        changes = [(a, b) for a, b in pairwise(clear) if better[a] != better[b]]
        crossed += [crossing(name, curve, reference, [x for x in common if a <= x <= b], better[b]) for a, b in changes]
        if len(common) > 1 and not changes:
            (level if not clear else ahead if better[clear[0]] else behind).append(name)
    return Race(tuple(sorted(crossed, key=lambda c: c.length)), tuple(ahead), tuple(behind), tuple(level))


def points(rows: Sequence[Row], quantity: Quantity) -> dict[float, Measured]:
    """Length -> what was measured there."""
    return {row.length: found for row in rows if (found := quantity.read(row)) is not None and found.value > 0}


def crossing(
    name: str, curve: dict[float, Measured], reference: dict[float, Measured], lengths: list[float], ahead: bool
) -> Crossing:
    """Where the curves meet first on their way from the first of the lengths to the last, where they lie otherwise."""
    gains = [log(curve[x].value / reference[x].value) for x in lengths]
    i = next(i for i, (gain, after) in enumerate(pairwise(gains)) if gain * after <= 0 and gain != after)
    share = gains[i] / (gains[i] - gains[i + 1])
    a, b = lengths[i], lengths[i + 1]
    length = exp(log(a) + share * log(b / a))
    value = exp(log(reference[a].value) + share * log(reference[b].value / reference[a].value))
    return Crossing(name, length, value, ahead)


def in_words(found: Race, unit: str) -> str:
    """ "Pass attention: vim at 2.1k, linear at 3k tokens; ahead of attention wherever they differ: ..." """

    def where(ahead: bool) -> str:
        return ", ".join(f"{c.backbone} at {short(c.length)}" for c in found.crossings if c.ahead == ahead)

    parts = [
        f"pass attention: {where(True)} {unit}" if where(True) else "",
        f"fall behind attention: {where(False)} {unit}" if where(False) else "",
        f"ahead of attention wherever they differ: {', '.join(found.ahead)}" if found.ahead else "",
        f"behind attention wherever they differ: {', '.join(found.behind)}" if found.behind else "",
        f"within the spread of attention: {', '.join(found.level)}" if found.level else "",
    ]
    text = "; ".join(part for part in parts if part)
    return text[:1].upper() + text[1:]
