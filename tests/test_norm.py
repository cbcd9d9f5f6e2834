"""Norms of tokens are those of torch, in values and gradients."""

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mmeff.norm import RMSNorm, rms_norm


@pytest.mark.parametrize("weighted", [True, False])
@pytest.mark.parametrize("shape", [(2, 5, 7), (3, 1, 2, 4), (6,)])
def test_rms_norm_is_torchs(shape: tuple[int, ...], weighted: bool) -> None:
    x = torch.randn(shape, dtype=torch.float64, requires_grad=True)
    weight = torch.randn(shape[-1:], dtype=torch.float64, requires_grad=True) if weighted else None
    given = [x] if weight is None else [x, weight]
    gy = torch.randn(shape, dtype=torch.float64)
    found, wanted = rms_norm(x, weight, 1e-3), F.rms_norm(x, shape[-1:], weight, 1e-3)
    torch.testing.assert_close(found, wanted)
    for mine, theirs in zip(torch.autograd.grad(found, given, gy), torch.autograd.grad(wanted, given, gy), strict=True):
        torch.testing.assert_close(mine, theirs)


def test_rms_norm_of_large_small_and_zero_rows_is_finite() -> None:
    x = torch.tensor([[1e15, -1e15], [1e-20, 1e-20], [0.0, 0.0]], requires_grad=True)
    y = rms_norm(x, eps=1e-5)
    torch.testing.assert_close(y, torch.tensor([[1.0, -1.0], [0.0, 0.0], [0.0, 0.0]]))
    y.sum().backward()
    assert x.grad is not None and x.grad.isfinite().all()


@pytest.mark.parametrize("eps", [None, 1e-5])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_module_is_torchs_for_every_type(dtype: torch.dtype, eps: float | None) -> None:
    mine, theirs = RMSNorm(8, eps, dtype=dtype), nn.RMSNorm(8, eps, dtype=dtype)
    x = (torch.randn(3, 8) / 10).to(dtype)  # beside which the eps of bf16 is not small
    assert mine(x).dtype == dtype
    torch.testing.assert_close(mine(x), theirs(x))
    assert mine.state_dict().keys() == theirs.state_dict().keys()
    with torch.autocast("cpu", torch.bfloat16):
        torch.testing.assert_close(mine(x), theirs(x))


def test_torch_compile_takes_torchs_own() -> None:
    seen: list[str] = []

    def backend(graph: torch.fx.GraphModule, _: list[Tensor]) -> torch.fx.GraphModule:
        seen.extend(str(node.target) for node in graph.graph.nodes)
        return graph

    x = torch.randn(3, 8)
    torch.testing.assert_close(torch.compile(RMSNorm(8), backend=backend, fullgraph=True)(x), nn.RMSNorm(8)(x))
    assert any("rms_norm" in name for name in seen)
