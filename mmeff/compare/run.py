"""A comparison from its plan to its folder of results."""

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from mmeff.compare.contenders import Contender
from mmeff.compare.entrants import Field, field_of, one_line
from mmeff.compare.journal import Journal, Values, about, conditions
from mmeff.compare.noise import Samples, Swings, swings
from mmeff.compare.parts import Part, parts_of
from mmeff.compare.plan import Plan
from mmeff.compare.progress import Progress
from mmeff.compare.report import write_report
from mmeff.compare.schema import Row
from mmeff.compare.speed import summary
from mmeff.compare.store import write_rows

#: Seconds between two reports during a run: drawing takes the time of measuring.
BETWEEN_REPORTS = 180


def compare(plan: Plan, contenders: list[Contender], folder: Path, device: torch.device, command: str) -> int:
    """Measure what is not measured yet, and leave results and report in the folder; also when interrupted. Returns
    how many contenders failed somewhere."""
    folder.mkdir(parents=True, exist_ok=True)
    held = conditions(device)
    results = Results(folder, about(held, command))
    journal = Journal(folder / "journal.jsonl", held)
    with Progress() as progress:
        fields = fields_of(plan, contenders, progress.say)
        for field in fields:
            for contender, error in field.failed.values():
                progress.say(f"failed: {contender.name}: {error}")
                for length in field.lengths or (field.own_length,):
                    results.add(field.row(contender, length), {"error": error})
        parts = parts_of(plan, fields, device)
        progress.begin(len(parts))
        try:
            for part in parts:
                start = time.perf_counter()
                fresh = measure(part, journal, results)
                progress.done(part.name, time.perf_counter() - start if fresh else None)
                results.save(report=fresh)
        finally:
            results.finish()
    return len({(row.recipe, row.backbone) for row in results.rows() if row.error})


def fields_of(plan: Plan, contenders: list[Contender], say: Callable[[str], None]) -> list[Field]:
    by_recipe: dict[str, list[Contender]] = {}
    for contender in contenders:
        by_recipe.setdefault(contender.recipe, []).append(contender)
    return [field_of(group, plan.lengths, plan.budget, say) for group in by_recipe.values()]


def measure(part: Part, journal: Journal, results: "Results") -> bool:
    """Measure the contenders of a part that the journal does not know; whether there were any."""
    found = {name: journal.find({**part.key, "backbone": name}) for name in part.contenders}
    missing = {name: part.contenders[name] for name, values in found.items() if values is None}
    if missing:
        try:
            fresh = part.measure(missing)
        except Exception as error:
            fresh = {name: {"error": one_line(error)} for name in missing}
        found |= fresh
        for name, values in fresh.items():
            if "error" not in values:  # what has failed is tried again
                journal.add({**part.key, "backbone": name}, values)
    for name, contender in part.contenders.items():
        results.add(part.field.row(contender, part.length), found[name] or {})
    return bool(missing)


class Results:
    """Rows as they come in, and the files that show them."""

    def __init__(self, folder: Path, about: dict[str, Any]):
        self.folder, self.about = folder, about
        self.values: dict[tuple[str, str, float], Values] = {}
        self.reported = time.monotonic()

    def add(self, row: dict[str, Any], values: Values) -> None:
        """Put values into the row of a contender at a length, beside those that are there; samples to the samples."""
        held = self.values.setdefault((row["recipe"], row["backbone"], row["length"]), {**row, "samples": {}})
        for kind, times in values.get("samples", {}).items():
            held["samples"].setdefault(kind, []).extend(times)
        held.update({name: value for name, value in values.items() if name != "samples"})

    def rows(self) -> list[Row]:
        found = []
        for values in self.values.values():
            values = dict(values)
            if taken := values.pop("samples"):
                values |= summary(taken, values["batch"])
            found.append(Row(**values))
        return found

    def swings(self) -> Swings:
        fields: dict[tuple[str, float], list[Samples]] = {}
        for (recipe, _, length), values in self.values.items():
            fields.setdefault((recipe, length), []).append(values["samples"])
        return swings(fields.values())

    def save(self, report: bool) -> None:
        """Write the rows; with `report` also the report, if the last one is old."""
        write_rows(self.folder / "results.parquet", self.rows(), {**self.about, "swings": self.swings()})
        if report and time.monotonic() - self.reported > BETWEEN_REPORTS:
            write_report(self.folder)
            self.reported = time.monotonic()

    def finish(self) -> None:
        if self.values:
            self.save(report=False)
            write_report(self.folder)
