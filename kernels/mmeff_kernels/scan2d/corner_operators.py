"""The recurrences from corners as torch operators: launches of their kernels, gradients, FLOPs."""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ..arguments import check_reach
from ..dispatch import define
from ..first_order import first_order
from ..launcher import Launcher
from ..selective_scan.division import quarters
from ..selective_scan.launch import lead_stride
from ..selective_scan.operators import shared
from . import corner_kernel as kernel

#: Rows between two that the forward pass keeps states before.
BAND = 16
#: Warps that share a quarter of a multiprocessor at most, and the registers of a thread that let them.
WARPS, REGISTERS = 3, 168


@dataclass(frozen=True)
class Tile:
    """What one warp holds: BN states (a power of two >= N) of BD channels, in strips of S columns; the registers of a
    thread."""

    BN: int
    BD: int
    S: int
    registers: int


def tile(N: int, channels: int, grids: int, wavefront: bool, quarters: int) -> Tile:
    """For so many grids (rows of the batch times corners): up to 8 numbers of state a thread, 32 channels; fewer
    channels, down to 8, while there are not two warps for each quarter of a multiprocessor.

    Wide strips take fewer edges to memory and hide more of its latency, but want registers, and a compiler's time.
    """
    BN = 1 << (N - 1).bit_length()
    BD = min(32, 256 // BN)
    while BD > 8 and grids * -(-channels // BD) < 2 * quarters:
        BD //= 2
    lone = grids * -(-channels // BD) <= 2 * quarters
    return Tile(BN, BD, 4 if BN <= 2 and not wavefront else 2, 255 if lone else REGISTERS)


class _Plan:
    """How the recurrences are divided among programs, and what both kernels are told."""

    def __init__(self, x: Tensor, left: tuple[Any, ...], top: tuple[Any, ...], C: Tensor, D: Tensor | None, turns: Any):
        self.corners, self.turned_rows, self.turned_columns, self.H, self.W = turns
        self.rows, _, self.channels = x.shape[-3:]
        dt, A, B, bias = left
        self.N = B.shape[-1]
        wavefront = top[0] is not None
        self.tile = tile(self.N, self.channels, self.corners * self.rows, wavefront, quarters(x.device))
        self.blocks = -(-self.channels // self.tile.BD)
        self.programs = self.corners * self.rows * self.blocks
        named = {"x": x, "dt": dt, "B": B, "C": C, "dt_top": top[0], "B_top": top[2]}
        check_reach(
            named, (-2, -1), self.H * self.W, max(self.channels, self.N),
            "make it contiguous, or take impl 'torch' or a smaller grid",
        )  # fmt: skip
        self.tensors = {
            "p_x": x, "p_dt": dt, "p_A": A, "p_B": B, "p_C": C, "p_D": D, "p_bias": bias,
            "p_dt_top": top[0], "p_A_top": top[1], "p_B_top": top[2], "p_bias_top": top[3],
        }  # fmt: skip
        self.numbers = {
            "H": self.H, "W": self.W, "rows": self.rows, "blocks": self.blocks, "channels": self.channels,
            "N": self.N, "turned_rows": self.turned_rows, "turned_columns": self.turned_columns,
            "A_k": lead_stride(A, 3), "D_k": lead_stride(D, 2), "bias_k": lead_stride(bias, 2),
            "A_top_k": lead_stride(top[1], 3), "bias_top_k": lead_stride(top[3], 2),
        }  # fmt: skip
        for name, tensor in named.items():
            strides = (0, 0, 0) if tensor is None else (lead_stride(tensor, 4), *tensor.stride()[-3:-1])
            self.numbers |= {f"{name}_{letter}": stride for letter, stride in zip("kbl", strides, strict=True)}
        self.options = {
            "HAS_D": D is not None, "HAS_BIAS": bias is not None, "WAVEFRONT": wavefront,
            "BAND": BAND, "EVEN_D": self.channels % self.tile.BD == 0, "EVEN_N": self.tile.BN == self.N,
            "BD": self.tile.BD, "BN": self.tile.BN, "S": self.tile.S, "num_warps": 1, "maxnreg": self.tile.registers,
        }  # fmt: skip


_forward_kernel, _backward_kernel = Launcher(kernel.forward_kernel), Launcher(kernel.backward_kernel)


def _kept(
    x: Tensor, N: int, corners: int, H: int, W: int, wavefront: bool, save: bool
) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Shapes of the edges and tops that the forward pass leaves; without `save` a strip overwrites the last one's."""
    grids = corners * x.shape[-3]
    some = tile(N, x.shape[-1], grids, wavefront, quarters(x.device))
    programs, strips = grids * -(-x.shape[-1] // some.BD), -(-W // some.S)
    state = (some.BN, some.BD)
    tops = (programs, strips, -(-H // BAND), some.S, *state) if save else (0,)
    return (programs, strips if save else 1, H, *state), tops


def forward(
    x: Tensor, dt: Tensor, A: Tensor, B: Tensor, bias: Any, dt_top: Any, A_top: Any, B_top: Any, bias_top: Any,
    C: Tensor, D: Any, softplus: bool, corners: int, turned_rows: int, turned_columns: int, H: int, W: int, save: bool,
) -> tuple[Tensor, Tensor, Tensor]:  # fmt: skip
    """y (K, B, L, D); the edges and tops that the backward pass wants."""
    turns = corners, turned_rows, turned_columns, H, W
    plan = _Plan(x, (dt, A, B, bias), (dt_top, A_top, B_top, bias_top), C, D, turns)
    y = torch.empty(corners, *x.shape[-3:], dtype=x.dtype, device=x.device)
    edges, tops = (A.new_empty(shape) for shape in _kept(x, plan.N, corners, H, W, dt_top is not None, save))
    tensors = {**plan.tensors, "p_y": y, "p_edges": edges, "p_tops": tops if save else edges}
    options = {**plan.options, "SOFTPLUS": softplus, "SAVE": save}
    _forward_kernel(plan.programs, tensors, {**plan.numbers, "one": 1}, options)
    return y, edges, tops


def backward(
    gy: Tensor, edges: Tensor, tops: Tensor, x: Tensor, dt: Tensor, A: Tensor, B: Tensor, bias: Any, dt_top: Any,
    A_top: Any, B_top: Any, bias_top: Any, C: Tensor, D: Any, softplus: bool, corners: int, turned_rows: int,
    turned_columns: int, H: int, W: int,
) -> tuple[Tensor, ...]:  # fmt: skip
    """gy (B, L, D). Gradients of x, dt (K, B, L, D), B, C (K, B, L, N), sums (K, N + 2, D) for A, D and bias; then of
    dt_top, B_top and for A_top and its bias, empty where there is none."""
    turns = corners, turned_rows, turned_columns, H, W
    plan = _Plan(x, (dt, A, B, bias), (dt_top, A_top, B_top, bias_top), C, D, turns)
    wavefront, size = dt_top is not None, (corners, *x.shape[-3:])
    gx, gdt = (torch.empty(size, dtype=t.dtype, device=x.device) for t in (x, dt))
    parts = (corners, plan.blocks, *x.shape[-3:-1], plan.N)
    gB, gC = (torch.empty(parts, dtype=torch.promote_types(B.dtype, C.dtype), device=x.device) for _ in range(2))
    sums = A.new_empty(corners, plan.rows, plan.N + 2, plan.channels)
    gdt_top = torch.empty_like(gdt if wavefront else A[:0])
    gB_top, sums_top = torch.empty_like(gB if wavefront else A[:0]), torch.zeros_like(sums if wavefront else A[:0])
    launch = min(plan.programs, WARPS * quarters(x.device))  # one wave: each program has a scratch of its own
    state = (plan.tile.BN, plan.tile.BD)
    tensors = {
        **plan.tensors, "p_edges": edges, "p_tops": tops, "p_gy": gy,
        "p_scratch": A.new_empty(launch, BAND, plan.tile.S, *state), "p_right": A.new_empty(launch, H, *state),
        "p_gx": gx, "p_gdt": gdt, "p_gB": gB, "p_gC": gC, "p_sums": sums,
        "p_gdt_top": gdt_top if wavefront else None, "p_gB_top": gB_top if wavefront else None,
        "p_sums_top": sums_top if wavefront else None,
    }  # fmt: skip
    options = {**plan.options, "SOFTPLUS": softplus}
    for before in range(0, plan.programs, launch):
        some = min(launch, plan.programs - before)
        _backward_kernel(some, tensors, {"programs_before": before, **plan.numbers}, options)
    if wavefront:
        gB_top, sums_top = gB_top.sum(1), sums_top.sum(1)
    return gx, gdt, gB.sum(1), gC.sum(1), sums.sum(1), gdt_top, gB_top, sums_top


def _forward_fake(
    x: Tensor, A: Tensor, B: Tensor, dt_top: Tensor | None, corners: int, H: int, W: int, save: bool, **_: Any
) -> tuple[Tensor, ...]:
    y = x.new_empty(corners, *x.shape[-3:])
    return y, *(A.new_empty(shape) for shape in _kept(x, B.shape[-1], corners, H, W, dt_top is not None, save))


def _backward_fake(
    x: Tensor, dt: Tensor, A: Tensor, B: Tensor, dt_top: Tensor | None, C: Tensor, corners: int, **_: Any
) -> tuple[Tensor, ...]:
    narrow = torch.promote_types(B.dtype, C.dtype)
    part, sums = (corners, *x.shape[-3:-1], B.shape[-1]), A.new_empty(corners, B.shape[-1] + 2, x.shape[-1])
    gdt, gB = dt.new_empty(corners, *x.shape[-3:]), B.new_empty(part, dtype=narrow)
    top = (gdt, gB, sums) if dt_top is not None else (A[:0], A[:0], A[:0])
    return (
        x.new_empty(corners, *x.shape[-3:]), gdt, gB, torch.empty_like(gB), sums, *(torch.empty_like(t) for t in top)
    )  # fmt: skip


def forward_flops(x: Any, B: Any, dt_top: Any, corners: int, **_: Any) -> int:
    """A token's N states: dt A, its exponential and dt x B for each axis (once if separable), 4 for the two
    recurrences (5: with the half, and one sum more), 2 for C h. A channel: dt x for each, 2 for D x."""
    rows, L, channels = x[-3:]
    state, own = (9, 3) if dt_top is None else (14, 4)
    return corners * rows * L * channels * (state * B[-1] + own)


def backward_flops(x: Any, B: Any, dt_top: Any, corners: int, **_: Any) -> int:
    """A token's N states: the repeated states (7, or 12), C gy and its sum with what comes from below and right (3, or
    4 with the half), 2 decayed gradients, dA and d dt (7, or 8: two products, one or two sums, 2 each), dB and d(dt x)
    (4, or 8), dC (2). A channel: 9, or 14."""
    rows, L, channels = x[-3:]
    state, own = (25, 9) if dt_top is None else (36, 14)
    return corners * rows * L * channels * (state * B[-1] + own)


_ARGUMENTS = (
    "Tensor x, Tensor dt, Tensor A, Tensor B, Tensor? bias, Tensor? dt_top, Tensor? A_top, Tensor? B_top, "
    "Tensor? bias_top, Tensor C, Tensor? D, bool softplus, int corners, int turned_rows, int turned_columns, int H, "
    "int W"
)
_forward = define(
    f"corner_scan_forward({_ARGUMENTS}, bool save) -> (Tensor, Tensor, Tensor)", forward, _forward_fake, forward_flops
)
_backward = define(
    f"corner_scan_backward(Tensor gy, Tensor edges, Tensor tops, {_ARGUMENTS}) "
    "-> (Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor)",
    backward,
    _backward_fake,
    backward_flops,
)


class CornerScan(torch.autograd.Function):
    """x ([K,] B, L, D), dt likewise, A ([K,] N, D), B and C ([K,] B, L, N), D and bias ([K,] D) -> y (K, B, L, D).

    The four of the top are None for the separable form; channels and states lie innermost. Computes in fp32 whatever
    the inputs' types, which A, D and bias must already be.
    """

    @staticmethod
    def forward(ctx: Any, *arguments: Any) -> Tensor:  # pyright: ignore[reportIncompatibleMethodOverride]
        y, edges, tops = _forward(*arguments, any(ctx.needs_input_grad))
        ctx.save_for_backward(edges, tops, *arguments[:11])
        ctx.options = arguments[11:]
        return y

    @staticmethod
    @first_order("wavefront_scan and separable_scan")
    def backward(ctx: Any, gy: Tensor) -> tuple[Tensor | None, ...]:  # pyright: ignore[reportIncompatibleMethodOverride]
        edges, tops, *tensors = ctx.saved_tensors
        x, dt, A, B, bias, dt_top, A_top, B_top, bias_top, C, D = tensors
        g = gy[0].contiguous()  # corners are summed: one gradient for all
        gx, gdt, gB, gC, sums, gdt_top, gB_top, sums_top = _backward(g, edges, tops, *tensors, *ctx.options)
        N = B.shape[-1]

        def given(gradient: Tensor, tensor: Tensor | None) -> Tensor | None:
            return None if tensor is None else shared(gradient, tensor).to(tensor.dtype)

        return (
            given(gx, x), given(gdt, dt), given(sums[:, :N], A), given(gB, B), given(sums[:, N + 1], bias),
            given(gdt_top, dt_top), given(sums_top[:, :N], A_top), given(gB_top, B_top),
            given(sums_top[:, N + 1], bias_top) if bias_top is not None else None,
            given(gC, C), given(sums[:, N], D), *[None] * 6,
        )  # fmt: skip
