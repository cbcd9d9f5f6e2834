"""How plots look: colours that the colour-blind can tell apart, axes in plain numbers."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import product
from pathlib import Path
from textwrap import wrap
from typing import TYPE_CHECKING, Any, NamedTuple

from mmeff.compare.crossover import REFERENCE
from mmeff.compare.quantities import short

if TYPE_CHECKING:
    from matplotlib.axes import Axes

#: Okabe and Ito's hues, the light ones darker, so that names in them can be read on white.
COLOURS = ("#0072B2", "#D55E00", "#00875F", "#B5508A", "#A67C00", "#6A4C9C", "#3594D4")
DASHES = ("-", (0, (5, 1.5)), (0, (1, 1.2)), (0, (5, 1.5, 1, 1.5)))
MARKERS = ("o", "s", "^", "D")
#: Inches: of a plot, of the axes at least, above and below them, of a line of the caption.
WIDTH, HEIGHT, TOP, BOTTOM, LINE = 7.0, 3.4, 0.4, 0.7, 0.125
INK, FAINT = "#222222", "#9ca3af"


class Look(NamedTuple):
    """A contender's own line and point, the same in every plot."""

    colour: str
    dash: Any
    marker: str
    width: float


def looks(names: Sequence[str]) -> dict[str, Look]:
    """Colours change first, then dashes; attention, to which all are compared, is black and thick."""
    styles = [(colour, i) for i, colour in product(range(len(DASHES)), COLOURS)]
    others = [name for name in names if name != REFERENCE]
    found = {
        name: Look(colour, DASHES[i], MARKERS[i], 1.3)
        for n, name in enumerate(others)
        for colour, i in [styles[n % len(styles)]]
    }
    return {**found, REFERENCE: Look(INK, "-", "o", 2.4)}


@contextmanager
def panel(
    path: Path, title: str, x: str, y: str, below: str, right: float = 0.2, height: float = HEIGHT
) -> Iterator["Axes"]:
    """One pair of axes so many inches high, with so many free on its right and small lines under it; written to `path`
    when the block has ended well."""
    import matplotlib
    from matplotlib.figure import Figure

    style: Any = {
        "font.size": 9,
        "axes.spines.top": False,
        "axes.spines.right": False,
        "axes.edgecolor": FAINT,
        "xtick.color": INK,
        "ytick.color": INK,
        "text.parse_math": False,  # names are shown as they are
    }
    with matplotlib.rc_context(style):
        lines = wrap(below, 118)
        under = BOTTOM + LINE * len(lines)
        all_of_it = TOP + height + under
        fig = Figure(figsize=(WIDTH, all_of_it), dpi=120)
        ax = fig.add_axes((0.75 / WIDTH, under / all_of_it, (WIDTH - 0.75 - right) / WIDTH, height / all_of_it))
        fig.text(0.15 / WIDTH, 1 - 0.25 / all_of_it, title, fontsize=10, fontweight="bold")
        caption = "\n".join(lines)
        fig.text(0.15 / WIDTH, (under - 0.6) / all_of_it, caption, va="top", fontsize=7.5, color=INK)
        ax.set_xlabel(x)
        ax.set_ylabel(y)
        ax.grid(color="#e5e7eb", linewidth=0.6)
        ax.set_axisbelow(True)
        yield ax
        path.parent.mkdir(parents=True, exist_ok=True)
        fig.savefig(path)


def lengths_axis(ax: "Axes", lengths: Sequence[float]) -> None:
    """Logarithmic, with a mark at each measured length that has room."""
    ax.set_xscale("log", base=2)
    room = (max(lengths) / min(lengths)) ** 0.07
    shown = [length for i, length in enumerate(lengths) if i == 0 or length > room * lengths[i - 1]]
    ax.set_xticks(shown, [f"{length:g}" if length < 10_000 else short(length) for length in shown])
    ax.minorticks_off()


def decades_axis(axis: Any) -> None:
    """Marks of a logarithmic axis in plain numbers: as many of each decade as have room."""
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter, NullLocator

    low, high = axis.get_view_interval()
    subs = (1, 1.5, 2, 3, 4, 5, 6, 8) if high < 10 * low else (1, 2, 5) if high < 300 * low else (1,)
    axis.set_major_locator(LogLocator(subs=subs, numticks=20))
    axis.set_minor_locator(NullLocator())
    axis.set_major_formatter(FuncFormatter(lambda value, _: short(value)))
    axis.set_minor_formatter(NullFormatter())
