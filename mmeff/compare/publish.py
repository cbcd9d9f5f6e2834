"""`mmeff compare --publish DIR RUN_FOLDER...`: a page of results, DIR/README.md, written anew from runs.

Between its lines `<!-- compare: begin -->` and `<!-- compare: end -->` stands then, for each run, where and how it was
measured, which backbone to take, a short table of each signal and the plots, which are copied to DIR/compare_*.png;
pictures of earlier runs are removed there. A page that is not there is made.
"""

import shutil
from collections.abc import Sequence
from html import escape
from pathlib import Path
from re import sub

from mmeff.compare.choice import asked_for
from mmeff.compare.facts import facts
from mmeff.compare.plots import Picture, pictures
from mmeff.compare.quantities import BY_KEY
from mmeff.compare.ranking import by_signal, measured
from mmeff.compare.report import results_in, write_report
from mmeff.compare.schema import Row
from mmeff.compare.store import read_rows
from mmeff.compare.table import LEGEND, choices, failures, plain, table
from mmeff.errors import InputError

BEGIN, END = "<!-- compare: begin -->", "<!-- compare: end -->"
SHORT = [BY_KEY[key] for key in ("parameters", "accuracy", "training", "inference", "latency", "memory")]
#: Rows of a table that are seen at once.
UNFOLDED = 12
#: The plots that are shown, of each recipe.
SHOWN = ("training-", "memory-", "accuracy-train_seconds-")


def publish(folder: Path, runs: Sequence[Path]) -> None:
    """Rewrite the part of the page between its marks, and the pictures that it shows; the rest stays as it is."""
    page = folder / "README.md"
    before, after = around_results(page)
    names = [sub(r"\W+", "_", run.resolve().name.removeprefix("compare-")) for run in runs]
    if len(set(names)) < len(names):
        raise InputError(f"runs of one name cannot be told apart: {', '.join(map(str, runs))}. Rename a folder")
    for run in runs:
        results_in(run)
    folder.mkdir(parents=True, exist_ok=True)
    for old in folder.glob("compare_*.png"):
        old.unlink()
    parts = [part(run, name, folder) for run, name in zip(runs, names, strict=True)]
    text = "\n\n".join([BEGIN, *parts, LEGEND, END])
    page.write_text(before + text + after, encoding="utf-8")


def around_results(page: Path) -> tuple[str, str]:
    """What stands before and after the results."""
    if not page.is_file():
        return "# Results\n\n", "\n"
    text = page.read_text(encoding="utf-8")
    if text.count(BEGIN) != 1 or text.count(END) != 1 or text.index(BEGIN) > text.index(END):
        raise InputError(f"{page} needs the line {BEGIN} once, and {END} once after it: the results go between them")
    return text[: text.index(BEGIN)], text[text.index(END) + len(END) :]


def part(run: Path, name: str, folder: Path) -> str:
    """One run: heading, which backbone to take, tables, plots."""
    write_report(run)
    rows, about = read_rows(results_in(run))
    said = dict(facts(about))
    command = f"<code>{escape(said.pop('Command'))}</code>" if "Command" in said else ""
    device = said.pop("Device", "Unknown device")
    facts_line = ", ".join(f"{key}: {plain(value)}" for key, value in said.items())
    parts = [f"### {plain(device)}", f"{command} ({facts_line})".strip(), choices(rows)]
    for those in by_signal(rows).values():
        parts += short_table(those)
        shown = [picture for picture in pictures(those) if picture.name.startswith(SHOWN)]
        images = [copied(p, run / "plots", folder / f"compare_{name}_{p.name}.png") for p in shown]
        parts += [" ".join(images)]
    return "\n\n".join(each for each in parts if each)


def short_table(rows: Sequence[Row]) -> list[str]:
    """The rows at the length that users ask for, or at the one nearest to it, fastest first; and what failed anywhere.
    Folded where there are many."""
    here = sorted(asked_for(rows), key=lambda row: -(row.training or row.inference or 0))
    failed = failures(rows)
    shown = table(here, measured(here, SHORT))
    if len(here) > UNFOLDED:
        summary = f"All {len(here)} at {here[0].length:g} {here[0].unit}, fastest in training first"
        shown = f"<details><summary>{summary}</summary>\n\n{shown}\n\n</details>"
    return [shown, f"Failed: {plain('; '.join(failed))}." if failed else ""]


def copied(picture: Picture, plots: Path, to: Path) -> str:
    """The plot copied beside the page, as an image of half the width."""
    shutil.copyfile(plots / f"{picture.name}.png", to)
    return f'<img src="{to.name}" width="49%" alt="{escape(picture.title)}">'
