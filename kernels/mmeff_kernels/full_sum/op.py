"""The public order-free linear attention."""

from typing import Any, Literal, get_args

import torch
from torch import Tensor

from ..arguments import check_lengths, check_packing, innermost
from ..dispatch import choose
from ..padding import Packing, nothing, without_padding
from .features import Feature, elementwise
from .reference import full_sum_reference, rotate

Impl = Literal["auto", "triton", "torch", "reference"]
#: Values of a head that a tile of the Triton kernels holds.
LARGEST_VALUE = 128


def full_sum(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    feature: Feature = "elu+1",
    *,
    normalize: bool = True,
    rotation: tuple[Tensor, Tensor] | None = None,
    scale: float = 1.0,
    eps: float = 1e-12,
    lengths: Tensor | None = None,
    cu_seqlens: Tensor | None = None,
    impl: Impl = "auto",
) -> Tensor:
    """Order-free linear attention: o_i = scale r(phi(q_i))^T S / (phi(q_i)^T z + eps),  S = sum_j r(phi(k_j)) v_j^T,
    z = sum_j phi(k_j), over all tokens j of the row. O(L).

    q, k        (B, L, H, K)
    v           (B, L, H, V)
    feature     phi: "elu+1", "relu", or "identity" for what has been mapped already (`softmax_pairs`, `taylor`)
    normalize   False leaves out the denominator
    rotation    cos and sin (L, K / 2), fp16 to fp64, by which r turns each pair of features k and k + K / 2 (rotary
                positions), in the numerator alone, so that the denominator stays positive (MILA). None: r is the
                identity
    scale       of the numerator
    eps         keeps a quotient finite where every feature of q or of all k is 0
    lengths     (B,) real tokens a row; what lies after them is never read, and its o is 0. Their values are checked
                on the CPU alone: to look at them on another device would wait for it
    cu_seqlens  (S + 1,) integers: S sequences lie one after the other in the one row of q (1, L, H, K), sequence s from
                cu_seqlens[s] to cu_seqlens[s + 1] - 1; each, empty or not, is summed alone
    impl        "triton": fused kernels on CUDA. "torch": matrix products. "reference": the L x L weights. "auto":
                "torch", or "triton" on CUDA for all but fp64 and V > 128. A named one never falls back to another

    Source: Katharopoulos et al., arXiv 2006.16236, eq. 4 to 6; MILA, Han et al., arXiv 2405.16605, for the rotation.

    Returns o (B, L, H, V) in v's dtype. Features, sums and quotients are fp32 (fp64 if an input is), under autocast
    too; on CUDA the products of fp16 and bf16 take operands rounded to tf32 and bf16. Gradients for q, k and v.

    ValueError if the shapes do not fit together, or `impl` does not exist or cannot serve them.
    """
    _check(q, k, v, feature, rotation, lengths, cu_seqlens)
    chosen = _choose(impl, q, k, v)
    if q.numel() == 0:
        return nothing(v.shape, v.dtype, q, k, v)
    if chosen == "triton":
        from .operators import FullSum, without_gradients

        q, k, v = innermost(q), innermost(k), innermost(v)
        run = FullSum.apply if torch.is_grad_enabled() else without_gradients
        return run(q, k, v, *_flat(q, feature, normalize, rotation, scale, eps, lengths, cu_seqlens))
    options = {"normalize": normalize, "scale": scale, "eps": eps}
    if chosen == "reference":
        segments = _segments(q, lengths, cu_seqlens)
        return full_sum_reference(q, k, v, feature, rotation=rotation, segments=segments, **options).to(v.dtype)
    with torch.autocast(q.device.type, enabled=False):
        return _matrix_products(q, k, v, feature, rotation, lengths, cu_seqlens, **options)


def full_sum_qkvpacked(
    qkv: Tensor,
    feature: Feature = "elu+1",
    *,
    normalize: bool = True,
    rotation: tuple[Tensor, Tensor] | None = None,
    scale: float = 1.0,
    eps: float = 1e-12,
    lengths: Tensor | None = None,
    cu_seqlens: Tensor | None = None,
    impl: Impl = "auto",
) -> Tensor:
    """`full_sum` of the q, k and v of one projection, qkv (B, L, 3, H, K): its gradient too comes in one piece, which
    saves the pass that puts three together. Returns o (B, L, H, K); all else as there."""
    if qkv.dim() != 5 or qkv.shape[2] != 3:
        raise ValueError(f"qkv must be (B, L, 3, H, K), not {tuple(qkv.shape)}")
    q = qkv.select(2, 0)
    if q.numel() == 0 or _choose(impl, q, q, q) != "triton":
        q, k, v = qkv.unbind(2)
        return full_sum(
            q, k, v, feature, normalize=normalize, rotation=rotation, scale=scale, eps=eps, lengths=lengths,
            cu_seqlens=cu_seqlens, impl=impl,
        )  # fmt: skip
    from .operators import PackedFullSum, without_gradients

    _check(q, q, q, feature, rotation, lengths, cu_seqlens)
    qkv = innermost(qkv)
    given = _flat(q, feature, normalize, rotation, scale, eps, lengths, cu_seqlens)
    return PackedFullSum.apply(qkv, *given) if torch.is_grad_enabled() else without_gradients(*qkv.unbind(2), *given)


