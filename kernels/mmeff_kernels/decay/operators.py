"""The Triton kernels of decaying states as torch operators, and as one differentiable function.

`mmeff::decay_forward` and `..._backward` are opaque to torch.compile and counted by torch's FLOP counter. The states at
the boundaries of chunks are computed again in the backward pass: nothing but the inputs is kept for it.
"""

from typing import Any

import torch
import triton.language as tl
from torch import Tensor

from ..arguments import check_reach, has_shape
from ..dispatch import define
from ..first_order import first_order
from ..launcher import Launcher
from . import alike_kernel, apart_kernel, kernel

_gate_sums, _states = Launcher(kernel.gate_sums_kernel), Launcher(kernel.states_kernel)
_outputs = Launcher(alike_kernel.outputs_kernel), Launcher(apart_kernel.outputs_kernel)
_gradients = Launcher(alike_kernel.gradients_kernel), Launcher(apart_kernel.gradients_kernel)

#: Features, and values, of a state that a program holds on its walk along a row.
BLOCK = 64
#: A gate from which on exp is 0 in fp32: a reset.
FLOOR = -104.0
#: Gates of a tile in which their sums are taken.
GATES = 32
FORWARD, BACKWARD, BOTH = range(3)


def chunk_and_warps(dtype: torch.dtype, widest: int, each: bool) -> tuple[int, int]:
    """Tokens of a chunk and warps of a program, by how many numbers the tiles of a program have: on an H200 these leave
    the fewest of them outside the registers."""
    if dtype != torch.bfloat16:
        return 16, 8
    if widest > 64:
        return 16 if each else 32, 8
    return 32 if each else 64, 4


