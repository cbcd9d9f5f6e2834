"""Orders in which a scan can meet the tokens of a grid. A route is data: one row of a table, (L,) tokens in turn.

A name is one of ORDERS, with a size where the order takes one ("windows-7"), and "-reversed" behind it for the same
order from its end. All serve any H x W grid, square or not, one token wide too.
"""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from ..kept import kept

#: VMamba's four (arXiv 2401.10166): rows and columns, from the first token and from the last.
CROSS = ("rows", "columns", "rows-reversed", "columns-reversed")
#: Along the rows from each corner.
CORNERS = ("rows", "mirrored-rows", "mirrored-rows-reversed", "rows-reversed")
#: Steps of a route, as `directions` numbers them.
START, RIGHT, LEFT, DOWN, UP, JUMP = range(6)


def rows(i: Tensor, j: Tensor) -> Tensor:
    """Row after row, each from the left."""
    return i * SPAN + j


def columns(i: Tensor, j: Tensor) -> Tensor:
    """Column after column, each from the top."""
    return j * SPAN + i


def mirrored_rows(i: Tensor, j: Tensor) -> Tensor:
    """Row after row, each from the right."""
    return i * SPAN + (SPAN - 1 - j)


def serpentine(i: Tensor, j: Tensor) -> Tensor:
    """Row after row, every other one from the right: each step goes to a neighbour (PlainMamba, arXiv 2403.17695)."""
    return i * SPAN + torch.where(i % 2 == 0, j, SPAN - 1 - j)


def serpentine_columns(i: Tensor, j: Tensor) -> Tensor:
    """Column after column, every other one from the bottom."""
    return serpentine(j, i)


def diagonals(i: Tensor, j: Tensor) -> Tensor:
    """Diagonal after diagonal from the first corner, each from its top right to its bottom left."""
    return (i + j) * SPAN + i


def windows(i: Tensor, j: Tensor, size: int) -> Tensor:
    """Window after window of size x size, row by row, and so inside each (LocalMamba, arXiv 2403.09338). Those at the
    right and at the bottom may be smaller."""
    return rows(i // size, j // size) * size**2 + i % size * size + j % size


def atrous(i: Tensor, j: Tensor, step: int) -> Tensor:
    """One sub-grid of every step-th token after the other, each by rows (EfficientVMamba's sub-grids, arXiv 2403.09977,
    as one route: the state goes on from a sub-grid to the next)."""
    return (i % step * step + j % step) * SPAN**2 + rows(i // step, j // step)


def hilbert(i: Tensor, j: Tensor) -> Tensor:
    """Hilbert's curve over a square around the grid, without what lies outside. Its side is a power of four, for then a
    smaller grid is met in the same order within a larger one, as by all routes."""
    place = torch.zeros_like(i)
    side = SPAN
    half = side // 2
    while half:
        right, down = (j & half) > 0, (i & half) > 0
        place += half * half * (3 * right.long() ^ down.long())
        # The quadrants above are the curve turned: axes change places, in the right one from the other end.
        turned = ~down
        i, j = torch.where(turned & right, side - 1 - i, i), torch.where(turned & right, side - 1 - j, j)
        i, j = torch.where(turned, j, i), torch.where(turned, i, j)
        half //= 2
    return place


#: More than the tokens of any row or column: what separates the digits of a place in an order.
SPAN = 1 << 20
#: By name, what sorts tokens (i, j) into an order; those of SIZED take a size too.
ORDERS: dict[str, Callable[..., Tensor]] = {
    "rows": rows, "columns": columns, "mirrored-rows": mirrored_rows, "serpentine": serpentine,
    "serpentine-columns": serpentine_columns, "diagonals": diagonals, "hilbert": hilbert,
    "windows": windows, "atrous": atrous,
}  # fmt: skip
SIZED = ("windows", "atrous")


def route(name: str, H: int, W: int) -> Tensor:
    """The tokens of an (H, W) grid in this order, (H W,) int64. ValueError if there is no such order or grid."""
    if H < 1 or W < 1:
        raise ValueError(f"a grid has at least one row and one column, not {H} x {W}")
    stem = name.removesuffix("-reversed")
    size: tuple[int, ...] = ()
    head, _, number = stem.rpartition("-")
    if head in SIZED:
        if not number.isdigit() or int(number) < 1:
            raise ValueError(f"route {name!r}: {head} needs a size of 1 or more behind it, as in {head}-2")
        stem, size = head, (int(number),)
    if stem not in ORDERS or (stem in SIZED and not size):
        known = ", ".join(f"{order}-N" if order in SIZED else order for order in ORDERS)
        raise ValueError(f"route {name!r}: there are {known}, each with -reversed behind it or without")
    i, j = torch.meshgrid(torch.arange(H), torch.arange(W), indexing="ij")
    order = ORDERS[stem](i.flatten(), j.flatten(), *size).argsort()
    return order.flip(0) if name.endswith("-reversed") else order


def named(routes: Sequence[str]) -> tuple[str, ...]:
    """Names of routes as a tuple. ValueError if there are none, or one that is not in a list."""
    if isinstance(routes, str) or not routes:
        raise ValueError(f"routes must be names of orders, one for each scan, not {routes!r}")
    return tuple(routes)


@kept
def table(names: tuple[str, ...], H: int, W: int, device: torch.device | None = None) -> Tensor:
    """A route a row, (K, H W) int32 on a device, made once: what `selective_scan_routes` takes."""
    return torch.stack([route(name, H, W) for name in names]).to(device, torch.int32)


def directions(names: Sequence[str], H: int, W: int) -> Tensor:
    """How each route came to each token, (K, H W) int64 in the tokens' own order: START, RIGHT, LEFT, DOWN, UP or JUMP.

    PlainMamba's direction-aware scan adds a learned vector to B by these: B + theta[directions], theta (6, N).
    """
    found = torch.empty(len(names), H * W, dtype=torch.int64)
    for k, name in enumerate(names):
        order = route(name, H, W)
        down, right = (order // W).diff(), (order % W).diff()
        step = torch.full_like(down, JUMP)
        for kind, (di, dj) in {RIGHT: (0, 1), LEFT: (0, -1), DOWN: (1, 0), UP: (-1, 0)}.items():
            step[(down == di) & (right == dj)] = kind
        found[k, order[0]] = START
        found[k, order[1:]] = step
    return found
