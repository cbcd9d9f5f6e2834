"""The short convolution against sums over taps in float64: every side, width and gradient."""

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from mmeff_kernels.short_conv import short_conv

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"


def inputs(sides: tuple[str, ...], width: int, rows: int = 2, L: int = 19, channels: int = 6) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(0)
    shapes = {"x": (rows, L, channels), "weight": (len(sides), channels, width), "bias": (len(sides), channels)}
    return {name: torch.randn(shape, generator=generator, dtype=torch.float64) for name, shape in shapes.items()}


def by_hand(
    x: Tensor, weight: Tensor, bias: Tensor | None, sides: tuple[str, ...], silu: bool, lengths: list[int]
) -> Tensor:
    """Token after token, tap after tap."""
    width, ys = weight.shape[-1], []
    for k, side in enumerate(sides):
        rows = []
        for b, length in enumerate(lengths):
            row = []
            for t in range(x.shape[1]):
                y = torch.zeros_like(x[b, t]) if bias is None else bias[k]
                for w in range(width):
                    o = {"causal": w - (width - 1), "anticausal": width - 1 - w, "centred": w - width // 2}[side]
                    if 0 <= t + o < length:
                        y = y + weight[k, :, w] * x[b, t + o]
                y = F.silu(y) if silu else y
                row.append(y if t < length else torch.zeros_like(y))
            rows.append(torch.stack(row))
        ys.append(torch.stack(rows))
    return torch.stack(ys)


@pytest.mark.parametrize("impl", ["triton", "torch"])
@pytest.mark.parametrize(("sides", "width"), [
    (("causal",), 4), (("causal", "anticausal"), 4), (("centred",), 3), (("anticausal",), 2),
    (("centred", "causal"), 7), (("causal",), 1),
])  # fmt: skip
def test_it_is_the_sum_over_taps(sides: Any, width: int, impl: Any) -> None:
    for silu, lengths, has_bias in ((True, [19, 19], True), (False, [19, 5], False), (True, [3, 0], True)):
        given = inputs(sides, width)
        if not has_bias:
            del given["bias"]
        high = {name: tensor.clone().requires_grad_() for name, tensor in given.items()}
        low = {name: tensor.to(DEVICE, torch.float32).requires_grad_() for name, tensor in given.items()}
        want = by_hand(high["x"], high["weight"], high.get("bias"), sides, silu, lengths)
        some = None if lengths == [19, 19] else torch.tensor(lengths, device=DEVICE)
        got = short_conv(**low, sides=sides, silu=silu, lengths=some, impl=impl)
        weight = torch.randn(want.shape, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
        grads = torch.autograd.grad(got, tuple(low.values()), weight.to(got))
        expected = torch.autograd.grad(want, tuple(high.values()), weight)
        for a, b in zip((got, *grads), (want, *expected), strict=True):
            torch.testing.assert_close(a.cpu().double(), b, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("impl", ["triton", "torch"])
def test_padding_is_never_read(impl: Any) -> None:
    given = {name: tensor.to(DEVICE, torch.float32) for name, tensor in inputs(("causal", "anticausal"), 4).items()}
    lengths = torch.tensor([19, 7], device=DEVICE)
    clean = short_conv(**given, sides=("causal", "anticausal"), lengths=lengths, impl=impl)
    given["x"][1, 7:] = torch.nan
    x = given["x"].requires_grad_()
    y = short_conv(**given, sides=("causal", "anticausal"), lengths=lengths, impl=impl)
    assert torch.equal(y, clean)
    (gx,) = torch.autograd.grad(y.sum(), x)
    assert gx.isfinite().all() and (gx[1, 7:] == 0).all()


def test_part_of_a_projection_and_more_than_a_tile() -> None:
    """x as it lies in a wider tensor; more tokens than a run of tiles, more channels than a block."""
    together = torch.randn(1, 150, 2 * 130, device=DEVICE)
    x = together[..., 130:]
    weight, bias = torch.randn(2, 130, 4, device=DEVICE), torch.randn(2, 130, device=DEVICE)
    outputs, gradients = [], []
    for impl in ("triton", "torch"):
        leaves = [
            t.clone().requires_grad_() if i else t.detach().requires_grad_() for i, t in enumerate((x, weight, bias))
        ]
        y = short_conv(leaves[0], leaves[1], leaves[2], sides=("causal", "anticausal"), impl=impl)
        outputs.append(y)
        gradients.append(torch.autograd.grad(y, leaves, torch.ones_like(y).cumsum(2) / 100))
    torch.testing.assert_close(*outputs)
    torch.testing.assert_close(*gradients, rtol=1e-4, atol=1e-4)


def test_what_cannot_be_done_is_said() -> None:
    x, weight = torch.randn(2, 5, 6), torch.randn(1, 6, 4)
    for arguments, message in (
        ({"sides": ("left",)}, "sides must name one of causal, anticausal, centred"),
        ({"sides": "causal"}, "sides must name"),
        (
            {"sides": ("causal", "causal")},
            r"weight must be \(2, 6, W\) beside x \(2, 5, 6\) for 2 sides, not \(1, 6, 4\)",
        ),
        ({"sides": ("centred",)}, r"needs an odd width, weight is \(1, 6, 4\)"),
        ({"sides": ("causal",), "bias": torch.randn(6)}, r"bias must be \(1, 6\)"),
        ({"sides": ("causal",), "lengths": torch.tensor([5])}, r"lengths must be \(2,\)"),
        ({"sides": ("causal",), "impl": "cuda"}, "choose one of auto, triton, torch"),
    ):
        with pytest.raises(ValueError, match=message):
            short_conv(x, weight, **arguments)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="x cannot be float64"):
        short_conv(x.double().to(DEVICE), weight.to(DEVICE), sides=("causal",), impl="triton")


@pytest.mark.gpu
@pytest.mark.parametrize(("rows", "L", "channels"), [(3, 197, 100), (1, 6084, 384), (2, 1, 7), (2, 129, 130)])
def test_real_sizes(rows: int, L: int, channels: int) -> None:
    """Both directions, forward and every gradient against float64: fp32 within 1e-5, bf16 within 1e-2."""
    generator = torch.Generator().manual_seed(0)
    shapes = {"x": (rows, L, channels), "weight": (2, channels, 4), "bias": (2, channels)}
    drawn = {name: torch.randn(shape, generator=generator) for name, shape in shapes.items()}
    for dtype, bound in ((torch.float32, 1e-5), (torch.bfloat16, 1e-2)):
        drawn["x"] = drawn["x"].to(dtype).float()
        low = {k: t.to(DEVICE, dtype if k == "x" else torch.float32).requires_grad_() for k, t in drawn.items()}
        high = {k: t.double().requires_grad_() for k, t in drawn.items()}
        y = short_conv(**low, sides=("causal", "anticausal"), impl="triton")
        want = short_conv(**high, sides=("causal", "anticausal"))
        weight = torch.randn(want.shape, dtype=torch.float64, generator=generator)
        grads = torch.autograd.grad(y, tuple(low.values()), weight.to(y))
        wanted = torch.autograd.grad(want, tuple(high.values()), weight)
        for name, a, b in zip(("y", *shapes), (y, *grads), (want, *wanted), strict=True):
            assert (a.cpu() - b).norm() <= bound * b.norm(), (dtype, name)


def test_it_trains_after_it_was_used_for_inference() -> None:
    given = {name: t.to(DEVICE, torch.float32) for name, t in inputs(("anticausal",), 5).items()}
    with torch.inference_mode():
        short_conv(**given, sides=("anticausal",), impl="triton")
    given["x"] = given["x"].clone().requires_grad_()
    short_conv(**given, sides=("anticausal",), impl="triton").sum().backward()
    assert given["x"].grad is not None
