"""Softmax mixers against dense attention under a mask, in float64."""

import math

import pytest
import torch
from torch import Tensor

from mmeff.mixers import Attention, Mixer, SlidingAttention, WindowAttention
from mmeff.mixers.heads import attend, merge_heads, split_heads
from mmeff.mixers.rotary import rotate

DIM = 16


def tokens(L: int) -> Tensor:
    return torch.randn(2, L, DIM, dtype=torch.float64, generator=torch.Generator().manual_seed(0))


def dense(mixer: Mixer, x: Tensor, grid: tuple[int, ...], seen: Tensor, bias: Tensor | float = 0.0) -> Tensor:
    """softmax(q k^T / sqrt(K) + bias) v over the pairs (i, j) where `seen` (L, L) holds, written out."""
    q, k, v = split_heads(mixer.qkv(x), mixer.heads, parts=3)
    if getattr(mixer, "rotary", False):
        q, k = rotate(q, grid), rotate(k, grid)
    scores = (q[..., :, None, :] * k[..., None, :, :]).sum(-1) / math.sqrt(q.shape[-1]) + bias
    weights = scores.masked_fill(~seen, -math.inf).softmax(-1)
    return mixer.out(merge_heads((weights[..., None] * v[..., None, :, :]).sum(-2)))


@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("grid", [(11,), (3, 5), (2, 3, 4)])
def test_attention_is_dense_attention(grid: tuple[int, ...], causal: bool) -> None:
    L = math.prod(grid)
    mixer = Attention(DIM, head_dim=8, causal=causal).double()
    seen = torch.ones(L, L, dtype=torch.bool)
    torch.testing.assert_close(
        mixer(tokens(L), grid), dense(mixer, tokens(L), grid, seen.tril() if causal else seen), rtol=1e-10, atol=1e-12
    )


@pytest.mark.parametrize(("L", "window"), [(1, 4), (3, 4), (4, 4), (9, 4), (23, 1), (23, 5), (23, 40)])
def test_sliding_attention_is_dense_attention_under_a_band(L: int, window: int) -> None:
    mixer = SlidingAttention(DIM, window=window, head_dim=8).double()
    position = torch.arange(L)
    band = (position[:, None] - position).abs() <= window
    torch.testing.assert_close(mixer(tokens(L), (L,)), dense(mixer, tokens(L), (L,), band), rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("shift", [False, True])
@pytest.mark.parametrize(
    ("grid", "window"), [((8, 8), 4), ((7, 9), 4), ((5, 3), 7), ((1, 6), 3), ((13,), 4), ((6, 5), 1)]
)
def test_window_attention_is_dense_attention_inside_windows(grid: tuple[int, ...], window: int, shift: bool) -> None:
    L = math.prod(grid)
    mixer = WindowAttention(DIM, window=window, shift=shift, head_dim=8).double()
    places = [(i // grid[-1] if len(grid) == 2 else 0, i % grid[-1]) for i in range(L)]
    # The first tile of a shifted tiling holds window // 2 tokens.
    offset = (window - window // 2) if shift and window > 1 else 0
    tiles = [((y + offset) // window if len(grid) == 2 else 0, (x + offset) // window) for y, x in places]
    seen = torch.tensor([[tiles[i] == tiles[j] for j in range(L)] for i in range(L)])
    bias = torch.zeros(mixer.heads, L, L, dtype=torch.float64)
    for i in range(L):
        for j in range(L):
            if seen[i, j]:
                dy, dx = (places[i][axis] - places[j][axis] + window - 1 for axis in (0, 1))
                bias[:, i, j] = mixer.bias[:, dy, dx]
    expected = dense(mixer, tokens(L), grid, seen, bias)
    torch.testing.assert_close(mixer(tokens(L), grid), expected, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize(("grid", "step"), [((10,), (1,)), ((4, 5), (0, 1)), ((4, 5), (1, 0)), ((2, 3, 3), (1, 0, 1))])
def test_rotary_scores_depend_on_the_offset_alone(grid: tuple[int, ...], step: tuple[int, ...]) -> None:
    L = math.prod(grid)
    q, k = torch.randn(2, 7, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    qs, ks = (rotate(t.expand(1, 1, L, 7), grid).view(*grid, 7) for t in (q, k))
    low, high = tuple(0 for _ in grid), tuple(size - 1 for size in grid)
    near = qs[low] @ ks[step]
    far = qs[tuple(h - s for h, s in zip(high, step, strict=True))] @ ks[high]
    torch.testing.assert_close(near, far)
    assert (near - qs[low] @ ks[low]).abs() > 1e-3


def test_what_cannot_be_built_or_served_says_which_numbers() -> None:
    for cls in (Attention, SlidingAttention, WindowAttention):
        with pytest.raises(ValueError, match="5 does not divide dim 16"):
            cls(DIM, head_dim=5)
    with pytest.raises(ValueError, match=r"\(2, 2, 2\)"):
        WindowAttention(DIM).double()(tokens(8), (2, 2, 2))


@pytest.mark.parametrize("cls", [Attention, SlidingAttention, WindowAttention])
def test_scores_that_overflow_in_the_padding_leave_all_finite(cls: type[Mixer]) -> None:
    mixer = cls(DIM).double()
    lengths = torch.tensor([4, 12])
    x = tokens(12)
    expected = mixer(x, (6, 2), lengths)
    x[0, 4:] = 1e200
    y = mixer(x, (6, 2), lengths)
    assert y.isfinite().all()
    torch.testing.assert_close(y[0, :4], expected[0, :4], rtol=1e-10, atol=1e-12)


def test_dropout_acts_in_training_alone() -> None:
    torch.manual_seed(0)
    mixer = Attention(DIM, dropout=0.5).double()
    assert not torch.equal(mixer(tokens(9), (9,)), mixer(tokens(9), (9,)))
    mixer.eval()
    assert torch.equal(mixer(tokens(9), (9,)), mixer(tokens(9), (9,)))


@pytest.mark.gpu
@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("L", [64, 192, 197])
def test_gradients_stay_finite_where_logits_are_strongly_negative(L, masked):
    """cuDNN's backward pass, which torch would choose on Hopper, gives NaN for L % 128 == 64."""
    q, k, v = torch.randn(3, 2, 4, L, 32, device="cuda", dtype=torch.bfloat16).mul(0.1).unbind(0)
    q[..., 0], k[..., 0] = 1.0, -120 * 32**0.5
    leaves = [t.clone().requires_grad_() for t in (q, k, v)]
    mask = torch.ones(2, 1, 1, L, dtype=torch.bool, device="cuda") if masked else None
    attend(*leaves, mask).square().sum().backward()
    wide = [t.detach().double().requires_grad_() for t in (q, k, v)]
    scores = wide[0] @ wide[1].mT / 32**0.5
    (scores.softmax(-1) @ wide[2]).square().sum().backward()
    for leaf, expected in zip(leaves, wide, strict=True):
        assert leaf.grad is not None and expected.grad is not None and leaf.grad.isfinite().all()
    v_error = (leaves[2].grad.double() - wide[2].grad).norm() / wide[2].grad.norm()
    assert v_error < 2e-2
