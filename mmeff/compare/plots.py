"""The plots of a comparison: accuracy against cost, and speed, memory and latency against length, of each recipe."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from re import sub
from typing import TYPE_CHECKING

from mmeff.compare.crossover import REFERENCE, in_words, points, race
from mmeff.compare.drawing import FAINT, INK, Look, decades_axis, lengths_axis, looks, panel
from mmeff.compare.labels import height_for, names_at_ends, names_at_points, room_for
from mmeff.compare.quantities import BY_KEY, Quantity, number
from mmeff.compare.ranking import by_backbone, by_recipe, by_signal
from mmeff.compare.schema import Row
from mmeff.compare.table import budget, heading

if TYPE_CHECKING:
    from matplotlib.axes import Axes

OF_LENGTH = ("training", "inference", "memory", "inference_memory", "latency")
OF_COST = ("parameters", "forward_flops", "train_seconds")


@dataclass(frozen=True)
class Picture:
    """A plot before it is drawn: the name of its file, its signal, its title, and what it shows in words."""

    name: str
    signal: str
    title: str
    alt: str
    draw: Callable[[Path, dict[str, Look]], None]


def pictures(rows: Sequence[Row]) -> list[Picture]:
    """All that the rows have something to show for, by signal and recipe."""
    found = []
    for signal, those in by_signal(rows).items():
        for recipe, own in by_recipe(those).items():
            here = f"{signal}, recipe {recipe}"
            name = sub(r"\W+", "-", recipe)
            found += [p for key in OF_COST if (p := against_cost(own, BY_KEY[key], name, here))]
            found += [p for key in OF_LENGTH if (p := against_length(own, BY_KEY[key], name, here))]
    return found


def write_plots(folder: Path, rows: Sequence[Row]) -> None:
    """Draw every picture as folder/NAME.png; a contender has one look in all of them."""
    style = looks(list(by_backbone(rows)))
    for picture in pictures(rows):
        picture.draw(folder / f"{picture.name}.png", style)


def against_length(rows: Sequence[Row], quantity: Quantity, recipe: str, here: str) -> Picture | None:
    """A line a contender over the lengths, with its spread and with where it passes attention: in times attention's,
    if that was measured at every length. Needs two lengths."""
    curves = {name: [row for row in those if quantity.read(row)] for name, those in by_backbone(rows).items()}
    curves = {name: those for name, those in curves.items() if those}
    lengths = sorted({row.length for those in curves.values() for row in those})
    if len(lengths) < 2:
        return None
    reference = points(curves.get(REFERENCE, ()), quantity)
    relative = len(curves) > 1 and set(lengths) == set(reference)
    unit_at = {length: reference[length].value if relative else 1.0 for length in lengths}
    unit, batches = rows[0].unit, {row.batch for row in rows if row.batch}
    batch = f", batch {1 if quantity.key == 'latency' else batches.pop()}" if len(batches) == 1 else ""
    beside = f"{quantity.title}, times {REFERENCE}'s"
    title = f"{(beside if relative else f'{quantity.title} against length').capitalize()} ({here}{batch})"
    crossed = race(rows, quantity)
    words = in_words(crossed, unit) if crossed else ""
    ends = sorted({row.memory_ends_at for row in rows if row.memory_ends_at}) if quantity.key == "memory" else []

    def draw(path: Path, style: dict[str, Look]) -> None:
        below = f"{words}. Cross: a training step no longer fits." if ends else words
        y = beside if relative else heading(quantity, rows[0])
        with panel(path, title, f"length, {unit}", y, below, room_for(curves), height_for(curves)) as ax:
            lengths_axis(ax, sorted({*lengths, *ends}))
            ax.set_yscale("log")
            for name, those in curves.items():
                draw_curve(ax, those, quantity, unit_at, style[name])
            decades_axis(ax.yaxis)
            if crossed:
                where = [c.length for c in crossed.crossings], [1.0 if relative else c.value for c in crossed.crossings]
                ax.plot(*where, "o", ms=8, mfc="none", mec=INK, mew=0.9)
            last = {name: those[-1] for name, those in curves.items()}
            at = {
                name: (row.length, found.value / unit_at[row.length])
                for name, row in last.items()
                if (found := quantity.read(row))
            }
            names_at_ends(ax, at, style)

    alt = f"{title}: {', '.join(curves)} at {lengths[0]:g} to {lengths[-1]:g} {unit}. {words}".strip()
    return Picture(f"{quantity.key}-{recipe}", rows[0].signal, title, alt, draw)


def draw_curve(ax: "Axes", rows: Sequence[Row], quantity: Quantity, unit_at: dict[float, float], look: Look) -> None:
    """Medians as a line, the spread as whiskers, and a cross where a training step no longer fits; all in the unit of
    their length."""
    found = [(row.length, value, unit_at[row.length]) for row in rows if (value := quantity.read(row))]
    lengths, y = [length for length, _, _ in found], [value.value / unit for _, value, unit in found]
    ax.plot(lengths, y, color=look.colour, linestyle=look.dash, linewidth=look.width, marker=look.marker, ms=3.5)
    if quantity.key != "latency":  # whose 95th percentiles stand in the tables
        spread = [(x, value.low / unit, value.high / unit) for x, value, unit in found if value.spread]
        x, low, high = ([each[i] for each in spread] for i in range(3))
        ax.vlines(x, low, high, look.colour, linewidth=0.8)
    ends_at = min((row.memory_ends_at for row in rows if row.memory_ends_at), default=None)
    if ends_at is not None and quantity.key == "memory":
        ax.plot([ends_at], [y[-1]], marker="x", ms=6, mew=1.5, color=look.colour, linestyle="none")


def against_cost(rows: Sequence[Row], quantity: Quantity, recipe: str, here: str) -> Picture | None:
    """A point a contender, at the longest length of which most were trained; the line has the best at each cost."""
    trained = [row for row in rows if row.accuracy is not None and quantity.read(row)]
    if not trained:
        return None
    counts = {row.length: sum(other.length == row.length for other in trained) for row in trained}
    length = max(counts, key=lambda each: (counts[each], each))
    trained = [row for row in trained if row.length == length]
    cost = "FLOPs" if quantity.key == "forward_flops" else quantity.title
    title = f"Accuracy against {cost} ({here}, {length:g} {rows[0].unit})"
    accuracy = BY_KEY["accuracy"]
    at = {row.backbone: (x.value, y) for row in trained if (x := quantity.read(row)) and (y := accuracy.read(row))}
    best = max(at, key=lambda name: at[name][1].value)
    costs = [x for x, _ in at.values()]
    wide = max(costs) > 3 * min(costs)

    def draw(path: Path, style: dict[str, Look]) -> None:
        below = f"{budget(trained)} Line: the best at no more than this cost."
        with panel(path, title, heading(quantity, rows[0]), heading(accuracy, rows[0]), below) as ax:
            if wide:
                ax.set_xscale("log")
            ax.margins(0.12)
            for name, (x, y) in at.items():
                reach = [[y.value - y.low], [y.high - y.value]] if y.spread else None
                look = style[name]
                ax.errorbar(x, y.value, reach, color=look.colour, marker=look.marker, ms=5, elinewidth=0.8)
            front = frontier([(x, y.value) for x, y in at.values()])
            ax.step(*zip(*front, strict=True), where="post", color=FAINT, linewidth=1, zorder=0)
            if wide:
                decades_axis(ax.xaxis)
            names_at_points(ax, at, style)

    alt = f"{title}: {', '.join(at)}; best is {best} with {number(at[best][1].value)} %."
    return Picture(f"accuracy-{quantity.key}-{recipe}", rows[0].signal, title, alt, draw)


def frontier(points: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    """The points that no cheaper one equals or beats, by rising cost."""
    best: list[tuple[float, float]] = []
    for x, y in sorted(points, key=lambda point: (point[0], -point[1])):
        if not best or y > best[-1][1]:
            best.append((x, y))
    return best
