"""The plots of a comparison: accuracy against cost, and speed, memory and latency against length, of each recipe."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from re import sub
from typing import TYPE_CHECKING

from mmeff.compare.crossover import in_words, race
from mmeff.compare.drawing import FAINT, INK, Look, caption, decades_axis, lengths_axis, looks, panel
from mmeff.compare.labels import names_at_ends, names_at_points, room_for
from mmeff.compare.quantities import BY_KEY, Quantity, number
from mmeff.compare.ranking import by_backbone, by_modality, by_recipe
from mmeff.compare.schema import Row
from mmeff.compare.table import budget, heading

if TYPE_CHECKING:
    from matplotlib.axes import Axes

OF_LENGTH = ("training", "inference", "memory", "inference_memory", "latency")
OF_COST = ("parameters", "forward_flops", "train_seconds")


@dataclass(frozen=True)
class Picture:
    """A plot before it is drawn: the name of its file, its modality, its title, and what it shows in words."""

    name: str
    modality: str
    title: str
    alt: str
    draw: Callable[[Path, dict[str, Look]], None]


def pictures(rows: Sequence[Row]) -> list[Picture]:
    """All that the rows have something to show for, by modality and recipe."""
    found = []
    for modality, those in by_modality(rows).items():
        for recipe, own in by_recipe(those).items():
            here = f"{modality}, recipe {recipe}"
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
    """A line a contender over the lengths, with its spread and with where it passes attention. Needs two lengths."""
    curves = {name: [row for row in those if quantity.read(row)] for name, those in by_backbone(rows).items()}
    curves = {name: those for name, those in curves.items() if those}
    lengths = sorted({row.length for those in curves.values() for row in those})
    if len(lengths) < 2:
        return None
    unit, batches = rows[0].unit, {row.batch for row in rows if row.batch}
    batch = f", batch {1 if quantity.key == 'latency' else batches.pop()}" if len(batches) == 1 else ""
    title = f"{quantity.title.capitalize()} against length ({here}{batch})"
    crossed = race(rows, quantity)
    words = in_words(crossed, unit) if crossed else ""
    ends = sorted({row.memory_ends_at for row in rows if row.memory_ends_at}) if quantity.key == "memory" else []

    def draw(path: Path, style: dict[str, Look]) -> None:
        with panel(path, title, f"length, {unit}", heading(quantity, rows[0]), room_for(curves)) as ax:
            lengths_axis(ax, sorted({*lengths, *ends}))
            ax.set_yscale("log")
            for name, those in curves.items():
                draw_curve(ax, those, quantity, style[name])
            decades_axis(ax.yaxis)
            if crossed:
                where = [c.length for c in crossed.crossings], [c.value for c in crossed.crossings]
                ax.plot(*where, "o", ms=8, mfc="none", mec=INK, mew=0.9)
            last = {name: those[-1] for name, those in curves.items()}
            at = {name: (row.length, found.value) for name, row in last.items() if (found := quantity.read(row))}
            names_at_ends(ax, at, style)
            caption(ax, f"{words}. Cross: a training step no longer fits." if ends else words)

    alt = f"{title}: {', '.join(curves)} at {number(lengths[0])} to {number(lengths[-1])} {unit}. {words}".strip()
    return Picture(f"{quantity.key}-{recipe}", rows[0].modality, title, alt, draw)


def draw_curve(ax: "Axes", rows: Sequence[Row], quantity: Quantity, look: Look) -> None:
    """Medians as a line, the spread as whiskers, and a cross where a training step no longer fits."""
    found = [(row.length, value) for row in rows if (value := quantity.read(row))]
    lengths, values = [length for length, _ in found], [value for _, value in found]
    y = [value.value for value in values]
    ax.plot(lengths, y, color=look.colour, linestyle=look.dash, linewidth=look.width, marker=look.marker, ms=3.5)
    if quantity.key != "latency":  # whose 95th percentiles stand in the tables
        low, high = [value.low for value in values if value.spread], [value.high for value in values if value.spread]
        ax.vlines([x for x, value in found if value.spread], low, high, look.colour, linewidth=0.8)
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
        with panel(path, title, heading(quantity, rows[0]), heading(accuracy, rows[0])) as ax:
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
            caption(ax, f"{budget(trained)} Line: the best at no more than this cost.")

    alt = f"{title}: {', '.join(at)}; best is {best} with {number(at[best][1].value)} %."
    return Picture(f"accuracy-{quantity.key}-{recipe}", rows[0].modality, title, alt, draw)


def frontier(points: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    """The points that no cheaper one equals or beats, by rising cost."""
    best: list[tuple[float, float]] = []
    for x, y in sorted(points, key=lambda point: (point[0], -point[1])):
        if not best or y > best[-1][1]:
            best.append((x, y))
    return best
