"""Layer normalisation against its definition in float64: y, every gradient, types, and what it refuses."""

from typing import Any

import pytest
import torch
from torch import Tensor

from mmeff_kernels.layer_norm import add_layer_norm, layer_norm

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"


def drawn(*shape: int) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(0)
    sizes = {"x": shape, "weight": shape[-1:], "bias": shape[-1:]}
    found = {name: torch.randn(size, generator=generator, dtype=torch.float64) for name, size in sizes.items()}
    return {**found, "x": 3.0 * found["x"] + 5.0}


def errors(given: dict[str, Tensor], impl: Any, dtype: torch.dtype, eps: float = 1e-5) -> dict[str, float]:
    """Relative errors of y and of every gradient, x and y of a type."""
    low = {name: t.to(DEVICE, dtype if name == "x" else torch.float32).requires_grad_() for name, t in given.items()}
    high = {name: t.detach().double().requires_grad_() for name, t in low.items()}
    x = high["x"]
    n = (x - x.mean(-1, keepdim=True)) / (x.var(-1, keepdim=True, unbiased=False) + eps).sqrt()
    want = n * high["weight"] + high["bias"]
    got = layer_norm(low["x"], low["weight"], low["bias"], eps, impl=impl)
    assert got.dtype == dtype and got.shape == want.shape
    weight = torch.randn(want.shape, dtype=torch.float64, generator=torch.Generator().manual_seed(1)).to(DEVICE)
    weight = weight.to(dtype).double()
    pairs = {"y": (got, want)}
    grads = torch.autograd.grad(got, tuple(low.values()), weight.to(dtype))
    expected = torch.autograd.grad(want, tuple(high.values()), weight)
    pairs |= dict(zip(low, zip(grads, expected, strict=True), strict=True))
    return {name: ((a.double() - b).norm() / b.norm()).item() for name, (a, b) in pairs.items()}


@pytest.mark.parametrize("impl", ["triton", "torch"])
@pytest.mark.parametrize("shape", [(2, 5, 24), (24,), (1, 1), (3000, 3), (7, 130), (2, 2500)])
def test_it_is_its_definition(shape: tuple[int, ...], impl: Any) -> None:
    eps = 1e-5 if shape[-1] > 1 else 1.0  # one channel has no variance
    found = errors(drawn(*shape), impl, torch.float32, eps)
    if shape[-1] == 1:
        del found["x"], found["weight"]  # exactly 0
    assert max(found.values()) <= 1e-5, found


def sum_errors(shape: tuple[int, ...], impl: Any, dtype: torch.dtype) -> dict[str, float]:
    """Relative errors of x + branch, of its norm and of every gradient, the branch and the norm of a type."""
    given = drawn(*shape)
    given["branch"] = 2.0 * torch.randn(shape, dtype=torch.float64, generator=torch.Generator().manual_seed(2))
    low = {name: t.to(DEVICE, dtype if name == "branch" else torch.float32) for name, t in given.items()}
    low = {name: t.requires_grad_() for name, t in low.items()}
    high = {name: t.detach().double().requires_grad_() for name, t in low.items()}
    s = high["x"] + high["branch"]
    want = s, torch.nn.functional.layer_norm(s, shape[-1:], high["weight"], high["bias"])
    got = add_layer_norm(low["x"], low["branch"], low["weight"], low["bias"], dtype=dtype, impl=impl)
    assert got[0].dtype == torch.float32 and got[1].dtype == dtype
    weights = [torch.linspace(-1, 2, s.numel(), device=DEVICE).view(shape).to(t.dtype) for t in got]
    grads = torch.autograd.grad(got, tuple(low.values()), weights)
    expected = torch.autograd.grad(want, tuple(high.values()), [w.double() for w in weights])
    assert grads[3].dtype == dtype
    pairs = {"s": (got[0], want[0]), "y": (got[1], want[1])}
    pairs |= dict(zip(low, zip(grads, expected, strict=True), strict=True))
    return {name: ((a.double() - b).norm() / b.norm()).item() for name, (a, b) in pairs.items()}


@pytest.mark.parametrize("impl", ["triton", "torch"])
def test_a_residual_sum_and_its_norm(impl: Any) -> None:
    found = sum_errors((3, 67, 100), impl, torch.float32)
    assert max(found.values()) <= 1e-5, found


@pytest.mark.parametrize("impl", ["triton", "torch"])
def test_of_a_residual_sum_either_part_may_go_unread(impl: Any) -> None:
    given = {name: t.to(DEVICE, torch.float32).requires_grad_() for name, t in drawn(5, 24).items()}
    branch = torch.randn(5, 24, device=DEVICE, requires_grad=True)
    s, y = add_layer_norm(given["x"], branch, given["weight"], given["bias"], impl=impl)
    (alone,) = torch.autograd.grad(s.sum(), branch, retain_graph=True)
    assert (alone == 1).all()
    want = layer_norm(given["x"] + branch, given["weight"], given["bias"], impl="torch").square().sum()
    grads = [torch.autograd.grad(total, branch)[0] for total in (y.square().sum(), want)]
    torch.testing.assert_close(*grads)


@pytest.mark.gpu
@pytest.mark.parametrize("shape", [(50176, 192), (16, 6084, 192), (333, 768), (7, 8192)])
def test_real_sizes(shape: tuple[int, ...]) -> None:
    given = drawn(*shape)
    assert max(errors(given, "triton", torch.float32).values()) <= 1e-5
    assert max(errors(given, "triton", torch.bfloat16).values()) <= 1e-2
    assert max(sum_errors(shape, "triton", torch.float32).values()) <= 1e-5
    assert max(sum_errors(shape, "triton", torch.bfloat16).values()) <= 1e-2


@pytest.mark.parametrize("impl", ["triton", "torch"])
def test_the_result_has_the_type_that_was_asked_for(impl: Any) -> None:
    given = {name: t.to(DEVICE, torch.float32) for name, t in drawn(4, 8).items()}
    tensors = given["x"], given["weight"], given["bias"]
    y = layer_norm(*tensors, dtype=torch.bfloat16, impl=impl)
    assert y.dtype == torch.bfloat16
    torch.testing.assert_close(y.float(), layer_norm(*tensors, impl=impl), rtol=1e-2, atol=1e-2)


def test_what_it_refuses() -> None:
    x, weight = torch.zeros(2, 3, 4), torch.zeros(4)
    with pytest.raises(ValueError, match=r"bias must be \(4,\) beside x \(2, 3, 4\), not \(5,\)"):
        layer_norm(x, weight, torch.zeros(5))
    with pytest.raises(ValueError, match=r"branch must be \(2, 3, 4\), as x, not \(2, 4\)"):
        add_layer_norm(x, torch.zeros(2, 4), weight, weight)
    with pytest.raises(ValueError, match="choose one of auto, triton, torch"):
        layer_norm(x, weight, weight, impl="cuda")  # pyright: ignore[reportArgumentType]
    with pytest.raises(ValueError, match=r"x must be \(..., D\) with D of 1 or more, not \(4, 0\)"):
        layer_norm(torch.zeros(4, 0), weight, weight)
    with pytest.raises(ValueError, match="x cannot be float64"):
        layer_norm(x.double(), weight.double(), weight.double(), impl="triton")
    with pytest.raises(ValueError, match="D up to 8192"):
        layer_norm(torch.zeros(1, 9000, device=DEVICE), *[torch.zeros(9000, device=DEVICE)] * 2, impl="triton")
