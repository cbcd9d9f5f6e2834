"""Rows side by side: what may be compared, and which is best and worst in it."""

from collections.abc import Sequence

from mmeff.compare.quantities import Quantity
from mmeff.compare.schema import Row


def by_signal(rows: Sequence[Row]) -> dict[str, list[Row]]:
    """Rows of each kind of signal, in the order of the run, by recipe, length and name; baselines after the others."""
    found: dict[str, list[Row]] = {row.signal: [] for row in rows}
    for row in sorted(rows, key=lambda row: (row.recipe, row.length, row.kind != "mmeff", row.backbone)):
        found[row.signal].append(row)
    return found


def by_recipe(rows: Sequence[Row]) -> dict[str, list[Row]]:
    """Rows of each recipe, in their order."""
    found: dict[str, list[Row]] = {}
    for row in rows:
        found.setdefault(row.recipe, []).append(row)
    return found


def by_backbone(rows: Sequence[Row]) -> dict[str, list[Row]]:
    """Rows of each contender, shortest length first, attention before all others."""
    found: dict[str, list[Row]] = {}
    for row in sorted(rows, key=lambda row: (row.backbone != "attention", row.kind != "mmeff", row.backbone)):
        found.setdefault(row.backbone, []).append(row)
    return {name: sorted(those, key=lambda row: row.length) for name, those in found.items()}


def marks(rows: Sequence[Row], quantity: Quantity) -> dict[Row, str]:
    """ "best" and "worst" among the rows of one recipe and length; none where all are the same."""
    groups: dict[tuple[str, float], dict[Row, float]] = {}
    for row in rows:
        found = quantity.read(row)
        if quantity.better and found is not None:
            groups.setdefault((row.recipe, row.length), {})[row] = quantity.better * found.value
    marked = {}
    for values in groups.values():
        least, most = min(values.values()), max(values.values())
        if least < most:
            marked |= {row: "worst" for row, value in values.items() if value == least}
            marked |= {row: "best" for row, value in values.items() if value == most}
    return marked


def measured(rows: Sequence[Row], quantities: Sequence[Quantity]) -> list[Quantity]:
    """Those quantities that at least one row has."""
    return [quantity for quantity in quantities if any(quantity.read(row) for row in rows)]
