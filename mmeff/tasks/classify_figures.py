"""Pictures of a classifier's test: confusions, average precisions and worst mistakes, as PNG files."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from textwrap import wrap
from typing import Any

from torch import Tensor

from mmeff.lettering import plain
from mmeff.signals import DataSpec
from mmeff.tasks.figures import BLUE, GREY, draw_note, figure


@dataclass
class Mistake:
    """One wrongly classified example. `probability` is what the model gave to its answer, all labels of it together."""

    id: str
    raw: Any
    true: str
    predicted: str
    probability: float
    loss: float


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
    kind = spec.kind
    sheet, width, gap, line = kind.sheet, kind.sheet.width, 0.2, 0.15
    height = sheet.height * kind.shape(mistakes[0].raw)
    above = 0.04 + 0.16 * sheet.captions
    columns = min(sheet.columns, len(mistakes))
    rows, pitch = -(-len(mistakes) // columns), above + height + line + gap
    W, H = columns * (width + gap), rows * pitch + 0.15
    # Letters of 8 points are 0.06 inches wide on average; where there is one line, names share it.
    letters = int(width / 0.06) // (1 if sheet.captions > 1 else 2)
    with figure(path, W, H) as fig:
        shown = f"{len(mistakes)} worst of {wrong}" if wrong > len(mistakes) else f"{wrong}"
        plural = "" if wrong == 1 else "s"
        fig.text(0, 1, f"{shown} mistake{plural} among {total} examples: true → predicted, probability", va="bottom")
        for i, mistake in enumerate(mistakes):
            left, top = i % columns * (width + gap), H - 0.15 - i // columns * pitch - above
            ax = fig.add_axes((left / W, (top - height) / H, width / W, height / H))
            ax.set_axis_off()
            size = kind.draw(ax, mistake.raw, width, **spec.preprocessing)
            size = f"  {size}" if size else ""
            true, predicted = (plain(name or "none", letters - 8) for name in (mistake.true, mistake.predicted))
            answer = f"→ {predicted}  {mistake.probability:.2f}"
            captions = [answer, true] if sheet.captions > 1 else [f"{true} {answer}"]
            for k, caption in enumerate(captions):
                _beside(ax, caption, at=1, points=3 + 11 * k, fontsize=8)
            name = plain(mistake.id, int(width / 0.055) - len(size), keep_end=True) + size
            _beside(ax, name, at=0, points=-9, fontsize=6.5, color=GREY)


def _beside(ax: Any, text: str, at: float, points: float, **style: Any) -> None:
    """A line of text, its baseline so many points above the top (at = 1) or the bottom (at = 0) of the axes."""
    ax.annotate(text, (0, at), (0, points), xycoords="axes fraction", textcoords="offset points", **style)
