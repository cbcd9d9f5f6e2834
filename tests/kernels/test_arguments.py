"""Arguments that no operator takes, and tensors that no kernel could reach."""

import pytest
import torch
from torch import Tensor

from mmeff_kernels.arguments import check_lengths, check_packing, check_reach
from mmeff_kernels.layer_norm import add_layer_norm, layer_norm
from mmeff_kernels.selective_scan import selective_scan_step
from mmeff_kernels.short_conv import short_conv


def spread(*strides: int, sizes: tuple[int, ...] = (1, 3, 2)) -> Tensor:
    """A tensor without memory, to be looked at."""
    return torch.empty_strided(sizes, strides, device="meta")


def test_tensors_beyond_32_bits_are_named() -> None:
    check_reach({"x": spread(2**40, 2**29, 1), "z": None}, (-2, -1), 3, 2, "cut it")
    for tensor in (spread(0, 2**30, 1), spread(0, 1, 2**31)):
        with pytest.raises(ValueError, match=r"3 tokens of B, \(1, 3, 2\) with strides .* elements; cut it"):
            check_reach({"x": spread(0, 2, 1), "B": tensor}, (-2, -1), 3, 2, "cut it")
    with pytest.raises(ValueError, match="3 tokens of 1073741824 numbers are too many; cut it"):
        check_reach({}, (-2, -1), 3, 2**30, "cut it")


def test_every_tensor_of_every_kernel_counts() -> None:
    """Launches see no numbers: without memory they get as far as this check."""
    from mmeff_kernels.decay.operators import _forward as decay
    from mmeff_kernels.full_sum.operators import _plan
    from mmeff_kernels.scan2d.corner_operators import _Plan as CornerPlan
    from mmeff_kernels.selective_scan.launch import _Plan as ScanPlan

    x, far, A = spread(6, 2, 1), spread(0, 2**30, 1), spread(2, 1, sizes=(2, 2))
    for name in ("x", "dt", "B", "C"):
        given = {"x": x, "dt": x, "B": x, "C": x, name: far}
        of_groups = [given[weights][:, :, None] for weights in "BC"]
        with pytest.raises(ValueError, match=f"tokens of {name}, "):
            ScanPlan(given["x"], given["dt"], A, *of_groups, None, None, None, False, 1, 0, 0, False)
        with pytest.raises(ValueError, match=f"tokens of {name}, "):
            left, top = (given["dt"], A, given["B"], None), (x, A, x, None)
            CornerPlan(given["x"], left, top, given["C"], None, (1, 0, 0, 1, 3))
    for top in ((far, A, x, None), (x, A, far, None)):
        with pytest.raises(ValueError, match=r"tokens of (dt|B)_top, "):
            CornerPlan(x, (x, A, x, None), top, x, None, (1, 0, 0, 1, 3))
    for name in "qkv":
        q, k, v = (far[:, :, None] if letter == name else x[:, :, None] for letter in "qkv")
        with pytest.raises(ValueError, match=f"tokens of {name}, "):
            _plan(q, k, v, None, None, 0, True, 0)
        with pytest.raises(ValueError, match=f"tokens of {name}, "):
            decay(q, k, v, x[..., :1], None, None, None, 0, False, 0, 1.0)


def test_lengths_count() -> None:
    x = torch.zeros(2, 3, 4)
    for lengths in (torch.tensor([True, False]), torch.tensor([1.0, 2.0]), torch.tensor([1j, 2])):
        with pytest.raises(ValueError, match=r"lengths must be integers, not torch.*mask.sum"):
            check_lengths(lengths, x)
    with pytest.raises(ValueError, match="cu_seqlens must be integers"):
        check_packing(x[:1], torch.tensor([False, True]), None)
    weight = torch.zeros(1, 4, 3)
    for wrong in ([-1, 2], [2, 4]):
        with pytest.raises(ValueError, match="lengths must lie between 0 and L = 3"):
            short_conv(x, weight, sides=["causal"], lengths=torch.tensor(wrong))
    with pytest.raises(ValueError, match=r"lengths must be integers, not torch.bool"):
        short_conv(x, weight, sides=["causal"], lengths=torch.tensor([True, True]))


def test_integers_are_not_computed_with() -> None:
    x, one = torch.zeros(2, 3, 4), torch.ones(4)
    with pytest.raises(ValueError, match=r"x must be floating point, not torch.int64"):
        layer_norm(x.long(), one, one)
    with pytest.raises(ValueError, match=r"branch must be floating point, not torch.int64"):
        add_layer_norm(x, x.long(), one, one)
    with pytest.raises(ValueError, match=r"x must be floating point, not torch.int64"):
        short_conv(x.long(), torch.zeros(1, 4, 3), sides=["causal"])


@pytest.mark.parametrize("wide", [torch.float16, torch.float32, torch.float64])
def test_a_step_keeps_the_types_of_the_state_and_of_x(wide: torch.dtype) -> None:
    x = torch.rand(2, 4).bfloat16()
    y, state = selective_scan_step(
        torch.zeros(2, 4, 3, dtype=wide), x, x, -torch.rand(4, 3), x[:, :3], x[:, :3].float()
    )
    assert state.dtype == wide and y.dtype == torch.bfloat16
