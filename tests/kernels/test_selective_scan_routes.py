"""Scans along several routes: against a loop over tokens in float64, shared and own parameters, every gradient."""

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from mmeff_kernels.selective_scan import selective_scan, selective_scan_routes

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
#: What a route may have of its own.
OWN = ("x", "dt", "A", "B", "C", "D", "dt_bias", "dt_weight")


def inputs(
    K: int, own: tuple[str, ...] = OWN, rows: int = 2, L: int = 7, channels: int = 6, N: int = 4, rank: int | None = 3
) -> dict[str, Tensor]:
    """Two groups of channels; the tensors named in `own` lead with K."""
    generator = torch.Generator().manual_seed(0)
    shapes = {
        "x": (rows, L, channels), "dt": (rows, L, rank or channels), "A": (channels, N), "B": (rows, L, 2, N),
        "C": (rows, L, 2, N), "D": (channels,), "dt_bias": (channels,), "dt_weight": (channels, rank or channels),
        "z": (rows, L, channels), "initial_state": (K, rows, channels, N),
    }  # fmt: skip
    if rank is None:
        del shapes["dt_weight"]
    drawn = {
        name: torch.randn(*((K,) if name in own else ()), *shape, generator=generator, dtype=torch.float64)
        for name, shape in shapes.items()
    }
    return drawn | {"A": -drawn["A"].abs()}


