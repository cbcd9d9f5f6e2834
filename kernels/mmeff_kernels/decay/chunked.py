"""Decaying states in plain torch: chunks of tokens as matrix products, states from chunk to chunk, both directions in
one. The letters are those of `kernel.py`.

Where each feature has a gate of its own, the weight of a pair is split between q and k (see `apart_kernel`). Halving
chunks down to single tokens does it for any gates, with a product for each halving; in blocks over which g adds up to
little, one product serves all pairs.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from ..first_order import first_order

#: Tokens of a chunk: where a head has one gate, and where each feature has its own.
CHUNKS = 64, 32
#: Largest exponent of a factor of q or k in a block: the product of two stays within fp32, each exact to six digits.
LARGEST = 40.0


def decay_chunked(
    q: Tensor, k: Tensor, v: Tensor, gates: dict[str, Tensor], states: dict[str, Tensor], bonus: Tensor | None,
    twice: bool,
) -> tuple[Tensor, ...]:  # fmt: skip
    """q, k (B, L, H, K), v (B, L, H, V), of "forward", "backward" or both the gates (B, L, H, K or 1) and the state
    (B, H, K, V) met first, the bonus (H, K), and whether a token's own input counts `twice` -> o (B, L, H, V) and the
    last state of each direction."""
    B, L, H, _ = q.shape
    each = any(g.shape[-1] > 1 for g in gates.values())
    C = min(CHUNKS[int(each)], 1 << (L - 1).bit_length())
    q, k, v = (_to_chunks(t, C) for t in (q, k, v))
    gates = {direction: _to_chunks(g, C) for direction, g in gates.items()}
    by_direction = [some.get(direction) for some in (gates, states) for direction in ("forward", "backward")]
    o, *ends = _Chunked.apply(q, k, v, bonus, *by_direction, twice)
    return o.flatten(1, 2)[:, :L].unflatten(0, (B, H)).transpose(1, 2), *ends


@dataclass(frozen=True)
class _Sums:
    """Sums of gates up to some tokens, (..., K or 1): of those that are no resets, and the number of resets, or None.
    The difference of two is the exponent of what lies between: -inf if a reset does, as sums alone cannot tell."""

    G: Tensor
    resets: Tensor | None

    def __sub__(self, other: "_Sums") -> Tensor:
        difference = self.G - other.G
        if self.resets is None or other.resets is None:
            return difference
        return difference.masked_fill_(self.resets != other.resets, -torch.inf)

    def exponent(self) -> Tensor:
        return self.G if self.resets is None else self.G.masked_fill(self.resets > 0, -torch.inf)

    def at(self, tokens: slice | Tensor) -> "_Sums":
        return _Sums(self.G[..., tokens, :], None if self.resets is None else self.resets[..., tokens, :])

    @property
    def mT(self) -> "_Sums":
        return _Sums(self.G.mT, None if self.resets is None else self.resets.mT)


def _has_numbers(g: Tensor) -> bool:
    """Whether a look at g can show any: it is not being traced, or fake."""
    return type(g) is Tensor and not torch.compiler.is_compiling()


def _resets(g: Tensor) -> Tensor | None:
    """The gates whose exp is 0 in g's type, fp32 or fp64, or None if a look at the numbers shows none: where there are
    numbers, and a look does not wait for a device."""
    floor = -750.0 if g.dtype == torch.float64 else -104.0
    # NaN in a row is not the others' matter.
    if g.device.type == "cpu" and _has_numbers(g) and not float(g.nan_to_num().amin()) <= floor:
        return None
    return g <= floor


class _Gates:
    """Of one direction, within chunks (..., C, K or 1): the sums at which tokens read and are written, the weights with
    which they read what the chunk meets and leave what they have, and that of what passes through the chunk."""

    def __init__(self, g: Tensor, back: bool, before: bool):
        self.g, self.back, self.before, self.reset = g, back, before, _resets(g)
        if self.reset is None:
            G = g.cumsum(-2)
            self.G, E = _Sums(G, None), _Sums(G - g, None)
        else:
            g, one = g.masked_fill(self.reset, 0), self.reset.to(g.dtype)
            self.G = _Sums(g.cumsum(-2), one.cumsum(-2))
            E = _Sums(self.G.G - g, one.cumsum(-2) - one)
        T = self.G.at(slice(-1, None))
        self.read_at = E if back != before else self.G
        self.written_at = E if back else self.G
        self.reads = (T - self.read_at if back else self.read_at.exponent()).exp()
        self.leaves = (self.written_at.exponent() if back else T - self.written_at).exp()
        self.through = T.exponent().exp()

    def walk(self, left: Tensor, state: Tensor, adjoint: bool = False) -> tuple[Tensor, Tensor]:
        """The state that each chunk meets, (N, n, K, V), if each leaves `left`, and the last; `adjoint`: the same of
        gradients, from the other end."""
        met, decay = torch.empty_like(left), self.through.mT
        n = left.shape[1]
        for i in range(n - 1, -1, -1) if self.back != adjoint else range(n):
            met[:, i] = state
            state = decay[:, i] * state + left[:, i]
        return met, state

    def factors(self, size: int) -> tuple[Tensor, Tensor]:
        """Exponents of q's and k's factors in blocks of so many tokens, from the sum in the middle of a block."""
        M = self.G.at(torch.arange(self.g.shape[-2], device=self.g.device) // size * size + size // 2 - 1)
        return (M - self.read_at, self.written_at - M) if self.back else (self.read_at - M, M - self.written_at)

    def gradient(self, read: Tensor, written: Tensor, through: Tensor) -> Tensor:
        """g's, from what was read and what was written, each times its gradient, and from T's; 0 for resets."""
        at_read, at_written = (-read, written) if self.back else (read, -written)
        at = at_read + at_written
        at[..., -1:, :] += through
        dg = at.flip(-2).cumsum(-2).flip(-2)
        # E is without the token's own.
        if self.back != self.before:
            dg -= at_read
        if self.back:
            dg -= at_written
        return dg if self.reset is None else dg.masked_fill_(self.reset, 0)


def _rounds(sides: list[_Gates]) -> Iterator[tuple[Tensor, Tensor, Tensor, dict[int, Tensor | None]]]:
    """Exponents of q's and k's factors, the pairs of tokens that they serve, and the directions in which they do: with
    the tokens (C, 1) that read in each, from the others, or None where all do both."""
    C, device = sides[0].g.shape[-2], sides[0].g.device
    o = torch.arange(C, device=device)[:, None]
    size = 1  # of blocks that one product serves
    # Of one direction alone, how it is computed shall not depend on tokens that are still to come.
    if len(sides) == 2 and _has_numbers(sides[0].g):
        steepest = max(-float(side.g.nan_to_num().amin()) for side in sides)  # NaN in a row is not the others' matter
        while size < C and size * steepest <= LARGEST:
            size *= 2
    width = C
    while width > size:
        second = o % width >= width // 2
        x = y = torch.full((), -torch.inf, dtype=sides[0].g.dtype, device=device)
        for side in sides:
            of_q, of_k = side.factors(width)
            x, y = torch.where(second != side.back, of_q, x), torch.where(second == side.back, of_k, y)
        pairs = (o // width == (o // width).mT) & (second != second.mT)
        yield x, y, pairs, {i: second != side.back for i, side in enumerate(sides)}
        width //= 2
    if size > 1:
        for i, side in enumerate(sides):
            pairs = (o // size == (o // size).mT) & (o < o.mT if side.back else o > o.mT)
            of_q, of_k = side.factors(size)
            alone: dict[int, Tensor | None] = {i: None}
            yield of_q, of_k, pairs, alone


def _weights(sides: list[_Gates], diagonal: int) -> Tensor:
    """W (N, n, C, C) where a head has one gate."""
    x = sides[0].g.new_full((1, 1), -torch.inf)
    o = torch.arange(sides[0].g.shape[-2], device=x.device)
    for side in sides:
        between = side.written_at.mT - side.read_at if side.back else side.read_at - side.written_at.mT
        x = torch.where(o[:, None] < o if side.back else o[:, None] > o, between, x)
    W = x.exp_()
    W.diagonal(dim1=-2, dim2=-1).fill_(diagonal)
    return W


class _Chunked(torch.autograd.Function):
    """q, k (B H, n, C, K), v (B H, n, C, V), bonus (H, K), gates (B H, n, C, K or 1) and first states (B, H, K, V) of
    the forward and the backward direction, None where there is none -> o (B H, n, C, V) and each direction's last state
    (B, H, K, V)."""

    @staticmethod
    def forward(  # pyright: ignore[reportIncompatibleMethodOverride]
        ctx: Any, q: Tensor, k: Tensor, v: Tensor, bonus: Tensor | None, forward: Tensor | None,
        backward: Tensor | None, first: Tensor | None, last: Tensor | None, twice: bool,
    ) -> tuple[Tensor, ...]:  # fmt: skip
        gs, starts = ([t for t in pair if t is not None] for pair in ((forward, backward), (first, last)))
        B, H = starts[0].shape[:2]
        ctx.given, ctx.diagonal = (forward is not None, backward is not None), 1 + twice
        sides, alike = _sides(ctx.given, gs, bonus is not None), gs[0].shape[-1] == 1
        if alike:
            W = _weights(sides, 1 + twice)
            A = (q @ k.mT).mul_(W)
        else:
            W = None
            A = torch.diag_embed((q * k * _of_heads(bonus, B)).sum(-1) * (1 + twice))
            for x, y, pairs, _ in _rounds(sides):
                A += ((q * x.exp()) @ (k * y.exp()).mT).masked_fill_(~pairs, 0)
        o = A @ v
        ends, met = [], []
        for side, start in zip(sides, starts, strict=True):
            states, end = side.walk((k * side.leaves).mT @ v, start.flatten(0, 1))
            o += (q * side.reads) @ states
            met.append(states)
            ends.append(end.unflatten(0, (B, H)))
        ctx.save_for_backward(q, k, v, bonus, A, W, *gs, *starts, *met)
        return o.view_as(o), *ends  # of a result that was changed in place torch.compile (2.11) takes no gradient

    @staticmethod
    @first_order("decay")
    def backward(ctx: Any, do: Tensor, *dends: Tensor) -> tuple[Tensor | None, ...]:  # pyright: ignore[reportIncompatibleMethodOverride]
        q, k, v, bonus, A, W, *rest = ctx.saved_tensors
        n, (B, H) = len(dends), dends[0].shape[:2]
        gs, met = rest[:n], rest[2 * n :]
        sides, alike = _sides(ctx.given, gs, bonus is not None), W is not None
        dA, dv, dbonus = do @ v.mT, A.mT @ do, None
        if alike:
            P, D = A * dA, dA.mul_(W)
            dq, dk = D @ k, D.mT @ q
            P.diagonal(dim1=-2, dim2=-1).zero_()
            halves = [P] if len(sides) == 1 else [P.triu() if side.back else P.tril() for side in sides]
            reads, writes = [[half.sum(axis) for half in halves] for axis in (-1, -2)]
            reads, writes = ([t.unsqueeze(-1) for t in some] for some in (reads, writes))
        else:
            own = dA.diagonal(dim1=-2, dim2=-1).unsqueeze(-1) * ctx.diagonal
            if bonus is not None:
                dbonus = (own * q * k).sum((1, 2)).view(B, H, -1).sum(0)
                own = own * _of_heads(bonus, B)
            dq, dk = own * k, own * q
            reads, writes = [torch.zeros_like(g) for g in gs], [torch.zeros_like(g) for g in gs]
            for x, y, pairs, served in _rounds(sides):
                fq, fk, D = x.exp(), y.exp(), dA.masked_fill(~pairs, 0)
                qf, kf = q * fq, k * fk
                dqf, dkf = D @ kf, D.mT @ qf
                dq += dqf * fq
                dk += dkf * fk
                read, written = dqf.mul_(qf), dkf.mul_(kf)
                for i, readers in served.items():
                    reads[i] += read if readers is None else read * readers
                    writes[i] += written if readers is None else written * ~readers
        dgs, dstarts = [], []
        for i, (side, states, dend) in enumerate(zip(sides, met, dends, strict=True)):
            dleft, dstart = side.walk((q * side.reads).mT @ do, dend.flatten(0, 1), adjoint=True)
            read, written = (do @ states.mT).mul_(side.reads), (v @ dleft.mT).mul_(side.leaves)
            dq += read
            dk += written
            dv += (k * side.leaves) @ dleft
            read, written = read.mul_(q), written.mul_(k)
            through = (states * dleft).sum(-1).unsqueeze(-2) * side.through
            if alike:
                read, written, through = (t.sum(-1, keepdim=True) for t in (read, written, through))
            # What tokens leave also depends on the chunk's last sum, as does what the backward direction reads.
            crossing = read if side.back else written
            through = through + crossing.sum(-2, keepdim=True)
            dgs.append(side.gradient(reads[i] + read, writes[i] + written, through))
            dstarts.append(dstart.unflatten(0, (B, H)))
        by_direction = [of_one.pop(0) if there else None for of_one in (dgs, dstarts) for there in ctx.given]
        return dq, dk, dv, dbonus, *by_direction, None


def _sides(given: tuple[bool, bool], gs: Sequence[Tensor], before: bool) -> list[_Gates]:
    backs = [back for back, there in zip((False, True), given, strict=True) if there]
    return [_Gates(g, back, before) for g, back in zip(gs, backs, strict=True)]


def _to_chunks(t: Tensor, C: int) -> Tensor:
    """(B, L, H, K) -> (B H, n, C, K); what is added decays nothing and writes nothing."""
    if missing := -t.shape[1] % C:
        t = F.pad(t, (0, 0, 0, 0, 0, missing))
    return t.unflatten(1, (-1, C)).permute(0, 3, 1, 2, 4).flatten(0, 1)


def _of_heads(bonus: Tensor | None, B: int) -> Tensor | float:
    """(H, K) -> (B H, 1, 1, K); 1 if there is none."""
    return 1.0 if bonus is None else bonus.repeat(B, 1)[:, None, None]
