"""What a test leaves for the eye: confusions, worst mistakes and learning curves, as PNG files.

Figures are drawn without pyplot, so that no global state of a notebook changes. Class names and texts may be anything
that Unicode allows: what no installed font can draw becomes a box.
"""

import csv
import unicodedata
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import cycle
from pathlib import Path
from textwrap import wrap
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from mmeff.spec import DataSpec

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


@dataclass
class Mistake:
    """One wrongly classified example. `probability` is what the model gave to its answer, all labels of it together."""

    id: str
    raw: Any
    true: str
    predicted: str
    probability: float
    loss: float


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


def draw_confusion(path: Path, counts: Tensor, classes: Sequence[str]) -> None:
    """counts (K, K): how many of true class i were taken for class j. Shades are shares of the row."""
    K, total = len(classes), int(counts.sum())
    few, cell = K <= 15, 0.5 if K <= 15 else max(0.14, 3.5 / K)
    side = min(max(cell * K, 2.0), 20.0)
    share = counts / counts.sum(1, keepdim=True).clamp_min(1)
    with figure(path, side, side) as fig:
        ax = fig.add_axes((0, 0, 1, 1))
        image = ax.imshow(share.numpy(), cmap="Blues", vmin=0, vmax=1, interpolation="nearest")
        size = 9 if few else 7
        if cell * K <= 20:
            names = [plain(name, 24) for name in classes]
            ax.set_xticks(range(K), names, fontsize=size, rotation=0 if few and max(map(len, names)) < 5 else 90)
            ax.set_yticks(range(K), names, fontsize=size)
        ax.tick_params(length=0)
        ax.spines[:].set_visible(False)
        ax.set_xlabel("predicted")
        ax.set_ylabel("true")
        ax.set_title(f"{counts.trace() / max(total, 1):.1%} of {total} right", loc="left")
        bar = fig.colorbar(image, cax=fig.add_axes((1 + 0.15 / side, 1 - 1.5 / side, 0.12 / side, 1.5 / side)))
        bar.outline.set_visible(False)  # type: ignore[operator]
        bar.set_ticks([0, 0.5, 1], labels=["0", "half", "all"], fontsize=size)
        bar.ax.set_title("share of the true class", fontsize=size, loc="left", pad=9)
        if few:
            for i, j in counts.nonzero().tolist():
                dark = float(share[i, j]) > 0.5
                ax.text(j, i, str(int(counts[i, j])), ha="center", va="center", color="white" if dark else "black")
        else:
            fig.text(1 + 0.15 / side, 1 - 1.9 / side, "\n".join(_confused(counts, classes)), va="top", fontsize=size)


def _confused(counts: Tensor, classes: Sequence[str], most: int = 20) -> list[str]:
    """The pairs that are confused most often, a line each."""
    wrong = counts.clone().fill_diagonal_(0)
    values, places = wrong.flatten().topk(min(most, wrong.numel()))
    lines = []
    for n, place in zip(values.tolist(), places.tolist(), strict=True):
        true, predicted = divmod(int(place), len(classes))
        if n:
            lines.append(f"{n:>4}  {plain(classes[true], 24)} → {plain(classes[predicted], 24)}")
    return ["most often confused (true → predicted)", *lines] if lines else ["none confused"]


