"""The selective scan: the definition against the dense matrix, the torch path against the definition in float64."""

import itertools
import subprocess
import sys

import pytest
import torch
from torch import Tensor

from mmeff_kernels.selective_scan import blocked, selective_scan, selective_scan_reference

NAMES = ("x", "dt", "A", "B", "C", "D")


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
    torch.testing.assert_close(selective_scan_reference(**tensors, reverse=reverse), dense(**tensors, reverse=reverse))


def test_reference_passes_gradcheck(reverse: bool) -> None:
    tensors = inputs(4, 2, rows=2, channels=2)

    def scan(*values: Tensor) -> Tensor:
        named = dict(zip(NAMES, values, strict=True))
        return selective_scan_reference(**named, reverse=reverse, lengths=torch.tensor([4, 3]))

    assert torch.autograd.gradcheck(scan, tuple(tensors.values()))


def test_reference_of_a_padded_row_is_the_reference_of_the_shorter_row(reverse: bool) -> None:
    tensors = inputs(7, 3)
    y = selective_scan_reference(**tensors, reverse=reverse, lengths=torch.tensor([7, 4, 1]))
    for row, length in enumerate((7, 4, 1)):
        short = {k: v[row : row + 1, :length] if v.dim() == 3 else v for k, v in tensors.items()}
        torch.testing.assert_close(y[row : row + 1, :length], selective_scan_reference(**short, reverse=reverse))
        assert (y[row, length:] == 0).all()


def errors(tensors: dict[str, Tensor], dtype: torch.dtype, **options) -> dict[str, float]:
    """Relative Frobenius error of y and of every gradient against the reference in float64."""
    low = {name: tensor.detach().to(dtype).requires_grad_() for name, tensor in tensors.items()}
    y, expected = selective_scan(**low, **options), selective_scan_reference(**tensors, **options)
    weight = torch.randn(y.shape, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    got = (y, *torch.autograd.grad(y, tuple(low.values()), weight.to(dtype)))
    want = (expected, *torch.autograd.grad(expected, tuple(tensors.values()), weight))
    # A state that never passes on has a gradient of exactly 0 for A.
    return {
        name: ((a - b).norm() / (b.norm() if b.any() else 1)).item()
        for name, a, b in zip(("y", *NAMES), got, want, strict=True)
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
    with pytest.raises(ValueError, match="'triton': the Triton kernel does not exist yet"):
        selective_scan(**tensors, impl="triton")
    with pytest.raises(ValueError, match="choose one of auto, torch, reference"):
        selective_scan(**tensors, impl="cuda")
    with pytest.raises(ValueError, match=r"B must be \(3, 5, 2\) beside x \(3, 5, 6\), not \(3, 2, 5\)"):
        selective_scan(**{**tensors, "B": tensors["B"].transpose(1, 2)})
    with pytest.raises(ValueError, match="lengths"):
        selective_scan(**tensors, lengths=torch.tensor([5, 5]))
    with pytest.raises(ValueError, match="nothing to scan"):
        selective_scan(**inputs(0, 2))


def test_the_package_stands_alone() -> None:
    code = "import sys, mmeff_kernels.selective_scan; assert 'mmeff' not in sys.modules and 'triton' not in sys.modules"
    path = ":".join(entry for entry in sys.path if entry)
    subprocess.run([sys.executable, "-c", code], check=True, env={"PYTHONPATH": path})


def test_bench_prints_a_line_a_shape(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    from mmeff_kernels.selective_scan import bench

    monkeypatch.setattr(bench, "SHAPES", ((1, 4, 3, 2), (2, 3, 4, 1)))
    monkeypatch.setattr(sys, "argv", ["bench", "--runs", "2", "--device", "cpu"])
    bench.main()
    out = capsys.readouterr().out.splitlines()
    assert f"torch {torch.__version__}" in out[0]
    assert [line.split("  ")[0].strip() for line in out[2:]] == ["(1, 4, 3, 2)", "(2, 3, 4, 1)"]
