"""How a scan is divided among the programs of a GPU: tiles of states and channels, chunks of rows."""

from dataclasses import dataclass
from functools import lru_cache

import torch

#: What the steps of a chunk are a multiple of: the forward pass keeps states at such steps only.
WHOLE = 64


@dataclass(frozen=True)
class Tile:
    """What one warp does: the states (BN, a power of two >= N) and channels that it holds, and its steps at a time.

    Also what decides how rows are cut, measured on an H200: the share of a quarter of a multiprocessor's instructions
    that one warp, two, three... on it issue, and instructions a step of the pass that finds what chunks start with, of
    the forward pass and of the backward pass.
    """

    BN: int
    BD: int
    T: int
    T_backward: int
    #: Steps between two states that the forward pass keeps for the backward pass.
    saved: int = 64
    pace: tuple[float, ...] = (0.45, 0.75, 0.85)
    ends: int = 132
    forward: int = 228
    backward: int = 604

    @property
    def registers(self) -> int:
        """Those of a thread that let as many warps share a quarter as `pace` has entries."""
        return 512 // len(self.pace) // 8 * 8


def tile(N: int) -> Tile:
    """Up to 512 numbers of state a warp, 16 a thread, whose counts and pace serve most tiles: ratios differ little.

    Few states leave room for more steps at a time, which lone warps need, and to keep a state before each group of
    steps of the backward pass, which then repeats nothing of the forward pass.
    """
    BN = 1 << (N - 1).bit_length()
    if BN <= 2:
        pace = (0.45, 0.75, 0.8, 0.85)
        return Tile(BN, 32, 8, 4, saved=4, pace=pace, ends=45, forward=59, backward=117)
    return Tile(BN, min(32, max(2, 512 // BN)), 4, 2 if BN >= 8 else 4)


@lru_cache(maxsize=1024)
def chunks(programs: int, L: int, quarters: int, tile: Tile, backward: bool) -> tuple[int, int]:
    """Chunks that each row is cut into, and their steps, where `programs` tiles of channels would walk whole rows.

    The division that takes the fewest cycles on a GPU of so many quarters of multiprocessors. Cut rows take another
    pass, before the main one. Programs beyond those that the quarters hold wait for a next wave, and fewer leave them
    waiting for memory.
    """
    best = (float("inf"), 1, L)
    held = len(tile.pace)
    for wanted in range(1, max(1, 2 * held * quarters // programs) + 1):
        span = -(-L // wanted)
        span = -(-span // WHOLE) * WHOLE
        count = -(-L // span)
        waves, rest = divmod(programs * count, held * quarters)
        cycles = waves * held / tile.pace[-1]
        if rest:
            warps = -(-rest // quarters)
            cycles += warps / tile.pace[warps - 1]
        instructions = tile.backward if backward else tile.forward
        cycles *= min(span, L) * (instructions + (tile.ends if count > 1 else 0))
        best = min(best, (cycles, count, span))
    return best[1:]


@lru_cache
def quarters(device: torch.device) -> int:
    """Quarters of multiprocessors of a GPU, each with an instruction a cycle; for the interpreter those of an H200."""
    return 4 * torch.cuda.get_device_properties(device).multi_processor_count if device.type == "cuda" else 528
