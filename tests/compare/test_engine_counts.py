"""FLOPs, states and bytes of every mixer equal those counted by hand. A new mixer wants a line in HAND."""

import sys
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import mmeff.mixers
from mmeff.cli.compare import contenders_of
from mmeff.compare import workers
from mmeff.compare.counts import count
from mmeff.compare.entrants import field_of
from mmeff.compare.parts import prepared
from mmeff.compare.plan import Plan
from mmeff.feedforward import MoE
from mmeff.mixers import Attention, BiMamba, Mixer

#: Width, grid and tokens; head width, state size and expansion that the mixers below are given.
D, GRID, L = 32, (8, 8), 64
K, N, E = 16, 4, 64
H = D // K
#: Tokens of a chunk of the decaying states' kernels: with a gate for each head, and for each feature.
CHUNK, CHUNK_EACH, HALVINGS = 64, 32, 5
#: Rank of the step sizes that mixers of selective scans have by default.
R = 8


def linear(i: int, o: int) -> int:
    """Multiplications and additions of a linear map of all tokens."""
    return 2 * L * i * o


def conv(channels: int, taps: int) -> int:
    return 2 * L * channels * taps


def decay(H: int, K: int, V: int, both: bool, each: bool = False) -> tuple[int, int]:
    """Forward and backward: products with states, of q and k within chunks, and of the weights with v."""
    chunk, levels = (CHUNK_EACH, HALVINGS) if each else (CHUNK, 1)
    states = 2 * L * H * K * V * (1 + both)
    pairs, values = 2 * L * H * chunk * K * levels, 2 * L * H * chunk * V
    return 2 * states + pairs + values, 5 * states + 3 * pairs + 2 * values


def scan(channels: int, N: int, routes: int) -> tuple[int, int]:
    steps = L * channels * routes
    return steps * (7 * N + 3), steps * (19 * N + 9)


@dataclass(frozen=True)
class Hand:
    """What a mixer is given besides its width, and its counts.

    products  FLOPs of linear maps and convolutions forward; backward has twice as many
    again     of those, FLOPs of products that the backward pass takes once more
    own       FLOPs of its own operator, forward and backward
    state     numbers of its recurrent state
    """

    products: int
    own: tuple[int, int] = (0, 0)
    state: int = 0
    again: int = 0
    given: dict[str, Any] = field(default_factory=dict)


