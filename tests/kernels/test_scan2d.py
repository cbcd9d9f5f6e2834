"""Scans over grids: routes are permutations that do what they say; cross-scans against token after token in float64."""

import math
from typing import Any

import pytest
import torch
from torch import Tensor

from benchmarks.fields import DECAY, field, operators
from benchmarks.routes import main
from mmeff_kernels.scan2d import CORNERS, CROSS, cross_scan, directions, route, table
from mmeff_kernels.scan2d.orders import DOWN, JUMP, LEFT, ORDERS, RIGHT, SIZED, START, UP
from mmeff_kernels.scan2d.reference import cross_scan_reference

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
NAMES = [f"{name}-{size}" for name in SIZED for size in (1, 2, 3)] + [name for name in ORDERS if name not in SIZED]
GRIDS = [(1, 1), (1, 7), (7, 1), (3, 5), (8, 64), (12, 101), (7, 7)]


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("grid", GRIDS)
def test_every_route_meets_every_token_once(name: str, grid: tuple[int, int]) -> None:
    order = route(name, *grid)
    assert torch.equal(order.sort().values, torch.arange(grid[0] * grid[1]))
    assert torch.equal(route(f"{name}-reversed", *grid), order.flip(0))


@pytest.mark.parametrize(("name", "order"), [
    ("rows", [0, 1, 2, 3, 4, 5]),
    ("columns", [0, 3, 1, 4, 2, 5]),
    ("mirrored-rows", [2, 1, 0, 5, 4, 3]),
    ("serpentine", [0, 1, 2, 5, 4, 3]),
    ("serpentine-columns", [0, 3, 4, 1, 2, 5]),
    ("diagonals", [0, 1, 3, 2, 4, 5]),
    ("windows-2", [0, 1, 3, 4, 2, 5]),
    ("atrous-2", [0, 2, 1, 3, 5, 4]),
    ("columns-reversed", [5, 2, 4, 1, 3, 0]),
])  # fmt: skip
def test_routes_over_two_rows_of_three(name: str, order: list[int]) -> None:
    assert route(name, 2, 3).tolist() == order


