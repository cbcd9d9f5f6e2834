"""Launching the selective scan's Triton kernels: buffers, strides, and what every kernel is told.

A ([K,] N, D) and states (K, B, N, D) have the channels last. K is the number of routes; what all routes
share lacks the axis K and is read in place.
"""

import torch
from torch import Tensor

from ..arguments import check_reach
from ..launcher import Launcher
from . import kernel
from .division import chunks, quarters, tile

#: Steps at a time where the backward pass repeats the forward one; a multiple of those that it goes back.
AGAIN = 4

_ends, _chain = Launcher(kernel.ends_kernel), Launcher(kernel.chain_kernel)
_scan_forward, _scan_backward = Launcher(kernel.forward_kernel), Launcher(kernel.backward_kernel)


class _Plan:
    """How one scan is divided among programs, and what every kernel is told of it."""

    def __init__(
        self,
        x: Tensor,
        dt: Tensor,
        A: Tensor,
        B: Tensor,
        C: Tensor,
        bias: Tensor | None,
        lengths: Tensor | None,
        table: Tensor | None,
        softplus: bool,
        routes: int,
        backward: int,
        longest: int,
        backward_pass: bool,
    ):
        self.routes, self.A = routes, A
        self.given = {"p_dt": dt, "p_A": A, "p_bias": bias, "p_lengths": lengths, "p_table": table}
        self.rows, self.L, self.channels = x.shape[-3:]
        self.total = self.rows * self.L
        if longest:
            assert lengths is not None
            self.rows, self.L = len(lengths) - 1, longest
        self.N, self.groups = B.shape[-1], B.shape[-2]
        per_group = self.channels // self.groups
        self.tile = tile(self.N)
        self.blocks = self.groups * -(-per_group // self.tile.BD)
        self.chunks, span = chunks(
            routes * self.rows * self.blocks, self.L, quarters(x.device), self.tile, backward_pass
        )
        self.programs = routes * self.rows * self.blocks * self.chunks
        within = self.L if table is not None else min(span, self.L)
        advice = "make it contiguous, or scan the row in parts, each from the last state of the one before"
        check_reach({"x": x, "dt": dt}, (-2, -1), within, self.channels, advice)
        check_reach({"B": B, "C": C}, (-3, -2, -1), within, self.N, advice)
        self.sizes = {
            "L": self.L, "rows": self.rows,
            "span": span, "chunks": self.chunks, "blocks": self.blocks,
            "channels": self.channels, "per_group": per_group, "N": self.N, "backward": backward,
            **_strides("dt", dt), "A_k": lead_stride(A, 3), "bias_k": lead_stride(bias, 2),
        }  # fmt: skip
        self.options = {
            "HAS_BIAS": bias is not None, "HAS_TABLE": table is not None,
            "LENGTHS": 2 if longest else int(lengths is not None),
            "SOFTPLUS": softplus, "EVEN_D": per_group % self.tile.BD == 0,
            "EVEN_N": self.tile.BN == self.N,
            "BD": self.tile.BD, "BN": self.tile.BN, "num_warps": 1, "maxnreg": self.tile.registers,
        }  # fmt: skip
        self.T = self.tile.T // (1 if x.element_size() == 2 else 2)  # fp32 takes twice the registers ahead

    def numbers(self, x: Tensor, B: Tensor, C: Tensor, D: Tensor | None) -> dict[str, int]:
        """What `forward_kernel` and `backward_kernel` are told beyond what all kernels are."""
        own = {"total": self.total, "D_k": lead_stride(D, 2)}
        return {**self.sizes, **own, **_strides("x", x), **_strides("B", B), **_strides("C", C)}

    def starts(self, value: Tensor, weight: Tensor, first: Tensor | None, adjoint: bool) -> Tensor | None:
        """What each chunk starts with, (K, B, chunks, N, D): its state, or (adjoint) the gradient of its last state."""
        if self.chunks == 1:
            return first
        ends = self.A.new_empty(self.routes, self.rows, self.chunks, self.N, self.channels)
        totals = self.A.new_empty(self.routes, self.rows, self.chunks, self.channels)
        tensors = {"p_value": value, "p_weight": weight, **self.given, "p_ends": ends, "p_totals": totals}
        numbers = {**self.sizes, **_strides("value", value), **_strides("weight", weight), "one": 1}
        _ends(self.programs, tensors, numbers, {**self.options, "ADJOINT": adjoint, "T": self.T})
        numbers = {name: self.sizes[name] for name in ("rows", "chunks", "channels", "N", "A_k")}
        _chain(
            -(-self.channels * self.N // 128) * self.routes * self.rows,
            {"p_ends": ends, "p_totals": totals, "p_A": self.A, "p_first": first},
            numbers,
            {"HAS_FIRST": first is not None, "BACKWARD": adjoint, "BLOCK": 128, "num_warps": 1},
        )
        return ends


def lead_stride(tensor: Tensor | None, axes: int) -> int:
    """The stride of the axis K of a tensor of so many axes; 0 if all routes share the tensor."""
    return tensor.stride(0) if tensor is not None and tensor.dim() == axes else 0


def _strides(name: str, tensor: Tensor) -> dict[str, int]:
    """name_k, name_b, name_l of ([K,] B, L, D), also name_g of ([K,] B, L, G, N)."""
    strides = tensor.stride()
    letters = "blg" if name in ("B", "C", "weight") else "bl"
    shared = len(strides) == len(letters) + 1
    found = {f"{name}_{letter}": stride for letter, stride in zip(letters, strides[0 if shared else 1 :], strict=False)}
    found[f"{name}_k"] = 0 if shared else strides[0]
    return found


def forward(
    x: Tensor,
    dt: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    D: Tensor | None,
    bias: Tensor | None,
    state: Tensor | None,
    lengths: Tensor | None,
    table: Tensor | None,
    softplus: bool,
    routes: int,
    backward: int,
    longest: int,
    once: bool,
    last: bool,
    save: bool,
) -> tuple[Tensor, Tensor, Tensor]:
    """y (K, B, L, D), the last states (K, B, N, D) if `last`, and every tile.saved-th (K, B, -, N, D) if `save`."""
    plan = _Plan(x, dt, A, B, C, bias, lengths, table, softplus, routes, backward, longest, backward_pass=False)
    rows, L, channels, N = plan.rows, plan.L, plan.channels, plan.N
    new = torch.zeros if plan.options["LENGTHS"] == 1 else torch.empty  # the kernels write no padding
    y = new(routes, *x.shape[-3:], dtype=x.dtype, device=x.device)
    states = A.new_empty((routes, rows, N, channels) if last else 0)
    saves = A.new_empty((routes, rows, -(-L // plan.tile.saved), N, channels) if save else 0)
    starts = plan.starts(x, B, state, adjoint=False)
    tensors = {
        "p_x": x, "p_B": B, "p_C": C, "p_D": D, **plan.given,
        "p_starts": starts if starts is not None else plan.A, "p_y": y, "p_last": states, "p_saves": saves,
    }  # fmt: skip
    options = {
        **plan.options, "HAS_D": D is not None, "ONCE": once, "LAST": last,
        "SAVE": save, "SAVED": plan.tile.saved, "T": plan.T,
    }  # fmt: skip
    _scan_forward(
        plan.programs, tensors, {**plan.numbers(x, B, C, D), "has_start": int(starts is not None), "one": 1}, options
    )
    return y, states, saves


def backward(
    gy: Tensor,
    g_last: Tensor | None,
    x: Tensor,
    dt: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    D: Tensor | None,
    bias: Tensor | None,
    lengths: Tensor | None,
    table: Tensor | None,
    saves: Tensor,
    softplus: bool,
    routes: int,
    backward: int,
    longest: int,
    once: bool,
    first: bool,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """gy (B, L, D) for all routes or (K, B, L, D). Gradients of x and of full dt (K, B, L, D), of B and C together
    (2, K, B, L, G, N), sums (K, N + 2, D) for A, D and bias, and of the first state (K, B, N, D) if `first`."""
    plan = _Plan(x, dt, A, B, C, bias, lengths, table, softplus, routes, backward, longest, backward_pass=True)
    rows, channels, N = plan.rows, plan.channels, plan.N
    new = torch.zeros if plan.options["LENGTHS"] == 1 else torch.empty
    gx, gdt = (new(routes, *x.shape[-3:], dtype=t.dtype, device=x.device) for t in (x, dt))
    weights = torch.promote_types(B.dtype, C.dtype)
    gBC = new(2, routes, plan.blocks, *x.shape[-3:-1], N, dtype=weights, device=x.device)
    sums = A.new_empty(routes, rows * plan.chunks, N + 2, channels)
    g_first = A.new_empty((routes, rows, N, channels) if first else 0)
    T = plan.tile.T_backward
    launch, scratch = plan.programs, None
    if plan.tile.saved > T:  # one wave: each program has a scratch of its own
        launch = min(plan.programs, len(plan.tile.pace) * quarters(x.device))
        scratch = A.new_empty(launch, plan.tile.saved // T, plan.tile.BN, plan.tile.BD)
    starts = plan.starts(gy, C, g_last, adjoint=True)
    tensors = {
        "p_x": x, "p_B": B, "p_C": C, "p_D": D, **plan.given,
        "p_saves": saves, "p_scratch": scratch if scratch is not None else A,
        "p_gy": gy, "p_starts": starts if starts is not None else A,
        "p_gx": gx, "p_gdt": gdt, "p_gB": gBC[0], "p_gC": gBC[1], "p_sums": sums, "p_first": g_first,
    }  # fmt: skip
    numbers = {**plan.numbers(x, B, C, D), "has_start": int(starts is not None), "gy_k": lead_stride(gy, 4)}
    options = {
        **plan.options, "HAS_D": D is not None, "ONCE": once, "FIRST": first,
        "AGAIN": AGAIN, "SAVED": plan.tile.saved, "T": T,
    }  # fmt: skip
    for before in range(0, plan.programs, launch):
        some = min(launch, plan.programs - before)
        _scan_backward(some, tensors, {**numbers, "programs_before": before}, options)
    parts = gBC.unflatten(2, (plan.groups, -1))  # (2, K, G, blocks of a group, B, L, N)
    gBC = (parts[:, :, :, 0] if parts.shape[3] == 1 else parts.sum(3)).permute(0, 1, 3, 4, 2, 5)
    return gx, gdt, gBC, sums.sum(1), g_first
