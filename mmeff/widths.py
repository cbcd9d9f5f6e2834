"""Widths of the layers inside a block."""

#: Products of 16-bit numbers on a GPU read 8 of them at once: over rows of other widths they take twice as long.
MULTIPLE = 8


def aligned(width: int) -> int:
    """The width, rounded up to a multiple of 8."""
    return -(-width // MULTIPLE) * MULTIPLE


def hidden_width(dim: int, ratio: float) -> int:
    """ratio * dim, rounded up to a multiple of 8. ValueError if it is less than one channel."""
    hidden = int(ratio * dim)
    if hidden < 1:
        raise ValueError(f"ratio {ratio} of dim {dim} leaves no hidden channel")
    return aligned(hidden)
