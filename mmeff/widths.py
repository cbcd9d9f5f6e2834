"""Widths of the layers inside a block."""


def aligned(width: int) -> int:
    """The width, rounded up to a multiple of 8: products of 16-bit numbers on a GPU read 8 of them at once, and take
    twice as long over rows of other widths."""
    return -(-width // 8) * 8
