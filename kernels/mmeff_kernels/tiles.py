"""What the matrix-shaped kernels have in common: where a row lies, and products of tiles."""

# pyright: reportGeneralTypeIssues=false, reportPossiblyUnboundVariable=false

import triton
import triton.language as tl


@triton.jit
def place(i, p_lengths, L, LENGTHS: tl.constexpr):
    """Of row i: the row in memory, where in it its tokens begin, and their number. LENGTHS: rows have L tokens (0), a
    number of their own (1), or lie one after the other in one row (2)."""
    i_r, first, length = i, i * 0, (i * 0 + L).to(tl.int32)
    if LENGTHS == 1:
        length = tl.load(p_lengths + i).to(tl.int32)
    if LENGTHS == 2:
        i_r, first = i * 0, tl.load(p_lengths + i).to(tl.int64)
        length = (tl.load(p_lengths + i + 1) - first).to(tl.int32)
    return i_r, first, length


@triton.jit
def product(b_a, b_b, DOT: tl.constexpr, PRECISION: tl.constexpr):
    """The matrix product of two tiles, of operands rounded to DOT, in fp32."""
    return tl.dot(b_a.to(DOT), b_b.to(DOT), input_precision=PRECISION)
