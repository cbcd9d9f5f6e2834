"""The selective scan: the definition against the dense matrix, the torch path against the definition in float64."""

import itertools
import subprocess
import sys
from typing import Any, Literal

import pytest
import torch
from torch import Tensor

from mmeff_kernels.selective_scan import (
    blocked,
    selective_scan,
    selective_scan_fn,
    selective_scan_reference,
    selective_scan_step,
)


def inputs(L: int, N: int, rows: int = 3, channels: int = 6, decay: float = 1.0) -> dict[str, Tensor]:
    """float64. `decay` scales dt A: the larger, the faster a state is forgotten."""
    generator = torch.Generator().manual_seed(L * 100 + N)
    draw = {
        "x": torch.randn(rows, L, channels, generator=generator),
        "dt": torch.rand(rows, L, channels, generator=generator),
        "A": -decay * torch.rand(channels, N, generator=generator),
        "B": torch.randn(rows, L, N, generator=generator),
        "C": torch.randn(rows, L, N, generator=generator),
        "D": torch.randn(channels, generator=generator),
    }
    # Rounded to fp32 first, so that both precisions start from the same numbers.
    return {name: tensor.double().requires_grad_() for name, tensor in draw.items()}


def dense(x: Tensor, dt: Tensor, A: Tensor, B: Tensor, C: Tensor, D: Tensor, reverse: bool) -> Tensor:
    """y = M x + D x, a triangular matrix a row and channel: M_ts = C_t exp(A sum of dt over (s, t]) dt_s B_s."""
    rows, L, channels = x.shape
    y = torch.zeros_like(x)
    for b, d in itertools.product(range(rows), range(channels)):
        M = torch.zeros(L, L, dtype=x.dtype)
        for t, s in itertools.product(range(L), range(L)):
            if (s >= t) if reverse else (s <= t):
                between = dt[b, t:s, d] if reverse else dt[b, s + 1 : t + 1, d]
                M[t, s] = (C[b, t] * torch.exp(A[d] * between.sum()) * dt[b, s, d] * B[b, s]).sum()
        y[b, :, d] = (M + torch.diag(D[d].expand(L))) @ x[b, :, d]
    return y


@pytest.fixture(params=[False, True], ids=["forward", "reverse"])
def reverse(request: pytest.FixtureRequest) -> bool:
    return request.param


@pytest.mark.parametrize(("L", "N"), [(1, 1), (2, 3), (9, 4)])
def test_reference_is_the_dense_matrix(L: int, N: int, reverse: bool) -> None:
    tensors = inputs(L, N, rows=2, channels=2)
    y, _ = selective_scan_reference(**tensors, reverse=reverse)
    torch.testing.assert_close(y, dense(**tensors, reverse=reverse))


def with_all(tensors: dict[str, Tensor], groups: int = 2) -> dict[str, Tensor]:
    """The same with a gate, a bias of dt, an initial state, and B and C in groups."""
    generator = torch.Generator().manual_seed(7)
    rows, L, channels = tensors["x"].shape
    N = tensors["A"].shape[1]

    def draw(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator).double().requires_grad_()

    return {
        **tensors,
        "dt": draw(rows, L, channels),
        "B": draw(rows, L, groups, N),
        "C": draw(rows, L, groups, N),
        "z": draw(rows, L, channels),
        "dt_bias": draw(channels),
        "initial_state": draw(rows, channels, N),
    }


def test_reference_passes_gradcheck(reverse: bool) -> None:
    tensors = with_all(inputs(4, 2, rows=2, channels=2))

    def scan(*values: Tensor) -> tuple[Tensor, Tensor]:
        named = dict(zip(tensors, values, strict=True))
        return selective_scan_reference(**named, dt_softplus=True, reverse=reverse, lengths=torch.tensor([4, 3]))

    assert torch.autograd.gradcheck(scan, tuple(tensors.values()))


