"""The selective scan's Triton kernels as torch operators and as one differentiable function: tiles, chunks, buffers.

The operators `mmeff::selective_scan_forward` and `..._backward` are opaque to torch.compile and counted by torch's FLOP
counter. They take A ([K,] N, D), W ([K,] R, D) and states (K, B, N, D) with the channels last. K is the number of
routes; what all routes share lacks the axis K and is read in place.
"""

from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.utils.flop_counter import register_flop_formula

from ..launcher import Launcher
from . import kernel
from .gate import GatedSum
from .kernel import SAVED

#: Instructions that a quarter of a multiprocessor issues a cycle with one, two and three warps of these kernels on it.
PACE = (0.45, 0.75, 0.85)
#: Instructions a step: of the pass that finds what chunks start with, of the forward pass, of the backward pass.
ENDS, FORWARD, BACKWARD = 132, 228, 604
#: Programs of one launch of the backward kernel, each with a scratch of its own.
LARGEST_LAUNCH = 4096
#: Registers of a thread that let three warps share a quarter of a multiprocessor.
REGISTERS = 168

_ends, _chain = Launcher(kernel.ends_kernel), Launcher(kernel.chain_kernel)
_scan_forward, _scan_backward = Launcher(kernel.forward_kernel), Launcher(kernel.backward_kernel)


@dataclass(frozen=True)
class Tile:
    """What one warp holds: BN states (a power of two >= N) of BD channels; the steps at a time forward and backward."""

    BN: int
    BD: int
    T: int
    T_backward: int