def _choose(impl: Impl, q: Tensor, k: Tensor, v: Tensor) -> str:
    wide = v.shape[-1] > LARGEST_VALUE
    beyond = f"serves up to {LARGEST_VALUE} values a head, v is {tuple(v.shape)}" if wide else ""
    return choose(impl, Impl, {"q": q, "k": k, "v": v}, beyond)


def _flat(
    q: Tensor,
    feature: Feature,
    normalize: bool,
    rotation: tuple[Tensor, Tensor] | None,
    scale: float,
    eps: float,
    lengths: Tensor | None,
    cu_seqlens: Tensor | None,
) -> tuple[Any, ...]:
    """What the operators are told besides q, k and v."""
    cos, sin = (None, None) if rotation is None else (t.contiguous() for t in rotation)
    longest = 0
    if cu_seqlens is not None:
        lengths, longest = cu_seqlens.to(q.device), int(cu_seqlens.diff().max())
    return cos, sin, lengths, get_args(Feature).index(feature), normalize, longest, scale, eps


def _matrix_products(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    feature: Feature,
    rotation: tuple[Tensor, Tensor] | None,
    lengths: Tensor | None,
    cu_seqlens: Tensor | None,
    normalize: bool,
    scale: float,
    eps: float,
) -> Tensor:
    kind, wide = v.dtype, torch.promote_types(torch.promote_types(q.dtype, v.dtype), torch.float32)
    q, k, v = (without_padding(t, lengths).to(wide) for t in (q, k, v))
    q, k = elementwise(q, feature), without_padding(elementwise(k, feature), lengths)
    turned, turned_k = rotate(q, rotation), rotate(k, rotation)
    if cu_seqlens is not None:
        packing = Packing(cu_seqlens.to(q.device))
        q, k, v, turned, turned_k = (packing.pad(t) for t in (q, k, v, turned, turned_k))
        k, v, turned_k = (without_padding(t, packing.lengths) for t in (k, v, turned_k))
    S = turned_k.permute(0, 2, 3, 1) @ v.transpose(1, 2)  # (B, H, K, V)
    o = (turned.transpose(1, 2) @ S).transpose(1, 2) * scale
    if normalize:
        o = o / ((q * k.sum(1, keepdim=True)).sum(-1, keepdim=True) + eps)
    o = packing.unpad(o) if cu_seqlens is not None else without_padding(o, lengths)
    return o.to(kind)


def _segments(q: Tensor, lengths: Tensor | None, cu_seqlens: Tensor | None) -> Tensor | None:
    """The sequence that each token belongs to, (B, L), -1 in the padding; None if each row is one."""
    positions = torch.arange(q.shape[1], device=q.device)
    if cu_seqlens is not None:
        return (torch.searchsorted(cu_seqlens.to(q.device), positions, right=True) - 1)[None]
    return None if lengths is None else -(positions >= lengths[:, None]).long()


def _check(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    feature: str,
    rotation: tuple[Tensor, Tensor] | None,
    lengths: Tensor | None,
    cu_seqlens: Tensor | None,
) -> None:
    if feature not in get_args(Feature):
        raise ValueError(f"feature {feature!r}: choose one of {', '.join(get_args(Feature))}")
    if q.dim() != 4 or 0 in q.shape[2:]:
        raise ValueError(f"q must be (B, L, H, K) with at least one head and feature, not {tuple(q.shape)}")
    if k.shape != q.shape:
        raise ValueError(f"k must be {tuple(q.shape)}, as q, not {tuple(k.shape)}")
    if v.dim() != 4 or v.shape[:3] != q.shape[:3] or v.shape[3] == 0:
        raise ValueError(f"v must be {(*q.shape[:3], 'V')} beside q {tuple(q.shape)}, not {tuple(v.shape)}")
    for name, tensor in (("k", k), ("v", v)):
        if tensor.device != q.device:
            raise ValueError(f"{name} is on {tensor.device}, q on {q.device}")
    if rotation is not None:
        L, K = q.shape[1], q.shape[3]
        for name, table in zip(("cos", "sin"), rotation, strict=True):
            if K % 2 or table.shape != (L, K // 2):
                raise ValueError(
                    f"rotation's {name} must be (L, K / 2) with K even beside q {tuple(q.shape)}, "
                    f"not {tuple(table.shape)}"
                )
            if table.device != q.device:
                raise ValueError(f"rotation's {name} is on {table.device}, q on {q.device}")
    if lengths is not None and cu_seqlens is None:
        check_lengths(lengths, q, "q")
    if cu_seqlens is not None:
        check_packing(q, cu_seqlens, lengths, "q")