def test_a_gate_a_bias_and_groups_are_what_they_say(reverse: bool) -> None:
    t = with_all(inputs(5, 3))
    y, state = selective_scan_reference(**t, dt_softplus=True, reverse=reverse)
    dt = torch.nn.functional.softplus(t["dt"] + t["dt_bias"])
    for g, own in enumerate((slice(0, 3), slice(3, 6))):
        half, half_state = selective_scan_reference(
            t["x"][..., own], dt[..., own], t["A"][own], t["B"][:, :, g], t["C"][:, :, g], t["D"][own],
            initial_state=t["initial_state"][:, own], reverse=reverse,
        )  # fmt: skip
        torch.testing.assert_close(y[..., own], half * t["z"][..., own] * t["z"][..., own].sigmoid())
        torch.testing.assert_close(state[:, own], half_state)


def test_reference_of_a_padded_row_is_the_reference_of_the_shorter_row(reverse: bool) -> None:
    tensors = with_all(inputs(7, 3))
    y, state = selective_scan_reference(**tensors, reverse=reverse, lengths=torch.tensor([7, 4, 1]))
    for row, length in enumerate((7, 4, 1)):
        short = {k: v[row : row + 1, :length] if v.shape[:2] == (3, 7) else v for k, v in tensors.items()}
        short["initial_state"] = tensors["initial_state"][row : row + 1]
        expected, last = selective_scan_reference(**short, reverse=reverse)
        torch.testing.assert_close(y[row : row + 1, :length], expected)
        torch.testing.assert_close(state[row : row + 1], last)
        assert (y[row, length:] == 0).all()


def packed(tensors: dict[str, Tensor], lengths: list[int]) -> tuple[dict[str, Tensor], Tensor]:
    """The rows of `tensors`, cut to their lengths, one after the other; and where each begins and ends."""
    rows = {
        name: torch.cat([t[row, :length] for row, length in enumerate(lengths)])[None]
        for name, t in tensors.items()
        if name in ("x", "dt", "B", "C", "z")
    }
    return {**tensors, **rows}, torch.tensor([0, *itertools.accumulate(lengths)])


@pytest.mark.parametrize("impl", ["reference", "torch"])
def test_packed_rows_are_padded_rows(impl: Literal["reference", "torch"], reverse: bool) -> None:
    tensors, lengths = with_all(inputs(7, 3)), [7, 4, 1]
    y, state = selective_scan(
        **tensors, dt_softplus=True, lengths=torch.tensor(lengths), return_final_state=True, impl=impl, reverse=reverse
    )
    rows, cu_seqlens = packed(tensors, lengths)
    y_packed, state_packed = selective_scan(
        **rows, dt_softplus=True, cu_seqlens=cu_seqlens, return_final_state=True, impl=impl, reverse=reverse
    )
    torch.testing.assert_close(y_packed[0], torch.cat([y[row, :length] for row, length in enumerate(lengths)]))
    torch.testing.assert_close(state_packed, state)


def test_a_scan_goes_on_from_its_last_state() -> None:
    tensors = with_all(inputs(9, 3))
    whole, last = selective_scan(**tensors, dt_softplus=True, return_final_state=True)
    state, ys = tensors["initial_state"], []
    for part in (slice(0, 4), slice(4, 5), slice(5, 9)):
        cut = {name: t[:, part] if t.shape[:2] == (3, 9) else t for name, t in tensors.items()}
        y, state = selective_scan(**{**cut, "initial_state": state}, dt_softplus=True, return_final_state=True)
        ys.append(y)
    torch.testing.assert_close(torch.cat(ys, 1), whole)
    torch.testing.assert_close(state, last)


