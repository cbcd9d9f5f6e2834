"""What every mixer owes: a new one exported by mmeff.mixers is tested here with no new test."""

import math
from functools import partial

import pytest
import torch

import mmeff.mixers
from mmeff.mixers import (
    GLA,
    HGRN2,
    MLSTM,
    SS2D,
    Attention,
    BiMamba,
    GatedConv,
    Mamba,
    Mixer,
    Parallel,
    Retention,
    SeparableScan,
    VisionRWKV,
    WavefrontScan,
    WindowAttention,
)
from mmeff.tokens import zero_padding

DIM = 16
GRIDS = [(1,), (65,), (1, 1), (7, 7), (8, 64), (12, 5)]
#: Mixers whose defaults are not enough to build them.
REQUIRED = {Parallel: {"mixers": [Attention, BiMamba]}}
#: Options that take another path through the code than the defaults.
VARIANTS = {
    "Attention-causal": partial(Attention, causal=True, rotary=False, head_dim=8),
    "WindowAttention-shift": partial(WindowAttention, shift=True, window=4),
    "Parallel-causal": partial(Parallel, mixers=[Mamba, partial(Attention, causal=True)]),
    "GatedConv-all": partial(GatedConv, expand=1.0),
    "GLA-causal": partial(GLA, causal=True, local=False, head_dim=8),
    "HGRN2-causal": partial(HGRN2, causal=True, lower_bound=0.5, head_dim=8),
    "MLSTM-reverse": partial(MLSTM, reverse=True, head_dim=8),
    "VisionRWKV-norm": partial(VisionRWKV, norm=True),
    "Retention-causal": partial(Retention, causal=True, head_dim=8, expand=1),
    "SeparableScan-two": partial(SeparableScan, gate=True, state=3, corners=["top-left", "bottom-right"]),
    "WavefrontScan-one": partial(WavefrontScan, expand=2, state=1, corners=["bottom-left"]),
    "SS2D-gate": partial(SS2D, gate=True, state=3, routes=["hilbert", "windows-2-reversed"]),
}


def exported() -> dict[str, partial]:
    classes = (getattr(mmeff.mixers, name) for name in mmeff.mixers.__all__)
    return {cls.__name__: partial(cls, **REQUIRED.get(cls, {})) for cls in classes if cls is not Mixer}


BUILDERS = {**exported(), **VARIANTS}


@pytest.fixture(params=BUILDERS)
def mixer(request: pytest.FixtureRequest) -> Mixer:
    torch.manual_seed(0)
    return BUILDERS[request.param](DIM).double()


def tokens(grid: tuple[int, ...], rows: int = 2) -> torch.Tensor:
    generator = torch.Generator().manual_seed(1)
    return torch.randn(rows, math.prod(grid), DIM, dtype=torch.float64, generator=generator)


def serves(mixer: Mixer, grid: tuple[int, ...]) -> bool:
    """Whether a mixer says that it serves grids of so many axes; if not, that it says so when it meets one."""
    if len(grid) in mixer.axes:
        return True
    with pytest.raises(ValueError, match=f"this one, .*, has {len(grid)}"):
        mixer(tokens(grid), grid)
    return False


@pytest.mark.parametrize("grid", GRIDS)
def test_shape_and_dtype_stay_and_nothing_is_random(mixer: Mixer, grid: tuple[int, ...]) -> None:
    if not serves(mixer, grid):
        return
    for dtype in (torch.float64, torch.float32):
        mixer.to(dtype)
        x = tokens(grid).to(dtype)
        y = mixer(x, grid)
        assert y.shape == x.shape
        assert y.dtype == dtype
        assert y.isfinite().all()
        assert torch.equal(y, mixer(x, grid))


@pytest.mark.parametrize("grid", [(7, 7), (12, 5)])
def test_every_parameter_and_the_input_receive_a_gradient(mixer: Mixer, grid: tuple[int, ...]) -> None:
    x = tokens(grid).requires_grad_()
    mixer(x, grid).square().sum().backward()
    for name, tensor in [("x", x), *mixer.named_parameters()]:
        assert tensor.grad is not None, name
        assert tensor.grad.isfinite().all(), name
        assert tensor.grad.abs().max() > 0, name


