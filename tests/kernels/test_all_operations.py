"""What holds for every operation: batches and sequences without a token give a result of the right shape and gradients
of 0; second derivatives are right, or refused."""

from typing import Any

import pytest
import torch
from torch import Tensor

from mmeff_kernels.decay import decay_attention
from mmeff_kernels.full_sum import full_sum, full_sum_qkvpacked
from mmeff_kernels.layer_norm import add_layer_norm, layer_norm
from mmeff_kernels.scan2d import cross_scan, line_scan, separable_scan, wavefront_scan
from mmeff_kernels.selective_scan import selective_scan, selective_scan_routes, selective_scan_step
from mmeff_kernels.short_conv import short_conv

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
IMPLS = ["triton", "torch", "reference"]
D, N = 4, 5


def draw(*shape: int) -> Tensor:
    return torch.randn(shape, device=DEVICE, requires_grad=True)


def heads(B: int, L: int) -> list[Tensor]:
    return [draw(B, L, 2, 4) for _ in range(3)]


def scanned(B: int, L: int) -> list[Tensor]:
    return [draw(B, L, D), (-gates(B, L, D)).detach().requires_grad_(), gates(D, N),
            draw(B, L, N), draw(B, L, N), draw(D)]  # fmt: skip


def gates(*shape: int) -> Tensor:
    return (-torch.rand(shape, device=DEVICE)).requires_grad_()


#: By name: the tensors for B rows of L tokens, and what is called with them.
OPS: dict[str, Any] = {
    "selective_scan": (scanned, lambda t, impl: selective_scan(*t, return_final_state=True, impl=impl)),
    "selective_scan, gated": (
        lambda B, L: [*scanned(B, L), draw(B, L, D)],
        lambda t, impl: (selective_scan(*t[:6], z=t[6], impl=impl),),
    ),
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
    "wavefront_scan": (
        lambda B, L: [*(t for i, t in enumerate(scanned(B, L)) if i != 4), *scanned(B, L)[1:5]],
        lambda t, impl: (wavefront_scan(*t[:4], *t[5:], t[4], grid=(1, 3), impl=impl),),
    ),
    "line_scan": (
        lambda B, L: [draw(B, L, D), draw(B, L, 3, 1), draw(B, L, D), draw(D)],
        lambda t, impl: (line_scan(*t, grid=(1, 3), directions=("down",), impl=impl),),
    ),
}  # fmt: skip
#: From states, which no tokens leave as they are.
FROM_STATES: dict[str, Any] = {
    "selective_scan": (
        lambda B, L: [*scanned(B, L), draw(B, D, N)],
        lambda t, impl: selective_scan(*t[:6], initial_state=t[6], return_final_state=True, impl=impl),
    ),
    "decay": (
        lambda B, L: [*heads(B, L), gates(2, B, L, 2, 4), draw(2, 4), draw(2, B, 2, 4, 4)],
        lambda t, impl: decay_attention(
            *t[:4], direction="both", bonus=t[4], initial_state=t[5], output_final_state=True, impl=impl
        ),
    ),
}
#: A grid has a token at least.
GRIDS = ("cross_scan", "separable_scan", "wavefront_scan", "line_scan")


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
    x, dt, A, B, C, D_ = scanned(0, 1)
    y, last = selective_scan_step(draw(0, D, N), x[:, 0], dt[:, 0], A, B[:, 0], C[:, 0], D_)
    assert y.shape == (0, D) and last.shape == (0, D, N)
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


@pytest.mark.parametrize("laid_out", ["side by side", "across"])
@pytest.mark.parametrize(
    ("name", "impl"), [*CASES, *((f"{name}, from a state", impl) for name in FROM_STATES for impl in IMPLS)]
)
def test_second_derivatives_are_right_or_refused(name: str, impl: Any, laid_out: str) -> None:
    """Of each tensor by itself, as `autograd.grad(inputs=...)` asks: it takes a path that is missing for a 0."""
    torch.manual_seed(0)
    make, run = OPS[name] if name in OPS else FROM_STATES[name.removesuffix(", from a state")]
    tensors = make(2, 3)

    weights = [torch.randn_like(o) for o in run(tensors, "torch")]

    def gradients(impl: str, kind: torch.dtype) -> tuple[list[Tensor], Tensor]:
        """The tensors and the weights of the results, and a function of the tensors' gradients and of both."""
        leaves = [t.detach().to(kind).requires_grad_() for t in tensors]
        given = leaves if laid_out == "side by side" else [t.mT.contiguous().mT if t.dim() > 1 else t for t in leaves]
        outer = [w.to(kind).requires_grad_() for w in weights]
        total = sum((o * w).sum() for o, w in zip(run(given, impl), outer, strict=True))
        first = torch.autograd.grad(total, leaves, create_graph=True)  # type: ignore[arg-type]
        leaves += outer
        return leaves, sum(g.square().sum() for g in first) + sum(t.pow(3).sum() for t in leaves)  # type: ignore[return-value]

    leaves, found = gradients(impl, torch.float32)
    exact, wanted = gradients("torch" if name in PLAIN else "reference", torch.float64)
    torch.testing.assert_close(found.double(), wanted, rtol=1e-4, atol=1e-4)
    refused = 0
    for leaf, other in zip(leaves, exact, strict=True):
        right = torch.autograd.grad(wanted, other, retain_graph=True)[0]
        try:
            second = torch.autograd.grad(found, leaf, retain_graph=True)[0]
        except RuntimeError as error:
            assert "gradients of the first order only" in str(error) and "has second ones" in str(error)
            refused += 1
        else:
            torch.testing.assert_close(second.double(), right, rtol=1e-3, atol=1e-3 * float(right.abs().max()))
    assert refused == 0 or impl != "reference"
    # What does not hang on those gradients can be had all the same.
    assert torch.equal(torch.autograd.grad(leaves[0].pow(3).sum(), leaves[0])[0], 3 * leaves[0].detach().square())


@pytest.mark.gpu
@pytest.mark.parametrize("name", OPS)
def test_the_same_on_the_gpu(name: str) -> None:
    test_no_rows_and_no_tokens(name, "triton")
    for laid_out in ("side by side", "across"):
        test_second_derivatives_are_right_or_refused(name, "triton", laid_out)


@pytest.mark.gpu
def test_empty_sequences_on_the_gpu() -> None:
    test_empty_sequences_among_others("triton")
