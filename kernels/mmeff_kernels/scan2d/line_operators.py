"""The three-neighbour line scan as torch operators: launches of its kernels, gradients, FLOPs.

`mmeff::line_scan_forward` and `..._backward` are opaque to torch.compile and counted by torch's FLOP counter.
"""

from typing import Any

import torch
from torch import Tensor

from ..arguments import innermost
from ..dispatch import define
from ..first_order import first_order
from ..launcher import Launcher
from ..selective_scan.operators import shared as summed
from . import line_kernel as kernel

#: Channels of a block: in bf16 they are 32 bytes, the least that memory moves.
BD = 16
#: Cells of a tile at most, forward and backward; longer lines take several tiles. Past these, registers spill.
WIDEST, WIDEST_BACKWARD = 256, 128

_launch_forward, _launch_backward = Launcher(kernel.forward_kernel), Launcher(kernel.backward_kernel)


def forward(
    x: Tensor, weights: Tensor, u: Tensor, D: Tensor | None, H: int, W: int, directions: list[int], keep: bool
) -> tuple[Tensor, Tensor]:
    """y (B, H W, D) and, if they are to be kept, the states (K, B, H W, D) in fp32. D is fp32.

    directions: 0 down, 1 up, 2 right, 3 left.
    """
    K, (rows, L, channels) = len(directions), x.shape[-3:]
    blocks = -(-channels // BD)
    y = torch.empty(K, rows, L, channels, dtype=x.dtype, device=x.device)
    states = (K, rows, L, channels) if keep else (K * rows * blocks, 2, max(H, W), BD)
    h = torch.empty(states, dtype=torch.float32, device=x.device)
    _launch_forward(
        K * rows * blocks,
        {"p_x": x, "p_w": weights, "p_u": u, "p_D": D, "p_y": y, "p_h": h},
        _numbers(x, weights, u, D, H, W, directions, blocks),
        {"HAS_D": D is not None, "SHARED": weights.shape[-1] == 1, "KEEP": keep, **_tile(H, W, directions, WIDEST)},
    )
    return y[0] if K == 1 else y.sum(0), h if keep else h.new_empty(0)


def backward(
    gy: Tensor, x: Tensor, weights: Tensor, u: Tensor, D: Tensor | None, h: Tensor, H: int, W: int,
    directions: list[int],
) -> tuple[Tensor, Tensor, Tensor, Tensor]:  # fmt: skip
    """The gradients of x, weights, u and D, shaped as these are (D's is empty without one)."""
    K, (rows, L, channels) = len(directions), x.shape[-3:]
    blocks = -(-channels // BD)
    shared = weights.shape[-1] == 1
    gx = torch.empty(K, rows, L, channels, dtype=x.dtype, device=x.device)
    gu = torch.empty(K, rows, L, channels, dtype=u.dtype, device=x.device)
    shape = (blocks, K, rows, L, 4) if shared else (K, rows, L, 3, channels)
    gw = torch.empty(shape, dtype=torch.float32 if shared else weights.dtype, device=x.device)
    gD = None if D is None else D.new_empty(K, rows, channels)
    g = h.new_empty(K * rows * blocks, 2, max(H, W), BD)
    _launch_backward(
        K * rows * blocks,
        {
            "p_x": x, "p_w": weights, "p_u": u, "p_D": D, "p_gy": gy, "p_h": h, "p_g": g,
            "p_gx": gx, "p_gw": gw, "p_gu": gu, "p_gD": gD,
        },
        {**_numbers(x, weights, u, D, H, W, directions, blocks), "directions": K},
        {"HAS_D": D is not None, "SHARED": shared, **_tile(H, W, directions, WIDEST_BACKWARD)},
    )  # fmt: skip
    if shared:
        gw = gw[..., :3].sum(0)[..., None]
    return (
        summed(gx, x), summed(gw, weights).to(weights.dtype), summed(gu, u),
        h.new_empty(0) if D is None or gD is None else summed(gD.sum(1), D),
    )  # fmt: skip


def _tile(H: int, W: int, directions: list[int], widest: int) -> dict[str, Any]:
    """Cells of a tile, and warps: four numbers a thread, or eight in the widest."""
    longest = max(W if way < 2 else H for way in directions)
    BW = min(1 << (longest - 1).bit_length(), widest)
    warps = min(max(BW * BD // 128, 1), max(widest // 16, 1))
    return {"ONE": longest <= BW, "BW": BW, "BD": BD, "num_warps": warps, "num_stages": 1}


def _numbers(
    x: Tensor, weights: Tensor, u: Tensor, D: Tensor | None, H: int, W: int, directions: list[int], blocks: int
) -> dict[str, int]:
    rows, _, channels = x.shape[-3:]
    return {
        "H": H, "W": W, "rows": rows, "n_blocks": blocks, "channels": channels,
        "code": sum(way << 2 * k for k, way in enumerate(directions)),
        "x_k": x.stride(0) if x.dim() == 4 else 0, "x_b": x.stride(-3), "x_l": x.stride(-2),
        "w_k": weights.stride(0) if weights.dim() == 5 else 0, "w_b": weights.stride(-4), "w_l": weights.stride(-3),
        "w_n": weights.stride(-2),
        "u_k": u.stride(0) if u.dim() == 4 else 0, "u_b": u.stride(-3), "u_l": u.stride(-2),
        "D_k": channels if D is not None and D.dim() == 2 else 0,
    }  # fmt: skip


def _forward_fake(x: Tensor, directions: list[int], keep: bool, **_: Any) -> tuple[Tensor, Tensor]:
    states = (len(directions), *x.shape[-3:]) if keep else 0
    return x.new_empty(x.shape[-3:]), x.new_empty(states, dtype=torch.float32)


def _backward_fake(
    x: Tensor, weights: Tensor, u: Tensor, D: Tensor | None, **_: Any
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    gD = x.new_empty(0 if D is None else D.shape, dtype=torch.float32)
    return x.new_empty(x.shape), weights.new_empty(weights.shape), u.new_empty(u.shape), gD


def _states(x: Any, directions: Any) -> int:
    rows, L, channels = x[-3:]
    return len(directions) * rows * L * channels


def forward_flops(x: Any, D: Any, directions: Any, **_: Any) -> int:
    """A state: three products and sums, two for u h; two for D x."""
    return _states(x, directions) * (8 + 2 * (D is not None))


def backward_flops(x: Any, weights: Any, D: Any, directions: Any, **_: Any) -> int:
    """A state: u gy, three products and sums; gy h; a product for each weight, and a sum if channels share it; two each
    for D gy and for gD."""
    return _states(x, directions) * (8 + 3 * (1 + (weights[-1] == 1)) + 4 * (D is not None))


def states(x: Tensor, directions: list[int], H: int, W: int, **_: Any) -> int:
    """Bytes of the line that each direction carries, for each row of the batch."""
    lines = sum(W if way >= 2 else H for way in directions)
    return 4 * lines * x.shape[-3] * x.shape[-1]


_INPUTS = "Tensor x, Tensor weights, Tensor u, Tensor? D"
_forward = define(
    f"line_scan_forward({_INPUTS}, int H, int W, int[] directions, bool keep) -> (Tensor, Tensor)",
    forward,
    _forward_fake,
    forward_flops,
    states,
)
_backward = define(
    f"line_scan_backward(Tensor gy, {_INPUTS}, Tensor h, int H, int W, int[] directions) "
    "-> (Tensor, Tensor, Tensor, Tensor)",
    backward,
    _backward_fake,
    backward_flops,
)


class LineScan(torch.autograd.Function):
    """x and u ([K,] B, H W, D), weights ([K,] B, H W, 3, G), D ([K,] D) fp32 or None, channels innermost
    -> y (B, H W, D) in x's type; every gradient in that of its tensor."""

    @staticmethod
    def forward(  # pyright: ignore[reportIncompatibleMethodOverride]
        ctx: Any, x: Tensor, weights: Tensor, u: Tensor, D: Tensor | None, H: int, W: int, directions: list[int]
    ) -> Tensor:
        y, h = _forward(x, weights, u, D, H, W, directions, True)
        ctx.save_for_backward(x, weights, u, D, h)
        ctx.options = H, W, directions
        return y

    @staticmethod
    @first_order("line_scan")
    def backward(ctx: Any, gy: Tensor) -> tuple[Tensor | None, ...]:  # pyright: ignore[reportIncompatibleMethodOverride]
        x, weights, u, D, h = ctx.saved_tensors
        gx, gw, gu, gD = _backward(gy.contiguous(), x, weights, u, D, h, *ctx.options)
        return gx, gw, gu, None if D is None else gD, None, None, None


def scan(
    x: Tensor, weights: Tensor, u: Tensor, D: Tensor | None, grid: tuple[int, int], directions: list[int]
) -> Tensor:
    """`line_scan` by the kernels: y (B, H W, D). Without gradients two lines of states are held, not all."""
    x, u = innermost(x), innermost(u)
    weights = weights if weights.stride(-1) == 1 or weights.shape[-1] == 1 else weights.contiguous()
    D = None if D is None else D.float().contiguous()
    if torch.is_grad_enabled() and any(t is not None and t.requires_grad for t in (x, weights, u, D)):
        return LineScan.apply(x, weights, u, D, *grid, directions)
    return _forward(x, weights, u, D, *grid, directions, False)[0]