def test_steps_are_the_scan() -> None:
    tensors = with_all(inputs(6, 3))
    whole, last = selective_scan(**tensors, dt_softplus=True, return_final_state=True)
    state = tensors.pop("initial_state")
    for t in range(6):
        now = {name: v[:, t] if v.shape[:2] == (3, 6) else v for name, v in tensors.items()}
        y, state = selective_scan_step(state, **now, dt_softplus=True)
        torch.testing.assert_close(y, whole[:, t])
    torch.testing.assert_close(state, last)


def errors(tensors: dict[str, Tensor], dtype: torch.dtype, **options: Any) -> dict[str, float]:
    """Relative Frobenius error of y, the last state and of every gradient against the reference in float64."""
    low = {name: tensor.detach().to(dtype).requires_grad_() for name, tensor in tensors.items()}
    got, want = (
        selective_scan(**low, **options, return_final_state=True),
        selective_scan_reference(**tensors, **options),
    )
    weights = [torch.randn(t.shape, dtype=torch.float64, generator=torch.Generator().manual_seed(1)) for t in want]
    got_grads = torch.autograd.grad(
        got, tuple(low.values()), [w.to(t.dtype) for w, t in zip(weights, got, strict=True)]
    )
    want_grads = torch.autograd.grad(want, tuple(tensors.values()), weights)
    # A state that never passes on has a gradient of exactly 0 for A.
    return {
        name: ((a - b).norm() / (b.norm() if b.any() else 1)).item()
        for name, a, b in zip(("y", "state", *tensors), (*got, *got_grads), (*want, *want_grads), strict=True)
    }


