"""Draw each order of `orders` over a small grid, and what a token sees by each operator:

    python kernels/benchmarks/routes.py [--out routes.png] [--fields receptive_fields.png]

It needs matplotlib.
"""

import argparse
import sys
from pathlib import Path

if __name__ == "__main__":
    sys.path[0] = str(Path(__file__).parents[1])

from benchmarks.fields import draw_fields
from mmeff_kernels.scan2d.orders import ORDERS, SIZED, route


def draw_routes(out: str) -> None:
    """Each order as a line from token to token."""
    from matplotlib import pyplot

    H, W = 6, 9
    names = [f"{name}-3" if name in SIZED else name for name in ORDERS]
    figure, axes = pyplot.subplots(3, 3, figsize=(9, 7))
    for axis, name in zip(axes.flat, names, strict=True):
        order = route(name, H, W)
        i, j = order // W, order % W
        axis.plot(j, i, color="0.6", linewidth=1)
        axis.scatter(j, i, c=range(H * W), cmap="viridis", s=36, zorder=2)
        axis.set_title(name, fontsize=10)
        axis.set_aspect("equal")
        axis.invert_yaxis()
        axis.axis("off")
    figure.suptitle(f"routes over {H} x {W} tokens, from dark to light", fontsize=11)
    figure.tight_layout()
    figure.savefig(out, dpi=110)
    pyplot.close(figure)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", default="routes.png")
    parser.add_argument("--fields", default="receptive_fields.png")
    args = parser.parse_args()
    draw_routes(args.out)
    draw_fields(args.fields)
    print(args.out, args.fields)


if __name__ == "__main__":
    main()
