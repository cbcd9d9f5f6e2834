"""Recurrences of two dimensions: definitions against dense matrices, implementations against the definitions."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from benchmarks import recurrences
from mmeff_kernels.scan2d import FOUR_CORNERS, corner_operators, separable_scan, wavefront_scan
from mmeff_kernels.scan2d.recurrence_reference import separable_scan_reference, wavefront_scan_reference

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
SCANS = {"separable": separable_scan, "wavefront": wavefront_scan}
every_scan = pytest.mark.parametrize("scan", SCANS.values(), ids=SCANS)
IMPLS = ("triton", "torch")


def inputs(grid: tuple[int, int], D: int, N: int, K: int | None, seed: int = 0) -> dict[str, Tensor]:
    """In float64, led by K if it is given; biases make a step of softplus about 0.3 to 2."""
    generator = torch.Generator().manual_seed(seed)
    lead, L = () if K is None else (K,), grid[0] * grid[1]
    shapes: dict[str, tuple[int, ...]] = {"x": (2, L, D), "C": (*lead, 2, L, N), "D": (*lead, D)}
    for end in ("", "_top"):
        shapes |= {
            f"dt{end}": (*lead, 2, L, D), f"A{end}": (*lead, D, N), f"B{end}": (*lead, 2, L, N),
            f"dt_bias{end}": (*lead, D),
        }  # fmt: skip
    drawn = {k: torch.randn(shape, generator=generator, dtype=torch.float64) for k, shape in shapes.items()}
    return {k: -t.abs() if k.startswith("A") else t for k, t in drawn.items()}


def served(scan: Callable[..., Tensor], given: dict[str, Tensor]) -> dict[str, Tensor]:
    return {k: t for k, t in given.items() if scan is wavefront_scan or not k.endswith("_top")}


def found(scan: Callable[..., Tensor], given: dict[str, Tensor], **options: Any) -> dict[str, Tensor]:
    """y and every gradient."""
    given = {name: tensor.detach().clone().requires_grad_() for name, tensor in given.items()}
    y = scan(**given, **options)
    weight = torch.randn(y.shape, dtype=torch.float64, generator=torch.Generator().manual_seed(1)).to(y)
    return {"y": y.detach(), **dict(zip(given, torch.autograd.grad(y, tuple(given.values()), weight), strict=True))}


def agree(got: dict[str, Tensor], want: dict[str, Tensor], bound: float) -> None:
    for name, tensor in want.items():
        error = (got[name].double() - tensor).norm()
        assert error <= bound * tensor.norm(), (name, error / tensor.norm())


def dense(grid: tuple[int, int], a: Tensor, b: Tensor, separable: bool) -> Tensor:
    """What source (i', j') leaves at (i, j), by the paths that lead there: decays (H, W) along rows and columns."""
    H, W = grid
    matrix = torch.zeros(H, W, H, W, dtype=torch.float64)
    for p in range(H):
        for q in range(W):
            if separable:
                for i in range(p, H):
                    for j in range(q, W):
                        matrix[i, j, p, q] = a[p, q + 1 : j + 1].prod() * a[p + 1 : i + 1, j].prod()
                continue
            paths = {(p, q): torch.tensor(0.5, dtype=torch.float64)}  # the half of the source's own step
            for i in range(p, H):
                for j in range(q, W):
                    if (i, j) != (p, q):
                        left, top = paths.get((i, j - 1), 0), paths.get((i - 1, j), 0)
                        paths[i, j] = torch.as_tensor((left * a[i, j] + top * b[i, j]) / 2)
                    matrix[i, j, p, q] = paths[i, j]
    return matrix.view(H * W, H * W)


@pytest.mark.parametrize("grid", [(1, 1), (3, 4), (5, 2), (1, 6), (6, 1)])
def test_the_definitions_are_their_dense_matrices(grid: tuple[int, int]) -> None:
    given = inputs(grid, 1, 1, None)
    x, C = (given[k].unflatten(1, grid)[:1] for k in ("x", "C"))
    axes = [(given[f"dt{e}"].abs().unflatten(1, grid)[:1], given[f"A{e}"], given[f"B{e}"].unflatten(1, grid)[:1])
            for e in ("", "_top")]  # fmt: skip
    (a, u), (b, v) = (((dt * A[0, 0]).exp()[0, ..., 0], (dt * x * B)[0, ..., 0]) for dt, A, B in axes)
    want = dense(grid, a, b, True) @ u.flatten() * C.flatten()
    torch.testing.assert_close(separable_scan_reference(x, axes[0], C).flatten(), want)
    want = dense(grid, a, b, False) @ (u + v).flatten() * C.flatten()
    torch.testing.assert_close(wavefront_scan_reference(x, axes[0], axes[1], C).flatten(), want)


@every_scan
@pytest.mark.parametrize("impl", IMPLS)
@pytest.mark.parametrize(("grid", "D", "N", "corners", "shared"), [
    ((1, 1), 4, 1, FOUR_CORNERS, False), ((1, 7), 40, 2, ("top-right",), False), ((6, 1), 3, 1, ("bottom-left",), True),
    ((18, 3), 5, 4, ("top-left",), False), ((3, 4), 9, 8, ("bottom-right", "top-left"), True),
    ((4, 3), 17, 16, ("bottom-right",), False),
])  # fmt: skip
def test_they_are_their_definitions(
    scan: Any, impl: Any, grid: Any, D: int, N: int, corners: Any, shared: bool
) -> None:
    given = served(scan, inputs(grid, D, N, None if shared else len(corners)))
    options = {"grid": grid, "corners": corners, "dt_softplus": True}
    low = {name: tensor.to(DEVICE, torch.float32) for name, tensor in given.items()}
    got = found(scan, low, **options, impl=impl)
    agree({name: t.cpu() for name, t in got.items()}, found(scan, given, **options, impl="reference"), 1e-5)
    if shared:
        again = found(scan, low, **options, impl=impl)
        assert all(torch.equal(got[name], again[name]) for name in got)


@every_scan
def test_bf16_and_float64(scan: Any) -> None:
    given = served(scan, inputs((3, 4), 6, 3, 4))
    narrow = ("x", "dt", "B", "C", "dt_top", "B_top")
    low = {k: t.to(DEVICE, torch.bfloat16 if k in narrow else torch.float32) for k, t in given.items()}
    options = {"grid": (3, 4), "dt_softplus": True}
    want = found(scan, {name: tensor.cpu().double() for name, tensor in low.items()}, **options, impl="reference")
    for impl in IMPLS:
        got = found(scan, low, **options, impl=impl)
        assert all(got[k].dtype == t.dtype for k, t in low.items())
        agree({name: tensor.cpu() for name, tensor in got.items()}, want, 1e-2)
    agree(found(scan, given, **options, impl="torch"), found(scan, given, **options, impl="reference"), 1e-12)


@every_scan
@pytest.mark.parametrize("impl", IMPLS)
@pytest.mark.parametrize("softplus", [False, True])
def test_smaller_grids_in_a_batch(scan: Any, impl: Any, softplus: bool) -> None:
    """What lies outside is never read, NaN or not; the rest is as if the small grid were alone."""
    grid, sizes = (3, 4), torch.tensor([[3, 4], [2, 3]])
    given = {k: t.to(DEVICE, torch.float32) for k, t in served(scan, inputs(grid, 6, 2, 4)).items()}
    if not softplus:
        given = {k: t.abs() if k.startswith("dt") else t for k, t in given.items()}
    inside = torch.tensor([0, 1, 2, 4, 5, 6], device=DEVICE)
    outside = torch.tensor([3, 7, 8, 9, 10, 11], device=DEVICE)
    tokens = [k for k in given if k in ("x", "dt", "B", "C", "dt_top", "B_top")]
    small = {k: t[..., 1:, inside, :] if k in tokens else t for k, t in given.items()}
    alone = scan(**small, grid=(2, 3), dt_softplus=softplus, impl=impl)
    for name in tokens:
        given[name] = given[name].clone()
        (given[name][:, 1] if given[name].dim() > 3 else given[name][1:])[:, outside] = torch.nan
    given = {name: tensor.requires_grad_() for name, tensor in given.items()}
    y = scan(**given, grid=grid, dt_softplus=softplus, grid_sizes=sizes, impl=impl)
    torch.testing.assert_close(y[1, inside], alone[0], rtol=1e-5, atol=1e-5)
    assert y[1, outside].abs().max() == 0
    for name, grad in zip(given, torch.autograd.grad(y.sum(), tuple(given.values())), strict=True):
        assert grad.isfinite().all(), name


@every_scan
def test_a_row_with_nan_spoils_no_other(scan: Any) -> None:
    given = {k: t.to(DEVICE, torch.float32) for k, t in served(scan, inputs((3, 4), 6, 2, 4)).items()}
    clean = scan(**given, grid=(3, 4), dt_softplus=True, impl="triton")
    given["x"][0, 5] = torch.nan
    y = scan(**given, grid=(3, 4), dt_softplus=True, impl="triton")
    assert y[0].isnan().any() and torch.equal(y[1], clean[1])


@every_scan
def test_more_programs_than_a_launch(scan: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    given = served(scan, inputs((2, 3), 20, 1, 4))
    want = found(scan, given, grid=(2, 3), impl="reference")
    monkeypatch.setattr(corner_operators, "quarters", lambda _: 1)
    got = found(scan, {k: t.to(DEVICE, torch.float32) for k, t in given.items()}, grid=(2, 3), impl="triton")
    agree({name: tensor.cpu() for name, tensor in got.items()}, want, 1e-5)


@every_scan
def test_gradients_of_the_definition(scan: Any) -> None:
    given = served(scan, inputs((2, 3), 2, 2, 2))
    tensors = {name: tensor.requires_grad_() for name, tensor in given.items()}
    for impl in ("reference", "torch"):
        assert torch.autograd.gradcheck(
            lambda *t, impl=impl: scan(
                **dict(zip(tensors, t, strict=True)), grid=(2, 3), corners=("top-left", "bottom-right"),
                dt_softplus=True, impl=impl,
            ),
            tuple(tensors.values()), fast_mode=True,
        )  # fmt: skip


@every_scan
def test_operators_compile_and_count(scan: Any) -> None:
    """Whole graphs, and FLOPs counted by hand: N states of a token and channel, and what channels have of their own."""
    N, tokens = 2, 4 * 2 * 12 * 6
    given = {k: t.to(DEVICE, torch.float32) for k, t in served(scan, inputs((3, 4), 6, N, 4)).items()}
    given = {name: tensor.requires_grad_() for name, tensor in given.items()}

    def run() -> Tensor:
        return scan(**given, grid=(3, 4), dt_softplus=True, impl="triton")

    compiled = torch.compile(run, fullgraph=True, backend="aot_eager")
    torch.testing.assert_close(compiled(), run())
    with FlopCounterMode(display=False) as counter:
        run().sum().backward()
    forward, backward = (9 * N + 3, 25 * N + 9) if scan is separable_scan else (14 * N + 4, 36 * N + 14)
    assert counter.get_total_flops() == tokens * (forward + backward)


@every_scan
def test_operators_are_what_they_say(scan: Any) -> None:
    """Schemas, fakes and their shapes."""
    given = {k: t.to(DEVICE, torch.float32) for k, t in inputs((2, 3), 3, 2, 1).items()}

    def axis(end: str) -> tuple[Tensor | None, ...]:
        if end and scan is separable_scan:
            return None, None, None, None
        return given[f"dt{end}"], given[f"A{end}"].mT.contiguous(), given[f"B{end}"], given[f"dt_bias{end}"]

    told = (given["x"], *axis(""), *axis("_top"), given["C"], given["D"], True, 1, 0, 1, 2, 3)
    for save in (True, False):
        torch.library.opcheck(torch.ops.mmeff.corner_scan_forward, (*told, save))
    y, *kept = torch.ops.mmeff.corner_scan_forward(*told, True)
    torch.library.opcheck(torch.ops.mmeff.corner_scan_backward, (y[0], *kept, *told))


def test_what_they_refuse() -> None:
    given = served(separable_scan, inputs((3, 4), 6, 3, 4))
    for change, options, said in (
        ({}, {"grid": (3, 5)}, r"x \(2, 12, 6\) has no 15 tokens of a 3 x 5 grid"),
        ({}, {"corners": ("left",)}, r"corners must be 1 to 32 of top-left, .*, not \('left',\)"),
        ({}, {"corners": FOUR_CORNERS[:3]}, r"must be .* beside x \(2, 12, 6\) for 3 corners, not \(4, 2, 12, 3\)"),
        ({"B": given["B"][..., :2]}, {}, r"B must be \(2, 12, 3\) or \(4, 2, 12, 3\) beside x \(2, 12, 6\)"),
        ({"dt": given["dt"].long()}, {}, "dt must be floating point on cpu, as x, not torch.int64"),
        ({}, {"impl": "triton"}, "impl 'triton' computes in fp32: x cannot be float64"),
        ({}, {"impl": "cuda"}, "impl 'cuda': choose one of"),
        ({}, {"grid_sizes": torch.tensor([[3, 4], [4, 4]])}, r"grid_sizes go from \[3, 4\] to \[4, 4\]"),
    ):
        with pytest.raises(ValueError, match=said):
            separable_scan(**{**given, **change}, **{"grid": (3, 4), **options})  # type: ignore[arg-type]
    many = {k: t.float() for k, t in inputs((1, 2), 2, 65, 4).items() if not k.endswith("_top")}
    with pytest.raises(ValueError, match=r"up to 64 states a channel, A \(4, 2, 65\) has 65"):
        separable_scan(**many, grid=(1, 2), impl="triton")  # type: ignore[arg-type]
    far = torch.zeros(2**11).expand(1, 2**20, 2**11)  # of one token, and no kernel is launched
    with pytest.raises(ValueError, match="1048576 tokens of"):
        separable_scan(far, far, -torch.ones(2**11, 1), far[..., :1], far[..., :1], grid=(2**10, 2**10), impl="triton")
    with pytest.raises(ValueError, match="both of dt_bias and dt_bias_top"):
        wavefront_scan(**{**inputs((3, 4), 6, 3, 4), "dt_bias": None}, grid=(3, 4))  # type: ignore[arg-type]


@pytest.mark.gpu
@every_scan
@pytest.mark.parametrize("shape", [(2, 56, 57, 96, 1), (2, 12, 101, 40, 8), (64, 14, 14, 192, 16), (1, 64, 64, 33, 4)])
def test_real_sizes(scan: Any, shape: tuple[int, ...]) -> None:
    drawn = served(scan, recurrences.inputs(shape, torch.device(DEVICE), copies=4))
    options = {"grid": shape[1:3], "dt_softplus": True}
    for dtype, bound in ((torch.float32, 1e-5), (torch.bfloat16, 1e-2)):
        low = {k: t.to(torch.float32 if k[0] == "A" or "bias" in k else dtype) for k, t in drawn.items()}
        got = found(scan, low, **options, impl="triton")
        agree(got, found(scan, {k: t.double() for k, t in low.items()}, **options, impl="torch"), bound)