def draw_average_precision(path: Path, labels: Tensor, probabilities: Tensor, classes: Sequence[str]) -> None:
    """labels, probabilities (N, K) -> a bar a class, best first, in columns of at most 40; the mean is their mAP."""
    from torchmetrics.functional.classification import binary_average_precision

    found = labels.int().sum(0).tolist()
    scored = [
        (
            float(binary_average_precision(probabilities[:, k], labels[:, k].int())),
            f"{plain(classes[k], 24)} ({found[k]})",
        )
        for k in range(len(classes))
        if found[k]
    ]
    if not scored:
        return draw_note(path, f"None of the {len(labels)} examples has a label.")
    scored.sort(key=lambda pair: -pair[0])
    mean = sum(value for value, _ in scored) / len(scored)
    without = len(classes) - len(scored)
    columns = -(-len(scored) // 40)
    rows = -(-len(scored) // columns)
    with figure(path, 4.2 * columns, 0.2 * rows + 0.8, layout="constrained") as fig:
        axes = fig.subplots(1, columns, squeeze=False)[0]
        for i, ax in enumerate(axes):
            values, names = zip(*scored[i * rows : (i + 1) * rows], strict=True)
            ax.barh(range(len(names)), values, height=0.7, color=BLUE)
            for y, value in enumerate(values):
                ax.text(value + 0.015, y, f"{value:.2f}", va="center", fontsize=7.5, color=GREY)
            ax.set_yticks(range(len(names)), names, fontsize=8)
            ax.set_ylim(rows - 0.4, -0.6)
            ax.set_xlim(0, 1.1)
            ax.set_xticks([0, 0.5, 1])
            ax.tick_params(axis="y", length=0)
            ax.spines["left"].set_visible(False)
        missing = f"; classes without an example: {without}" if without else ""
        title = (
            f"Average precision of each class (examples of it); mean {mean:.3f} over {len(labels)} examples{missing}"
        )
        fig.suptitle("\n".join(wrap(title, 60 * columns)), fontsize=9)


def draw_mistakes(path: Path, mistakes: Sequence[Mistake], spec: DataSpec, wrong: int, total: int) -> None:
    """A sheet of `mistakes`, in their order: the worst of `wrong` mistakes among `total` examples."""
    if not mistakes:
        return draw_note(path, f"No mistakes among {total} examples.")
    # inches: the picture, and the room for the caption above it; letters of 8 points are 0.06 wide on average
    columns, width, height, above = {
        "image": (6, 1.65, 1.65, 0.36),
        "audio": (4, 2.6, 1.1, 0.36),
        "text": (3, 3.8, 0.66, 0.2),
    }[spec.modality]
    if spec.modality == "image":
        height *= min(1.5, mistakes[0].raw.shape[1] / mistakes[0].raw.shape[2])
    columns, gap, line = min(columns, len(mistakes)), 0.2, 0.15
    rows, pitch = -(-len(mistakes) // columns), above + height + line + gap
    W, H = columns * (width + gap), rows * pitch + 0.15
    with figure(path, W, H) as fig:
        shown = f"{len(mistakes)} worst of {wrong}" if wrong > len(mistakes) else f"{wrong}"
        plural = "" if wrong == 1 else "s"
        fig.text(0, 1, f"{shown} mistake{plural} among {total} examples: true → predicted, probability", va="bottom")
        for i, mistake in enumerate(mistakes):
            left, top = i % columns * (width + gap), H - 0.15 - i // columns * pitch - above
            ax = fig.add_axes((left / W, (top - height) / H, width / W, height / H))
            ax.set_axis_off()
            seconds, letters = "", int(width / 0.06)
            if spec.modality == "image":
                _draw_image(ax, mistake.raw)
            elif spec.modality == "audio":
                rate = spec.preprocessing["sample_rate"]
                seconds = f"  {len(mistake.raw) / rate:.2f} s"
                ax.imshow(log_mel(mistake.raw, rate).numpy(), cmap="magma", aspect="auto", origin="lower")
            else:
                letters = letters // 2
                ax.text(0, 1, _wrapped(mistake.raw, width), va="top", fontsize=8, linespacing=1.3, color="#333333")
            true, predicted = (plain(name or "none", letters - 8) for name in (mistake.true, mistake.predicted))
            answer = f"→ {predicted}  {mistake.probability:.2f}"
            captions = [f"{true} {answer}"] if spec.modality == "text" else [answer, true]
            for k, caption in enumerate(captions):
                _beside(ax, caption, at=1, points=3 + 11 * k, fontsize=8)
            name = plain(mistake.id, int(width / 0.055) - len(seconds), keep_end=True) + seconds
            _beside(ax, name, at=0, points=-9, fontsize=6.5, color=GREY)


def _beside(ax: Any, text: str, at: float, points: float, **style: Any) -> None:
    """A line of text, its baseline so many points above the top (at = 1) or the bottom (at = 0) of the axes."""
    ax.annotate(text, (0, at), (0, points), xycoords="axes fraction", textcoords="offset points", **style)


def _draw_image(ax: Any, image: Tensor) -> None:
    """(C, H, W) in [0, 1]: in colour if C is 3, else grey."""
    pixels = image.permute(1, 2, 0) if len(image) == 3 else image.mean(0)
    small = max(image.shape[1:]) < 100
    ax.imshow(
        pixels.clamp(0, 1).numpy(), cmap="gray", vmin=0, vmax=1, interpolation="nearest" if small else "antialiased"
    )


def log_mel(wave: Tensor, sample_rate: int, bands: int = 64) -> Tensor:
    """(S,) -> (bands, T) in decibels, at most 80 below the loudest: a picture of a sound, not a feature.

    25 ms Hann windows every 10 ms; mel = 2595 log10(1 + f / 700 Hz), power averaged over equal steps of it.
    """
    n_fft = 2 ** int(np.ceil(np.log2(0.064 * sample_rate)))  # fine enough that no band is without a frequency
    window = torch.hann_window(round(0.025 * sample_rate))
    hop = max(1, round(0.01 * sample_rate))
    spectrum = torch.stft(
        wave.float(), n_fft, hop, len(window), window, pad_mode="constant", return_complex=True
    )  # (F, T)
    power = spectrum.abs().square()
    mel = torch.log10(1 + torch.linspace(0, sample_rate / 2, len(power)) / 700)
    band = (mel / mel[-1] * bands).long().clamp_max(bands - 1)
    sums = torch.zeros(bands, power.shape[1]).index_add(0, band, power)
    decibels = 10 * torch.log10(sums / band.bincount(minlength=bands).clamp_min(1)[:, None] + 1e-12)
    return decibels.clamp_min(float(decibels.max()) - 80)


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


def plain(text: str, limit: int, keep_end: bool = False) -> str:
    """One printable line of at most `limit` characters; of a longer one the beginning, or the end (for paths)."""
    text = text.encode("utf-8", "backslashreplace").decode()  # names of files may hold bytes that are no text
    text = "".join(c if c.isprintable() else " " for c in text)
    text = " ".join(text.split())
    # Chinese, Japanese and Korean letters are as wide as two others.
    limit = limit if len(text) + sum(map(_is_wide, text)) <= limit else limit - sum(map(_is_wide, text[:limit])) // 2
    if len(text) <= limit:
        return text
    return "…" + text[len(text) - limit + 1 :] if keep_end else text[: limit - 1] + "…"


def _is_wide(letter: str) -> bool:
    return unicodedata.east_asian_width(letter) in "WF"


def _wrapped(text: str, width: float, lines: int = 4) -> str:
    """The first lines of a text, for a cell of so many inches."""
    text = plain(text, 2000)
    letters = int(width / 0.06)
    if sum(map(_is_wide, text)) > len(text) / 4:
        letters //= 2
    found = wrap(text, letters, max_lines=lines, placeholder=" …")
    return "\n".join(found)