class _Plan:
    """How the rows are divided among programs, and what every kernel is told."""

    def __init__(
        self, q: Tensor, k: Tensor, v: Tensor, g: Tensor, bonus: Tensor | None, lengths: Tensor | None,
        direction: int, twice: bool, longest: int, scale: float,
    ):  # fmt: skip
        self.q, self.k, self.v, self.bonus, self.lengths, self.scale = q, k, v, bonus, lengths, scale
        self.rows, self.L, self.H, self.K = q.shape
        self.V = v.shape[-1]
        self.tokens = self.rows * self.L
        if longest:
            assert lengths is not None
            self.rows = len(lengths) - 1
        self.each = has_shape(g, q.shape, (2, *q.shape))
        self.wide_k, self.wide_v = (max(16, 1 << (n - 1).bit_length()) for n in (self.K, self.V))
        self.chunk, warps = chunk_and_warps(v.dtype, max(self.wide_k, self.wide_v), self.each)
        self.chunks = -(-(longest or self.L) // self.chunk)
        self.slots = self.L // self.chunk + 2 * self.rows if longest else self.rows * (self.chunks + 1)
        self.directions = 1 + (direction == BOTH)
        self.padded = lengths is not None and not longest
        # Within a row the axis of heads is counted in 64 bits.
        check_reach(
            {"q": q, "k": k, "v": v}, (1, 3), longest or self.L,
            self.H * max(self.K, self.V), "make it contiguous, or take the row in parts, or impl 'torch'",
        )  # fmt: skip
        # Sums of fp16 numbers can leave their range; three products of tf32 parts are as exact as one of fp32.
        types = {torch.bfloat16: (tl.bfloat16, "ieee"), torch.float16: (tl.float32, "tf32")}
        dot, precision = types.get(v.dtype, (tl.float32, "tf32x3"))
        self.kept = torch.bfloat16 if v.dtype == torch.bfloat16 else torch.float32  # what products read of a state
        self.told = {
            "UNTIED": int(g.dim() == 4 + self.each), "LENGTHS": 2 if longest else int(lengths is not None),
            "DOT": dot, "PRECISION": precision, "BC": self.chunk, "num_warps": warps, "num_stages": 1,
        }  # fmt: skip
        self.routes = {
            "FORWARD": int(direction != BACKWARD), "BACKWARD": int(direction != FORWARD),
            "DIAGONAL": 1 + (direction == BOTH and twice),
        }  # fmt: skip
        self.counts = {"L": self.L, "slots": self.slots, "tokens": self.tokens}
        self.sizes = {"H": self.H, "K": self.K, "V": self.V}
        self.G, self.resets = self._gate_sums(g)

    def _gate_sums(self, g: Tensor) -> tuple[Tensor, Tensor]:
        W = self.H * (self.K if self.each else 1)
        G = torch.empty(g.shape, dtype=torch.float32, device=g.device)
        directions = g.numel() // (self.tokens * W)
        shape = (directions, self.rows, self.chunks, W) if self.each else g.shape
        resets = torch.empty(shape, dtype=torch.int32, device=g.device)
        self.spans = None if self.each else torch.empty(2, *g.shape, dtype=torch.float32, device=g.device)
        block = min(GATES, 1 << (W - 1).bit_length())
        _gate_sums(
            directions * self.rows * self.chunks * -(-W // block),
            {"p_g": g, "p_G": G, "p_resets": resets, "p_spans": self.spans, "p_lengths": self.lengths},
            {"L": self.L, "rows": self.rows, "chunks": self.chunks, "tokens": self.tokens, "W": W},
            {"FLOOR": FLOOR, "LENGTHS": self.told["LENGTHS"], "EACH": self.each, "BC": self.chunk, "BW": block},
        )
        return G, resets

    def states(
        self, k: Tensor, v: Tensor, start: Tensor | None, adjoint: bool, ends: bool
    ) -> tuple[Tensor, Tensor | None]:
        """The states at all boundaries, and those with which the walks end."""
        S = v.new_empty((self.directions, self.slots, *self.sizes.values()), dtype=self.kept)
        end = v.new_empty((self.directions, self.rows, *self.sizes.values()), dtype=torch.float32) if ends else None
        bk, bv = min(BLOCK, self.wide_k), min(BLOCK, self.wide_v)
        _states(
            self.directions * self.rows * self.H * -(-self.K // bk) * -(-self.V // bv),
            {
                "p_k": k, "p_v": v, "p_G": self.G, "p_resets": self.resets, "p_spans": self.spans,
                "p_lengths": self.lengths, "p_start": start, "p_S": S, "p_end": end,
            },
            {
                "rows": self.rows, "chunks": self.chunks, **self.counts, **self.sizes, **_strides("k", k),
                **_strides("v", v),
            },
            {
                "scale": self.scale if adjoint else 1.0, "FIRST": 1 - self.routes["FORWARD"], "ADJOINT": int(adjoint),
                "BEFORE": int(self.bonus is not None), "EACH": self.each, **self.told, "BK": bk, "BV": bv,
                "num_warps": 4, "num_stages": 3,  # the next chunks are read while products are taken
            },
        )  # fmt: skip
        return S, end

    def in_parallel(self) -> tuple[int, dict[str, int], dict[str, Any]]:
        """Programs, numbers and options of what takes chunks in parallel."""
        numbers = {"chunks": self.chunks, **self.counts, **self.sizes}
        for name in "qkv":
            numbers |= _strides(name, getattr(self, name))
        options = {"scale": self.scale, **self.routes, **self.told, "BK": self.wide_k, "BV": self.wide_v}
        if self.each:
            options["LEVELS"] = self.chunk.bit_length() - 1
        return self.rows * self.chunks * self.H, numbers, options

    def tensors(self) -> dict[str, Tensor | None]:
        given = {"p_q": self.q, "p_k": self.k, "p_v": self.v, "p_G": self.G}
        given |= {"p_resets": self.resets, "p_lengths": self.lengths}
        return {**given, "p_bonus": self.bonus} if self.each else given


def _strides(name: str, tensor: Tensor) -> dict[str, int]:
    return {f"{name}_{letter}": stride for letter, stride in zip("blh", tensor.stride(), strict=False)}


def _forward(
    q: Tensor, k: Tensor, v: Tensor, g: Tensor, bonus: Tensor | None, initial: Tensor | None, lengths: Tensor | None,
    direction: int, twice: bool, longest: int, scale: float,
) -> tuple[Tensor, Tensor]:  # fmt: skip
    """o (B, L, H, V) and the final states (directions, rows, H, K, V)."""
    plan = _Plan(q, k, v, g, bonus, lengths, direction, twice, longest, scale)
    S, final = plan.states(k, v, initial, adjoint=False, ends=True)
    assert final is not None
    o = torch.empty_like(v, memory_format=torch.contiguous_format)
    programs, numbers, options = plan.in_parallel()
    _outputs[plan.each](programs, {**plan.tensors(), "p_S": S, "p_o": o}, numbers, options)
    return o, final


def _backward(
    do: Tensor, dfinal: Tensor | None, q: Tensor, k: Tensor, v: Tensor, g: Tensor, bonus: Tensor | None,
    initial: Tensor | None, lengths: Tensor | None, direction: int, twice: bool, longest: int, scale: float,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:  # fmt: skip
    plan = _Plan(q, k, v, g, bonus, lengths, direction, twice, longest, scale)
    S, _ = plan.states(k, v, initial, adjoint=False, ends=False)
    dS, dinitial = plan.states(q, do, dfinal, adjoint=True, ends=initial is not None)
    new = torch.zeros if plan.padded else torch.empty  # the kernels write no padding
    dq, dk, dv = (new(t.shape, dtype=t.dtype, device=t.device) for t in (q, k, v))
    dg = new(g.shape, dtype=torch.float32, device=g.device)
    made = {"p_do": do, "p_S": S, "p_dS": dS, "p_dq": dq, "p_dk": dk, "p_dv": dv, "p_dg": dg}
    dbonus = dg.new_zeros(0)
    if plan.each:
        if bonus is not None:
            dbonus = dg.new_zeros(plan.rows * plan.chunks, plan.H, plan.K)
        made["p_dbonus"] = dbonus
    programs, numbers, options = plan.in_parallel()
    _gradients[plan.each](programs, {**plan.tensors(), **made}, numbers, options)
    if bonus is not None:
        dbonus = dbonus.sum(0)
    return dq, dk, dv, dg, dbonus, dg.new_zeros(0) if dinitial is None else dinitial


def _forward_fake(
    q: Tensor, v: Tensor, lengths: Tensor | None, direction: int, longest: int, **_: Any
) -> tuple[Tensor, Tensor]:
    rows = len(lengths) - 1 if longest and lengths is not None else q.shape[0]
    final = q.new_empty(1 + (direction == BOTH), rows, *q.shape[2:], v.shape[-1], dtype=torch.float32)
    return v.new_empty(v.shape), final


def _backward_fake(
    q: Tensor, k: Tensor, v: Tensor, g: Tensor, bonus: Tensor | None, initial: Tensor | None, **_: Any
) -> tuple[Tensor, ...]:
    wide = [q.new_empty(0 if t is None else t.shape, dtype=torch.float32) for t in (g, bonus, initial)]
    return q.new_empty(q.shape), k.new_empty(k.shape), v.new_empty(v.shape), *wide


def _products(q: Any, v: Any, g: Any, direction: int) -> tuple[int, int, int]:
    """Multiplications and additions of one product of all tokens': with states, of q and k within chunks, and of the
    weights with v, in the chunks that bf16 has. Features with gates of their own take a product for each halving."""
    B, L, H, K = q
    each = tuple(g) in (tuple(q), (2, *q))
    chunk, _ = chunk_and_warps(torch.bfloat16, max(K, v[-1]), each)
    levels = chunk.bit_length() - 1 if each else 1
    across = 2 * B * L * H * K * v[-1] * (1 + (direction == BOTH))
    return across, 2 * B * L * H * chunk * K * levels, 2 * B * L * H * chunk * v[-1]


def forward_flops(q: Any, v: Any, g: Any, direction: int, **_: Any) -> int:
    """States are written and read; A, and A v."""
    across, pairs, values = _products(q, v, g, direction)
    return 2 * across + pairs + values


def backward_flops(q: Any, v: Any, g: Any, direction: int, **_: Any) -> int:
    """States and their gradients are written, and read for q, k and v; A once more and the gradients of q and k; A's
    gradient and v's."""
    across, pairs, values = _products(q, v, g, direction)
    return 5 * across + 3 * pairs + 2 * values


_INPUTS = "Tensor q, Tensor k, Tensor v, Tensor g, Tensor? bonus, Tensor? initial, Tensor? lengths"
_OPTIONS = "int direction, bool twice, int longest, float scale"
_forward_op = define(
    f"decay_forward({_INPUTS}, {_OPTIONS}) -> (Tensor, Tensor)",
    _forward,
    _forward_fake,
    forward_flops,
    lambda out, **_: 4 * out[1].numel(),  # K x V numbers for each head
)
_backward_op = define(
    f"decay_backward(Tensor do, Tensor? dfinal, {_INPUTS}, {_OPTIONS}) -> "
    "(Tensor, Tensor, Tensor, Tensor, Tensor, Tensor)",
    _backward,
    _backward_fake,
    backward_flops,
)


class Decay(torch.autograd.Function):
    """q, k (B, L, H, K), v (B, L, H, V), g ([2,] B, L, H[, K]), bonus (H, K) or None, initial ([2,] rows, H, K, V) or
    None, lengths (B,) or with `longest` > 0 cu_seqlens (S + 1,) -> o (B, L, H, V) and the final state.

    Features and values of q, k and v lie innermost, the others are contiguous; bonus and initial are fp32."""

    @staticmethod
    def forward(  # pyright: ignore[reportIncompatibleMethodOverride]
        ctx: Any, q: Tensor, k: Tensor, v: Tensor, g: Tensor, bonus: Tensor | None, initial: Tensor | None,
        lengths: Tensor | None, direction: int, twice: bool, longest: int, scale: float,
    ) -> tuple[Tensor, Tensor]:  # fmt: skip
        o, final = _forward_op(q, k, v, g, bonus, initial, lengths, direction, twice, longest, scale)
        ctx.save_for_backward(q, k, v, g, bonus, initial, lengths)
        ctx.options = direction, twice, longest, scale
        ctx.set_materialize_grads(False)
        return o, final if direction == BOTH else final[0]

    @staticmethod
    @first_order("decay")
    def backward(ctx: Any, do: Tensor | None, dfinal: Tensor | None) -> tuple[Tensor | None, ...]:  # pyright: ignore[reportIncompatibleMethodOverride]
        q, k, v, g, bonus, initial, lengths = ctx.saved_tensors
        do = torch.zeros_like(v) if do is None else do
        dfinal = None if dfinal is None else dfinal.contiguous()
        dq, dk, dv, dg, dbonus, dinitial = _backward_op(
            do.contiguous(), dfinal, q, k, v, g, bonus, initial, lengths, *ctx.options
        )
        dinitial = None if initial is None else dinitial.reshape(initial.shape)
        return dq, dk, dv, dg.to(g.dtype), None if bonus is None else dbonus, dinitial, *[None] * 5
