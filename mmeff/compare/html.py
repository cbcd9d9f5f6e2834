"""The results as one HTML page, which a browser opens without a network: its plots, styles and script stand in it."""

from base64 import b64encode
from collections.abc import Sequence
from html import escape
from pathlib import Path
from string import Template
from typing import Any

from mmeff.compare.choice import Choice, choose
from mmeff.compare.facts import facts
from mmeff.compare.plots import Picture, pictures
from mmeff.compare.quantities import MEMORY_NOISE, QUANTITIES, SEED_NOISE, Quantity
from mmeff.compare.ranking import by_signal, marks, measured
from mmeff.compare.schema import Row
from mmeff.compare.table import budget, failures

TEMPLATE = Path(__file__).with_name("report.html")
MARKS = {"best": "▲", "worst": "▼"}


def write_html(path: Path, rows: Sequence[Row], about: dict[str, Any], plots: Path) -> None:
    """Write the page, with the plots in their folder."""
    parts, drawn = by_signal(rows), pictures(rows)
    page = Template(TEMPLATE.read_text(encoding="utf-8")).substitute(
        title=escape(f"Backbones compared on {about.get('device', 'an unknown device')}"),
        facts="\n".join(f"<dt>{escape(name)}</dt><dd>{escape(text)}</dd>" for name, text in facts(about)),
        choices="\n".join(card(choice) for choice in choose(rows)),
        filter=buttons(list(parts)),
        sections="\n".join(
            section(signal, those, [p for p in drawn if p.signal == signal], plots) for signal, those in parts.items()
        )
        or "<p>Nothing is measured yet.</p>",
        memory_noise=f"{100 * MEMORY_NOISE:g}",
        seed_noise=f"{100 * SEED_NOISE:g}",
    )
    path.write_text(page, encoding="utf-8")


def card(choice: Choice) -> str:
    lines = []
    for answer in choice.answers:
        names = " or ".join(f"<strong>{escape(name)}</strong>" for name in answer.names)
        lines.append(f"<dt>{escape(answer.question)}</dt><dd>{names} <small>{escape(answer.text)}</small></dd>")
    head = f'<h3>{escape(choice.title)}</h3><p class="soft">{escape(choice.note)}</p>'
    return f'<section class="card" data-signal="{choice.signal}">{head}<dl>{"".join(lines)}</dl></section>'


def buttons(modalities: Sequence[str]) -> str:
    """One filter for each signal, and one for all."""
    if len(modalities) < 2:
        return ""
    found = [f'<button type="button" value="{each}" aria-pressed="false">{each}</button>' for each in modalities]
    every = '<button type="button" value="" aria-pressed="true">all</button>'
    return f'<div class="filter" role="group" aria-label="Show one signal">{"".join([every, *found])}</div>'


def section(signal: str, rows: Sequence[Row], drawn: Sequence[Picture], plots: Path) -> str:
    """One signal: what failed, its table, its plots."""
    parts = [f"<h2>{signal.capitalize()}</h2>"]
    parts += [f"<p>{escape(budget(rows))}</p>"] if budget(rows) else []
    parts += [f'<p class="error">Failed: {escape("; ".join(failures(rows)))}.</p>'] if failures(rows) else []
    region = f'class="box" role="region" tabindex="0" aria-label="Results: {signal}"'
    parts.append(f"<div {region}>{table(rows)}</div>")
    figures = [figure(picture, plots / f"{picture.name}.png") for picture in drawn]
    parts += [f'<div class="plots">{"".join(figures)}</div>'] if figures else []
    return f'<section data-signal="{signal}">{"".join(parts)}</section>'


def figure(picture: Picture, path: Path) -> str:
    data = b64encode(path.read_bytes()).decode()
    return f'<figure><img alt="{escape(picture.alt)}" src="data:image/png;base64,{data}"></figure>'


def table(rows: Sequence[Row]) -> str:
    """Rows of one signal in a table that sorts: numbers by `data-value`, cells without one last."""
    quantities = measured(rows, QUANTITIES)
    recipes, failed = len({row.recipe for row in rows}) > 1, any(row.error for row in rows)
    headings = [heading("backbone", text=True), *([heading("recipe", text=True)] if recipes else [])]
    headings += [heading("length", rows[0].unit)]
    headings += [heading(q.title, q.unit_of(rows[0]), down=q.better > 0) for q in quantities]
    headings += [heading("error", text=True)] if failed else []
    marked = {quantity.key: marks(rows, quantity) for quantity in quantities}
    body, before = [], None
    for row in rows:
        cells = [name(row), *([f'<td class="text">{escape(row.recipe)}</td>'] if recipes else [])]
        cells += [f'<td data-value="{row.length}">{row.length:g}</td>']
        cells += [cell(row, quantity, marked[quantity.key].get(row, "")) for quantity in quantities]
        cells += [f'<td class="error">{escape(row.error or "")}</td>'] if failed else []
        group = (row.recipe, row.length)
        start = '<tr class="first">' if group != before else "<tr>"
        body.append(f"{start}{''.join(cells)}</tr>")
        before = group
    lines = "\n".join(body)
    return f"<table><thead><tr>{''.join(headings)}</tr></thead><tbody>\n{lines}\n</tbody></table>"


def heading(title: str, unit: str = "", text: bool = False, down: bool = False) -> str:
    """A button that sorts: first upwards, or downwards where more is better."""
    first = "descending" if down else "ascending"
    kind = ' class="text"' if text else ""
    below = f"<small>{escape(unit)}</small>" if unit else ""
    label = f'<button type="button"><span>{escape(title)}</span>{below}</button>'
    return f'<th scope="col" aria-sort="none" data-first="{first}"{kind}>{label}</th>'


def name(row: Row) -> str:
    tag = ' <span class="tag">baseline</span>' if row.kind == "baseline" else ""
    failed = ' <span class="tag error">failed</span>' if row.error else ""
    return f'<th scope="row" class="text">{escape(row.backbone)}{tag}{failed}</th>'


def cell(row: Row, quantity: Quantity, mark: str) -> str:
    found = quantity.read(row)
    if found is None:
        return '<td class="missing">-</td>'
    kind = f' class="{mark}"' if mark else ""
    sign = f'<span role="img" aria-label="{mark}">{MARKS[mark]}</span> ' if mark else ""
    spread = f" <small>{escape(found.spread)}</small>" if found.spread else ""
    return f'<td{kind} data-value="{found.value}">{sign}{quantity.show(found)}{spread}</td>'