@pytest.mark.parametrize("side", [2, 4, 16])
def test_serpentines_and_the_hilbert_curve_go_from_neighbour_to_neighbour(side: int) -> None:
    for name in ("serpentine", "serpentine-columns", "hilbert"):
        order = route(name, side, side)
        steps = (order // side).diff().abs() + (order % side).diff().abs()
        assert steps.max() == 1, name
    # The curve stays in a quarter until it has met all of it.
    quarter = route("hilbert", side, side)[: side * side // 4]
    assert (quarter // side).max() < side // 2 and (quarter % side).max() < side // 2


@pytest.mark.parametrize("name", NAMES)
def test_a_smaller_grid_is_met_in_the_same_order_within_a_larger_one(name: str) -> None:
    """So a padded batch changes nothing."""
    for height, width in ((3, 5), (2, 20), (9, 2)):
        large = route(name, 20, 20)
        inside = large[(large // 20 < height) & (large % 20 < width)]
        assert torch.equal(inside // 20 * width + inside % 20, route(name, height, width)), (height, width)


def test_corners_start_in_four_corners() -> None:
    assert [route(name, 4, 6)[0].item() for name in CORNERS] == [0, 5, 18, 23]


def test_directions_say_how_a_token_was_reached() -> None:
    found = directions(["serpentine", "columns-reversed"], 2, 3)
    assert found.tolist() == [[START, RIGHT, RIGHT, LEFT, LEFT, DOWN], [UP, UP, UP, JUMP, JUMP, START]]


@pytest.mark.parametrize(("name", "said"), [
    ("spiral", "route 'spiral': there are rows, columns, .*windows-N"),
    ("windows", "route 'windows': there are"),
    ("windows-0", "windows needs a size of 1 or more"),
    ("rows-2", "route 'rows-2': there are"),
])  # fmt: skip
def test_what_is_no_route(name: str, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        route(name, 3, 4)


def test_a_table_is_made_once() -> None:
    assert table(CROSS, 3, 4) is table(CROSS, 3, 4)
    with pytest.raises(ValueError, match="not 0 x 4"):
        route("rows", 0, 4)


def inputs(K: int, grid: tuple[int, int], D: int = 6, N: int = 3) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(0)
    L = grid[0] * grid[1]
    shapes = {
        "x": (2, L, D), "dt": (K, 2, L, D), "A": (K, D, N), "B": (K, 2, L, 1, N), "C": (K, 2, L, 1, N), "D": (K, D),
    }  # fmt: skip
    drawn = {name: torch.randn(shape, generator=generator, dtype=torch.float64) for name, shape in shapes.items()}
    return {**drawn, "A": -drawn["A"].abs(), "dt": drawn["dt"].abs()}


def by_definition(given: dict[str, Tensor], grid: tuple[int, int], routes: Any, sizes: Any) -> Tensor:
    B, C = given["B"].squeeze(-2), given["C"].squeeze(-2)
    return cross_scan_reference(given["x"], given["dt"], given["A"], B, C, given["D"], grid, routes, sizes)


@pytest.mark.parametrize("impl", ["triton", "torch"])
@pytest.mark.parametrize(("routes", "grid"), [
    (CROSS, (3, 5)), (CORNERS, (4, 3)), (("hilbert", "windows-2"), (5, 2)), (("diagonals",), (1, 6)),
    (("serpentine", "atrous-2-reversed"), (6, 1)),
])  # fmt: skip
def test_it_is_its_definition(routes: Any, grid: tuple[int, int], impl: Any) -> None:
    given = inputs(len(routes), grid)
    for sizes in (None, [grid, (max(1, grid[0] - 1), max(1, grid[1] - 1))]):
        high = {name: t.clone().requires_grad_() for name, t in given.items()}
        low = {name: t.to(DEVICE, torch.float32).requires_grad_() for name, t in given.items()}
        want = by_definition(high, grid, routes, sizes or [grid] * 2)
        some = None if sizes is None else torch.tensor(sizes)
        x, dt, A, B, C, D = low.values()
        got = cross_scan(x, dt, A, B, C, D, grid=grid, routes=routes, grid_sizes=some, impl=impl)
        weight = torch.randn(want.shape, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
        grads = torch.autograd.grad(got, tuple(low.values()), weight.to(got))
        expected = torch.autograd.grad(want, tuple(high.values()), weight)
        for name, a, b in zip(("y", *low), (got, *grads), (want, *expected), strict=True):
            assert (a.cpu() - b).norm() <= 1e-5 * b.norm(), (name, sizes)


@pytest.mark.parametrize("impl", ["triton", "torch"])
def test_softplus_bias_low_rank_and_gate_over_smaller_grids(impl: Any) -> None:
    """What lies outside is never read, NaN or not; the rest is as if the small grid were alone."""
    grid, sizes, generator = (3, 4), torch.tensor([[3, 4], [2, 3]]), torch.Generator().manual_seed(2)
    given = {name: t.to(DEVICE, torch.float32) for name, t in inputs(4, grid).items()}

    def draw(*shape: int) -> Tensor:
        return torch.randn(shape, generator=generator).to(DEVICE)

    given |= {"dt": draw(4, 2, 12, 2), "dt_weight": draw(4, 6, 2), "dt_bias": draw(4, 6), "z": draw(2, 12, 6)}
    y = cross_scan(**given, grid=grid, dt_softplus=True, grid_sizes=sizes, impl=impl)  # type: ignore[arg-type]
    inside = torch.tensor([0, 1, 2, 4, 5, 6], device=DEVICE)
    outside = torch.tensor([t for t in range(12) if t not in inside.tolist()], device=DEVICE)
    small = {k: t[..., 1:, inside, :] if k in ("x", "dt", "z") else t for k, t in given.items()}
    small |= {k: given[k][:, 1:, inside] for k in "BC"}
    alone = cross_scan(**small, grid=(2, 3), dt_softplus=True, impl=impl)  # type: ignore[arg-type]
    torch.testing.assert_close(y[1, inside], alone[0], rtol=1e-5, atol=1e-5)
    assert y[1, outside].abs().max() == 0
    for name in ("x", "dt", "B", "C", "z"):
        given[name] = given[name].clone()
        rows_of = given[name][:, 1] if given[name].dim() > 3 else given[name][1:]
        rows_of[:, outside] = torch.nan
    again = cross_scan(**given, grid=grid, dt_softplus=True, grid_sizes=sizes, impl=impl)  # type: ignore[arg-type]
    torch.testing.assert_close(again, y)
    given = {name: tensor.detach().requires_grad_() for name, tensor in given.items()}
    again = cross_scan(**given, grid=grid, dt_softplus=True, grid_sizes=sizes, impl=impl)  # type: ignore[arg-type]
    for name, grad in zip(given, torch.autograd.grad(again.sum(), tuple(given.values())), strict=True):
        assert grad.isfinite().all(), name


def test_what_it_refuses() -> None:
    x, dt, A, B, C, D = inputs(4, (3, 4)).values()
    with pytest.raises(ValueError, match=r"x \(2, 12, 6\) has no 15 tokens of a 3 x 5 grid"):
        cross_scan(x, dt, A, B, C, D, grid=(3, 5))
    with pytest.raises(ValueError, match=r"grid_sizes go from \[3, 4\] to \[3, 5\]; the grid is 3 x 4"):
        cross_scan(x, dt, A, B, C, D, grid=(3, 4), grid_sizes=torch.tensor([[3, 4], [3, 5]]))
    with pytest.raises(ValueError, match=r"grid_sizes must be \(2, 2\) integers"):
        cross_scan(x, dt, A, B, C, D, grid=(3, 4), grid_sizes=torch.tensor([3, 4]))
    with pytest.raises(ValueError, match="routes must be names"):
        cross_scan(x, dt, A, B, C, D, grid=(3, 4), routes="rows")


def test_the_picture_is_drawn(tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    drawn = {"--out": tmp_path / "routes.png", "--fields": tmp_path / "fields.png"}
    monkeypatch.setattr("sys.argv", ["routes", *(str(word) for pair in drawn.items() for word in pair)])
    main()
    for path in drawn.values():
        assert path.stat().st_size > 10_000, path


@pytest.mark.parametrize("name", operators((1, 1)))
def test_a_field_is_a_row_of_the_dense_matrix(name: str) -> None:
    """Whose columns are what the operator makes of each token alone."""
    grid, token = (3, 4), (1, 2)
    run = operators(grid)[name]
    columns = [run(one.view(1, 12, 1)).flatten() for one in torch.eye(12, dtype=torch.float64)]
    dense = torch.stack(columns, 1)
    torch.testing.assert_close(field(run, grid, token), dense[1 * 4 + 2].view(grid), rtol=1e-12, atol=0)


@pytest.mark.parametrize(("name", "share"), [
    ("separable_scan, top-left", lambda i, j: DECAY ** (i + j)),
    ("wavefront_scan, top-left", lambda i, j: math.comb(i + j, i) * (DECAY / 2) ** (i + j)),
])  # fmt: skip
def test_fields_from_one_corner(name: str, share: Any) -> None:
    """One path of the steps between two tokens; all monotone paths of them, each step halved. Elsewhere exactly 0."""
    grid, (i, j) = (4, 5), (2, 3)
    seen = field(operators(grid)[name], grid, (i, j))
    want = torch.zeros(grid, dtype=torch.float64)
    for p in range(i + 1):
        for q in range(j + 1):
            want[i - p, j - q] = share(p, q)
    torch.testing.assert_close(seen, want, rtol=1e-12, atol=0)


@pytest.mark.gpu
@pytest.mark.parametrize(("grid", "N"), [((56, 56), 1), ((12, 101), 16), ((1, 197), 4)])
def test_real_sizes(grid: tuple[int, int], N: int) -> None:
    given = inputs(4, grid, D=96, N=N)
    for dtype, bound in ((torch.float32, 1e-5), (torch.bfloat16, 1e-2)):
        low = {k: t.to(DEVICE, dtype if k in ("x", "dt", "B", "C") else torch.float32) for k, t in given.items()}
        low = {name: tensor.requires_grad_() for name, tensor in low.items()}
        high = {name: tensor.detach().double().requires_grad_() for name, tensor in low.items()}
        got, want = (
            cross_scan(*tensors.values(), grid=grid, routes=CORNERS, impl=impl)  # type: ignore[arg-type]
            for tensors, impl in ((low, "triton"), (high, "reference"))
        )
        weight = torch.randn_like(got)
        grads = torch.autograd.grad(got, tuple(low.values()), weight)
        expected = torch.autograd.grad(want, tuple(high.values()), weight.double())
        for name, a, b in zip(("y", *low), (got, *grads), (want, *expected), strict=True):
            assert (a.double() - b).norm() <= bound * b.norm(), (name, dtype)


@pytest.mark.parametrize("sizes", [None, [[2, 3], [3, 2]]])
def test_b_of_each_route_without_its_axis_of_groups_is_refused_by_name(sizes: list[list[int]] | None) -> None:
    x, A = torch.randn(2, 12, 4), -torch.rand(4, 5)
    B = torch.randn(4, 2, 12, 5)  # (K, B, L, N): of K routes it is (K, B, L, G, N)
    with pytest.raises(ValueError, match="B"):
        cross_scan(x, x.abs(), A, B, B, grid=(3, 4), grid_sizes=None if sizes is None else torch.tensor(sizes))
