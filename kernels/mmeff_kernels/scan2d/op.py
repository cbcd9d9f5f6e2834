"""The public scans over grids."""

from collections.abc import Sequence

import torch
from torch import Tensor

from ..selective_scan import selective_scan_routes
from ..selective_scan.checks import Impl, check
from ..stacked import expanded
from .orders import CROSS, named, table


def cross_scan(
    x: Tensor,
    dt: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    D: Tensor | None = None,
    *,
    grid: tuple[int, int],
    routes: Sequence[str] = CROSS,
    z: Tensor | None = None,
    dt_bias: Tensor | None = None,
    dt_weight: Tensor | None = None,
    dt_softplus: bool = False,
    grid_sizes: Tensor | None = None,
    impl: Impl = "auto",
) -> Tensor:
    """SS2D: selective scans over an H x W grid along K routes, summed: y = silu(z) * sum_k y_k (arXiv 2401.10166).

    Along route k: h <- exp(dt_k A_k) h + dt_k B_k x,  y_k = C_k h + D_k x, from token to token in the route's order.
    All tensors lie in the tokens' own order, row-major; routes are applied to the addresses of loads and stores.

    x, z                (B, H W, D); x may lead with an axis K, as may all that follow
    dt                  ([K,] B, H W, D); with dt_weight ([K,] D, R) its low-rank form ([K,] B, H W, R)
    A                   ([K,] D, N), A <= 0
    B, C                (B, H W, N), (B, H W, G, N) or (K, B, H W, G, N)
    D, dt_bias          ([K,] D) or None
    grid                (H, W)
    routes              K names of orders, see `scan2d.orders`: rows and columns from both ends by default
    grid_sizes          (B, 2) integers or None: of each row of the batch the rows and columns of its grid, from the
                        first corner, that hold tokens. What lies outside is never read, and y is 0 there; routes pass
                        over it. Their values are checked on the CPU alone
    dt_softplus, impl   as in `selective_scan_routes`

    Returns y (B, H W, D) in x's dtype. ValueError if the shapes do not fit together, or there is no such route.
    """
    H, W = grid
    order = table(named(routes), H, W, x.device)
    if x.dim() < 3 or x.shape[-2] != H * W:
        raise ValueError(f"x {tuple(x.shape)} has no {H * W} tokens of a {H} x {W} grid")
    outside = None
    if grid_sizes is not None:
        tensors = {"x": x, "dt": dt, "z": z, "A": A, "B": B, "C": C, "D": D, "dt_bias": dt_bias, "dt_weight": dt_weight}
        check({**tensors, "initial_state": None}, None, None, len(order))
        outside = outside_grid(grid_sizes, H, W, x)[..., None]
        x, dt = x.masked_fill(outside, 0), dt.masked_fill(outside, 0)
        z = None if z is None else z.masked_fill(outside, 0)
        B, C = (t.masked_fill(outside if t.dim() == 3 else outside[..., None], 0) for t in (B, C))
        if dt_weight is not None:
            dt, dt_weight = expanded(dt, dt_weight), None
        dt, dt_bias = without_steps(dt, dt_bias, outside, dt_softplus), None
    y, _ = selective_scan_routes(
        x, dt, A, B, C, D, routes=order, z=z, dt_bias=dt_bias, dt_weight=dt_weight, dt_softplus=dt_softplus, impl=impl
    )
    return y if outside is None else y.masked_fill(outside, 0)


def without_steps(dt: Tensor, bias: Tensor | None, outside: Tensor, softplus: bool) -> Tensor:
    """dt with its bias, such that a token outside has a step of 0, which passes the state on: exp(0 A) = 1, and nothing
    is added."""
    if bias is not None:
        dt = dt + (bias if bias.dim() == 1 else bias[:, None, None])
    return dt.masked_fill(outside, -1e4 if softplus else 0.0)  # softplus(-1e4) = 0


def outside_grid(grid_sizes: Tensor, H: int, W: int, x: Tensor) -> Tensor:
    """(B, H W) bool: whether a token lies outside its row's own grid."""
    if grid_sizes.shape != (x.shape[-3], 2) or grid_sizes.is_floating_point():
        raise ValueError(
            f"grid_sizes must be ({x.shape[-3]}, 2) integers beside x {tuple(x.shape)}, not {tuple(grid_sizes.shape)} "
            f"{grid_sizes.dtype}"
        )
    # On another device the values are not looked at: that would wait for it.
    if grid_sizes.device.type == "cpu" and len(grid_sizes):
        low, high = grid_sizes.amin(0).tolist(), grid_sizes.amax(0).tolist()
        if min(low) < 0 or high[0] > H or high[1] > W:
            raise ValueError(f"grid_sizes go from {low} to {high}; the grid is {H} x {W}")
    sizes = grid_sizes.to(x.device)
    below = torch.arange(H, device=x.device) >= sizes[:, :1]
    right = torch.arange(W, device=x.device) >= sizes[:, 1:]
    return (below[:, :, None] | right[:, None, :]).flatten(1)
