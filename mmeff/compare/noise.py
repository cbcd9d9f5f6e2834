"""How far the machine itself swung during a run: what all contenders of a round have in common."""

from collections.abc import Iterable
from statistics import median, quantiles

from mmeff.compare.quantities import Measured

#: Seconds of each pass of one contender, by what was measured.
Samples = dict[str, list[float]]
#: Of each kind of passes, factors of speed between which the machine was in 95 % of the rounds.
Swings = dict[str, tuple[float, float]]
KINDS = ("inference", "training", "latency")


def swings(fields: Iterable[list[Samples]]) -> Swings:
    """Of the samples of all contenders at each recipe and length.

    In a round contenders take turns. The machine's part in it is the median over the contenders of what a pass took as
    a share of that contender's median.
    """
    found: dict[str, list[float]] = {kind: [] for kind in KINDS}
    for contenders in fields:
        for kind, factors in found.items():
            relative = [[t / median(each[kind]) for t in each[kind]] for each in contenders if each.get(kind)]
            factors += [1 / median(together) for together in zip(*relative, strict=False)]
    return {kind: (cut[0], cut[-1]) for kind, factors in found.items() if factors and (cut := shares(factors, 40))}


def shares(values: list[float], n: int) -> list[float]:
    """The n - 1 quantiles that cut the values in n shares, within their range; of a single value that value."""
    return quantiles(values, n=n, method="inclusive") if len(values) > 1 else values * (n - 1)


def widened(found: Measured, kind: str, swing: Swings) -> Measured:
    """A value whose interval holds what the machine may have made of it."""
    if kind not in swing:
        return found
    low, high = swing[kind] if kind != "latency" else tuple(1 / factor for factor in reversed(swing[kind]))
    return found._replace(low=found.low * low, high=found.high * high)


def in_words(swing: Swings) -> str:
    """ "training -12 % to +5 %, ..." """
    return ", ".join(
        f"{kind} {100 * low - 100:+.0f} % to {100 * high - 100:+.0f} %" for kind, (low, high) in swing.items()
    )
