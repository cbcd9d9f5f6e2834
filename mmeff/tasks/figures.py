"""Figures as PNG files, and the learning curves, which every task has.

Figures are drawn without pyplot, so that no global state of a notebook changes. Class names and texts may be anything
that Unicode allows: what no installed font can draw becomes a box.
"""

import csv
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import cycle
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from mmeff.lettering import plain

if TYPE_CHECKING:
    from matplotlib.figure import Figure

BLUE, ORANGE, GREY = "#2f6690", "#d1603d", "#6b7280"
OTHERS = ("#5b8e55", "#8a5a83", "#b08f2e", "#4a9c9c")
#: Asked for what DejaVu Sans lacks, where one of them is installed.
FONTS = (
    "Noto Sans CJK SC",
    "Noto Sans CJK JP",
    "WenQuanYi Zen Hei",
    "PingFang SC",
    "Microsoft YaHei",
    "Arial Unicode MS",
)


@contextmanager
def figure(path: Path, width: float, height: float, **kwargs: Any) -> Iterator["Figure"]:
    """A figure of so many inches, written to `path` when the block ends without an error."""
    import matplotlib
    from matplotlib.figure import Figure
    from matplotlib.font_manager import fontManager

    installed = fontManager.get_font_names()
    style: Any = {
        "font.family": ["DejaVu Sans", *(name for name in FONTS if name in installed)],
        "font.size": 9,
        "axes.titlesize": 9,
        "axes.spines.top": False,
        "axes.spines.right": False,
        "text.parse_math": False,  # a class may be called "$x$"
    }
    with matplotlib.rc_context(style), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph .* missing from")
        drawn = Figure(figsize=(width, height), dpi=110, **kwargs)
        yield drawn
        drawn.savefig(path, bbox_inches="tight", pad_inches=0.15)


def draw_note(path: Path, text: str) -> None:
    """A picture of one line of text, where there is nothing to draw."""
    with figure(path, 6, 0.6) as fig:
        fig.text(0.5, 0.5, text, ha="center", va="center")


def draw_curves(path: Path, metrics: Path) -> None:
    """Loss, score and learning rate over the steps, from the metrics.csv of Lightning's CSVLogger."""
    if not metrics.is_file():
        return draw_note(path, f"No learning curves: there is no {metrics.name}.")
    with open(metrics, encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    columns = {
        name: _column(rows, name) for name in (rows[0] if rows else {}) if name and name not in ("step", "epoch")
    }
    columns = {name: points for name, points in columns.items() if len(points)}
    scores = [name for name in columns if name.startswith("val/") and name.endswith(("/acc", "/map"))]
    rates = {name: points for name, points in columns.items() if name.startswith("lr-")}
    panels = {
        "loss": [name for name in ("train/loss", "val/loss") if name in columns],
        "score": scores if len(scores) == 1 else [name for name in ("val/score", *scores) if name in columns],
        # With layer-wise decay all groups follow one shape; the highest is what the recipe says.
        "learning rate": sorted(rates, key=lambda name: -rates[name][:, 1].max())[:1],
    }
    panels = {title: names for title, names in panels.items() if names}
    if not panels:
        return draw_note(path, f"No learning curves: {metrics.name} holds none.")
    with figure(path, 4 * len(panels), 3, layout="constrained") as fig:
        for ax, (title, names) in zip(fig.subplots(1, len(panels), squeeze=False)[0], panels.items(), strict=True):
            for name, color in zip(names, cycle((BLUE, ORANGE, *OTHERS)), strict=False):
                _draw_curve(ax, name, columns[name], color)
            ax.set_title(title, loc="left")
            ax.set_xlabel("step")
            ax.grid(axis="y", color="#e5e7eb", linewidth=0.6)
            ax.set_axisbelow(True)
            ax.yaxis.set_major_formatter(lambda value, _: f"{value:.4g}")
            ax.legend(edgecolor="none", framealpha=0.7, fontsize=8)


def _column(rows: list[dict[str, str]], name: str) -> np.ndarray:
    """(n, 2): step and value, where the column has one."""
    pairs = [(float(row["step"]), float(row[name])) for row in rows if row.get(name) and row.get("step")]
    return np.array(sorted(pairs, key=lambda pair: pair[0])).reshape(-1, 2)


def _draw_curve(ax: Any, name: str, points: np.ndarray, color: str) -> None:
    """A line; one of many points is drawn faint, under its moving average."""
    steps, values = points.T
    window = len(values) // 30
    if name == "train/loss" and window > 1:
        ax.plot(steps, values, color=color, linewidth=0.8, alpha=0.3)
        steps, values = (np.convolve(x, np.full(window, 1 / window), "valid") for x in (steps, values))
    ax.plot(
        steps,
        values,
        label=plain(name.partition("/pg")[0], 30),
        color=color,
        linewidth=1.5,
        marker="o" if len(steps) < 20 else None,
        ms=3,
    )