def by_hand(tensors: dict[str, Tensor], orders: list[list[list[int]]], diagonal: str = "all") -> tuple[Tensor, Tensor]:
    """The definition: token after token, in the order orders[k][b]."""
    K, rows, channels, _ = tensors["initial_state"].shape
    ranks = {"x": 3, "dt": 3, "A": 2, "B": 4, "C": 4, "D": 1, "dt_bias": 1, "dt_weight": 2}
    total = torch.zeros_like(tensors["z"])
    states = []
    for k in range(K):
        t = {name: tensors[name][k] if tensors[name].dim() > r else tensors[name] for name, r in ranks.items()}
        dt = F.softplus(t["dt"] @ t["dt_weight"].mT + t["dt_bias"])
        B, C = (t[name].repeat_interleave(channels // 2, 2) for name in "BC")
        last = []
        for b in range(rows):
            h, ys = tensors["initial_state"][k, b], torch.zeros_like(total[b])
            for i in orders[k][b]:
                u = (dt[b, i] * t["x"][b, i])[:, None] * B[b, i]
                h = torch.exp(dt[b, i, :, None] * t["A"]) * h + u
                seen = h - u if diagonal == "first" and k > 0 else h
                y = (seen * C[b, i]).sum(-1) + t["D"] * t["x"][b, i]
                ys = ys + F.one_hot(torch.tensor(i), len(ys))[:, None] * y
            total = total + F.pad(ys[None], (0, 0, 0, 0, b, rows - 1 - b))
            last.append(h)
        states.append(torch.stack(last))
    return total * F.silu(tensors["z"]), torch.stack(states)


def errors(tensors: dict[str, Tensor], orders: Any, impl: Any, **options: Any) -> dict[str, float]:
    """Relative Frobenius error of y, of the states and of every gradient, in fp32."""
    high = {name: tensor.clone().requires_grad_() for name, tensor in tensors.items()}
    low = {name: tensor.to(DEVICE, torch.float32).requires_grad_() for name, tensor in tensors.items()}
    want = by_hand(high, orders, options.get("diagonal", "all"))
    on_device = {k: v.to(DEVICE) if isinstance(v, Tensor) else v for k, v in options.items()}
    got = selective_scan_routes(**low, dt_softplus=True, impl=impl, **on_device)
    weights = [torch.randn(t.shape, dtype=torch.float64, generator=torch.Generator().manual_seed(1)) for t in want]
    got_grads = torch.autograd.grad(got, tuple(low.values()), [w.to(t) for w, t in zip(weights, got, strict=True)])
    want_grads = torch.autograd.grad(want, tuple(high.values()), weights)
    return {
        name: ((a.cpu() - b).norm() / b.norm()).item()
        for name, a, b in zip(("y", "states", *tensors), (*got, *got_grads), (*want, *want_grads), strict=True)
    }


IMPLS = pytest.mark.parametrize("impl", ["triton", "torch", "reference"])


@IMPLS
@pytest.mark.parametrize("diagonal", ["all", "first"])
@pytest.mark.parametrize("own", [OWN, ()], ids=["untied", "tied"])
def test_both_directions(own: tuple[str, ...], diagonal: str, impl: str) -> None:
    tensors = inputs(2, own)
    orders = [[list(range(7))] * 2, [list(range(7))[::-1]] * 2]
    found = errors(tensors, orders, impl, routes=("forward", "backward"), diagonal=diagonal)
    assert max(found.values()) <= 1e-5, found


@IMPLS
def test_both_directions_of_rows_of_different_lengths(impl: str) -> None:
    orders = [[list(range(7)), [0, 1, 2]], [list(range(7))[::-1], [2, 1, 0]]]
    options = {"routes": ("forward", "backward"), "lengths": torch.tensor([7, 3])}
    for diagonal in ("all", "first"):
        found = errors(inputs(2), orders, impl, diagonal=diagonal, **options)
        assert max(found.values()) <= 1e-5, found


@IMPLS
def test_any_order(impl: str) -> None:
    """Four random routes with some parameters of their own, as in a cross-scan: x is shared."""
    generator = torch.Generator().manual_seed(2)
    table = torch.stack([torch.randperm(7, generator=generator) for _ in range(4)])
    tensors = inputs(4, ("dt", "A", "B", "C", "D", "dt_bias", "dt_weight"))
    found = errors(tensors, [[order] * 2 for order in table.tolist()], impl, routes=table)
    assert max(found.values()) <= 1e-5, found


@IMPLS
def test_one_route_is_the_scan(impl: Any) -> None:
    tensors = {k: t.to(DEVICE, torch.float32) for k, t in inputs(1, ()).items()}
    state = tensors.pop("initial_state")
    for route, reverse in (("forward", False), ("backward", True)):
        y, last = selective_scan_routes(**tensors, initial_state=state, dt_softplus=True, routes=[route], impl=impl)
        expected = selective_scan(
            **tensors, initial_state=state[0], dt_softplus=True, reverse=reverse, return_final_state=True, impl=impl
        )
        assert torch.equal(y, expected[0]) and torch.equal(last[0], expected[1])


def test_parts_of_a_projection_are_read_where_they_lie() -> None:
    """K-fold dt, B and C as slices of one map's output, the axis K moved to the front: no copies, right values."""
    together = torch.randn(2, 7, 2 * (3 + 4 + 4), device=DEVICE)
    dt, B, C = together.unflatten(-1, (2, -1)).movedim(2, 0).split([3, 4, 4], -1)
    tensors = {k: t.to(DEVICE, torch.float32) for k, t in inputs(2).items() if k not in ("dt", "B", "C")}
    outputs = [
        selective_scan_routes(
            **tensors, dt=dt, B=B[:, :, :, None], C=C[:, :, :, None], dt_softplus=True, routes=("forward", "backward"),
            impl=impl,
        )[0]
        for impl in ("triton", "reference")
    ]  # fmt: skip
    torch.testing.assert_close(*outputs)


def test_what_is_no_route_is_said() -> None:
    tensors = {k: t.float() for k, t in inputs(2).items()}
    for routes, message in (
        (("forward", "up"), "route 'up': choose 'forward' or 'backward'"),
        ("forward", "routes must be 1 to 32 names"),
        (torch.zeros(2, 7, dtype=torch.int64), "route 0 is no permutation of the tokens 0 to 6"),
        (torch.arange(6)[None], r"routes must be \(K, 7\) integers beside x \(2, 2, 7, 6\), not \(1, 6\) torch.int64"),
    ):
        with pytest.raises(ValueError, match=message):
            selective_scan_routes(**tensors, routes=routes)  # pyright: ignore[reportArgumentType]
    with pytest.raises(ValueError, match="a table of routes passes through all L tokens"):
        selective_scan_routes(**tensors, routes=torch.arange(7).repeat(2, 1), lengths=torch.tensor([7, 3]))
    with pytest.raises(ValueError, match="diagonal 'none': choose 'all' or 'first'"):
        selective_scan_routes(**tensors, routes=("forward", "backward"), diagonal="none")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"x must be \(2, 7, 6\) or \(3, 2, 7, 6\) for 3 routes, not \(2, 2, 7, 6\)"):
        selective_scan_routes(**tensors, routes=("forward", "backward", "forward"))


def test_a_changed_table_is_looked_at_again() -> None:
    tensors = {k: t.float() for k, t in inputs(1, ()).items()}
    table = torch.arange(7)[None]
    selective_scan_routes(**tensors, routes=table)
    table[0, 0] = 3
    with pytest.raises(ValueError, match="route 0 is no permutation"):
        selective_scan_routes(**tensors, routes=table)
