"""The public linear attention with a decaying state."""

import math
from collections.abc import Callable
from typing import Literal, get_args

import torch
from torch import Tensor

from ..arguments import check_lengths, check_packing, has_shape, innermost
from ..dispatch import choose
from ..padding import Packing, nothing, without_padding
from .chunked import decay_chunked
from .reference import decay_reference

Impl = Literal["auto", "triton", "torch", "reference"]
Direction = Literal["forward", "backward", "both"]
Diagonal = Literal["all", "first"]
#: Features, and values, of a head that a tile of the Triton kernels holds.
LARGEST = 128


def decay_attention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    g: Tensor,
    *,
    direction: Direction = "forward",
    diagonal: Diagonal = "all",
    bonus: Tensor | None = None,
    scale: float | None = None,
    initial_state: Tensor | None = None,
    output_final_state: bool = False,
    lengths: Tensor | None = None,
    cu_seqlens: Tensor | None = None,
    impl: Impl = "auto",
) -> tuple[Tensor, Tensor | None]:
    """Linear attention whose state decays: S_t = exp(g_t) S_{t-1} + k_t v_t^T,  o_t = scale S_t^T q_t. O(L).

    The matrix of o = M v is M_ts = scale sum_c q_tc k_sc exp(g_{s+1,c} + ... + g_tc) for s <= t, 0 elsewhere.

    q, k        (B, L, H, K)
    v           (B, L, H, V)
    g           the logarithm of the decay, at most 0: (B, L, H), one for all features of a head (retention, SSD,
                mLSTM), or (B, L, H, K), one for each (GLA, HGRN2, RWKV). For "both", a leading axis of 2 gives each
                direction its own. A gate whose exp is 0 (from -104 down, -inf too; -750 in fp64) is a reset: nothing
                of the state passes it, exactly, and its gradient is 0
    direction   "forward": token t reads from tokens s <= t. "backward": from s >= t, as the flipped row would. "both":
                the sum of the two, in one pass
    diagonal    for "both": whether a token reads its own input in each direction ("all"), or once ("first")
    bonus       (H, K), with g of each feature: a token reads the state before it decays, and its own input with this
                weight for each feature: o_t = scale (S_{t-1} + (bonus * k_t) v_t^T)^T q_t (RWKV)
    scale       by default 1 / sqrt(K)
    initial_state  (B, H, K, V): what the first token meets, in "backward" the last; (2, B, H, K, V) for "both". With
                cu_seqlens one for each sequence in place of each row
    output_final_state  also return the state after the last token met
    lengths     (B,) real tokens a row; what lies after them is never read, and its o is 0. Their values are checked
                on the CPU alone: to look at them on another device would wait for it
    cu_seqlens  (S + 1,) integers: S sequences lie one after the other in the one row of q (1, L, H, K), sequence s from
                cu_seqlens[s] to cu_seqlens[s + 1] - 1
    impl        "triton": kernels on CUDA. "torch": chunks as matrix products. "reference": the loop over tokens.
                "auto": "torch", or "triton" on CUDA for all but fp64 and more than 128 features or values. A named one
                never falls back to another

    Source: Yang et al., arXiv 2312.06635, eq. 3 (decays for each feature); Dao and Gu, arXiv 2405.21060, eq. 16 (one
    for all); both directions: Hwang et al., Hydra, arXiv 2407.09941; bonus: Peng et al., RWKV-6, arXiv 2404.05892.

    Returns o (B, L, H, V) in v's dtype, and the final state as initial_state is shaped, fp32, or None. Gates, states
    and sums are fp32 (fp64 if an input is), under autocast too; on CUDA the products of fp16 and bf16 take operands
    rounded to tf32 and bf16. Within a chunk of 16 to 64 tokens the sum of g is exact to 6e-8 of its largest value, and
    with it the weights. Gradients for q, k, v, g, bonus and initial_state.

    ValueError if the shapes do not fit together, or `impl` does not exist or cannot serve them.
    """
    _check(q, k, v, g, direction, diagonal, bonus, initial_state, lengths, cu_seqlens)
    tensors = {"q": q, "k": k, "v": v, "g": g, "bonus": bonus, "initial_state": initial_state}
    beyond = ""
    if max(q.shape[-1], v.shape[-1]) > LARGEST:
        beyond = f"serves up to {LARGEST} features and values a head, q is {tuple(q.shape)}, v {tuple(v.shape)}"
    chosen = choose(impl, Impl, tensors, beyond)
    if q.numel() == 0:
        o, final = nothing(v.shape, v.dtype, q, k, v, g, bonus, initial_state), initial_state
        if final is None:
            rows = len(q) if cu_seqlens is None else len(cu_seqlens) - 1
            shape = (rows, *q.shape[2:], v.shape[3])
            final = nothing((2, *shape) if direction == "both" else shape, torch.float32, q)
        return o, final.to(torch.promote_types(final.dtype, torch.float32), copy=True) if output_final_state else None
    if scale is None:
        scale = 1 / math.sqrt(q.shape[-1])
    if chosen == "triton":
        from .operators import Decay

        longest = 0
        if cu_seqlens is not None:
            lengths, longest = cu_seqlens.to(q.device), int(cu_seqlens.diff().max())
        q, k, v = innermost(q), innermost(k), innermost(v)
        bonus, initial_state = (None if t is None else t.float().contiguous() for t in (bonus, initial_state))
        which = get_args(Direction).index(direction)
        o, final = Decay.apply(
            q, k, v, g.contiguous(), bonus, initial_state, lengths, which, diagonal == "all", longest, scale
        )
        return o, final if output_final_state else None
    run = _loops if chosen == "reference" else decay_chunked
    with torch.autocast(q.device.type, enabled=False):
        o, final = _over_padded_rows(
            run, q, k, v, g, direction, diagonal, bonus, scale, initial_state, lengths, cu_seqlens
        )
    return o, final if output_final_state else None


