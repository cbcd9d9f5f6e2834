"""The Triton kernels of the selective scan against the definition in float64: small on the CPU, real sizes on a GPU."""

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from mmeff_kernels.selective_scan import (
    division,
    launch,
    selective_scan,
    selective_scan_reference,
    selective_scan_routes,
)

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"


def inputs(rows: int, L: int, channels: int, N: int, groups: int = 1, seed: int = 0) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(seed)

    def draw(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator)

    return {
        "x": draw(rows, L, channels),
        "dt": draw(rows, L, channels) - 1,
        "A": -4 * torch.rand(channels, N, generator=generator),
        "B": draw(rows, L, groups, N),
        "C": draw(rows, L, groups, N),
        "D": draw(channels),
        "z": draw(rows, L, channels),
        "dt_bias": draw(channels),
        "initial_state": draw(rows, channels, N),
    }


def plain(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """x, dt >= 0, A, B and C alone."""
    return {name: tensors[name].abs() if name == "dt" else tensors[name] for name in ("x", "dt", "A", "B", "C")}


def errors(tensors: dict[str, Tensor], dtype: torch.dtype = torch.float32, **options: Any) -> dict[str, float]:
    """Relative Frobenius error of y, of the last state and of every gradient. x, dt, B, C and z are of `dtype`."""
    narrow = ("x", "dt", "B", "C", "z")
    low = {k: t.to(DEVICE, dtype if k in narrow else torch.float32).requires_grad_() for k, t in tensors.items()}
    high = {name: tensor.detach().cpu().double().requires_grad_() for name, tensor in low.items()}
    on_device = {k: v.to(DEVICE) if isinstance(v, Tensor) else v for k, v in options.items()}
    got = selective_scan(**low, **on_device, return_final_state=True, impl="triton")
    want = selective_scan_reference(**high, **options)
    weights = [torch.randn(t.shape, dtype=torch.float64, generator=torch.Generator().manual_seed(1)) for t in want]
    low_weights = [w.to(t) for w, t in zip(weights, got, strict=True)]
    got_grads = torch.autograd.grad(got, tuple(low.values()), low_weights)
    want_grads = torch.autograd.grad(want, tuple(high.values()), weights)
    return {
        name: ((a.cpu() - b).norm() / (b.norm() if b.any() else 1)).item()
        for name, a, b in zip(("y", "state", *tensors), (*got, *got_grads), (*want, *want_grads), strict=True)
    }


@pytest.mark.parametrize("reverse", [False, True], ids=["forward", "reverse"])
@pytest.mark.parametrize(("L", "N"), [(1, 1), (2, 8), (3, 16), (4, 5), (5, 64), (13, 16)])
def test_the_kernels_are_the_definition(L: int, N: int, reverse: bool) -> None:
    tensors = inputs(3, L, 35, N)
    found = errors(plain(tensors), reverse=reverse)
    assert max(found.values()) <= 1e-5, found
    found = errors(tensors, dt_softplus=True, reverse=reverse, lengths=torch.tensor([L, max(1, L // 2), 0]))
    assert max(found.values()) <= 1e-5, found


@pytest.mark.parametrize("reverse", [False, True], ids=["forward", "reverse"])
def test_groups_and_packed_rows(reverse: bool) -> None:
    found = errors(inputs(2, 6, 12, 4, groups=3), dt_softplus=True, reverse=reverse)
    assert max(found.values()) <= 1e-5, found
    tensors = inputs(1, 9, 8, 4) | {"initial_state": torch.randn(3, 8, 4)}
    found = errors(tensors, dt_softplus=True, reverse=reverse, cu_seqlens=torch.tensor([0, 4, 5, 9]))
    assert max(found.values()) <= 1e-5, found


@pytest.mark.parametrize("reverse", [False, True], ids=["forward", "reverse"])
@pytest.mark.parametrize("cut", [(1, 24), (3, 8)], ids=["whole rows", "chunks"])
def test_segments_and_chunks(cut: tuple[int, int], reverse: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Several segments of 8 steps, walked by one program or each by its own; rows that end in the first, in the last,
    at a border."""
    monkeypatch.setattr(launch, "tile", lambda N: replace(division.tile(N), saved=8) if N > 2 else division.tile(N))
    monkeypatch.setattr(launch, "chunks", lambda *_: cut)
    for N in (1, 8):
        tensors = inputs(4, 21, 6, N, groups=2)
        found = errors(tensors, dt_softplus=True, reverse=reverse, lengths=torch.tensor([21, 16, 3, 0]))
        assert max(found.values()) <= 1e-5, found
        found = errors(plain(tensors), reverse=reverse)
        assert max(found.values()) <= 1e-5, found


def test_more_programs_than_a_launch(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(launch, "quarters", lambda _: 1)  # of which each holds three programs
    found = errors(inputs(5, 3, 6, 4), dt_softplus=True)
    assert max(found.values()) <= 1e-5, found


@pytest.mark.parametrize(("N", "programs", "L", "backward", "expected"), [
    (16, 1536, 196, False, (1, 256)),  # three warps a quarter: whole rows
    (16, 1585, 1024, False, (1, 1024)),  # one more than a wave: still better than a pass more
    (16, 384, 1024, False, (4, 256)),  # fewer than a warp a quarter: four chunks fill it
    (16, 768, 1024, False, (1, 1024)),  # two warps a quarter: the pass more costs what it gains
    (16, 768, 1024, True, (2, 512)),  # of a longer step it costs less
    (16, 96, 6084, False, (16, 384)),
    (16, 1, 64, False, (1, 64)),  # chunks are whole segments
    (16, 1, 65, False, (1, 128)),
    (16, 1, 640, False, (10, 64)),
    (16, 1, 1, True, (1, 64)),
    (1, 768, 3136, False, (1, 3136)),
    (1, 768, 3136, True, (2, 1600)),
    (1, 1536, 784, True, (1, 832)),
])  # fmt: skip
def test_the_rule_of_chunks(N: int, programs: int, L: int, backward: bool, expected: tuple[int, int]) -> None:
    assert division.chunks(programs, L, 528, division.tile(N), backward) == expected


def test_decays_near_nought_and_near_one() -> None:
    for scale in (0.0, 1e-6, 30.0):
        tensors = plain(inputs(2, 9, 8, 4))
        found = errors(tensors | {"A": scale * tensors["A"]})
        assert max(found.values()) <= 1e-5, found


def test_half_precision_loses_no_more_than_its_rounding() -> None:
    tensors = inputs(2, 9, 8, 4)
    rounded = {k: t.bfloat16().float() if k in ("x", "dt", "B", "C", "z") else t for k, t in tensors.items()}
    found = errors(rounded, torch.bfloat16, dt_softplus=True)
    assert max(found.values()) <= 1e-2, found
    assert found["state"] <= 1e-5, "the state is kept in fp32"


def test_slices_of_a_projection_need_no_copy() -> None:
    """x, dt, B and C as they lie in the output of one linear map."""
    tensors = plain(inputs(2, 7, 8, 4))
    together = torch.cat([tensors["x"], tensors["dt"], tensors["B"][:, :, 0], tensors["C"][:, :, 0]], -1).to(DEVICE)
    x, dt, B, C = together.split([8, 8, 4, 4], -1)
    y = selective_scan(x, dt, tensors["A"].to(DEVICE), B, C, impl="triton")
    expected, _ = selective_scan_reference(**{name: t.double() for name, t in tensors.items()})
    torch.testing.assert_close(y.cpu(), expected.float())


def test_nan_stays_in_its_row_padding_is_never_read_and_bits_repeat() -> None:
    tensors = {name: t.to(DEVICE) for name, t in inputs(3, 9, 8, 4).items()}
    lengths = torch.tensor([9, 5, 1], device=DEVICE)
    padding = (torch.arange(9, device=DEVICE) >= lengths[:, None])[..., None]

    def run(tensors: dict[str, Tensor], lengths: Tensor | None = None) -> list[Tensor]:
        leaves = {name: t.clone().requires_grad_() for name, t in tensors.items()}
        y = selective_scan(**leaves, dt_softplus=True, lengths=lengths, impl="triton")
        return [y, *torch.autograd.grad(y.sum(), tuple(leaves.values()))]

    clean = run(tensors, lengths)
    torch.use_deterministic_algorithms(True)  # fills every torch.empty with NaN
    try:
        assert all(torch.equal(a, b) for a, b in zip(clean, run(tensors, lengths), strict=True))
    finally:
        torch.use_deterministic_algorithms(False)
    poisoned = dict(tensors)
    for name in ("x", "dt", "B", "C", "z"):
        poisoned[name] = tensors[name].masked_fill(
            padding if tensors[name].dim() == 3 else padding[..., None], torch.nan
        )
    assert all(torch.equal(a, b) for a, b in zip(clean, run(poisoned, lengths), strict=True))
    assert (clean[0].masked_select(padding) == 0).all()

    tensors["x"][1, 3] = float("nan")
    y, gx, *_ = run(tensors)
    assert y[1].isnan().any() and not y[[0, 2]].isnan().any() and not gx[[0, 2]].isnan().any()


def test_what_the_kernels_cannot_do_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    tensors = plain(inputs(2, 3, 4, 2))
    with pytest.raises(ValueError, match="'triton' computes in fp32: x cannot be float64"):
        selective_scan(**{name: t.double().to(DEVICE) for name, t in tensors.items()}, impl="triton")
    with pytest.raises(ValueError, match=r"serves up to 256 states a channel, A \(4, 257\) has 257"):
        selective_scan(**{name: t.to(DEVICE) for name, t in plain(inputs(2, 3, 4, 257)).items()}, impl="triton")
    monkeypatch.delenv("TRITON_INTERPRET", raising=False)
    with pytest.raises(ValueError, match="'triton' needs tensors on CUDA, x is on cpu"):
        selective_scan(**{name: t.cpu() for name, t in tensors.items()}, impl="triton")


def test_a_row_that_32_bits_cannot_count_is_said() -> None:
    x = torch.empty_strided((1, 3, 4), (0, 2**30, 1), device="meta")
    A, B = torch.empty(2, 4, device="meta"), torch.empty(1, 3, 1, 2, device="meta")
    with pytest.raises(ValueError, match=r"3 tokens of x, \(1, 3, 4\) with strides \(0, 1073741824, 1\)"):
        launch.forward(x, x, A, B, B, None, None, None, None, None, True, 1, 0, 0, False, False, False)


@pytest.mark.gpu
@pytest.mark.parametrize("reverse", [False, True], ids=["forward", "reverse"])
@pytest.mark.parametrize(("L", "N"), [
    (63, 16), (64, 1), (65, 8), (127, 64), (197, 16), (513, 1), (730, 8), (1025, 64), (2345, 16),
])  # fmt: skip
def test_real_sizes(L: int, N: int, reverse: bool) -> None:
    tensors = inputs(3, L, 100, N)
    found = errors(tensors, dt_softplus=True, reverse=reverse, lengths=torch.tensor([L, L // 2, 1]))
    assert max(found.values()) <= 1e-5, found
    found = errors(tensors, torch.bfloat16, dt_softplus=True, reverse=reverse)
    assert max(found.values()) <= 1e-2, found


@pytest.mark.gpu
def test_more_elements_than_32_bits_count() -> None:
    """2.3e9 elements: rows from the first, the middle and the last part are what they are alone."""
    rows, L, channels, N = 30_000, 197, 384, 16
    generator = torch.Generator(DEVICE).manual_seed(0)

    def draw(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator, device=DEVICE, dtype=torch.bfloat16)

    tensors = {
        "x": draw(rows, L, channels),
        "dt": draw(rows, L, channels),
        "B": draw(rows, L, N),
        "C": draw(rows, L, N),
    }
    A = -torch.rand(channels, N, device=DEVICE)

    def run(given: dict[str, Tensor]) -> list[Tensor]:
        leaves = {name: t.detach().requires_grad_() for name, t in given.items()}
        y = selective_scan(**leaves, A=A, dt_softplus=True, impl="triton")
        return [y.detach(), *torch.autograd.grad(y, tuple(leaves.values()), torch.ones_like(y))]

    some = [0, 1, 14_999, 15_000, 29_998, 29_999]
    found = [t[some].float() for t in run(tensors)]
    alone = [t.float() for t in run({name: t[some] for name, t in tensors.items()})]
    for a, b in zip(found, alone, strict=True):
        assert (a - b).norm() <= 5e-3 * b.norm()


@pytest.mark.gpu
@pytest.mark.parametrize(("channels", "N", "groups"), [(96, 1, 1), (200, 16, 2), (33, 8, 1)])
@pytest.mark.parametrize(("H", "W"), [(1, 1), (7, 7), (14, 14), (56, 57), (8, 64)])
def test_routes_over_grids(H: int, W: int, channels: int, N: int, groups: int) -> None:
    """Rows, columns and their reverses in one call: forward and every gradient against the definition in float64."""
    rows, L = 2, H * W
    raster = torch.arange(L)
    columns = raster.view(H, W).T.flatten()
    table = torch.stack([raster, columns, raster.flip(0), columns.flip(0)])
    generator = torch.Generator().manual_seed(0)
    shapes = {
        "x": (rows, L, channels), "dt": (4, rows, L, 6), "A": (4, channels, N), "B": (4, rows, L, groups, N),
        "C": (4, rows, L, groups, N), "D": (4, channels), "dt_bias": (4, channels), "dt_weight": (4, channels, 6),
        "z": (rows, L, channels),
    }  # fmt: skip
    drawn = {name: torch.randn(shape, generator=generator) for name, shape in shapes.items()}
    drawn["A"] = -drawn["A"].abs()
    low = {name: t.to(DEVICE).requires_grad_() for name, t in drawn.items()}
    high = {name: t.double().requires_grad_() for name, t in drawn.items()}
    y, _ = selective_scan_routes(**low, routes=table.to(DEVICE), dt_softplus=True, impl="triton")
    want, _ = selective_scan_routes(**high, routes=table, dt_softplus=True, impl="reference")
    weight = torch.randn(want.shape, dtype=torch.float64, generator=generator)
    grads = torch.autograd.grad(y, tuple(low.values()), weight.to(y))
    wanted = torch.autograd.grad(want, tuple(high.values()), weight)
    for name, a, b in zip(("y", *shapes), (y, *grads), (want, *wanted), strict=True):
        assert (a.cpu() - b).norm() <= 1e-5 * b.norm(), name
