"""Widths of inner layers, and that no layer of a mixer has one that a GPU reads at half its speed."""

import inspect

import pytest
from torch import nn

import mmeff.feedforward
import mmeff.mixers
from mmeff.widths import aligned, hidden_width

CLASSES = [
    cls
    for package in (mmeff.mixers, mmeff.feedforward)
    for cls in (getattr(package, name) for name in package.__all__)
    if not inspect.isabstract(cls) and cls is not mmeff.mixers.Parallel  # which is made of others
]


def test_widths_are_rounded_up() -> None:
    assert [aligned(n) for n in (1, 8, 9, 902)] == [8, 8, 16, 904]
    assert [hidden_width(dim, 8 / 3) for dim in (96, 192, 320)] == [256, 512, 856]
    with pytest.raises(ValueError, match=r"ratio 0\.1 of dim 8 leaves no hidden channel"):
        hidden_width(8, 0.1)


@pytest.mark.parametrize("cls", CLASSES)
def test_every_wide_layer_is_a_multiple_of_8(cls: type[nn.Module]) -> None:
    linear = [module for module in cls(320).modules() if isinstance(module, nn.Linear)]
    assert linear
    for layer in linear:
        assert all(size % 8 == 0 for size in layer.weight.shape if size > 64), layer
