"""Draw each order of `orders` over a small grid: python -m mmeff_kernels.scan2d.routes [--out routes.png]

It needs matplotlib.
"""

import argparse

from .orders import ORDERS, SIZED, route


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", default="routes.png")
    args = parser.parse_args()
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
    figure.savefig(args.out, dpi=110)
    print(args.out)


if __name__ == "__main__":
    main()
