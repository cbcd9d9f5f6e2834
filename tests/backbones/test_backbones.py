import math
import sys
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from mmeff.backbones import Backbone, Downsample, Downsampler, Isotropic, Pyramid
from mmeff.feedforward import MLP, SwiGLU
from mmeff.mixers import GLA, Attention, BiMamba, LinearAttention, Mixer, SeparableScan
from mmeff.tokens import Tokens, valid_mask, zero_padding


class Neighbours(Mixer):
    """The mean of a token and what lies before and after it on the first axis of the grid, then a linear map."""

    def __init__(self, dim: int):
        super().__init__()
        self.linear = nn.Linear(dim, dim)

    def forward(self, x: Tensor, grid: tuple[int, ...], lengths: Tensor | None = None) -> Tensor:
        lines = F.pad(zero_padding(x, lengths).unflatten(1, (grid[0], -1)), (0, 0, 0, 0, 1, 1))
        return self.linear((lines[:, :-2] + lines[:, 1:-1] + lines[:, 2:]).flatten(1, 2) / 3)


class Other(Neighbours):
    """Another type of the same, to tell blocks apart."""


GRIDS = [((13,), [13, 1, 6]), ((9, 4), [36, 4, 20]), ((5, 7), [35, 14, 21]), ((1, 1), [1, 1, 1])]
BACKBONES: dict[str, Callable[..., Backbone]] = {
    "isotropic": lambda **kw: Isotropic(16, 3, Neighbours, **kw),
    "pyramid": lambda **kw: Pyramid([16, 24, 32], [1, 2, 1], Neighbours, **kw),
}


def inputs(grid: tuple[int, ...], lengths: list[int] | None = None) -> Tokens:
    torch.manual_seed(1)
    return Tokens(torch.randn(3, math.prod(grid), 16), grid, None if lengths is None else torch.tensor(lengths))


@pytest.fixture(params=BACKBONES)
def make(request: pytest.FixtureRequest) -> Callable[..., Backbone]:
    torch.manual_seed(0)
    return BACKBONES[request.param]