@pytest.mark.parametrize("block", [1 << 18, 200], ids=["one block", "many blocks"])
@pytest.mark.parametrize("N", [1, 8, 16])
@pytest.mark.parametrize("L", [1, 2, 3, 7, 63, 64, 65, 197])
def test_torch_path_is_the_reference(
    L: int, N: int, block: int, reverse: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(blocked, "_BLOCK", block)
    for lengths in (None, torch.tensor([L, max(1, L // 2), 1])):
        found = errors(inputs(L, N), torch.float32, reverse=reverse, lengths=lengths)
        assert max(found.values()) <= 1e-5, found
        found = errors(with_all(inputs(L, N)), torch.float32, dt_softplus=True, reverse=reverse, lengths=lengths)
        assert max(found.values()) <= 1e-5, found


@pytest.mark.parametrize("decay", [0.0, 1e-6, 30.0, 1e4], ids=str)
def test_torch_path_keeps_and_forgets(decay: float, reverse: bool) -> None:
    found = errors(inputs(130, 4, decay=decay), torch.float32, reverse=reverse)
    # A decay below the smallest fp32 number is 0 there and not in fp64: no relative error of dA can be asked for.
    found.pop("A") if decay == 1e4 else None
    assert max(found.values()) <= 1e-5, found


def test_torch_path_in_double_is_exact(reverse: bool) -> None:
    found = errors(inputs(65, 8), torch.float64, reverse=reverse, lengths=torch.tensor([65, 30, 1]))
    assert max(found.values()) <= 1e-13, found


def test_huge_steps_and_decays_stay_finite(reverse: bool) -> None:
    tensors = {name: tensor.detach().float() for name, tensor in inputs(20, 4).items()}
    tensors["dt"] *= 1e20
    tensors["A"] *= 1e18
    tensors = {name: tensor.requires_grad_() for name, tensor in tensors.items()}
    y = selective_scan(**tensors, reverse=reverse)
    assert y.isfinite().all()
    assert all(grad.isfinite().all() for grad in torch.autograd.grad(y.mean(), tuple(tensors.values())))


def test_nan_stays_in_its_row_and_padding_is_never_read(reverse: bool) -> None:
    tensors = {name: tensor.detach().float() for name, tensor in inputs(70, 4).items()}
    clean = selective_scan(**tensors, reverse=reverse)
    for name in ("x", "dt", "B", "C"):
        poisoned = {**tensors, name: tensors[name].clone()}
        poisoned[name][1, 30] = float("nan")
        y = selective_scan(**poisoned, reverse=reverse)
        assert torch.equal(y[[0, 2]], clean[[0, 2]])
        assert y[1].isnan().any()

    lengths = torch.tensor([70, 30, 5])
    padding = (torch.arange(70) >= lengths[:, None])[..., None]
    expected = selective_scan(**tensors, reverse=reverse, lengths=lengths)
    poisoned = {
        name: (t.masked_fill(padding, float("nan")) if t.dim() == 3 else t).requires_grad_()
        for name, t in tensors.items()
    }
    y = selective_scan(**poisoned, reverse=reverse, lengths=lengths)
    assert torch.equal(y, expected)
    assert all(grad.isfinite().all() for grad in torch.autograd.grad(y.sum(), tuple(poisoned.values())))


def test_same_bits_twice_and_no_dependence_on_uninitialised_memory(reverse: bool) -> None:
    tensors = {name: tensor.detach().float().requires_grad_() for name, tensor in inputs(65, 8).items()}

    def run() -> list[Tensor]:
        y = selective_scan(**tensors, reverse=reverse)
        return [y, *torch.autograd.grad(y.sum(), tuple(tensors.values()))]

    first = run()
    torch.use_deterministic_algorithms(True)  # fills every torch.empty with NaN
    try:
        second = run()
    finally:
        torch.use_deterministic_algorithms(False)
    assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))


def test_a_graph_that_is_kept_gives_the_same_gradients_again() -> None:
    tensors = {name: tensor.detach().float().requires_grad_() for name, tensor in inputs(65, 8).items()}
    y = selective_scan(**tensors)
    first = torch.autograd.grad(y.sum(), tuple(tensors.values()), retain_graph=True)
    assert all(
        torch.equal(a, b) for a, b in zip(first, torch.autograd.grad(y.sum(), tuple(tensors.values())), strict=True)
    )


def test_low_precision_inputs_and_autocast_compute_in_fp32() -> None:
    wide = {name: tensor.detach().bfloat16().float() for name, tensor in inputs(65, 8).items()}
    narrow = {name: tensor.bfloat16().requires_grad_() for name, tensor in wide.items()}
    expected = selective_scan(**wide)
    y = selective_scan(**narrow)
    assert y.dtype == torch.bfloat16
    assert torch.equal(y, expected.bfloat16())
    assert all(g.dtype == torch.bfloat16 for g in torch.autograd.grad(y.sum(), tuple(narrow.values())))

    wide = {name: tensor.requires_grad_() for name, tensor in wide.items()}
    grads = torch.autograd.grad(selective_scan(**wide).sum(), tuple(wide.values()))
    with torch.autocast("cpu", torch.bfloat16):
        y = selective_scan(**wide)
        under = torch.autograd.grad(y.sum(), tuple(wide.values()))
    assert torch.equal(y, expected)
    assert all(torch.equal(a, b) for a, b in zip(grads, under, strict=True))


def test_without_D_there_is_no_skip() -> None:
    tensors = inputs(5, 2)
    D = tensors.pop("D")
    for impl in ("torch", "reference"):
        y = selective_scan(**tensors, impl=impl)
        torch.testing.assert_close(selective_scan(**tensors, D=D, impl=impl), y + D * tensors["x"])


def test_what_cannot_be_done_is_said() -> None:
    tensors = inputs(5, 2)
    with pytest.raises(ValueError, match="choose one of auto, triton, torch, reference"):
        selective_scan(**tensors, impl="cuda")
    with pytest.raises(ValueError, match=r"B must be \(3, 5, 2\) beside x \(3, 5, 6\), not \(3, 2, 5\)"):
        selective_scan(**{**tensors, "B": tensors["B"].transpose(1, 2)})
    with pytest.raises(ValueError, match="lengths"):
        selective_scan(**tensors, lengths=torch.tensor([5, 5]))
    with pytest.raises(ValueError, match="nothing to scan"):
        selective_scan(**{**tensors, "A": tensors["A"][:, :0]})
    for name, value, message in (
        ("lengths", torch.tensor([5, 6, 1]), r"lengths must lie between 0 and L = 5, not \[5, 6, 1\]"),
        ("lengths", torch.ones(3), "lengths must be integers, not torch.float32"),
        ("D", torch.ones(6, dtype=torch.int64), "D must be floating point, not torch.int64"),
        ("B", torch.randn(3, 5, 4, 2), r"the 4 groups of B \(3, 5, 4, 2\) do not divide the 6 channels"),
        ("z", torch.randn(3, 5, 2), r"z must be \(3, 5, 6\)"),
        ("initial_state", torch.randn(3, 2, 6), r"initial_state must be \(3, 6, 2\)"),
        ("cu_seqlens", torch.tensor([0, 5]), r"with cu_seqlens x must be \(1, L, D\), not \(3, 5, 6\)"),
    ):
        with pytest.raises(ValueError, match=message):
            selective_scan(**{**tensors, name: value})
    row = inputs(5, 2, rows=1)
    for ends in ([0, 4], [1, 5], [0, 4, 3, 5], [5]):
        with pytest.raises(ValueError, match="cu_seqlens must be integers that go up from 0 to L = 5"):
            selective_scan(**row, cu_seqlens=torch.tensor(ends))


def test_the_package_stands_alone() -> None:
    code = "import sys, mmeff_kernels.selective_scan; assert 'mmeff' not in sys.modules and 'triton' not in sys.modules"
    path = ":".join(entry for entry in sys.path if entry)
    subprocess.run([sys.executable, "-c", code], check=True, env={"PYTHONPATH": path})


@pytest.mark.parametrize("constant", [(), ("B",), ("C",), ("B", "C")], ids="-".join)
def test_the_drop_in_takes_upstreams_layout(constant: tuple[str, ...]) -> None:
    t = with_all(inputs(7, 3), groups=2)
    del t["initial_state"]
    first = {name: t[name].mT for name in ("x", "dt", "z")}
    theirs = {name: torch.randn(6, 3, dtype=torch.float64) if name in constant else t[name] for name in "BC"}
    given = {name: value if name in constant else value.permute(0, 2, 3, 1) for name, value in theirs.items()}
    y, state = selective_scan_fn(
        first["x"], first["dt"], t["A"], given["B"], given["C"], t["D"], first["z"], t["dt_bias"],
        delta_softplus=True, return_last_state=True,
    )  # fmt: skip
    # One group a channel holds weights that differ between channels but not in time.
    ours = {
        name: (value.expand(3, 7, 6, 3) if name in constant else (value.repeat_interleave(3, 2) if constant else value))
        for name, value in theirs.items()
    }
    expected, last = selective_scan_reference(**{**t, **ours}, dt_softplus=True)
    torch.testing.assert_close(y, expected.mT)
    torch.testing.assert_close(state, last)
    alone = selective_scan_fn(first["x"], first["dt"].exp(), t["A"], given["B"], given["C"])
    assert isinstance(alone, Tensor) and alone.shape == first["x"].shape


def test_the_drop_in_takes_weights_without_a_group_axis() -> None:
    t = inputs(7, 3)
    y = selective_scan_fn(t["x"].mT, t["dt"].mT, t["A"], t["B"].mT, t["C"].mT, t["D"])
    torch.testing.assert_close(y, selective_scan_reference(**t)[0].mT)
    with pytest.raises(ValueError, match=r"u must be \(B, D, L\)"):
        selective_scan_fn(t["x"][0], t["dt"], t["A"], t["B"], t["C"])
    with pytest.raises(ValueError, match="complex"):
        selective_scan_fn(t["x"].mT, t["dt"].mT, t["A"] * 1j, t["B"].mT, t["C"].mT)
