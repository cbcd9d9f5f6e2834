"""Which tokens of a grid one token sees, and how much of each, by the operators of this package.

The field of a token is its row of an operator's (H W, H W) matrix, here at constant parameters: one channel, one state,
dt = B = C = 1, no D, and a decay of DECAY from token to token; the line scan has weights of 1/3 and u = 1.
"""

import math
from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor

from mmeff_kernels.scan2d import CROSS, cross_scan, line_scan, separable_scan, wavefront_scan

DECAY = 0.85
#: Odd, so that there is a centre.
GRID = (15, 21)
#: The share of the largest entry at which colours end: what is less, but not 0, is grey.
LEAST = 1e-5


def operators(grid: tuple[int, int]) -> dict[str, Callable[[Tensor], Tensor]]:
    """By title, functions of x (1, H W, 1) in float64."""
    one = torch.ones(1, grid[0] * grid[1], 1, dtype=torch.float64)
    A = torch.full((1, 1), math.log(DECAY), dtype=torch.float64)
    cross = partial(cross_scan, dt=one, A=A, B=one, C=one, grid=grid, impl="torch")
    separable = partial(separable_scan, dt=one, A=A, B=one, C=one, grid=grid, impl="torch")
    wavefront = partial(
        wavefront_scan, dt=one, A=A, B=one, dt_top=one, A_top=A, B_top=one, C=one, grid=grid, impl="torch"
    )
    line = partial(line_scan, weights=one[:, :, None].expand(-1, -1, 3, 1) / 3, u=one, grid=grid, impl="torch")
    return {
        "cross_scan, rows and columns both ways": partial(cross, routes=CROSS),
        "cross_scan, serpentine both ways": partial(cross, routes=("serpentine", "serpentine-reversed")),
        "cross_scan, hilbert both ways": partial(cross, routes=("hilbert", "hilbert-reversed")),
        "separable_scan, top-left": partial(separable, corners=("top-left",)),
        "wavefront_scan, top-left": partial(wavefront, corners=("top-left",)),
        "line_scan, down": partial(line, directions=("down",)),
        "separable_scan, four corners": separable,
        "wavefront_scan, four corners": wavefront,
        "line_scan, four directions": line,
    }


def field(run: Callable[[Tensor], Tensor], grid: tuple[int, int], token: tuple[int, int]) -> Tensor:
    """The gradient of a token's y with respect to x, (H, W)."""
    x = torch.zeros(1, grid[0] * grid[1], 1, dtype=torch.float64, requires_grad=True)
    y = run(x).view(grid)
    return torch.autograd.grad(y[token], x)[0].view(grid)


def draw_fields(out: str) -> None:
    """The centre's field by each operator, as shares of its largest entry on one logarithmic scale."""
    from matplotlib import colors, pyplot, ticker

    centre = GRID[0] // 2, GRID[1] // 2
    figure, axes = pyplot.subplots(3, 3, figsize=(9, 7.4), layout="constrained")
    palette, scale, image = pyplot.get_cmap("viridis").with_extremes(under="0.85"), colors.LogNorm(LEAST, 1), None
    for axis, (title, run) in zip(axes.flat, operators(GRID).items(), strict=True):
        found = field(run, GRID, centre)
        share = (found / found.max()).masked_fill(found == 0, torch.nan)
        image = axis.imshow(share.numpy(), cmap=palette, norm=scale)
        axis.plot(centre[1], centre[0], marker="+", color="red", markersize=7)
        axis.set_title(title, fontsize=9)
        axis.set(xticks=[], yticks=[])
        for spine in axis.spines.values():
            spine.set_color("0.8")
    assert image is not None
    percent = ticker.FuncFormatter(lambda share, _: f"{100 * share:g}%")
    bar = figure.colorbar(image, ax=axes, orientation="horizontal", extend="min", format=percent, aspect=50, shrink=0.8)
    bar.set_label("share of the largest entry; grey: less, white: 0", fontsize=9)
    figure.suptitle(f"what the centre (+) of {GRID[0]} x {GRID[1]} tokens sees at a decay of {DECAY}", fontsize=11)
    figure.savefig(out, dpi=110)
    pyplot.close(figure)
