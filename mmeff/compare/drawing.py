"""How plots look: colours that the colour-blind can tell apart, axes in plain numbers."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import product
from pathlib import Path
from textwrap import fill
from typing import TYPE_CHECKING, Any, NamedTuple

from mmeff.compare.crossover import REFERENCE
from mmeff.compare.quantities import short

if TYPE_CHECKING:
    from matplotlib.axes import Axes

#: Okabe and Ito's hues, the light ones darker, so that names in them can be read on white.
COLOURS = ("#0072B2", "#D55E00", "#00875F", "#B5508A", "#A67C00", "#6A4C9C", "#3594D4")
DASHES = ("-", (0, (5, 1.5)), (0, (1, 1.2)), (0, (5, 1.5, 1, 1.5)))
MARKERS = ("o", "s", "^", "D")
#: Inches.
WIDTH, HEIGHT = 7.0, 5.0
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
def panel(path: Path, title: str, x: str, y: str, right: float = 0.2) -> Iterator["Axes"]:
    """One pair of axes with so many inches free on its right, written to `path` when the block has ended well."""
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
        fig = Figure(figsize=(WIDTH, HEIGHT), dpi=120)
        ax = fig.add_axes((0.75 / WIDTH, 0.24, (WIDTH - 0.75 - right) / WIDTH, 0.68))
        fig.text(0.15 / WIDTH, 0.95, title, fontsize=10, fontweight="bold")
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


def caption(ax: "Axes", text: str) -> None:
    """Small lines under the axes."""
    ax.figure.text(0.15 / WIDTH, 0.12, fill(text, 118), va="top", fontsize=7.5, color=INK)