def _over_padded_rows(
    run: Callable[..., tuple[Tensor, ...]],
    q: Tensor,
    k: Tensor,
    v: Tensor,
    g: Tensor,
    direction: Direction,
    diagonal: Diagonal,
    bonus: Tensor | None,
    scale: float,
    initial_state: Tensor | None,
    lengths: Tensor | None,
    cu_seqlens: Tensor | None,
) -> tuple[Tensor, Tensor]:
    """All in one type, a sequence a row, and in the padding zeros, which decay nothing and write nothing."""
    kind, directions = v.dtype, ["forward", "backward"] if direction == "both" else [direction]
    wide = torch.promote_types(torch.promote_types(q.dtype, v.dtype), torch.promote_types(g.dtype, torch.float32))
    gates = (g if has_shape(g, q.shape, (2, *q.shape)) else g[..., None]).to(wide)
    # A view of its own for each direction: of one tensor given twice, torch.compile (2.11) takes one gradient.
    gates = list(gates) if gates.dim() == 5 else [gates.view_as(gates) for _ in directions]
    q, k, v = q.to(wide) * scale, k.to(wide), v.to(wide)
    if cu_seqlens is not None:
        packing = Packing(cu_seqlens.to(q.device))
        lengths = packing.lengths
        q, k, v, *gates = (packing.pad(t) for t in (q, k, v, *gates))
    q, k, v, *gates = (without_padding(t, lengths) for t in (q, k, v, *gates))
    shape = len(directions), q.shape[0], *q.shape[2:], v.shape[-1]
    states = q.new_zeros(shape) if initial_state is None else initial_state.to(wide).reshape(shape)
    o, *finals = run(
        q,
        k,
        v,
        dict(zip(directions, gates, strict=True)),
        dict(zip(directions, states, strict=True)),
        None if bonus is None else bonus.to(wide),
        direction == "both" and diagonal == "all",
    )
    o = packing.unpad(o) if cu_seqlens is not None else without_padding(o, lengths)
    return o.to(kind), torch.stack(finals) if direction == "both" else finals[0]


def _loops(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    gates: dict[str, Tensor],
    states: dict[str, Tensor],
    bonus: Tensor | None,
    twice: bool,
) -> tuple[Tensor, ...]:
    """The definition, backward over the flipped row; see `decay_chunked`."""
    total, finals = torch.zeros_like(v), []
    for direction, g in gates.items():
        back = direction == "backward"
        a, b, c, d = (t.flip(1) if back else t for t in (q, k, v, g))
        own = q.new_ones(1) if bonus is None else bonus
        skipped = back and len(gates) == 2 and not twice
        o, final = decay_reference(a, b, c, d, None if skipped else own, states[direction], bonus is not None)
        total = total + (o.flip(1) if back else o)
        finals.append(final)
    return total, *finals


def _check(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    g: Tensor,
    direction: str,
    diagonal: str,
    bonus: Tensor | None,
    initial_state: Tensor | None,
    lengths: Tensor | None,
    cu_seqlens: Tensor | None,
) -> None:
    for name, value, choices in (("direction", direction, Direction), ("diagonal", diagonal, Diagonal)):
        if value not in get_args(choices):
            raise ValueError(f"{name} {value!r}: choose one of {', '.join(get_args(choices))}")
    if q.dim() != 4 or 0 in q.shape[2:]:
        raise ValueError(f"q must be (B, L, H, K) with at least one head and feature, not {tuple(q.shape)}")
    if k.shape != q.shape:
        raise ValueError(f"k must be {tuple(q.shape)}, as q, not {tuple(k.shape)}")
    if v.dim() != 4 or v.shape[:3] != q.shape[:3] or v.shape[3] == 0:
        raise ValueError(f"v must be {(*q.shape[:3], 'V')} beside q {tuple(q.shape)}, not {tuple(v.shape)}")
    both, shapes = direction == "both", [q.shape[:3], q.shape]
    if both:
        shapes += [(2, *shape) for shape in shapes]
    if not has_shape(g, *shapes):
        choices = " or ".join(str(tuple(shape)) for shape in shapes)
        raise ValueError(f"g must be {choices} beside q {tuple(q.shape)}, not {tuple(g.shape)}")
    if bonus is not None:
        if bonus.shape != q.shape[2:]:
            raise ValueError(f"bonus must be {tuple(q.shape[2:])} beside q {tuple(q.shape)}, not {tuple(bonus.shape)}")
        if g.shape[-3:] != q.shape[-3:]:
            raise ValueError(f"bonus needs a g of each feature, {tuple(q.shape)}, not {tuple(g.shape)}")
    if lengths is not None and cu_seqlens is None:
        check_lengths(lengths, q, "q")
    if cu_seqlens is not None:
        check_packing(q, cu_seqlens, lengths, "q")
    if initial_state is not None:
        rows = q.shape[0] if cu_seqlens is None else len(cu_seqlens) - 1
        shape = (*([2] if both else []), rows, *q.shape[2:], v.shape[3])
        if not has_shape(initial_state, shape):
            raise ValueError(f"initial_state must be {shape}, not {tuple(initial_state.shape)}")
    named = {"k": k, "v": v, "g": g, "bonus": bonus, "initial_state": initial_state}
    for name, tensor in named.items():
        if tensor is not None and tensor.device != q.device:
            raise ValueError(f"{name} is on {tensor.device}, q on {q.device}")
