"""How a scan is divided among the programs of a GPU: tiles of states and channels, chunks of rows."""

from dataclasses import dataclass
from functools import lru_cache

import torch

#: Instructions that a quarter of a multiprocessor issues a cycle with one, two and three warps of these kernels on it.
PACE = (0.45, 0.75, 0.85)
#: Instructions a step of 32 channels of 16 states: of the pass that finds what chunks start with, of the forward pass,
#: of the backward pass. For other tiles the ratios are about the same.
ENDS, FORWARD, BACKWARD = 132, 228, 604
#: What the steps of a chunk are a multiple of, for the forward pass keeps states at such steps.
WHOLE = 64


@dataclass(frozen=True)
class Tile:
    """What one warp holds: BN states (a power of two >= N) of BD channels; the steps at a time forward and backward;
    the steps between two states that the forward pass keeps for the backward pass."""

    BN: int
    BD: int
    T: int
    T_backward: int
    saved: int


def tile(N: int) -> Tile:
    """Up to 512 numbers of state a warp, 16 a thread; few states leave room for more steps at a time, and are kept
    before each group of steps of the backward pass, which then repeats nothing of the forward pass."""
    BN = 1 << (N - 1).bit_length()
    if BN <= 2:
        return Tile(BN, 32, 8, 4, saved=4)
    return Tile(BN, min(32, max(2, 512 // BN)), 4, 2 if BN >= 8 else 4, saved=64)


@lru_cache(maxsize=1024)
def chunks(programs: int, L: int, quarters: int, instructions: int) -> tuple[int, int]:
    """Chunks that each row is cut into, and their steps, where `programs` tiles of channels would walk whole rows.

    The division that takes the fewest cycles on a GPU of so many quarters of multiprocessors, where the main pass takes
    so many instructions a step, and a pass of ENDS more comes before it if rows are cut. A quarter holds three warps;
    programs beyond that wait for a next wave, and fewer leave it waiting for memory. Chunks are whole times WHOLE.
    """
    best = (float("inf"), 1, L)
    for wanted in range(1, max(1, 6 * quarters // programs) + 1):
        span = -(-L // wanted)
        span = -(-span // WHOLE) * WHOLE
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