@pytest.mark.parametrize("grid", GRIDS)
def test_padding_never_changes_a_real_token(mixer: Mixer, grid: tuple[int, ...]) -> None:
    if not serves(mixer, grid):
        return
    first = max(1, grid[0] // 2)
    n = first * math.prod(grid[1:])
    lengths = torch.tensor([n, math.prod(grid)])
    x = zero_padding(tokens(grid), lengths)
    y = mixer(x, grid, lengths)
    short = mixer(x[:1, :n], (first, *grid[1:]))
    torch.testing.assert_close(y[:1, :n], short, rtol=0, atol=1e-9)
    torch.testing.assert_close(y[1:], mixer(x[1:], grid), rtol=0, atol=1e-9)
    for content in (1.0, -1e4, 1e30):
        filled = x.clone()
        filled[0, n:] = content
        other = mixer(filled, grid, lengths)
        assert other.isfinite().all()
        torch.testing.assert_close(other[0, :n], y[0, :n], rtol=0, atol=1e-12)
        torch.testing.assert_close(other[1], y[1], rtol=0, atol=1e-12)


@pytest.mark.parametrize("grid", [(7, 7), (65,)])
def test_causality_is_what_the_mixer_declares(mixer: Mixer, grid: tuple[int, ...]) -> None:
    if not serves(mixer, grid):
        return
    x = tokens(grid)
    # Neighbours on the grid, and in one window of every tiling that the variants have.
    t = 4
    changed = x.clone()
    changed[:, t + 1 :] += 1
    before = (mixer(changed, grid) - mixer(x, grid))[:, : t + 1].abs().amax()
    if mixer.causal:
        assert before == 0
    else:
        assert before > 1e-6


def test_rows_do_not_see_each_other(mixer: Mixer) -> None:
    grid = (12, 5)
    x = tokens(grid)
    changed = x.clone()
    changed[1] = math.nan
    assert torch.equal(mixer(changed, grid)[0], mixer(x, grid)[0])
    assert mixer(changed, grid)[1].isnan().any()


def test_autocast_keeps_it_finite_and_close(mixer: Mixer) -> None:
    grid = (8, 64)
    mixer.float()
    x = tokens(grid).float()
    expected = mixer(x, grid)
    with torch.autocast("cpu", torch.bfloat16):
        y = mixer(x, grid)
        y.float().square().sum().backward()
    assert (y.float() - expected).norm() / expected.norm() < 0.03  # a few roundings to 8 bits, 2^-8 each
    assert all(parameter.grad.isfinite().all() for parameter in mixer.parameters())


def test_a_mixer_trains_after_it_was_used_for_inference(mixer: Mixer) -> None:
    grid = (3, 11)
    with torch.inference_mode():
        mixer(tokens(grid), grid)
    mixer(tokens(grid), grid).sum().backward()


def test_none_needs_compilation_and_all_survive_their_state_dict(mixer: Mixer) -> None:
    assert not any("compile" in type(module).__module__ for module in mixer.modules())
    for parameter in mixer.parameters():
        torch.nn.init.normal_(parameter, std=0.1)
    torch.manual_seed(2)
    state = {key: value.clone() for key, value in mixer.state_dict().items()}
    expected = mixer(tokens((7, 7)), (7, 7))
    for parameter in mixer.parameters():
        torch.nn.init.zeros_(parameter)
    mixer.load_state_dict(state)
    assert torch.equal(mixer(tokens((7, 7)), (7, 7)), expected)


@pytest.mark.parametrize("name", exported())
def test_every_wide_layer_is_a_multiple_of_8(name: str) -> None:
    """A GPU takes twice as long over others; heads may be as many as they are."""
    linear = [module for module in exported()[name](320).modules() if isinstance(module, torch.nn.Linear)]
    assert linear
    for layer in linear:
        assert all(size % 8 == 0 for size in layer.weight.shape if size > 64), layer


def test_a_batch_of_no_rows(mixer: Mixer) -> None:
    grid = (7, 7) if 2 in mixer.axes else (12,)
    x = tokens(grid, rows=0).requires_grad_()
    y = mixer(x, grid)
    assert y.shape == x.shape
    y.sum().backward()
    assert not any(p.grad.any() for p in mixer.parameters() if p.grad is not None)
