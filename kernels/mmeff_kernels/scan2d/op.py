"""The public scans over grids."""

from collections.abc import Sequence

import torch
from torch import Tensor

from ..selective_scan import selective_scan_routes
from ..selective_scan.checks import Impl
from .orders import CROSS, table


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
                        over it
    dt_softplus, impl   as in `selective_scan_routes`

    Returns y (B, H W, D) in x's dtype. ValueError if the shapes do not fit together, or there is no such route.
    """
    H, W = grid
    if isinstance(routes, str) or not routes:
        raise ValueError(f"routes must be names of orders, one for each scan, not {routes!r}")
    order = table(tuple(routes), H, W, x.device)
    if x.dim() < 3 or x.shape[-2] != H * W:
        raise ValueError(f"x {tuple(x.shape)} has no {H * W} tokens of a {H} x {W} grid")
    valid = None
    if grid_sizes is not None:
        valid = _inside(grid_sizes, H, W, x)[..., None]
        x = x.masked_fill(~valid, 0)
        z = None if z is None else z.masked_fill(~valid, 0)
        B, C = (_masked(weights, valid) for weights in (B, C))
        if dt_weight is not None:
            dt = (dt.flatten(-3, -2) @ dt_weight.to(dt.dtype).mT).unflatten(-2, dt.shape[-3:-1])
            dt_weight = None
        # A step of 0 passes the state on: exp(0 A) = 1, and nothing is added.
        if dt_bias is not None:
            dt = dt + (dt_bias if dt_bias.dim() == 1 else dt_bias[:, None, None])
            dt_bias = None
        dt = dt.masked_fill(~valid, -1e4 if dt_softplus else 0.0)  # softplus(-1e4) = 0
    y, _ = selective_scan_routes(
        x, dt, A, B, C, D, routes=order, z=z, dt_bias=dt_bias, dt_weight=dt_weight, dt_softplus=dt_softplus, impl=impl
    )
    return y if valid is None else y.masked_fill(~valid, 0)


def _inside(grid_sizes: Tensor, H: int, W: int, x: Tensor) -> Tensor:
    """(B, H W) bool: whether a token lies in its row's own grid."""
    if grid_sizes.shape != (x.shape[-3], 2) or grid_sizes.is_floating_point():
        raise ValueError(
            f"grid_sizes must be ({x.shape[-3]}, 2) integers beside x {tuple(x.shape)}, not {tuple(grid_sizes.shape)} "
            f"{grid_sizes.dtype}"
        )
    if grid_sizes.device.type == "cpu":  # elsewhere the values are not looked at: that would wait for the device
        low, high = grid_sizes.amin(0).tolist(), grid_sizes.amax(0).tolist()
        if min(low) < 0 or high[0] > H or high[1] > W:
            raise ValueError(f"grid_sizes go from {low} to {high}; the grid is {H} x {W}")
    sizes = grid_sizes.to(x.device)
    down = torch.arange(H, device=x.device) < sizes[:, :1]
    right = torch.arange(W, device=x.device) < sizes[:, 1:]
    return (down[:, :, None] & right[:, None, :]).flatten(1)


def _masked(weights: Tensor, valid: Tensor) -> Tensor:
    """B or C with zeros outside, whatever was there."""
    return weights.masked_fill(~(valid if weights.dim() == 3 else valid[..., None]), 0)