HEADS = {"head_dim": K}
MAMBA = {"state": N, "expand": 2}
#: Attention's two products of all pairs, and five backward, where torch's fused kernels serve; four where a learned or
#: blockwise mask keeps them out.
PAIRS = 2 * L * L * D
SUMS = 2 * L * H * K * K
#: What each of the scans reads: r, B and C of the inner channels, and the step sizes from r.
ROUTE = linear(E, R + 2 * N) + linear(R, E)
#: With four outputs that fill the width up to a multiple of 8.
SSD_IN = linear(D, 2 * E + 2 * N + E // K + 4)

HAND = {
    "Attention": Hand(linear(D, 4 * D), (2 * PAIRS, 5 * PAIRS), given=HEADS),
    "BiMamba": Hand(
        linear(D, 2 * E) + 2 * conv(E, 4) + 2 * ROUTE + linear(E, D), scan(E, N, 2), 2 * E * N, 2 * linear(R, E), MAMBA
    ),
    "BiSSD": Hand(
        SSD_IN + conv(E + 2 * N, 7) + linear(E, D),
        decay(E // K, N, K, both=True),
        2 * E * N,
        given={"state": N, **HEADS},
    ),
    "GLA": Hand(
        conv(D, 9) + linear(D, 2 * D // 2 + 2 * D + 16) + linear(16, 2 * D // 2) + linear(D, D),
        decay(H, K // 2, K, both=True, each=True),
        2 * H * K // 2 * K,
        given=HEADS,
    ),
    "GatedConv": Hand(linear(D, 4 * D) + conv(D, 49) + linear(2 * D, D), given={"expand": 2}),
    "HGRN2": Hand(linear(D, 4 * D), decay(H, K, K, both=True, each=True), 2 * H * K * K, given=HEADS),
    "Hydra": Hand(
        linear(D, 2 * E + 4 * N + 2 * E // K) + conv(E + 4 * N, 7) + linear(E, E // K) + linear(E, D),
        tuple(2 * flops for flops in decay(E // K, N, K, both=False)),  # type: ignore[arg-type]
        2 * E * N,
        given={"state": N, **HEADS},
    ),
    "LinearAttention": Hand(linear(D, 4 * D) + conv(D, 9), (2 * SUMS, 4 * SUMS), given=HEADS),
    "MILA": Hand(2 * linear(D, 2 * D) + linear(D, D) + 2 * conv(D, 9), (2 * SUMS, 4 * SUMS), given=HEADS),
    "MLSTM": Hand(
        linear(D, 2 * E) + conv(E, 9) + linear(K, 3 * E) + linear(3 * E, 2 * E // K) + linear(E, D),
        tuple(a + b for a, b in zip(decay(E // K, K, K, False), decay(E // K, K, 1, False), strict=True)),  # type: ignore[arg-type]
        E * K + E,
        given=HEADS,
    ),
    "Mamba": Hand(linear(D, 2 * E) + conv(E, 4) + ROUTE + linear(E, D), scan(E, N, 1), E * N, linear(R, E), MAMBA),
    "Parallel": Hand(
        linear(D, 4 * D) + linear(D, 2 * E) + 2 * conv(E, 4) + 2 * (linear(E, R + 32) + linear(R, E)) + linear(E, D)
        + linear(D, D),
        (2 * PAIRS + scan(E, 16, 2)[0], 5 * PAIRS + scan(E, 16, 2)[1]),
        2 * E * 16,
        2 * linear(R, E),
        {"mixers": [Attention, BiMamba]},
    ),
    "RWKV6": Hand(
        linear(D, 5 * 8) + 5 * linear(8, D) + 5 * linear(D, D) + linear(D, 8) + linear(8, D),
        decay(H, K, K, both=True, each=True),
        2 * H * K * K,
        given={"mix_rank": 8, "decay_rank": 8, **HEADS},
    ),
    "Retention": Hand(linear(D, 6 * D) + linear(2 * D, D), decay(H, K, 2 * K, both=True), 4 * H * K * K, given=HEADS),
    "SS2D": Hand(
        linear(D, E) + conv(E, 9) + 4 * ROUTE + linear(E, D), scan(E, N, 4), 4 * E * N, 4 * linear(R, E), MAMBA
    ),
    "SSD": Hand(
        SSD_IN + conv(E + 2 * N, 4) + linear(E, D),
        decay(E // K, N, K, both=False),
        E * N,
        given={"state": N, **HEADS},
    ),
    "SeparableScan": Hand(
        linear(D, E) + conv(E, 9) + 4 * ROUTE + linear(E, D),
        (4 * L * E * (9 * N + 3), 4 * L * E * (25 * N + 9)),
        given=MAMBA,
    ),
    "SlidingAttention": Hand(
        linear(D, 4 * D), (2 * 2 * L * 3 * 16 * D, 4 * 2 * L * 3 * 16 * D), given={"window": 16, **HEADS}
    ),
    "TimeFrequency": Hand(
        linear(D, E) + conv(E, 9) + 2 * ROUTE + 2 * (linear(E, R + 4) + linear(R, E)) + linear(E, E) + linear(E, D),
        tuple(a + b for a, b in zip(scan(E, N, 2), scan(E, 2, 2), strict=True)),  # type: ignore[arg-type]
        2 * E * N + 2 * E * 2,
        4 * linear(R, E),
        {"expand": 2, "time_state": N, "frequency_state": 2},
    ),
    "VSSD": Hand(
        SSD_IN + conv(E + 2 * N, 9) + linear(E, D),
        (2 * 2 * L * E * N, 4 * 2 * L * E * N),
        given={"state": N, **HEADS},
    ),
    "VisionRWKV": Hand(linear(D, 4 * D), scan(2 * D, 1, 2), 2 * 2 * D),
    "WavefrontScan": Hand(
        linear(D, E) + conv(E, 9) + 4 * (linear(E, 2 * R + 3 * N) + 2 * linear(R, E)) + linear(E, D),
        (4 * L * E * (14 * N + 4), 4 * L * E * (36 * N + 14)),
        given=MAMBA,
    ),
    "WindowAttention": Hand(
        linear(D, 4 * D), (2 * 2 * L * 16 * D, 4 * 2 * L * 16 * D), given={"window": 4, **HEADS}
    ),
}  # fmt: skip


class Experts(Attention):
    """Attention with a table of angles, then a mixture of experts."""

    def __init__(self, dim: int):
        super().__init__(dim)
        self.moe = MoE(dim)

    def forward(self, x: Tensor, grid: tuple[int, ...], lengths: Tensor | None = None) -> Tensor:
        return self.moe(super().forward(x, grid, lengths))


class Alone(nn.Module):
    """A mixer whose input wants a gradient too, as in the midst of a model."""

    def __init__(self, mixer: nn.Module, grid: tuple[int, ...] = GRID):
        super().__init__()
        self.mixer, self.grid = mixer, grid
        self.offset = nn.Parameter(torch.zeros(D))

    def forward(self, x: Tensor) -> Tensor:
        return self.mixer(x + self.offset, self.grid)


@pytest.mark.parametrize("name", [name for name in mmeff.mixers.__all__ if getattr(mmeff.mixers, name) is not Mixer])
def test_counts_of_every_mixer_are_those_by_hand(name: str) -> None:
    assert name in HAND, f"{name} is new: count its FLOPs and its state by hand, in a line of HAND"
    hand = HAND[name]
    found = count(Alone(getattr(mmeff.mixers, name)(D, **hand.given)), torch.zeros(1, L, D))
    forward, backward = hand.own
    assert found.forward_flops == hand.products + forward
    assert found.forward_macs == found.forward_flops // 2
    assert found.training_flops == 3 * hand.products + hand.again + forward + backward
    assert found.state_bytes == (4 * hand.state or None)


def test_counting_leaves_operators_tables_and_model_as_they_were() -> None:
    mixer = Alone(BiMamba(D)).train()
    x = torch.randn(2, L, D)
    before = mixer(x)
    count(mixer, x)
    assert torch.equal(mixer(x), before) and mixer.training
    assert type(before) is torch.Tensor


@pytest.mark.parametrize(
    ("recipe", "length"), [("vision/digits", 56.0), ("audio/tones_patches", 4.0), ("text/glosses", 100.0)]
)
@pytest.mark.parametrize("backbone", ["linear", "retention", "window"])
def test_what_is_measured_after_counting_has_data(recipe: str, length: float, backbone: str) -> None:
    """Tables of positions, which are kept for a length, are made anew where counting has made them without data."""
    plan = Plan((f"recipes/{recipe}.yaml",), (f"recipes/backbones/{backbone}.yaml",))
    entered = field_of(contenders_of(plan), {}, None, print)
    (contender,) = entered.contenders.values()
    given = entered.signals(length, torch.device("cpu"))(1)
    model = entered.model(contender, length).eval()
    count(model, *given)
    assert type(model(*given)) is Tensor
    first = model(*given)
    count(model, *given)
    assert torch.equal(model(*given), first)


def test_many_processes_find_what_one_does(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    backbones = "recipes/backbones/attention.yaml", "recipes/backbones/vim.yaml"
    entered = contenders_of(Plan(("recipes/vision/digits.yaml",), backbones))
    entered.append(entered[-1].with_backbone(depth=0))
    vision = field_of(entered, {}, None, print)
    work = partial(prepared, replace(vision, contenders={}, failed={}), 28.0, 1, torch.device("cpu"))
    monkeypatch.setattr(workers, "LEAST", 2)
    (tmp_path / "mmeff").touch()
    monkeypatch.setattr(sys.modules["__main__"], "__file__", str(tmp_path / "mmeff"), raising=False)
    pools, found = [], []
    for cores in (2, 4):
        monkeypatch.setattr(workers.os, "cpu_count", lambda cores=cores: cores)
        workers.close()
        pools.append(workers._pool())
        found.append(workers.each(work, entered))
    assert pools[0] is None and pools[1] is not None
    workers.close()
    monkeypatch.setattr(sys.modules["__main__"], "__file__", "/home/me/mine.py")
    assert workers._pool() is None, "what another's program does must not be done again"
    workers.close()
    for counts in found:
        assert "depth is 0" in str(counts.pop())
    assert found[0] == found[1]
    attention = found[0][0]
    assert isinstance(attention, dict) and attention["training_flops"] > 2 * attention["forward_flops"] > 0


def test_work_that_depends_on_the_data_is_not_counted() -> None:
    model = Alone(Experts(D))
    assert count(model, torch.zeros(1, L, D)).forward_flops is None
    assert type(model(torch.zeros(1, L, D))) is torch.Tensor, "tables without data are left over"


def test_bytes_are_those_that_operators_read_and_write() -> None:
    # x (L, D), weight (D, D) and bias (D,) in, y out; views of the weight and of x move nothing.
    found = count(nn.Linear(D, D), torch.zeros(L, D))
    assert found.bytes_moved == 4 * (L * D + D * D + D + L * D)
    # In bf16 the fp32 values are read once to be written as bf16, and the product reads and writes those.
    cast = (4 + 2) * (L * D + D * D + D)
    assert count(nn.Linear(D, D), torch.zeros(L, D), bf16=True).bytes_moved == cast + 2 * (L * D + D * D + D + L * D)


def test_convolutions_count_twice_backward_with_groups_and_transposed_too() -> None:
    grouped, transposed = nn.Conv1d(D, D, 5, padding=2, groups=D), nn.ConvTranspose1d(D, D, 3, stride=2)
    found = count(nn.Sequential(nn.Conv1d(D, D, 1), grouped, transposed), torch.zeros(1, D, L))
    first, others = 2 * L * D * D, 2 * L * D * 5 + 2 * L * D * D * 3
    assert found.forward_flops == first + others
    assert found.training_flops == 2 * first + 3 * others  # nobody asks for the gradient of the raw signal
