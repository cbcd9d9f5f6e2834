"""The Triton kernels of order-free linear attention as torch operators, and as one differentiable function.

`mmeff::full_sum_forward` and `..._backward` are opaque to torch.compile and counted by torch's FLOP counter.
"""

import functools
from collections.abc import Sequence
from typing import Any

import torch
import triton.language as tl
from torch import Tensor

from ..arguments import check_reach
from ..dispatch import define
from ..first_order import first_order
from ..launcher import Launcher
from . import kernel

_sums, _reads = Launcher(kernel.sums_kernel), Launcher(kernel.reads_kernel)
_queries, _keys = Launcher(kernel.queries_kernel), Launcher(kernel.keys_kernel)

#: Tokens and features of a tile, and tiles that are on their way at a time.
BL, BK, STAGES = 64, 64, 3
#: Programs of a pass at most, four for each multiprocessor of an H200.
PROGRAMS = 528


def block_of(dtype: torch.dtype) -> int:
    """Features of a tile at most."""
    return BK if dtype.itemsize == 2 else BK // 2


class _Plan:
    """How the rows are divided among programs, and what every kernel is told."""

    def __init__(
        self, shape: tuple[int, int, int, int], V: int, dtype: torch.dtype, rotate: bool, padded: bool,
        feature: int, normalize: bool, longest: int, sequences: int,
    ):  # fmt: skip
        rows, L, H, K = shape
        if longest:
            rows = sequences
        #: Numbers of the sums S and z of a row and head, and of the gradients of q, k and v of a token.
        self.rows, self.summed, self.apart = rows, K * (V + 1), H * (2 * K + V)
        longest, packed = longest or L, bool(longest)
        block = min(block_of(dtype), max(16, 1 << (K - 1).bit_length()))
        blocks, tiles = -(-K // block), -(-longest // BL)
        span, self.chunks = _division(tiles, rows * H * blocks)
        walk, walks = _division(tiles, rows * H)
        self.summing, self.reading = rows * H * blocks * self.chunks, rows * H * walks
        sizes = {"L": L, "H": H, "K": K, "V": V}
        self.cut = {**sizes, "rows": rows, "span": span, "chunks": self.chunks}
        self.steps = {**sizes, "walk": walk, "walks": walks}
        # Sums of fp16 numbers can leave their range; three products of tf32 parts are as exact as one of fp32.
        types = {torch.bfloat16: (tl.bfloat16, "ieee"), torch.float16: (tl.float32, "tf32")}
        dot, precision = types.get(dtype, (tl.float32, "tf32x3"))
        wide = max(16, 1 << (V - 1).bit_length())
        told = {
            "FEATURE": feature, "ROTATE": rotate, "LENGTHS": 2 if packed else int(padded),
            "DOT": dot, "PRECISION": precision, "BL": BL, "BK": block, "BV": wide,
            "num_warps": 8 if dtype.itemsize > 2 else 4, "num_stages": STAGES,
        }  # fmt: skip
        self.padded = padded and not packed
        self.sums = told
        # Tiles are read ahead where a loop has no other within.
        self.keys = {**told, "ONE": blocks == 1, "num_stages": STAGES if blocks == 1 else 1}
        self.reads = {**self.keys, "NORMALIZE": normalize}
        self.queries = {**told, "ONE": blocks == 1, "NORMALIZE": normalize}
        if rotate and told["num_warps"] == 4:  # else some numbers would have no register
            self.queries |= {"num_warps": 8} if wide > 64 else {"BL": BL // 2}


#: A layer asks for the same again and again.
_kept = functools.lru_cache(maxsize=1024)(_Plan)


def _division(tiles: int, alike: int) -> tuple[int, int]:
    """Tokens of a part and parts of a row of so many tiles, where so many programs walk each part."""
    parts = min(max(1, PROGRAMS // alike), tiles)
    each = -(-tiles // parts)
    return each * BL, -(-tiles // each)


def _plan(
    q: Tensor, k: Tensor, v: Tensor, cos: Tensor | None, lengths: Tensor | None,
    feature: int, normalize: bool, longest: int,
) -> _Plan:  # fmt: skip
    # Within a row the axis of heads is counted in 64 bits.
    check_reach(
        {"q": q, "k": k, "v": v}, (1, 3), longest or q.shape[1],
        q.shape[2] * (2 * q.shape[3] + v.shape[3]), "make it contiguous, or take impl 'torch'",
    )  # fmt: skip
    sequences = len(lengths) - 1 if longest and lengths is not None else 0
    return _kept(
        q.shape, v.shape[-1], v.dtype, cos is not None, lengths is not None,
        feature, normalize, longest, sequences,
    )  # fmt: skip


def _strides(name: str, tensor: Tensor) -> dict[str, int]:
    b, l, h, _ = tensor.stride()
    return {f"{name}_b": b, f"{name}_l": l, f"{name}_h": h}


def _added(sums: Tensor) -> Tensor:
    return sums[0] if len(sums) == 1 else sums.sum(0)


def _forward(
    q: Tensor, k: Tensor, v: Tensor, cos: Tensor | None, sin: Tensor | None, lengths: Tensor | None,
    feature: int, normalize: bool, longest: int, scale: float, eps: float,
) -> tuple[Tensor, Tensor, Tensor]:  # fmt: skip
    """o (B, L, H, V); S and z (rows, H, K (V + 1)) and w (B, L, H), which the backward pass reads again."""
    plan = _plan(q, k, v, cos, lengths, feature, normalize, longest)
    given = {"p_cos": cos, "p_sin": sin, "p_lengths": lengths}
    sums = v.new_empty((plan.chunks, plan.rows, q.shape[2], plan.summed), dtype=torch.float32)
    _sums(
        plan.summing, {"p_k": k, "p_v": v, **given, "p_sums": sums},
        {**plan.cut, **_strides("k", k), **_strides("v", v)}, plan.sums,
    )  # fmt: skip
    sums = _added(sums)
    o = torch.empty_like(v, memory_format=torch.contiguous_format)
    w = sums.new_empty(q.shape[:3] if normalize else 0)
    tensors = {"p_q": q, **given, "p_sums": sums, "p_o": o, "p_w": w}
    _reads(plan.reading, tensors, {**plan.steps, **_strides("q", q)}, {**plan.reads, "scale": scale, "eps": eps})
    return o, sums, w


def _backward(
    do: Tensor, q: Tensor, k: Tensor, v: Tensor, cos: Tensor | None, sin: Tensor | None, lengths: Tensor | None,
    o: Tensor, sums: Tensor, w: Tensor,
    feature: int, normalize: bool, longest: int, scale: float,
) -> Tensor:  # fmt: skip
    """The gradients of q, k and v side by side, (B, L, H (2 K + V))."""
    plan = _plan(q, k, v, cos, lengths, feature, normalize, longest)
    given = {"p_cos": cos, "p_sin": sin, "p_lengths": lengths}
    new = torch.zeros if plan.padded else torch.empty  # the kernels write no padding
    gradients = new((*q.shape[:2], plan.apart), dtype=widest(q, k, v), device=v.device)
    dq, dk, dv = parts(gradients, q.shape[2] * q.shape[3])
    strides = {"d_b": gradients.stride(0), "d_l": plan.apart}
    dsums = sums.new_empty((plan.chunks, *sums.shape))
    _queries(
        plan.summing,
        {"p_q": q, **given, "p_sums": sums, "p_o": o, "p_w": w, "p_do": do, "p_dq": dq, "p_dsums": dsums},
        {**plan.cut, **_strides("q", q), **strides},
        {**plan.queries, "scale": scale},
    )
    tensors = {"p_k": k, "p_v": v, **given, "p_dsums": _added(dsums), "p_dk": dk, "p_dv": dv}
    _keys(plan.reading, tensors, {**plan.steps, **_strides("k", k), **_strides("v", v), **strides}, plan.keys)
    return gradients


def widest(*tensors: Tensor) -> torch.dtype:
    return functools.reduce(torch.promote_types, [t.dtype for t in tensors])


def parts(gradients: Tensor, width: int) -> tuple[Tensor, Tensor, Tensor]:
    """(B, L, 2 width + H V) -> q's and k's, and v's."""
    return gradients[..., :width], gradients[..., width : 2 * width], gradients[..., 2 * width :]


def _forward_fake(
    q: Tensor, v: Tensor, lengths: Tensor | None, normalize: bool, longest: int, **_: Any
) -> tuple[Tensor, ...]:
    (H, K), rows = q.shape[2:], len(q)
    if longest and lengths is not None:
        rows = len(lengths) - 1
    sums = q.new_empty(rows, H, K * (v.shape[-1] + 1), dtype=torch.float32)
    return v.new_empty(v.shape), sums, sums.new_empty(q.shape[:3] if normalize else 0)


def _backward_fake(q: Tensor, k: Tensor, v: Tensor, **_: Any) -> Tensor:
    B, L, H, K = q.shape
    return v.new_empty(B, L, H * (2 * K + v.shape[-1]), dtype=widest(q, k, v))


def _products(q: Any, v: Any) -> int:
    """Multiplications and additions of one product of every token's features and values."""
    B, L, H, K = q
    return 2 * B * L * H * K * v[-1]


def forward_flops(q: Any, v: Any, **_: Any) -> int:
    """Two products: the sum, and its reading."""
    return 2 * _products(q, v)


def backward_flops(q: Any, v: Any, **_: Any) -> int:
    """Four products: two for each of the forward pass."""
    return 4 * _products(q, v)


_INPUTS = "Tensor q, Tensor k, Tensor v, Tensor? cos, Tensor? sin, Tensor? lengths"
_forward_op = define(
    f"full_sum_forward({_INPUTS}, int feature, bool normalize, int longest, float scale, float eps) "
    "-> (Tensor, Tensor, Tensor)",
    _forward,
    _forward_fake,
    forward_flops,
)
_backward_op = define(
    f"full_sum_backward(Tensor do, {_INPUTS}, Tensor o, Tensor sums, Tensor w, "
    "int feature, bool normalize, int longest, float scale) -> Tensor",
    _backward,
    _backward_fake,
    backward_flops,
)


Given = tuple[Tensor | None, ...]  # cos, sin, lengths


def without_gradients(*arguments: Any) -> Tensor:
    """o of `FullSum`, with nothing kept: a quarter less of the host's time."""
    return _forward_op(*arguments)[0]


def _run(q: Tensor, k: Tensor, v: Tensor, given: Given, options: tuple[Any, ...]) -> tuple[Tensor, ...]:
    """o, and what the backward pass reads besides the arguments."""
    o, sums, w = _forward_op(q, k, v, *given, *options)
    _, normalize, *_ = options
    # o is read again for the denominator's gradient, but not where all features are in one block.
    kept = o if normalize and q.shape[-1] > block_of(v.dtype) else w
    return o, kept, sums, w


def _gradients(do: Tensor, saved: Sequence[Tensor], options: tuple[Any, ...]) -> Tensor:
    return _backward_op(do.contiguous(), *saved, *options[:-1])


class FullSum(torch.autograd.Function):
    """q, k (B, L, H, K), v (B, L, H, V), cos and sin (L, K / 2) or None, lengths (B,) or with `longest` > 0
    cu_seqlens (S + 1,) -> o (B, L, H, V); features and values innermost."""

    @staticmethod
    def forward(  # pyright: ignore[reportIncompatibleMethodOverride]
        ctx: Any, q: Tensor, k: Tensor, v: Tensor, cos: Tensor | None, sin: Tensor | None, lengths: Tensor | None,
        feature: int, normalize: bool, longest: int, scale: float, eps: float,
    ) -> Tensor:  # fmt: skip
        given, ctx.options = (cos, sin, lengths), (feature, normalize, longest, scale, eps)
        o, *kept = _run(q, k, v, given, ctx.options)
        ctx.save_for_backward(q, k, v, *given, *kept)
        return o

    @staticmethod
    @first_order("full_sum")
    def backward(ctx: Any, do: Tensor) -> tuple[Tensor | None, ...]:  # pyright: ignore[reportIncompatibleMethodOverride]
        saved = ctx.saved_tensors
        heads, K = saved[0].shape[2:]
        found = parts(_gradients(do, saved, ctx.options), heads * K)
        dq, dk, dv = (t.unflatten(2, (heads, -1)).to(own.dtype) for t, own in zip(found, saved[:3], strict=True))
        return dq, dk, dv, *[None] * 8


class PackedFullSum(torch.autograd.Function):
    """The same of q, k and v in one tensor (B, L, 3, H, K), whose gradient comes in one piece."""

    @staticmethod
    def forward(  # pyright: ignore[reportIncompatibleMethodOverride]
        ctx: Any, qkv: Tensor, cos: Tensor | None, sin: Tensor | None, lengths: Tensor | None,
        feature: int, normalize: bool, longest: int, scale: float, eps: float,
    ) -> Tensor:  # fmt: skip
        given, ctx.options = (cos, sin, lengths), (feature, normalize, longest, scale, eps)
        q, k, v = qkv.unbind(2)
        o, *kept = _run(q, k, v, given, ctx.options)
        ctx.save_for_backward(qkv, *given, *kept)
        return o

    @staticmethod
    @first_order("full_sum")
    def backward(ctx: Any, do: Tensor) -> tuple[Tensor | None, ...]:  # pyright: ignore[reportIncompatibleMethodOverride]
        qkv, *rest = ctx.saved_tensors
        return _gradients(do, (*qkv.unbind(2), *rest), ctx.options).unflatten(2, (3, do.shape[2], -1)), *[None] * 8
