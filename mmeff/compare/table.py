"""The results as a Markdown table for each signal, and as CSV."""

import csv
from collections.abc import Sequence
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

from mmeff.compare.choice import choose
from mmeff.compare.facts import facts
from mmeff.compare.quantities import QUANTITIES, Quantity
from mmeff.compare.ranking import by_signal, marks, measured
from mmeff.compare.schema import Row

LEGEND = (
    "**Bold** is the best and *italic* the worst at each length; rates are medians with their quartiles, memory is the "
    "peak of a step with the whole batch, weights included."
)


def write_csv(path: Path, rows: Sequence[Row]) -> None:
    """Every field of every row; empty where not measured."""
    with open(path, "w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, [field.name for field in fields(Row)])
        writer.writeheader()
        writer.writerows(asdict(row) for row in rows)


def write_markdown(path: Path, rows: Sequence[Row], about: dict[str, Any]) -> None:
    """Where and how it was measured, which backbone to take, and a table of each signal."""
    parts = ["# Backbones compared", "\n".join(f"- {name}: {plain(text)}" for name, text in facts(about))]
    parts += ["## Which backbone to take", choices(rows), LEGEND]
    for signal, those in by_signal(rows).items():
        parts += [f"## {signal.capitalize()}", table(those, measured(those, QUANTITIES)), budget(those)]
    parts += [] if rows else ["Nothing is measured yet."]
    path.write_text("\n\n".join(part for part in parts if part) + "\n", encoding="utf-8")


def table(rows: Sequence[Row], quantities: Sequence[Quantity]) -> str:
    """Rows of one signal, and what failed in them. The recipe is named where there are several."""
    recipes = len({row.recipe for row in rows}) > 1
    failed = any(row.error for row in rows)
    headings = [*(["recipe"] if recipes else []), f"length, {rows[0].unit}", "backbone"]
    headings += [heading(quantity, rows[0]) for quantity in quantities] + (["error"] if failed else [])
    marked = {quantity.key: marks(rows, quantity) for quantity in quantities}
    lines = [headings, ["---:" if heading not in ("recipe", "backbone", "error") else "---" for heading in headings]]
    for row in rows:
        cells = [*([plain(row.recipe)] if recipes else []), f"{row.length:g}", contender(row)]
        cells += [cell(row, quantity, marked[quantity.key].get(row)) for quantity in quantities]
        lines.append(cells + ([plain(row.error or "")] if failed else []))
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)


def heading(quantity: Quantity, row: Row) -> str:
    unit = quantity.unit_of(row)
    return f"{quantity.title}, {unit}" if unit else quantity.title


def contender(row: Row) -> str:
    return plain(row.backbone) + (" (baseline)" if row.kind == "baseline" else "")


def cell(row: Row, quantity: Quantity, mark: str | None) -> str:
    found = quantity.read(row)
    if found is None:
        return "-"
    value = quantity.show(found)
    value = {"best": f"**{value}**", "worst": f"*{value}*"}.get(mark or "", value)
    return f"{value} {found.spread}".rstrip()


def choices(rows: Sequence[Row]) -> str:
    """A list: for each signal, the best by each question."""
    lines = []
    for choice in choose(rows):
        lines.append(f"- {choice.title}: {plain(choice.note)}")
        for answer in choice.answers:
            names = " or ".join(f"**{plain(name)}**" for name in answer.names)
            lines.append(f"    - {answer.question}: {names + ', ' if names else ''}{plain(answer.text)}")
    return "\n".join(lines)


def budget(rows: Sequence[Row]) -> str:
    """For how long what was trained, in a sentence a recipe and length."""
    trained = {(r.recipe, r.length, r.unit, r.steps, r.seeds): None for r in rows if r.accuracy is not None}
    texts = [
        f"{plain(recipe)} at {length:g} {unit}: {steps or 'an unknown number of'} steps, {several(seeds)}"
        for recipe, length, unit, steps, seeds in trained
    ]
    return f"Trained for accuracy: {'; '.join(texts)}." if texts else ""


def failures(rows: Sequence[Row]) -> list[str]:
    """Each contender that failed, at which lengths, and why."""
    lengths: dict[tuple[str, str], list[str]] = {}
    for row in rows:
        if row.error:
            lengths.setdefault((row.backbone, row.error), []).append(f"{row.length:g}")
    return [f"{name} at {', '.join(those)} {rows[0].unit} ({error})" for (name, error), those in lengths.items()]


def several(seeds: int | None) -> str:
    """How far a mean over so many seeds can be trusted."""
    if seeds is None or seeds < 2:
        return "one seed (its spread is unknown)"
    return f"mean of {seeds} seeds ± largest less smallest"


def plain(text: str) -> str:
    """One line, in which nothing is taken for Markdown's own marks."""
    return "".join(f"\\{c}" if c in "|*`<>[]" else c for c in " ".join(text.split()))