@pytest.mark.parametrize(("grid", "lengths"), GRIDS)
def test_a_row_of_a_padded_batch_is_the_row_alone(
    make: Callable[..., Backbone], grid: tuple[int, ...], lengths: list[int]
) -> None:
    backbone, tokens = make(), inputs(grid, lengths)
    padding = ~valid_mask(torch.tensor(lengths), math.prod(grid))
    together = backbone(tokens._replace(x=tokens.x.masked_fill(padding[..., None], 1e4)))
    after = math.prod(grid[1:])
    assert together.lengths is not None
    for i, n in enumerate(lengths):
        alone = backbone(Tokens(tokens.x[i : i + 1, :n], (n // after, *grid[1:])))
        assert together.lengths[i] == alone.x.shape[1] == math.prod(alone.grid)
        torch.testing.assert_close(together.x[i, : alone.x.shape[1]], alone.x[0], atol=1e-5, rtol=0)


def test_full_lengths_are_no_lengths(make: Callable[..., Backbone]) -> None:
    backbone = make()
    torch.testing.assert_close(backbone(inputs((9, 4), [36, 36, 36])).x, backbone(inputs((9, 4))).x)


def test_recomputed_activations_give_the_same_gradients(make: Callable[..., Backbone]) -> None:
    gradients = []
    for recompute in (False, True):
        torch.manual_seed(0)
        backbone, tokens = make(recompute=recompute), inputs((9, 4), [36, 4, 20])
        backbone(tokens._replace(x=tokens.x.requires_grad_())).x.square().sum().backward()
        gradients.append([p.grad for p in backbone.parameters()])
    for plain, recomputed in zip(*gradients, strict=True):
        torch.testing.assert_close(plain, recomputed)


#: Operations of the kernels that mixers call by name.
OPERATIONS = (
    "selective_scan_routes", "decay_attention", "full_sum", "full_sum_qkvpacked", "separable_scan"
)  # fmt: skip


class Counter(TorchDispatchMode):
    """Counts the operators that are run."""

    def __init__(self) -> None:
        super().__init__()
        self.found: dict[str, int] = {}

    def __torch_dispatch__(self, function: Any, types: Any, arguments: Any = (), options: Any = None) -> Any:
        name = function._schema.name
        self.found[name] = self.found.get(name, 0) + 1
        return function(*arguments, **(options or {}))


@pytest.mark.parametrize(("mixer", "kept"), [
    (Attention, "aten::_scaled_dot_product_flash_attention_for_cpu"), (BiMamba, "mmeff::selective_scan_forward"),
    (GLA, "mmeff::decay_forward"), (LinearAttention, "mmeff::full_sum_forward"),
    (SeparableScan, "mmeff::corner_scan_forward"),
])  # fmt: skip
def test_scans_and_attention_are_not_computed_again(mixer: Any, kept: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of two blocks the expensive operator runs twice, the linear maps twice in the forward pass and again backward."""
    for name, module in list(sys.modules.items()):
        for operation in OPERATIONS if name.startswith("mmeff.mixers.") else ():
            if hasattr(module, operation):
                monkeypatch.setattr(module, operation, partial(getattr(module, operation), impl="triton"))
    gradients, norms = [], []
    for recompute in (False, True):
        torch.manual_seed(0)
        backbone = Isotropic(8, 2, mixer, None, recompute=recompute)
        with Counter() as counter:
            backbone(Tokens(torch.randn(1, 3, 8, requires_grad=True), (1, 3))).x.square().sum().backward()
        assert counter.found[kept] == 2, counter.found
        gradients.append([p.grad for p in backbone.parameters()])
        norms.append(counter.found["aten::native_layer_norm"])
    assert norms[1] >= norms[0] + 2, "the blocks' norms are computed again"
    for plain, recomputed in zip(*gradients, strict=True):
        torch.testing.assert_close(plain, recomputed)


def test_features_are_the_tokens_of_each_stage(make: Callable[..., Backbone]) -> None:
    backbone, tokens = make(), inputs((9, 4), [36, 4, 20])
    found = backbone.features(tokens)
    for one, other in zip(found[-1], backbone(tokens), strict=True):
        assert one is other or (torch.equal(one, other) if isinstance(one, Tensor) else one == other)
    if isinstance(backbone, Pyramid):
        assert [t.x.shape[-1] for t in found] == [stage.blocks[0].norm1.weight.numel() for stage in backbone.stages]  # type: ignore[union-attr]
        assert [t.grid for t in found] == [(9, 4), (5, 2), (3, 1)][: len(found)]
    else:
        assert len(found) == 1


def test_resized_arguments_are_those_of_another_width() -> None:
    assert Isotropic.resized({"depth": 3}, 32) == {"depth": 3, "dim": 32}
    assert Isotropic.resized({"dim": 16}, depth=5) == {"dim": 16, "depth": 5}
    assert Pyramid.resized({"dims": [16, 24], "depths": [1, 1]}, 32, 7) == {"dims": [32, 48], "depths": [1, 1]}
    assert Pyramid.resized({}, 32)["dims"] == [32, 64, 128]


def test_layer_scale_begins_at_its_value_and_is_a_factor_per_channel() -> None:
    torch.manual_seed(0)
    tokens = inputs((9, 4))
    plain, scaled = Isotropic(16, 2, Neighbours), Isotropic(16, 2, Neighbours, layer_scale=0.5)
    missing = scaled.load_state_dict(plain.state_dict(), strict=False).missing_keys
    assert missing == [f"blocks.{i}.scale{k}.gamma" for i in range(2) for k in (1, 2)]
    assert all(scaled.get_parameter(name).shape == (16,) for name in missing)
    for block in plain.blocks:
        block.mixer.linear.weight.data *= 0.5  # type: ignore[union-attr]
        block.mixer.linear.bias.data *= 0.5  # type: ignore[union-attr]
        *_, last = (module for module in block.channel.modules() if isinstance(module, nn.Linear))  # type: ignore[union-attr]
        last.weight.data *= 0.5
        last.bias.data *= 0.5
    torch.testing.assert_close(plain(tokens).x, scaled(tokens).x)


class Halves(Downsampler):
    """Keeps every second token of the first axis."""

    def __init__(self, dim: int, out_dim: int):
        super().__init__()
        self.project = nn.Linear(dim, out_dim)

    def forward(self, tokens: Tokens) -> Tokens:
        x = tokens.x.unflatten(1, tokens.grid)[:, ::2].flatten(1, len(tokens.grid))
        return Tokens(self.project(x), (-(-tokens.grid[0] // 2), *tokens.grid[1:]), None)


def test_a_pyramid_takes_its_downsampling_as_a_part() -> None:
    backbone = Pyramid([8, 16], [1, 1], Neighbours, downsample=Halves)
    assert [tuple(t.x.shape) for t in backbone.features(Tokens(torch.randn(2, 6 * 4, 8), (6, 4)))] == [
        (2, 24, 8),
        (2, 12, 16),
    ]


def test_every_parameter_lies_in_one_layer(make: Callable[..., Backbone]) -> None:
    backbone = make()
    listed = [id(p) for layer in backbone.layers() for p in layer.parameters()]
    assert sorted(listed) == sorted(id(p) for p in backbone.parameters())


def test_drop_path_rises_and_rests_outside_training(make: Callable[..., Backbone]) -> None:
    backbone, tokens = make(drop_path=0.3), inputs((9, 4))
    rates = [getattr(m.drop, "drop_prob", 0.0) for m in backbone.modules() if hasattr(m, "drop")]
    assert rates == pytest.approx(torch.linspace(0, 0.3, len(rates)).tolist())
    assert not torch.equal(backbone(tokens).x, backbone(tokens).x)
    assert torch.equal(backbone.eval()(tokens).x, backbone(tokens).x)


def test_a_block_is_its_two_lines() -> None:
    torch.manual_seed(0)
    block, (x, grid, lengths) = Isotropic(16, 1, Neighbours).blocks[0], inputs((13,), [13, 1, 6])
    y = x + block.mixer(block.norm1(x), grid, lengths)
    torch.testing.assert_close(block(x, None, grid, lengths), (y, block.channel(block.norm2(y))))
    bare = Isotropic(16, 1, Neighbours, channel=None).blocks[0]
    torch.testing.assert_close(bare(x, None, grid, lengths), (x, bare.mixer(bare.norm1(x), grid, lengths)))
    left = torch.randn_like(x)
    torch.testing.assert_close(block(x, left, grid, lengths), block(x + left, None, grid, lengths))


def test_patterns_are_tiled_over_the_depth() -> None:
    backbone = Isotropic(16, 5, [Neighbours, Neighbours, Other], [MLP, SwiGLU])
    assert [type(b.mixer) for b in backbone.blocks] == [Neighbours, Neighbours, Other, Neighbours, Neighbours]
    assert [type(b.channel) for b in backbone.blocks] == [MLP, SwiGLU, MLP, SwiGLU, MLP]


def test_stages_have_their_own_mixers_and_widths() -> None:
    backbone = Pyramid([16, 32], [2, 1], [Neighbours, Other], [None, MLP])
    kinds = [[type(b.mixer) for b in stage.blocks] for stage in backbone.stages]
    assert kinds == [[Neighbours, Neighbours], [Other]]
    out = backbone(inputs((9, 4)))
    assert (backbone.in_dim, backbone.out_dim) == (16, 32)
    assert out.grid == (5, 2) and out.x.shape == (3, 10, 32)


def test_sizes_that_do_not_agree_are_refused() -> None:
    with pytest.raises(ValueError, match="0 mixers"):
        Isotropic(16, mixer=[])
    with pytest.raises(ValueError, match="2 dims, 3 depths"):
        Pyramid([16, 32], [1, 1, 1])
    with pytest.raises(ValueError, match="1 mixers"):
        Pyramid([16, 32], [1, 1], [Neighbours])


@pytest.mark.parametrize(("H", "W"), [(8, 8), (7, 5), (8, 64), (1, 3), (1, 1)])
def test_downsampling_is_a_strided_convolution(H: int, W: int) -> None:
    torch.manual_seed(0)
    down = Downsample(16, 24)
    nn.init.normal_(down.taps)
    tokens = inputs((H, W))
    image = down.norm(tokens.x).mT.unflatten(2, (H, W))
    taps = down.taps[:, 0]
    kernel = taps[:, :, None] * taps[:, None, :]  # (D, 3, 3)
    expected = down.project(F.conv2d(image, kernel[:, None], stride=2, padding=1, groups=16).flatten(2).mT)
    out = down(tokens)
    assert out.grid == (-(-H // 2), -(-W // 2)) and out.lengths is None
    torch.testing.assert_close(out.x, expected, atol=1e-5, rtol=1e-5)
    line = down(inputs((H * W,)))
    smooth = F.conv1d(down.norm(tokens.x).mT, down.taps, stride=2, padding=1, groups=16).mT
    torch.testing.assert_close(line.x, down.project(smooth), atol=1e-5, rtol=1e-5)


def test_a_new_downsampling_keeps_what_is_even() -> None:
    down = Downsample(16, 16)
    nn.init.eye_(down.project.weight)
    nn.init.zeros_(down.project.bias)
    flat = Tokens(torch.randn(1, 1, 16).expand(1, 81, 16), (9, 9))
    inner = down(flat).x.unflatten(1, (5, 5))[0, 1:-1, 1:-1]
    torch.testing.assert_close(inner, down.norm(flat.x[0, 0]).expand(3, 3, 16))