def tile(N: int) -> Tile:
    """Up to 512 numbers of state a warp, 16 a thread; few states leave room for more steps of the backward pass."""
    BN = 1 << (N - 1).bit_length()
    return Tile(BN, min(32, max(2, 512 // BN)), 4, 2 if BN >= 8 else 4)


@lru_cache(maxsize=1024)
def chunks(programs: int, L: int, quarters: int, instructions: int) -> tuple[int, int]:
    """Chunks that each row is cut into, and their steps, where `programs` tiles of channels would walk whole rows.

    The division that takes the fewest cycles on a GPU of so many quarters of multiprocessors, where the main pass takes
    so many instructions a step, and a pass of ENDS more comes before it if rows are cut. A quarter holds three warps;
    programs beyond that wait for a next wave, and fewer leave it waiting for memory. Chunks are whole segments.
    """
    best = (float("inf"), 1, L)
    for wanted in range(1, max(1, 6 * quarters // programs) + 1):
        span = -(-L // wanted)
        span = -(-span // SAVED) * SAVED
        count = -(-L // span)
        waves, rest = divmod(programs * count, 3 * quarters)
        cycles = waves * 3 / PACE[2]
        if rest:
            warps = -(-rest // quarters)
            cycles += warps / PACE[warps - 1]
        cycles *= min(span, L) * (instructions + (ENDS if count > 1 else 0))
        best = min(best, (cycles, count, span))
    return best[1:]


@lru_cache
def quarters(device: torch.device) -> int:
    """Quarters of multiprocessors of a GPU, each with an instruction a cycle; for the interpreter those of an H200."""
    return 4 * torch.cuda.get_device_properties(device).multi_processor_count if device.type == "cuda" else 528


class _Plan:
    """How one scan is divided among programs, and what every kernel is told of it."""

    def __init__(
        self,
        x: Tensor,
        dt: Tensor,
        W: Tensor | None,
        A: Tensor,
        B: Tensor,
        D: Tensor | None,
        bias: Tensor | None,
        lengths: Tensor | None,
        table: Tensor | None,
        softplus: bool,
        routes: int,
        backward: int,
        longest: int,
        instructions: int,
    ):
        self.routes = routes
        self.rows, self.L, self.channels = x.shape[-3:]
        self.total = self.rows * self.L
        if longest:
            assert lengths is not None
            self.rows, self.L = len(lengths) - 1, longest
        self.N, self.groups = B.shape[-1], B.shape[-2]
        per_group = self.channels // self.groups
        self.tile = tile(self.N)
        self.blocks = self.groups * -(-per_group // self.tile.BD)
        self.chunks, span = chunks(routes * self.rows * self.blocks, self.L, quarters(x.device), instructions)
        self.programs = routes * self.rows * self.blocks * self.chunks
        reach = (self.L if table is not None else min(span, self.L)) * max(x.stride(-2), dt.stride(-2), self.channels)
        if reach >= 2**31:
            raise ValueError(
                f"the kernels count what lies within a chunk in 32 bits: {self.L} tokens {reach // self.L} elements "
                "apart are too many; scan the row in parts, each from the last state of the one before"
            )
        rank = 1 if W is None else W.shape[-2]
        BR = 1 << (rank - 1).bit_length()
        self.sizes = {
            "L": self.L, "rows": self.rows, "total": self.total,
            "span": span, "chunks": self.chunks, "blocks": self.blocks,
            "channels": self.channels, "per_group": per_group, "N": self.N, "rank": rank, "backward": backward,
            "dt_k": dt.stride(0) if dt.dim() == 4 else 0, "dt_b": dt.stride(-3), "dt_l": dt.stride(-2),
            "W_k": W.stride(0) if W is not None and W.dim() == 3 else 0, "A_k": A.stride(0) if A.dim() == 3 else 0,
            "bias_k": bias.stride(0) if bias is not None and bias.dim() == 2 else 0,
        }  # fmt: skip
        self.options = {
            "HAS_BIAS": bias is not None, "HAS_TABLE": table is not None,
            "LENGTHS": 2 if longest else int(lengths is not None),
            "LOW_RANK": W is not None, "SOFTPLUS": softplus, "EVEN_D": per_group % self.tile.BD == 0,
            "EVEN_N": self.tile.BN == self.N, "EVEN_R": rank == BR,
            "BD": self.tile.BD, "BN": self.tile.BN, "BR": BR, "num_warps": 1, "maxnreg": REGISTERS,
        }  # fmt: skip
        # What is asked for ahead takes twice the registers in fp32, and the rows of W as many again.
        self.T = max(1, self.tile.T // (1 if x.element_size() == 2 and W is None else 2))

    def numbers(self, x: Tensor, B: Tensor, C: Tensor, D: Tensor | None) -> dict[str, int]:
        """What `forward_kernel` and `backward_kernel` are told beyond what all kernels are."""
        D_k = D.stride(0) if D is not None and D.dim() == 2 else 0
        return {**self.sizes, **_strides("x", x), **_strides("B", B), **_strides("C", C), "D_k": D_k}

    def starts(
        self, value: Tensor, weight: Tensor, first: Tensor | None, adjoint: bool, given: tuple[Tensor | None, ...]
    ) -> Tensor | None:
        """What each chunk starts with, (K, B, chunks, N, D): its state, or (adjoint) the gradient of its last state."""
        if self.chunks == 1:
            return first
        dt, W, A, bias, lengths, table = given
        assert A is not None
        ends = A.new_empty(self.routes, self.rows, self.chunks, self.N, self.channels)
        totals = A.new_empty(self.routes, self.rows, self.chunks, self.channels)
        tensors = {
            "p_value": value, "p_dt": dt, "p_W": W, "p_A": A, "p_weight": weight, "p_bias": bias,
            "p_lengths": lengths, "p_table": table, "p_ends": ends, "p_totals": totals,
        }  # fmt: skip
        numbers = {**self.sizes, **_strides("value", value), **_strides("weight", weight), "one": 1}
        _ends(self.programs, tensors, numbers, {**self.options, "ADJOINT": adjoint, "T": self.T})
        numbers = {name: self.sizes[name] for name in ("rows", "chunks", "channels", "N", "A_k")}
        _chain(
            -(-self.channels * self.N // 128) * self.routes * self.rows,
            {"p_ends": ends, "p_totals": totals, "p_A": A, "p_first": first},
            numbers,
            {"HAS_FIRST": first is not None, "BACKWARD": adjoint, "BLOCK": 128, "num_warps": 1},
        )
        return ends


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
    W: Tensor | None,
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
    """y (K, B, L, D), the last states (K, B, N, D) if `last`, and every SAVED-th state (K, B, -, N, D) if `save`."""
    plan = _Plan(x, dt, W, A, B, D, bias, lengths, table, softplus, routes, backward, longest, FORWARD)
    rows, L, channels, N = plan.rows, plan.L, plan.channels, plan.N
    new = torch.zeros if plan.options["LENGTHS"] == 1 else torch.empty  # the kernels write no padding
    y = new(routes, *x.shape[-3:], dtype=x.dtype, device=x.device)
    states = A.new_empty((routes, rows, N, channels) if last else 0)
    saves = A.new_empty((routes, rows, -(-L // SAVED), N, channels) if save else 0)
    starts = plan.starts(x, B, state, False, (dt, W, A, bias, lengths, table))
    tensors = {
        "p_x": x, "p_dt": dt, "p_W": W, "p_A": A, "p_B": B, "p_C": C, "p_D": D, "p_bias": bias, "p_lengths": lengths,
        "p_table": table, "p_starts": starts, "p_y": y, "p_last": states, "p_saves": saves,
    }  # fmt: skip
    options = {
        **plan.options, "HAS_D": D is not None, "HAS_START": starts is not None, "ONCE": once, "LAST": last,
        "SAVE": save, "SAVED": SAVED, "T": plan.T,
    }  # fmt: skip
    _scan_forward(plan.programs, tensors, {**plan.numbers(x, B, C, D), "one": 1}, options)
    return y, states, saves


def backward(
    gy: Tensor,
    g_last: Tensor | None,
    x: Tensor,
    dt: Tensor,
    W: Tensor | None,
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
    plan = _Plan(x, dt, W, A, B, D, bias, lengths, table, softplus, routes, backward, longest, BACKWARD)
    rows, channels, N = plan.rows, plan.channels, plan.N
    new = torch.zeros if plan.options["LENGTHS"] == 1 else torch.empty
    gx, gdt = (new(routes, *x.shape[-3:], dtype=t.dtype, device=x.device) for t in (x, dt))
    gBC = new(2, routes, plan.blocks, *x.shape[-3:-1], N, dtype=torch.float32, device=x.device)
    sums = A.new_empty(routes, rows * plan.chunks, N + 2, channels)
    g_first = A.new_empty((routes, rows, N, channels) if first else 0)
    launch = min(plan.programs, LARGEST_LAUNCH)
    T = plan.tile.T_backward
    scratch = A.new_empty(launch, SAVED // T, plan.tile.BN, plan.tile.BD)
    starts = plan.starts(gy, C, g_last, True, (dt, W, A, bias, lengths, table))
    tensors = {
        "p_x": x, "p_dt": dt, "p_W": W, "p_A": A, "p_B": B, "p_C": C, "p_D": D, "p_bias": bias, "p_lengths": lengths,
        "p_table": table, "p_saves": saves, "p_scratch": scratch, "p_gy": gy, "p_starts": starts,
        "p_gx": gx, "p_gdt": gdt, "p_gB": gBC[0], "p_gC": gBC[1], "p_sums": sums, "p_first": g_first,
    }  # fmt: skip
    numbers = {**plan.numbers(x, B, C, D), "gy_k": gy.stride(0) if gy.dim() == 4 else 0}
    options = {
        **plan.options, "HAS_D": D is not None, "HAS_START": starts is not None, "ONCE": once, "FIRST": first,
        "SAVED": SAVED, "T": T,
    }  # fmt: skip
    for before in range(0, plan.programs, launch):
        some = min(launch, plan.programs - before)
        _scan_backward(some, tensors, {**numbers, "programs_before": before}, options)
    parts = gBC.unflatten(2, (plan.groups, -1))  # (2, K, G, blocks of a group, B, L, N)
    gBC = (parts[:, :, :, 0] if parts.shape[3] == 1 else parts.sum(3)).permute(0, 1, 3, 4, 2, 5)
    return gx, gdt, gBC, sums.sum(1), g_first


def _forward_fake(*arguments: Any) -> tuple[Tensor, Tensor, Tensor]:
    x, A, lengths, (routes, _, longest, _, last, save) = arguments[0], arguments[3], arguments[9], arguments[12:]
    rows, L, channels = x.shape[-3:]
    N = A.shape[-2]
    y = x.new_empty(routes, rows, L, channels)
    if longest:
        rows, L = len(lengths) - 1, longest
    return (
        y,
        A.new_empty((routes, rows, N, channels) if last else 0),
        A.new_empty((routes, rows, -(-L // SAVED), N, channels) if save else 0),
    )


def _backward_fake(*arguments: Any) -> tuple[Tensor, ...]:
    (x, dt, _, A, B), lengths, (routes, _, longest, _, first) = arguments[2:7], arguments[10], arguments[14:]
    rows, L, channels = x.shape[-3:]
    N, groups = A.shape[-2], B.shape[-2]
    return (
        x.new_empty(routes, rows, L, channels),
        dt.new_empty(routes, rows, L, channels),
        A.new_empty(2, routes, groups, rows, L, N).permute(0, 1, 3, 4, 2, 5),
        A.new_empty(routes, N + 2, channels),
        A.new_empty((routes, len(lengths) - 1 if longest else rows, N, channels) if first else 0),
    )


_LIBRARY = torch.library.Library("mmeff", "FRAGMENT")
_INPUTS = "Tensor x, Tensor dt, Tensor? W, Tensor A, Tensor B, Tensor C, Tensor? D, Tensor? bias"
_LIBRARY.define(
    f"selective_scan_forward({_INPUTS}, Tensor? state, Tensor? lengths, Tensor? table, "
    "bool softplus, int routes, int backward, int longest, bool once, bool last, bool save) -> (Tensor, Tensor, Tensor)"
)
_LIBRARY.define(
    f"selective_scan_backward(Tensor gy, Tensor? g_last, {_INPUTS}, Tensor? lengths, Tensor? table, Tensor saves, "
    "bool softplus, int routes, int backward, int longest, bool once, bool first) "
    "-> (Tensor, Tensor, Tensor, Tensor, Tensor)"
)
for _device in ("CPU", "CUDA"):  # on the CPU for Triton's interpreter
    _LIBRARY.impl("selective_scan_forward", forward, _device)
    _LIBRARY.impl("selective_scan_backward", backward, _device)
torch.library.register_fake("mmeff::selective_scan_forward", _forward_fake, lib=_LIBRARY)
torch.library.register_fake("mmeff::selective_scan_backward", _backward_fake, lib=_LIBRARY)
_forward, _backward = torch.ops.mmeff.selective_scan_forward.default, torch.ops.mmeff.selective_scan_backward.default


def _work(x: Any, W: Any, A: Any, routes: int) -> tuple[int, int, int]:
    """Steps of all channels and routes, states, rank of dt, from shapes."""
    rows, L, channels = x[-3:]
    return routes * rows * L * channels, A[-2], 0 if W is None else W[-2]


@register_flop_formula(torch.ops.mmeff.selective_scan_forward)
def forward_flops(x: Any, dt: Any, W: Any, A: Any, *rest: Any, **_: Any) -> int:
    """A step's N states: dt A, its exponential, (dt x) B, two for a h + u, two for C h. A channel: dt x, 2 for D x."""
    steps, N, rank = _work(x, W, A, rest[8])
    return steps * (7 * N + 3 + 2 * rank)


@register_flop_formula(torch.ops.mmeff.selective_scan_backward)
def backward_flops(gy: Any, g_last: Any, x: Any, dt: Any, W: Any, A: Any, *rest: Any, **_: Any) -> int:
    """A step's N states: 2 for dh, 2 each for dB, dC, d(dt x), dA and d dt, a dh and dh h; the repeated states: 5."""
    steps, N, rank = _work(x, W, A, rest[8])
    return steps * (19 * N + 9 + 2 * rank)


class TritonScan(torch.autograd.Function):
    """x ([K,] B, L, D), dt likewise or low-rank ([K,] B, L, R) with W ([K,] D, R), A ([K,] D, N), B and C
    ([K,] B, L, G, N), D and bias ([K,] D), state (K, B, D, N), lengths (B,), table (K, L) int32
    -> y (K, B, L, D), last (K, B, D, N).

    W, D, bias, state, lengths and table may be None. Bit k of `backward` turns route k around. `longest` > 0: rows are
    packed, lengths are cu_seqlens (S + 1,), and states have S rows. `once`: routes after the
    first leave out each token's own input. Computes in fp32 whatever the inputs' types, which A, W, D, bias and state
    must already be. y has x's type, every gradient that of its tensor.
    """

    @staticmethod
    def forward(  # pyright: ignore[reportIncompatibleMethodOverride]
        ctx: Any,
        x: Tensor,
        dt: Tensor,
        W: Tensor | None,
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
    ) -> tuple[Tensor, Tensor]:
        x, dt, B, C = (t if t.stride(-1) == 1 else t.contiguous() for t in (x, dt, B, C))
        A = A.mT.contiguous()
        W, state = (None if t is None else t.mT.contiguous() for t in (W, state))
        D, bias = (None if t is None else t.contiguous() for t in (D, bias))
        save = any(ctx.needs_input_grad)
        options = softplus, routes, backward, longest, once
        y, final, saves = _forward(x, dt, W, A, B, C, D, bias, state, lengths, table, *options, last, save)
        ctx.save_for_backward(x, dt, W, A, B, C, D, bias, lengths, table, saves)
        ctx.options = options
        ctx.has_state, ctx.has_last = state is not None, last
        ctx.set_materialize_grads(False)
        return y, final.mT if last else final

    @staticmethod
    @once_differentiable
    def backward(  # pyright: ignore[reportIncompatibleMethodOverride]
        ctx: Any, gy: Tensor | None, g_last: Tensor | None
    ) -> tuple[Tensor | None, ...]:
        x, dt, W, A, B, C, D, bias, lengths, table, saves = ctx.saved_tensors
        softplus, routes, backward, longest, once = ctx.options
        g = x.new_zeros(x.shape[-3:]) if gy is None else gy
        g = g[0] if g.dim() == 4 and g.stride(0) == 0 else g  # where routes are summed: one gradient for all
        g_last = g_last.mT.contiguous() if ctx.has_last and g_last is not None else None
        gx, gdt, gBC, sums, g_first = _backward(
            g.contiguous(), g_last, x, dt, W, A, B, C, D, bias, lengths, table, saves,
            softplus, routes, backward, longest, once, ctx.has_state,
        )  # fmt: skip
        gW = None
        if W is not None:
            rank, channels = W.shape[-2:]
            low = dt if dt.dim() == 4 else dt[None]
            gW = _shared((gdt.flatten(1, 2).mT @ low.flatten(1, 2)).to(W.dtype), W)
            gdt = gdt @ W.mT.to(gdt.dtype).reshape(-1, 1, channels, rank)
        gB, gC = gBC.to(B.dtype)
        N = A.shape[-2]
        gA, gD, gbias = sums[:, :N].mT, sums[:, N], sums[:, N + 1]
        return (
            _shared(gx, x), _shared(gdt, dt), gW, _shared(gA, A), _shared(gB, B), _shared(gC, C),
            None if D is None else _shared(gD, D), None if bias is None else _shared(gbias, bias),
            g_first.mT if ctx.has_state else None, *[None] * 8,
        )  # fmt: skip


def _shared(gradient: Tensor, tensor: Tensor) -> Tensor:
    """(K, ...) summed over the routes if they share the tensor."""
    if gradient.dim() == tensor.dim():
        return gradient
    return gradient[0] if len(gradient) == 1 else gradient.sum(0)


def scan(
    tensors: dict[str, Tensor | None],
    softplus: bool,
    routes: int,
    backward: int,
    table: Tensor | None,
    once: bool,
    lengths: Tensor | None,
    cu_seqlens: Tensor | None,
    want_state: bool,
) -> tuple[Tensor, Tensor]:
    """`selective_scan_routes`, its tensors by name: y (B, L, D), the last states (K, B, D, N) if they are wanted."""
    x, dt, B, C, z = (tensors[name] for name in ("x", "dt", "B", "C", "z"))
    assert x is not None and B is not None and C is not None
    A, D, bias, W, state = (_float(tensors[n]) for n in ("A", "D", "dt_bias", "dt_weight", "initial_state"))
    B, C = (weights[:, :, None] if weights.dim() == 3 else weights for weights in (B, C))
    longest = 0
    if cu_seqlens is not None:
        lengths = cu_seqlens.to(x.device)
        longest = int(cu_seqlens.diff().max())
    y, last = TritonScan.apply(
        x, dt, W, A, B, C, D, bias, state, lengths, table, softplus, routes, backward, longest, once, want_state
    )
    if z is not None and not torch.compiler.is_compiling():
        return GatedSum.apply(y, z, None if longest else lengths), last
    total = y[0] if routes == 1 else y.sum(0)
    if z is None:
        return total, last
    if lengths is not None and not longest:
        padding = torch.arange(z.shape[1], device=z.device) >= lengths[:, None]
        z = z.masked_fill(padding[..., None], 0)
    return (total * F.silu(z.float())).to(y.dtype), last


def _float(tensor: Tensor | None) -> Tensor | None:
    return None if tensor is None else tensor.float()
