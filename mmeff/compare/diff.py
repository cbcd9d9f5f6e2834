"""Two runs or two machines side by side, row by row, with what got worse beyond the spread of both.

Contenders of one run take turns, so that a machine that is slow for a while is so for all of them. Two runs meet it at
other times: here spreads hold also how far the machine swung during each run.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.box import SIMPLE
from rich.console import Console
from rich.table import Table
from rich.text import Text

from mmeff.compare.facts import facts
from mmeff.compare.noise import Swings, widened
from mmeff.compare.quantities import BY_KEY, Measured, Quantity, distinct
from mmeff.compare.ranking import by_signal
from mmeff.compare.report import results_in
from mmeff.compare.schema import Row
from mmeff.compare.store import read_rows
from mmeff.errors import InputError

COMPARED = tuple(BY_KEY[key] for key in ("training", "inference", "latency", "memory", "inference_memory", "accuracy"))
#: What the two are called in all that is printed.
FIRST, SECOND = "A", "B"
#: Wide enough that no line breaks where the output is a file.
COLUMNS = 400

Key = tuple[str, str, str, float]


@dataclass(frozen=True)
class Change:
    """One quantity of one row in both runs. `verdict`: 1 better, -1 worse, 0 within the spread of both."""

    quantity: Quantity
    first: Measured
    second: Measured

    @property
    def verdict(self) -> int:
        if not distinct(self.first, self.second):
            return 0
        return self.quantity.better if self.second.value > self.first.value else -self.quantity.better

    @property
    def text(self) -> str:
        """Second over first; of accuracy the difference in points."""
        if self.quantity.key == "accuracy":
            return f"{self.second.value - self.first.value:+.1f} pt"
        return f"{self.second.value / self.first.value:.2f}x" if self.first.value else "-"

    @property
    def words(self) -> str:
        values = " to ".join(self.quantity.show(each) for each in (self.first, self.second))
        return f"{self.quantity.title} {values}"


def compare_files(a: Path, b: Path) -> int:
    """Print both runs side by side; 1 if something got worse on the same device, else 0."""
    (rows_a, about_a), (rows_b, about_b) = read_run(a), read_run(b)
    console = Console()
    if not console.is_terminal:
        console = Console(width=COLUMNS, soft_wrap=True)
    same = about_a.get("device") == about_b.get("device") and about_a.get("threads") == about_b.get("threads")
    first, second = by_key(rows_a, a), by_key(rows_b, b)
    ordered = [key_of(row) for rows in by_signal(rows_a).values() for row in rows]
    common = [key for key in ordered if key in second]
    for name, path, about in ((FIRST, a, about_a), (SECOND, b, about_b)):
        console.print(Text(f"{name}  {path}: {'; '.join(f'{k} {v}' for k, v in facts(about))}"))
    swung = about_a.get("swings", {}), about_b.get("swings", {})
    found = {key: changes(first[key], second[key], swung) for key in common}
    console.print(side_by_side({key: (second[key], found[key]) for key in common}, console.is_terminal))
    only_in(console, FIRST, [first[key] for key in first if key not in second])
    only_in(console, SECOND, [second[key] for key in second if key not in first])
    worse = sum(change.verdict < 0 for each in found.values() for change in each)
    worse += sum(fails_now(first[key], second[key]) for key in common)
    better = sum(change.verdict > 0 for each in found.values() for change in each)
    console.print(Text(f"{len(common)} rows in both; beyond the spread of both: {worse} worse, {better} better."))
    if not same:
        console.print(Text("The devices or their threads differ: these are differences of machines, not regressions."))
    return int(same and worse > 0)


def read_run(path: Path) -> tuple[list[Row], dict[str, Any]]:
    rows, about = read_rows(results_in(path))
    if not rows:
        raise InputError(f"{path} holds no rows: the run that writes it has measured nothing yet")
    return rows, about


def key_of(row: Row) -> Key:
    """What makes a row of one run the same as a row of another."""
    return row.signal, row.recipe, row.backbone, row.length


def by_key(rows: Sequence[Row], path: Path) -> dict[Key, Row]:
    found = {key_of(row): row for row in rows}
    if len(found) < len(rows):
        raise InputError(f"{path} holds the same recipe, backbone and length twice: measure it again into a new folder")
    return found


def changes(first: Row, second: Row, swung: tuple[Swings, Swings]) -> list[Change]:
    """Of every quantity that both have; spreads hold the swings of the machine during each run."""
    pairs = [(quantity, quantity.read(first), quantity.read(second)) for quantity in COMPARED]
    return [
        Change(quantity, widened(one, quantity.key, swung[0]), widened(other, quantity.key, swung[1]))
        for quantity, one, other in pairs
        if one is not None and other is not None
    ]


def fails_now(first: Row, second: Row) -> bool:
    return second.error is not None and first.error is None


def side_by_side(rows: dict[Key, tuple[Row, list[Change]]], terminal: bool) -> Table:
    """A line a row: the ratios of the second to the first, and what got worse or better."""
    table = Table(box=SIMPLE if terminal else None, title=f"{SECOND} over {FIRST}", title_justify="left")
    for heading in ("recipe", "length", "backbone"):
        table.add_column(heading)
    for quantity in COMPARED:
        table.add_column(quantity.title, justify="right")
    table.add_column("beyond the spread")
    for row, found in rows.values():
        by_name = {change.quantity.key: change for change in found}
        cells = [Text(row.recipe), Text(f"{row.length:g} {row.unit}"), Text(row.backbone)]
        cells += [styled(by_name.get(quantity.key)) for quantity in COMPARED]
        worse = [change.words for change in found if change.verdict < 0]
        better = [change.words for change in found if change.verdict > 0]
        words = [f"WORSE: {', '.join(worse)}" if worse else "", f"better: {', '.join(better)}" if better else ""]
        words += [f"FAILED: {row.error}" if row.error else ""]
        table.add_row(*cells, Text("; ".join(filter(None, words))))
    return table


def styled(change: Change | None) -> Text:
    if change is None:
        return Text("-", style="dim")
    return Text(change.text, style={1: "green", -1: "bold red", 0: ""}[change.verdict])


def only_in(console: Console, name: str, rows: Sequence[Row]) -> None:
    """Names the rows that one run alone has, a line a contender."""
    lengths: dict[tuple[str, str], list[str]] = {}
    for row in rows:
        lengths.setdefault((row.recipe, row.backbone), []).append(f"{row.length:g} {row.unit}")
    for (recipe, backbone), those in lengths.items():
        console.print(Text(f"only in {name}: {recipe}, {backbone} at {', '.join(those)}"))
