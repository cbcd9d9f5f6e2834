"""The selective scan as torch sees it: registered operators, whole graphs, counted FLOPs."""

from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from mmeff_kernels.selective_scan import operators, selective_scan, selective_scan_routes  # noqa: F401 (registers)

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"


def operands(routes: int, rows: int = 2, L: int = 5, D: int = 6, N: int = 4) -> tuple[Tensor, ...]:
    """x, dt, A, B, C, D, bias with own parameters for each route, as the operators take them."""

    def draw(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=torch.Generator().manual_seed(0)).to(DEVICE)

    A = -draw(routes, N, D).abs()
    BC = draw(routes, rows, L, 1, N)
    return draw(rows, L, D), draw(routes, rows, L, D), A, BC, BC, draw(routes, D), draw(routes, D)


@pytest.mark.parametrize("once", [False, True])
def test_the_operators_are_what_they_say(once: bool) -> None:
    """torch.library's own checks: schema, fakes, and that nothing depends on what the fakes cannot know."""
    inputs = operands(2)
    state = torch.randn(2, 2, 4, 6, device=DEVICE)
    for last, save in ((True, True), (False, False)):
        arguments = (*inputs, state, None, None, True, 2, 2, 0, once, last, save)
        torch.library.opcheck(torch.ops.mmeff.selective_scan_forward, arguments)
    y, last, saves = torch.ops.mmeff.selective_scan_forward(*inputs, state, None, None, True, 2, 2, 0, once, True, True)
    arguments = (y, last, *inputs, None, None, saves, True, 2, 2, 0, once, True)
    torch.library.opcheck(torch.ops.mmeff.selective_scan_backward, arguments)


def test_packed_rows_and_tables_too() -> None:
    x, dt, A, B, C, D, bias = operands(1, rows=1, L=7)
    ends = torch.tensor([0, 3, 7], device=DEVICE)
    arguments = (x, dt, A, B, C, D, bias, None, ends, None, True, 1, 0, 4, False, True, True)
    torch.library.opcheck(torch.ops.mmeff.selective_scan_forward, arguments)
    table = torch.randperm(7, device=DEVICE).int()[None]
    arguments = (x, dt, A, B, C, D, bias, None, None, table, True, 1, 0, 0, False, True, True)
    torch.library.opcheck(torch.ops.mmeff.selective_scan_forward, arguments)


def arguments(N: int = 4) -> dict[str, Tensor]:
    x, dt, A, B, C, D, bias = operands(1, N=N)
    given = {"x": x, "dt": dt[0], "A": A[0].mT, "B": B[0], "C": C[0], "D": D[0], "dt_bias": bias[0], "z": x}
    return {name: t.clone().requires_grad_() for name, t in given.items()}


@pytest.mark.parametrize("impl", ["triton", "torch"])
def test_it_compiles_without_a_break(impl: Any) -> None:
    """fullgraph=True, forward and backward; aot_eager runs what was traced."""
    given = arguments()
    weight = torch.randn_like(given["x"])

    def both(**tensors: Tensor) -> Tensor:
        y = selective_scan(**tensors, dt_softplus=True, impl=impl)
        z, _ = selective_scan_routes(**tensors, dt_softplus=True, routes=("forward", "backward"), impl=impl)
        return y + z

    plain = both(**given)
    traced = torch.compile(both, backend="aot_eager", fullgraph=True)(**given)
    torch.testing.assert_close(traced, plain)
    grads = [torch.autograd.grad(y, tuple(given.values()), weight) for y in (traced, plain)]
    torch.testing.assert_close(*grads)


def test_flops_are_those_of_a_count_by_hand() -> None:
    rows, L, D, N = 2, 5, 6, 4
    given = arguments(N)
    given.pop("z")
    with FlopCounterMode(display=False) as counter:
        y = selective_scan(**given, dt_softplus=True, impl="triton")
    # A state of a channel at a step: dt A, exp, (dt x) B, a h and + u, C h and its sum. A channel: dt x, + D x.
    assert counter.get_total_flops() == rows * L * D * (7 * N + 3)
    with FlopCounterMode(display=False) as counter:
        y.sum().backward()
    # dh: dy C, +; dC, dB, d(dt x): products and sums; a dh; dh h; dA: product and sum; d dt: product and sum; h: 5.
    assert counter.get_total_flops() == rows * L * D * (2 + 2 + 2 + 2 + 1 + 1 + 2 + 2 + 5) * N + 9 * rows * L * D
    low, weight = torch.randn(rows, L, 3, device=DEVICE), torch.randn(D, 3, device=DEVICE)
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        selective_scan_routes(
            **{**given, "dt": low}, dt_weight=weight, dt_softplus=True, routes=("forward",) * 3, impl="triton"
        )
    assert counter.get_total_flops() == rows * L * D * (3 * (7 * N + 3) + 2 * 3)  # all routes share one product
