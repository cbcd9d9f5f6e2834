"""The three-neighbour line scan: its definition against the solution of a linear system, the rest against that."""

from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from mmeff_kernels.scan2d import line_operators
from mmeff_kernels.scan2d.line import DIRECTIONS, line_scan
from mmeff_kernels.scan2d.line_reference import line_scan_reference

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
BOUNDS = {torch.float32: 1e-5, torch.bfloat16: 1e-2}


def inputs(
    grid: tuple[int, int], K: int = 0, rows: int = 2, D: int = 5, own: bool = False, seed: int = 0, device: str = "cpu"
) -> dict[str, Any]:
    """x, weights, u, D in float64; K > 0: each with an axis K. own: a weight for each channel."""
    generator = torch.Generator(device).manual_seed(seed)
    lead, L = (K,) if K else (), grid[0] * grid[1]
    shapes = {"x": (rows, L, D), "weights": (rows, L, 3, D if own else 1), "u": (rows, L, D), "D": (D,)}
    drawn = {
        name: torch.randn(*lead, *shape, generator=generator, dtype=torch.float64, device=device)
        for name, shape in shapes.items()
    }
    return {**drawn, "weights": drawn["weights"].softmax(-2)}


def gradients(y: Tensor, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """y and the gradients of a weighted sum of it."""
    weight = torch.randn(y.shape, dtype=torch.float64, generator=torch.Generator().manual_seed(9)).to(y)
    return {"y": y, **dict(zip(tensors, torch.autograd.grad(y, tuple(tensors.values()), weight), strict=True))}


def compare(
    drawn: dict[str, Any], dtype: torch.dtype, grid: tuple[int, int], impl: Any, directions: Any = DIRECTIONS
) -> None:
    """y and every gradient against the definition in float64."""
    low = {name: t.to(DEVICE, dtype).requires_grad_() for name, t in drawn.items()}
    high = {name: t.detach().double().cpu().requires_grad_() for name, t in low.items()}
    x, weights, u, D = (high.get(name) for name in ("x", "weights", "u", "D"))
    assert x is not None and weights is not None and u is not None
    got = gradients(line_scan(**low, grid=grid, directions=directions, impl=impl), low)
    want = gradients(line_scan_reference(x, weights, u, D, grid, directions), high)
    for name, a in got.items():
        assert a.dtype == dtype and a.shape == want[name].shape, name
        assert (a.cpu() - want[name]).norm() <= BOUNDS[dtype] * want[name].norm(), name


@pytest.mark.parametrize("name", DIRECTIONS)
@pytest.mark.parametrize("grid", [(1, 1), (3, 5), (1, 4), (5, 1), (4, 2)])
@pytest.mark.parametrize("own", [False, True])
def test_the_definition_solves_its_linear_system(grid: tuple[int, int], name: str, own: bool) -> None:
    """(I - M) h = x, with M written from the coordinates of tokens and their neighbours."""
    x, weights, u, D = inputs(grid, rows=1, D=2, own=own).values()
    weights = 2 * weights - 0.7  # of either sign
    H, W = grid
    want = D * x
    for d in range(2):
        M = torch.zeros(H * W, H * W, dtype=torch.float64)
        for i in range(H):
            for j in range(W):
                for n, side in enumerate((-1, 0, 1)):
                    a, b = {
                        "down": (i - 1, j + side), "up": (i + 1, j + side),
                        "right": (i + side, j - 1), "left": (i + side, j + 1),
                    }[name]  # fmt: skip
                    if 0 <= a < H and 0 <= b < W:
                        M[i * W + j, a * W + b] = weights[0, i * W + j, n, d if own else 0]
        h = torch.linalg.solve(torch.eye(H * W, dtype=torch.float64) - M, x[0, :, d])
        want[0, :, d] += u[0, :, d] * h
    torch.testing.assert_close(line_scan_reference(x, weights, u, D, grid, (name,)), want)


@pytest.mark.parametrize("impl", ["triton", "torch"])
@pytest.mark.parametrize("own", [False, True])
@pytest.mark.parametrize("led", [False, True])
@pytest.mark.parametrize("grid", [(1, 1), (3, 5), (1, 7), (6, 1), (4, 3)])
def test_it_is_its_definition(grid: tuple[int, int], led: bool, own: bool, impl: Any) -> None:
    for dtype in BOUNDS if grid == (3, 5) else (torch.float32,):
        compare(inputs(grid, 4 if led else 0, own=own), dtype, grid=grid, impl=impl)


@pytest.mark.parametrize("impl", ["triton", "torch"])
@pytest.mark.parametrize("directions", [(name,) for name in DIRECTIONS] + [("left", "left", "up")])
def test_any_directions_with_some_tensors_of_their_own(directions: tuple[str, ...], impl: Any) -> None:
    """Also without D, with 17 channels (two blocks), and with strides of a larger tensor."""
    grid, K = (3, 4), len(directions)
    drawn, led = inputs(grid, D=17), inputs(grid, K, D=17, own=True)
    for given in (
        {**drawn, "weights": led["weights"]},
        {**led, "x": drawn["x"], "weights": drawn["weights"]},
        {**drawn, "x": led["x"]},
        {"x": drawn["x"], "weights": drawn["weights"], "u": led["u"]},
    ):
        compare(given, torch.float32, grid=grid, directions=directions, impl=impl)
    packed = torch.randn(2, 12, K, 37, device=DEVICE)
    x, u, weights = packed.movedim(2, 0).split((17, 17, 3), -1)
    y = line_scan(x, weights[..., None], u, grid=grid, directions=directions, impl=impl)
    want = line_scan_reference(x.double(), weights[..., None].double(), u.double(), None, grid, directions)
    assert (y - want).norm() <= 1e-5 * want.norm()


@pytest.mark.parametrize("own", [False, True])
def test_lines_longer_than_a_tile(own: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(line_operators, "WIDEST", 2)
    monkeypatch.setattr(line_operators, "WIDEST_BACKWARD", 2)
    drawn = inputs((5, 3), own=own)
    compare(drawn, torch.float32, grid=(5, 3), impl="triton")
    given = {name: t.to(DEVICE, torch.float32) for name, t in drawn.items()}
    y = line_scan(**given, grid=(5, 3), impl="triton")  # without gradients
    monkeypatch.undo()
    torch.testing.assert_close(y, line_scan(**given, grid=(5, 3), impl="torch"), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("impl", ["triton", "torch", "reference"])
@pytest.mark.parametrize("led", [False, True])
def test_a_smaller_grid_within_is_as_if_alone(led: bool, impl: Any) -> None:
    """What lies outside is never read, NaN or not: y and gradients are 0 there."""
    grid, sizes = (4, 3), torch.tensor([[4, 3], [2, 2]], device=DEVICE)
    inside = torch.tensor([0, 1, 3, 4], device=DEVICE)
    outside = torch.tensor([t for t in range(12) if t not in (0, 1, 3, 4)], device=DEVICE)
    given = {n: t.to(DEVICE, torch.float32) for n, t in inputs(grid, 4 if led else 0, own=led).items()}
    axis = {"x": -3, "u": -3, "weights": -4}
    small = {n: t.narrow(axis[n], 1, 1).index_select(axis[n] + 1, inside) if n in axis else t for n, t in given.items()}
    for name, a in axis.items():
        given[name].select(a, 1).index_fill_(a + 1, outside, torch.nan)
    given, small = ({n: t.requires_grad_() for n, t in tensors.items()} for tensors in (given, small))
    got = gradients(line_scan(**given, grid=grid, grid_sizes=sizes, impl=impl), given)
    y = line_scan(**small, grid=(2, 2), impl=impl)
    torch.testing.assert_close(got["y"][1, inside], y[0], rtol=1e-5, atol=1e-6)
    assert got["y"].isfinite().all() and got["y"][1, outside].abs().max() == 0
    weight = torch.randn(got["y"].shape, dtype=torch.float64, generator=torch.Generator().manual_seed(9)).to(y)
    expected = dict(zip(small, torch.autograd.grad(y, tuple(small.values()), weight[1:, inside]), strict=True))
    assert got["D"].isfinite().all()
    for name, a in axis.items():
        own = got[name].select(a, 1)
        torch.testing.assert_close(own.index_select(a + 1, inside), expected[name].select(a, 0), rtol=1e-5, atol=1e-6)
        assert got[name].isfinite().all() and own.index_select(a + 1, outside).abs().max() == 0, name


def test_gradients_of_the_definition() -> None:
    given = [t.requires_grad_() for t in inputs((2, 3), rows=1, D=2, own=True).values()]
    assert torch.autograd.gradcheck(lambda x, w, u, D: line_scan_reference(x, w, u, D, (2, 3), DIRECTIONS), given)


def test_float64_is_computed_in_float64() -> None:
    given = inputs((3, 4))
    want = line_scan(**given, grid=(3, 4), impl="reference")
    torch.testing.assert_close(line_scan(**given, grid=(3, 4)), want, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize(("change", "said"), [
    ({"impl": "cuda"}, "impl 'cuda': choose one of auto, triton, torch, reference"),
    ({"directions": "down"}, "directions must be 1 to 8 names of down, up, right, left, not 'down'"),
    ({"directions": ["up"] * 9}, "directions must be 1 to 8 names"),
    ({"directions": ("up", "north")}, "direction 'north': choose from down, up, right, left"),
    ({"grid": (3, 5)}, r"x \(2, 12, 4\) has no 15 tokens of a 3 x 5 grid"),
    ({"grid": (-3, -4)}, "has no 12 tokens of a -3 x -4 grid"),
    ({"x": torch.zeros(12, 4)}, r"x must be \(\[K,\] B, H W, D\), not \(12, 4\)"),
    ({"x": torch.zeros(3, 2, 12, 4)}, r"x must be \(2, 12, 4\) or \(4, 2, 12, 4\) for 4 directions, not \(3, 2, 12"),
    ({"x": torch.zeros(2, 12, 0)}, r"nothing to scan: x \(2, 12, 0\)"),
    ({"weights": torch.zeros(2, 12, 3, 2)}, "a last axis of 2: it must be 1, .* or the 4 channels of x"),
    ({"weights": torch.zeros(2, 12, 3)}, r"weights must be \(2, 12, 3, 1\) or \(4, 2, 12, 3, 1\) beside x"),
    ({"u": torch.zeros(2, 11, 4)}, r"u must be \(2, 12, 4\) or .* not \(2, 11, 4\)"),
    ({"u": torch.zeros(2, 12, 4, dtype=torch.long)}, "u must be floating point, not torch.int64"),
    ({"u": torch.zeros(2, 12, 4, device="meta")}, "u is on meta, x on"),
    ({"D": torch.zeros(3)}, r"D must be \(4,\) or \(4, 4\) beside x \(2, 12, 4\) for 4 directions, not \(3,\)"),
    ({"D": torch.zeros(4, dtype=torch.float64), "impl": "triton"}, "'triton' computes in fp32: D cannot be float64"),
    ({"grid_sizes": torch.tensor([[3, 4], [4, 4]])}, r"grid_sizes go from \[3, 4\] to \[4, 4\]; the grid is 3 x 4"),
])  # fmt: skip
def test_what_it_refuses(change: dict[str, Any], said: str) -> None:
    given = {**{n: t.float() for n, t in inputs((3, 4), D=4).items()}, "grid": (3, 4), **change}
    with pytest.raises(ValueError, match=said):
        line_scan(**given)


def test_triton_needs_cuda(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("TRITON_INTERPRET", raising=False)
    x, weights, u, _ = (t.float() for t in inputs((3, 4)).values())
    with pytest.raises(ValueError, match="impl 'triton' needs tensors on CUDA, x is on cpu"):
        line_scan(x, weights, u, grid=(3, 4), impl="triton")


@pytest.mark.parametrize("led", [False, True])
def test_the_operators_are_what_they_say(led: bool) -> None:
    """torch.library's own checks: schema, fakes, and that nothing depends on what the fakes cannot know."""
    x, weights, u, D = (t.to(DEVICE, torch.float32) for t in inputs((2, 3), 2 if led else 0, 1, 2, led).values())
    for some_D, keep in ((D, True), (None, False)):
        torch.library.opcheck(torch.ops.mmeff.line_scan_forward, (x, weights, u, some_D, 2, 3, [0, 3], keep))
        y, h = torch.ops.mmeff.line_scan_forward(x, weights, u, some_D, 2, 3, [0, 3], True)
        torch.library.opcheck(torch.ops.mmeff.line_scan_backward, (y, x, weights, u, some_D, h, 2, 3, [0, 3]))


@pytest.mark.parametrize("impl", ["triton", "torch"])
def test_it_compiles_without_a_break(impl: Any) -> None:
    given = {n: t.to(DEVICE, torch.float32).requires_grad_() for n, t in inputs((2, 3)).items()}

    def call(**tensors: Any) -> Tensor:
        return line_scan(**tensors, grid=(2, 3), impl=impl)

    traced = gradients(torch.compile(call, backend="aot_eager", fullgraph=True)(**given), given)
    torch.testing.assert_close(traced, gradients(call(**given), given))


def test_the_same_input_gives_the_same_bits() -> None:
    given = {n: t.to(DEVICE, torch.float32).requires_grad_() for n, t in inputs((2, 3), D=17).items()}
    once, again = (gradients(line_scan(**given, grid=(2, 3), impl="triton"), given) for _ in range(2))
    assert all(torch.equal(once[name], again[name]) for name in once)
    with torch.no_grad():  # two lines of states in turn
        assert torch.equal(line_scan(**given, grid=(2, 3), impl="triton"), once["y"])


@pytest.mark.parametrize("own", [False, True])
def test_flops_are_those_of_a_count_by_hand(own: bool) -> None:
    given = {n: t.to(DEVICE, torch.float32).requires_grad_() for n, t in inputs((2, 3), own=own).items()}
    states = 4 * 2 * 6 * 5
    with FlopCounterMode(display=False) as counter:
        y = line_scan(**given, grid=(2, 3), impl="triton")
    # Three products and sums; u h and its sum; D x and its sum.
    assert counter.get_total_flops() == states * (6 + 2 + 2)
    with FlopCounterMode(display=False) as counter:
        y.sum().backward()
    # u gy, three products and sums; gy h; three products, summed over channels that share; D gy and gy x, with sums.
    assert counter.get_total_flops() == states * (1 + 6 + 1 + (3 if own else 6) + 4)


@pytest.mark.gpu
@pytest.mark.parametrize(("grid", "D", "rows"), [((56, 56), 96, 8), ((64, 64), 192, 2), ((3, 300), 40, 2)])
@pytest.mark.parametrize("own", [False, True])
def test_real_sizes(grid: tuple[int, int], D: int, rows: int, own: bool) -> None:
    drawn = inputs(grid, 4, rows, D, own, device=DEVICE)
    impls: tuple[Any, Any] = ("triton", "torch")
    for dtype, bound in BOUNDS.items():
        low = {name: t.to(dtype).requires_grad_() for name, t in drawn.items()}
        high = {name: t.detach().double().requires_grad_() for name, t in low.items()}
        got, want = (
            gradients(line_scan(**tensors, grid=grid, impl=impl), tensors)
            for tensors, impl in zip((low, high), impls, strict=True)
        )
        for name in got:
            assert (got[name].double() - want[name]).norm() <= bound * want[name].norm(), (name, dtype)
        again = gradients(line_scan(**low, grid=grid, impl="triton"), low)
        assert all(torch.equal(got[name], again[name]) for name in got), dtype
