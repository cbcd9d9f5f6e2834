"""Batches and sequences without a token: a result of the right shape, and gradients of 0."""

from typing import Any

import pytest
import torch
from torch import Tensor

from mmeff_kernels.decay import decay_attention
from mmeff_kernels.full_sum import full_sum, full_sum_qkvpacked
from mmeff_kernels.layer_norm import add_layer_norm, layer_norm
from mmeff_kernels.scan2d import cross_scan, line_scan, separable_scan
from mmeff_kernels.selective_scan import selective_scan, selective_scan_routes
from mmeff_kernels.short_conv import short_conv

IMPLS = ["triton", "torch", "reference"]
D, N = 4, 5


def draw(*shape: int) -> Tensor:
    return torch.randn(shape, requires_grad=True)


def heads(B: int, L: int) -> list[Tensor]:
    return [draw(B, L, 2, 4) for _ in range(3)]


def scanned(B: int, L: int) -> list[Tensor]:
    return [draw(B, L, D), torch.rand(B, L, D, requires_grad=True), (-torch.rand(D, N)).requires_grad_(),
            draw(B, L, N), draw(B, L, N), draw(D)]  # fmt: skip


def gates(*shape: int) -> Tensor:
    return (-torch.rand(shape)).requires_grad_()


#: By name: the tensors for B rows of L tokens, and what is called with them.
OPS: dict[str, Any] = {
    "selective_scan": (scanned, lambda t, impl: selective_scan(*t, return_final_state=True, impl=impl)),
    "routes": (scanned, lambda t, impl: selective_scan_routes(*t, routes=("forward", "backward"), impl=impl)),
    "decay": (
        lambda B, L: [*heads(B, L), gates(B, L, 2)],
        lambda t, impl: decay_attention(*t, output_final_state=True, impl=impl),
    ),
    "decay, both": (
        lambda B, L: [*heads(B, L), gates(2, B, L, 2, 4)],
        lambda t, impl: decay_attention(*t, direction="both", output_final_state=True, impl=impl),
    ),
    "full_sum": (heads, lambda t, impl: (full_sum(*t, impl=impl),)),
    "qkvpacked": (lambda B, L: [draw(B, L, 3, 2, 4)], lambda t, impl: (full_sum_qkvpacked(*t, impl=impl),)),
    "layer_norm": (lambda B, L: [draw(B, L, D), draw(D), draw(D)], lambda t, impl: (layer_norm(*t, impl=impl),)),
    "add_layer_norm": (
        lambda B, L: [draw(B, L, D), draw(B, L, D), draw(D), draw(D)],
        lambda t, impl: add_layer_norm(*t, impl=impl),
    ),
    "short_conv": (
        lambda B, L: [draw(B, L, D), draw(1, D, 3), draw(1, D)],
        lambda t, impl: (short_conv(*t, sides=["causal"], impl=impl),),
    ),
    "cross_scan": (scanned, lambda t, impl: (cross_scan(*t, grid=(1, 3), impl=impl),)),
    "separable_scan": (scanned, lambda t, impl: (separable_scan(*t, grid=(1, 3), impl=impl),)),
    "line_scan": (
        lambda B, L: [draw(B, L, D), draw(B, L, 3, 1), draw(B, L, D), draw(D)],
        lambda t, impl: (line_scan(*t, grid=(1, 3), directions=("down",), impl=impl),),
    ),
}  # fmt: skip
#: A grid has a token at least.
GRIDS = ("cross_scan", "separable_scan", "line_scan")


#: These are defined by torch's own operators.
PLAIN = ("layer_norm", "add_layer_norm", "short_conv")
CASES = [(name, impl) for name in OPS for impl in (IMPLS[:2] if name in PLAIN else IMPLS)]


@pytest.mark.parametrize(("name", "impl"), CASES)
def test_no_rows_and_no_tokens(name: str, impl: Any) -> None:
    make, run = OPS[name]
    shapes = [o.shape for o in run(make(7, 3), "torch")]
    for B, L in ((0, 3), (2, 0))[: 1 if name in GRIDS else 2]:
        tensors = make(B, L)
        found = run(tensors, impl)
        for o, shape in zip(found, shapes, strict=True):
            assert o.shape == tuple({7: B, 3: L}.get(n, n) for n in shape)
            assert not o.any()
        gradients = torch.autograd.grad(sum(o.sum() for o in found), tensors)  # type: ignore[arg-type]
        assert all(not g.any() and g.shape == t.shape for g, t in zip(gradients, tensors, strict=True))


def test_a_state_passes_through_no_tokens() -> None:
    state = draw(2, D, N)
    _, last = selective_scan(*scanned(2, 0), initial_state=state, return_final_state=True)
    assert torch.equal(last, state)
    state = draw(2, 2, 4, 4)
    q, k, v = heads(2, 0)
    _, final = decay_attention(q, k, v, gates(2, 0, 2), initial_state=state, output_final_state=True)
    assert final is not None and torch.equal(final, state)


@pytest.mark.parametrize("impl", IMPLS)
def test_empty_sequences_among_others(impl: Any) -> None:
    """At the start, in between and at the end: the others are as without them, their own states as they were."""
    torch.manual_seed(0)
    full, some = torch.tensor([0, 2, 5]), torch.tensor([0, 0, 2, 2, 2, 5, 5])
    kept = [1, 4]
    tensors = scanned(1, 5)
    start = draw(6, D, N)
    options = {"return_final_state": True, "impl": impl}
    y, last = selective_scan(*tensors, cu_seqlens=full, initial_state=start[kept], **options)  # type: ignore[call-overload]
    z, other = selective_scan(*tensors, cu_seqlens=some, initial_state=start, **options)  # type: ignore[call-overload]
    torch.testing.assert_close(z, y)
    torch.testing.assert_close(other[kept], last)
    empty = [0, 2, 3, 5]
    assert torch.equal(other[empty], start[empty])
    wanted, found = (torch.autograd.grad(o.square().sum(), tensors, retain_graph=True) for o in (y, z))
    torch.testing.assert_close(found, wanted)

    for each in (False, True):
        tensors = [*heads(1, 5), gates(1, 5, 2, 4) if each else gates(1, 5, 2)]
        start = draw(6, 2, 4, 4)
        (y, last), (z, other) = (
            decay_attention(*tensors, cu_seqlens=ends, initial_state=state, output_final_state=True, impl=impl)
            for ends, state in ((full, start[kept]), (some, start))
        )  # type: ignore[misc]
        torch.testing.assert_close(z, y)
        assert last is not None and other is not None
        torch.testing.assert_close(other[kept], last)
        assert torch.equal(other[empty], start[empty])
        wanted, found = (torch.autograd.grad(o.square().sum(), tensors, retain_graph=True) for o in (y, z))
        torch.testing.assert_close(found, wanted)

    q, k, v = tensors = heads(1, 5)
    y, z = (full_sum(q, k, v, cu_seqlens=ends, impl=impl) for ends in (full, some))
    torch.testing.assert_close(z, y)
    wanted, found = (torch.autograd.grad(o.square().sum(), tensors) for o in (y, z))
    torch.testing.assert_close(found, wanted)
