"""The Triton kernels of order-free linear attention as torch operators, and as one differentiable function.

`mmeff::full_sum_forward` and `..._backward` are opaque to torch.compile and counted by torch's FLOP counter.
"""

import functools
from typing import Any

import torch
import triton.language as tl
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.utils.flop_counter import register_flop_formula

from ..launcher import Launcher
from . import kernel

_sums, _reads = Launcher(kernel.sums_kernel), Launcher(kernel.reads_kernel)
_queries, _keys = Launcher(kernel.queries_kernel), Launcher(kernel.keys_kernel)

#: Tokens and features of a tile. Programs of a pass that sums: four for each multiprocessor of an H200.
BL, BK, PROGRAMS = 64, 64, 528
#: Tiles on their way at a time.
STAGES = 3
#: Programs of a pass in which tokens read.
READERS = 1056


def block_of(v: Tensor) -> int:
    """Features of a tile at most."""
    return BK if v.element_size() == 2 else BK // 2


def in_one_block(q: Tensor, v: Tensor) -> bool:
    return q.shape[-1] <= block_of(v)


class _Plan:
    """How the rows are divided among programs, and what every kernel is told."""

    def __init__(
        self, q: Tensor, k: Tensor, v: Tensor, cos: Tensor | None, sin: Tensor | None, lengths: Tensor | None,
        feature: int, longest: int,
    ):  # fmt: skip
        self.rows, self.L, self.H, self.K = q.shape
        self.V = v.shape[-1]
        if longest:
            assert lengths is not None
            self.rows = len(lengths) - 1
        self.longest = longest or self.L
        #: What lies between the gradients of two tokens: those of q, k and v are parts of one tensor.
        self.apart = self.H * (2 * self.K + self.V)
        reach = self.longest * max(self.apart, *(t.stride(1) for t in (q, k, v)))
        if reach >= 2**31:
            raise ValueError(
                f"the kernels count what lies within a row in 32 bits: {self.longest} tokens {reach // self.longest} "
                "elements apart are too many"
            )
        block = min(block_of(v), max(16, 1 << (self.K - 1).bit_length()))
        blocks, one = -(-self.K // block), in_one_block(q, v)
        tiles = -(-self.longest // BL)
        wanted = max(1, PROGRAMS // (self.rows * self.H * blocks))
        self.span = -(-tiles // min(wanted, tiles)) * BL
        self.chunks = -(-self.longest // self.span)
        self.summing = self.rows * self.H * blocks * self.chunks
        wanted = max(1, READERS // (self.rows * self.H))
        self.walk = -(-tiles // min(wanted, tiles)) * BL
        self.walks = -(-self.longest // self.walk)
        self.reading = self.rows * self.H * self.walks
        # Tiles are read ahead where a loop has no other within.
        self.reads = {"ONE": one, "num_stages": STAGES if one else 1}
        self.sizes = {"L": self.L, "H": self.H, "K": self.K, "V": self.V}
        self.cut = {"rows": self.rows, "span": self.span, "chunks": self.chunks}
        self.steps = {"walk": self.walk, "walks": self.walks}
        self.given = {"p_cos": cos, "p_sin": sin, "p_lengths": lengths}
        # Sums of fp16 numbers can leave their range; three products of tf32 parts are as exact as one of fp32.
        types = {torch.bfloat16: (tl.bfloat16, "ieee"), torch.float16: (tl.float32, "tf32")}
        dot, precision = types.get(v.dtype, (tl.float32, "tf32x3"))
        wide = max(16, 1 << (self.V - 1).bit_length())
        many = v.element_size() > 2 or wide > 64  # numbers that a thread holds
        self.options = {
            "FEATURE": feature, "ROTATE": cos is not None,
            "LENGTHS": 2 if longest else int(lengths is not None), "DOT": dot, "PRECISION": precision,
            "BL": BL, "BK": block, "BV": wide, "num_warps": 8 if many else 4, "num_stages": 1,
        }  # fmt: skip

    def sums(self, like: Tensor) -> tuple[Tensor, Tensor]:
        """Room for the sums of every chunk: (chunks, rows, H, K, V) and (chunks, rows, H, K)."""
        shape = self.chunks, self.rows, self.H, self.K
        return like.new_empty((*shape, self.V), dtype=torch.float32), like.new_empty(shape, dtype=torch.float32)


def _strides(name: str, tensor: Tensor) -> dict[str, int]:
    return {f"{name}_{letter}": stride for letter, stride in zip("blh", tensor.stride(), strict=False)}


def _added(sums: Tensor) -> Tensor:
    return sums[0] if len(sums) == 1 else sums.sum(0)


def _forward(
    q: Tensor, k: Tensor, v: Tensor, cos: Tensor | None, sin: Tensor | None, lengths: Tensor | None,
    feature: int, normalize: bool, longest: int, scale: float, eps: float,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:  # fmt: skip
    """o (B, L, H, V); S (rows, H, K, V), z (rows, H, K) and w (B, L, H), which the backward pass reads again."""
    plan = _Plan(q, k, v, cos, sin, lengths, feature, longest)
    S, z = plan.sums(v)
    _sums(
        plan.summing,
        {"p_k": k, "p_v": v, **plan.given, "p_S": S, "p_z": z},
        {**plan.sizes, **plan.cut, **_strides("k", k), **_strides("v", v)},
        {**plan.options, "num_stages": STAGES},
    )
    S, z = _added(S), _added(z)
    o = torch.empty_like(v, memory_format=torch.contiguous_format)
    w = z.new_empty(q.shape[:3] if normalize else 0)
    _reads(
        plan.reading,
        {"p_q": q, **plan.given, "p_S": S, "p_z": z, "p_o": o, "p_w": w},
        {**plan.sizes, **plan.steps, **_strides("q", q)},
        {**plan.options, "NORMALIZE": normalize, "scale": scale, "eps": eps, **plan.reads},
    )
    return o, S, z, w


def _backward(
    do: Tensor, q: Tensor, k: Tensor, v: Tensor, cos: Tensor | None, sin: Tensor | None, lengths: Tensor | None,
    o: Tensor, S: Tensor, z: Tensor, w: Tensor,
    feature: int, normalize: bool, longest: int, scale: float,
) -> Tensor:  # fmt: skip
    """The gradients of q, k and v side by side, (B, L, H (2 K + V))."""
    plan = _Plan(q, k, v, cos, sin, lengths, feature, longest)
    new = torch.zeros if plan.options["LENGTHS"] == 1 else torch.empty  # the kernels write no padding
    gradients = new((*q.shape[:2], plan.apart), dtype=widest(q, k, v), device=v.device)
    dq, dk, dv = parts(gradients, plan.H * plan.K)
    strides = {"d_b": gradients.stride(0), "d_l": plan.apart}
    dS, dz = plan.sums(v)
    sums = {"p_S": S, "p_z": z, "p_o": o, "p_w": w, "p_do": do, "p_dq": dq, "p_dS": dS, "p_dz": dz}
    _queries(
        plan.summing,
        {"p_q": q, **plan.given, **sums},
        {**plan.sizes, **plan.cut, **_strides("q", q), **strides},
        {**plan.options, "NORMALIZE": normalize, "scale": scale, **plan.reads},
    )
    _keys(
        plan.reading,
        {"p_k": k, "p_v": v, **plan.given, "p_dS": _added(dS), "p_dz": _added(dz), "p_dk": dk, "p_dv": dv},
        {**plan.sizes, **plan.steps, **_strides("k", k), **_strides("v", v), **strides},
        {**plan.options, **plan.reads},
    )
    return gradients


def widest(*tensors: Tensor) -> torch.dtype:
    return functools.reduce(torch.promote_types, [t.dtype for t in tensors])


def parts(gradients: Tensor, width: int) -> tuple[Tensor, Tensor, Tensor]:
    """(B, L, 2 width + H V) -> q's and k's, and v's."""
    return gradients[..., :width], gradients[..., width : 2 * width], gradients[..., 2 * width :]


def _forward_fake(q: Any, k: Any, v: Any, cos: Any, sin: Any, lengths: Any, *options: Any) -> tuple[Tensor, ...]:
    _, normalize, longest, _, _ = options
    B, _, H, K = q.shape
    rows = len(lengths) - 1 if longest else B
    sums = q.new_empty(rows, H, K, v.shape[-1], dtype=torch.float32)
    return (
        v.new_empty(v.shape),
        sums,
        sums.new_empty(rows, H, K),
        sums.new_empty(q.shape[:3] if normalize else 0),
    )


def _backward_fake(do: Any, q: Any, k: Any, v: Any, *rest: Any) -> Tensor:
    B, L, H, K = q.shape
    return v.new_empty(B, L, H * (2 * K + v.shape[-1]), dtype=widest(q, k, v))


_LIBRARY = torch.library.Library("mmeff", "FRAGMENT")
_INPUTS = "Tensor q, Tensor k, Tensor v, Tensor? cos, Tensor? sin, Tensor? lengths"
_LIBRARY.define(
    f"full_sum_forward({_INPUTS}, int feature, bool normalize, int longest, float scale, float eps) "
    "-> (Tensor, Tensor, Tensor, Tensor)"
)
_LIBRARY.define(
    f"full_sum_backward(Tensor do, {_INPUTS}, Tensor o, Tensor S, Tensor z, Tensor w, "
    "int feature, bool normalize, int longest, float scale) -> Tensor"
)
for _device in ("CPU", "CUDA"):  # on the CPU for Triton's interpreter
    _LIBRARY.impl("full_sum_forward", _forward, _device)
    _LIBRARY.impl("full_sum_backward", _backward, _device)
torch.library.register_fake("mmeff::full_sum_forward", _forward_fake, lib=_LIBRARY)
torch.library.register_fake("mmeff::full_sum_backward", _backward_fake, lib=_LIBRARY)


def _products(q: Any, v: Any) -> int:
    """Multiplications and additions of one product of every token's features and values."""
    B, L, H, K = q
    return 2 * B * L * H * K * v[-1]


@register_flop_formula(torch.ops.mmeff.full_sum_forward)
def forward_flops(q: Any, k: Any, v: Any, *_: Any, **__: Any) -> int:
    """Two products: the sum, and its reading."""
    return 2 * _products(q, v)


@register_flop_formula(torch.ops.mmeff.full_sum_backward)
def backward_flops(do: Any, q: Any, k: Any, v: Any, *_: Any, **__: Any) -> int:
    """Four products: two for each of the forward pass."""
    return 4 * _products(q, v)


def _run(ctx: Any, q: Tensor, k: Tensor, v: Tensor, given: tuple[Tensor | None, ...], options: tuple[Any, ...]) -> Tensor:
    q, k, v = (t if t.stride(-1) == 1 else t.contiguous() for t in (q, k, v))
    o, S, z, w = torch.ops.mmeff.full_sum_forward(q, k, v, *given, *options)
    kept = w if in_one_block(q, v) else o  # what is not read again need not be kept
    ctx.save_for_backward(q, k, v, *given, kept, S, z, w)
    ctx.options = options[:-1]
    return o


def _gradients(ctx: Any, do: Tensor) -> Tensor:
    return torch.ops.mmeff.full_sum_backward(do.contiguous(), *ctx.saved_tensors, *ctx.options)


class FullSum(torch.autograd.Function):
    """q, k (B, L, H, K), v (B, L, H, V), cos and sin (L, K / 2) or None, lengths (B,) or with `longest` > 0
    cu_seqlens (S + 1,) -> o (B, L, H, V)."""

    @staticmethod
    def forward(  # pyright: ignore[reportIncompatibleMethodOverride]
        ctx: Any, q: Tensor, k: Tensor, v: Tensor, cos: Tensor | None, sin: Tensor | None, lengths: Tensor | None,
        feature: int, normalize: bool, longest: int, scale: float, eps: float,
    ) -> Tensor:  # fmt: skip
        ctx.dtypes = q.dtype, k.dtype, v.dtype
        return _run(ctx, q, k, v, (cos, sin, lengths), (feature, normalize, longest, scale, eps))

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, do: Tensor) -> tuple[Tensor | None, ...]:  # pyright: ignore[reportIncompatibleMethodOverride]
        heads, K = ctx.saved_tensors[0].shape[2:]
        found = parts(_gradients(ctx, do), heads * K)
        dq, dk, dv = (t.unflatten(2, (heads, -1)).to(kind) for t, kind in zip(found, ctx.dtypes, strict=True))
        return dq, dk, dv, *[None] * 8


class PackedFullSum(torch.autograd.Function):
    """The same of q, k and v in one tensor (B, L, 3, H, K), whose gradient comes in one piece."""

    @staticmethod
    def forward(  # pyright: ignore[reportIncompatibleMethodOverride]
        ctx: Any, qkv: Tensor, cos: Tensor | None, sin: Tensor | None, lengths: Tensor | None,
        feature: int, normalize: bool, longest: int, scale: float, eps: float,
    ) -> Tensor:  # fmt: skip
        return _run(ctx, *qkv.unbind(2), (cos, sin, lengths), (feature, normalize, longest, scale, eps))

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, do: Tensor) -> tuple[Tensor | None, ...]:  # pyright: ignore[reportIncompatibleMethodOverride]
        return _gradients(ctx, do).unflatten(2, (3, do.shape[2], -1)), *[None] * 8
