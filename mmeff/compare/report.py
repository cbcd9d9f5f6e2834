"""The folder of a comparison, made readable: CSV, Markdown tables, plots and an HTML page from results.parquet."""

from pathlib import Path

from mmeff.compare.html import write_html
from mmeff.compare.plots import write_plots
from mmeff.compare.store import read_rows
from mmeff.compare.table import write_csv, write_markdown
from mmeff.errors import InputError

RESULTS = "results.parquet"


def write_report(folder: Path) -> None:
    """Write results.csv, table.md, plots/*.png and report.html beside results.parquet."""
    rows, about = read_rows(results_in(folder))
    write_csv(folder / "results.csv", rows)
    write_markdown(folder / "table.md", rows, about)
    write_plots(folder / "plots", rows)
    write_html(folder / "report.html", rows, about, folder / "plots")


def results_in(path: Path) -> Path:
    """The results of a run: its folder may be given instead of the file in it."""
    found = path / RESULTS if path.is_dir() else path
    if not found.is_file():
        raise InputError(f"there are no results at {found}: give a folder that mmeff compare wrote, or its {RESULTS}")
    return found
