"""Names beside lines and points, so that no legend is needed: placed where they cover nothing."""

from collections.abc import Collection, Iterable, Sequence
from itertools import product
from math import cos, hypot, pi, sin
from typing import TYPE_CHECKING, NamedTuple

from mmeff.compare.crossover import REFERENCE
from mmeff.compare.drawing import HEIGHT, Look
from mmeff.compare.quantities import Measured

if TYPE_CHECKING:
    from matplotlib.axes import Axes

#: Size of the letters in points; how wide one is on average, and how far lines are apart, as shares of it.
SIZE, WIDE, APART = 7.5, 0.6, 1.25


class Box(NamedTuple):
    """In pixels."""

    x0: float
    y0: float
    x1: float
    y1: float

    def shared(self, other: "Box") -> float:
        """The area that both cover."""
        width = min(self.x1, other.x1) - max(self.x0, other.x0)
        height = min(self.y1, other.y1) - max(self.y0, other.y0)
        return max(width, 0.0) * max(height, 0.0)

    def area(self) -> float:
        return (self.x1 - self.x0) * (self.y1 - self.y0)


def names_at_ends(ax: "Axes", ends: dict[str, tuple[float, float]], style: dict[str, Look]) -> None:
    """The name of each line right of the axes, level with its last point, or as near as the others leave room."""
    ax.get_xlim()  # settles the limits, which the transformation needs
    axes = ax.get_window_extent()
    at = {name: float(ax.transData.transform(end)[1]) for name, end in ends.items()}
    order = sorted(at, key=lambda name: at[name])
    placed = spread_out([at[name] for name in order], SIZE * APART * pixels_a_point(ax), axes.y0, axes.y1)
    for name, height in zip(order, placed, strict=True):
        write(ax, name, ends[name], (axes.x1 + 0.03 * axes.width, height), style[name], line=True)


def room_for(names: Iterable[str]) -> float:
    """Inches that names beside the axes need."""
    return SIZE * WIDE * max(map(len, names), default=0) / 72 + 0.35


def height_for(names: Collection[str]) -> float:
    """Inches of axes beside which so many names have room."""
    return max(HEIGHT, SIZE * APART * len(names) / 72)


def spread_out(heights: Sequence[float], room: float, low: float, high: float) -> list[float]:
    """Rising heights, moved as little as needed to lie `room` apart; then into the bounds, as far as all fit."""
    groups: list[tuple[float, int]] = []  # neighbours that touch: their middle, and how many they are
    for height in heights:
        middle, count = height, 1
        while groups and middle - groups[-1][0] < room * (count + groups[-1][1]) / 2:
            before, several = groups.pop()
            middle, count = (middle * count + before * several) / (count + several), count + several
        groups.append((middle, count))
    placed = [middle + room * (i - (count - 1) / 2) for middle, count in groups for i in range(count)]
    for i in reversed(range(len(placed))):
        placed[i] = min(placed[i], high - room * (len(placed) - 1 - i))
    for i in range(len(placed)):
        placed[i] = max(placed[i], low + room * i)
    return placed


def names_at_points(ax: "Axes", points: dict[str, tuple[float, Measured]], style: dict[str, Look]) -> None:
    """The name of each point (x, y and its spread) beside it, where it covers least of the points and other names."""
    ax.get_xlim()  # settles the limits, which the transformation needs
    point = pixels_a_point(ax)
    axes = Box(*ax.get_window_extent().extents)
    taken = [whisker(ax, x, y) for x, y in points.values()]
    for name, (data_x, data_y) in points.items():
        x, y = map(float, ax.transData.transform((data_x, data_y.value)))
        options = [
            around(x, y, turn * pi / 8, away * point, SIZE * WIDE * len(name) * point, SIZE * 1.2 * point)
            for away, turn in product((8, 16, 26, 38, 52, 68), range(16))
        ]

        def cost(box: Box, x: float = x, y: float = y) -> float:
            """Pixels covered twice or outside of the axes; of two as good, the nearer one."""
            outside = box.area() - box.shared(axes)
            return sum(box.shared(other) for other in taken) + outside + away_from(box, x, y) / 10

        best = min(options, key=cost)
        taken.append(best)
        far = away_from(best, x, y) > 9 * point
        write(ax, name, (data_x, data_y.value), (best.x0, (best.y0 + best.y1) / 2), style[name], line=far)


def whisker(ax: "Axes", x: float, y: Measured) -> Box:
    """What a point and the line of its spread cover."""
    low, high = (y.low, y.high) if y.spread else (y.value, y.value)
    (left, bottom), (right, top) = ax.transData.transform([(x, low), (x, high)])
    edge = 4 * pixels_a_point(ax)
    return Box(left - edge, bottom - edge, right + edge, top + edge)


def around(x: float, y: float, angle: float, away: float, width: float, height: float) -> Box:
    """A box of a size whose nearest edge lies in a direction from a point, so many pixels away."""
    middle_x = x + cos(angle) * (away + width / 2)
    middle_y = y + sin(angle) * (away + height / 2)
    return Box(middle_x - width / 2, middle_y - height / 2, middle_x + width / 2, middle_y + height / 2)


def away_from(box: Box, x: float, y: float) -> float:
    """Pixels between a point and a box."""
    return hypot(max(box.x0 - x, x - box.x1, 0), max(box.y0 - y, y - box.y1, 0))


def write(ax: "Axes", name: str, end: tuple[float, float], at: tuple[float, float], look: Look, line: bool) -> None:
    """A name that begins at pixels `at`, if wished with a thin line to the point that it names."""
    leave = (0.0 if at[0] > ax.transData.transform(end)[0] else 1.0, 0.5)  # the edge of the name that faces the point
    arrow = {"arrowstyle": "-", "color": look.colour, "linewidth": 0.5, "alpha": 0.7, "shrinkB": 2, "relpos": leave}
    ax.annotate(
        name,
        end,
        at,
        textcoords="figure pixels",
        ha="left",
        va="center",
        fontsize=SIZE,
        color=look.colour,
        fontweight="bold" if name == REFERENCE else "normal",
        arrowprops=arrow if line else None,
        annotation_clip=False,
    )


def pixels_a_point(ax: "Axes") -> float:
    return ax.figure.dpi / 72
