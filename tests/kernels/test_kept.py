"""Tensors that are kept hold numbers, whatever was on when they were first asked for."""

import torch
from torch._subclasses.fake_tensor import FakeTensorMode

from mmeff_kernels.kept import kept


def test_nothing_poisons_what_is_kept() -> None:
    @kept
    def table(n: int, device: torch.device) -> torch.Tensor:
        return (torch.arange(n, dtype=torch.float64) + 1).to(device, torch.float32)

    cpu = torch.device("cpu")
    x = torch.ones(3)
    with FakeTensorMode() as fake:
        assert table(3, cpu).shape == (3,)
        assert (table(3, cpu) * fake.from_tensor(x)).shape == (3,)
    torch.func.grad(lambda x: (x * table(3, cpu)).sum())(x)
    torch.func.functionalize(lambda x: x * table(3, cpu))(x)
    with torch.device("meta"), torch.inference_mode():
        first = table(3, cpu)
    assert table(3, cpu) is first
    assert type(first) is torch.Tensor and first.tolist() == [1, 2, 3]
    assert not torch._C._functorch.is_functorch_wrapped_tensor(first)
    assert not torch._is_functional_tensor(first)
    (x.requires_grad_() * first).sum().backward()
    with FakeTensorMode() as fake:
        assert (table(3, cpu) * fake.from_tensor(x)).shape == (3,)
