import math
from itertools import pairwise
from typing import Any

import pytest
import torch
from torch import nn

from mmeff.backbones import Isotropic
from mmeff.errors import InputError
from mmeff.heads import AttentionPool, Head
from mmeff.tasks import OptimizerConfig
from mmeff.tasks.optim import split_by_decay
from mmeff.tokenizers import ImagePatches, TextBytes


def model(depth: int = 3) -> tuple[nn.ModuleList, list[list[nn.Module]]]:
    """Two tokenizers, a backbone and a head, and their layers from the input to the head."""
    backbone = Isotropic(16, depth)
    tokenizers: list[nn.Module] = [ImagePatches(16, 4), TextBytes(16)]
    head = Head(16, 3, AttentionPool)
    return nn.ModuleList([*tokenizers, backbone, head]), [tokenizers, *([m] for m in backbone.layers()), [head]]


def test_every_parameter_lies_in_one_group() -> None:
    whole, layers = model()
    optimizer, _ = OptimizerConfig().build(layers, 10)
    grouped = [id(p) for group in optimizer.param_groups for p in group["params"]]
    assert sorted(grouped) == sorted(id(p) for p in whole.parameters())


def test_layers_that_are_treated_alike_share_a_group() -> None:
    _, layers = model()
    assert len(OptimizerConfig().build(layers, 10)[0].param_groups) == 2
    assert len(OptimizerConfig(weight_decay=0.0).build(layers, 10)[0].param_groups) == 1
    assert len(OptimizerConfig(layer_decay=0.5).build(layers, 10)[0].param_groups) == 2 * len(layers) - 1, "a bare norm"


def test_frozen_parameters_are_left_out() -> None:
    whole, layers = model()
    whole[2].requires_grad_(False)
    optimizer, _ = OptimizerConfig().build(layers, 10)
    grouped = {id(p) for group in optimizer.param_groups for p in group["params"]}
    assert grouped == {id(p) for p in whole.parameters() if p.requires_grad}


def test_weight_decay_is_for_matrices() -> None:
    whole, layers = model()
    optimizer, _ = OptimizerConfig(weight_decay=0.3).build(layers, 10)
    decay = {id(p): group["weight_decay"] for group in optimizer.param_groups for p in group["params"]}
    for name, p in whole.named_parameters():
        free = name.endswith("bias") or "norm" in name or name.endswith(("positions.table", "positions.scale"))
        assert decay[id(p)] == (0.0 if free else 0.3), name
    marked = nn.Parameter(torch.zeros(2, 2))
    marked._no_weight_decay = True  # type: ignore[attr-defined]
    assert [len(part) for part in split_by_decay([nn.ParameterList([marked, nn.Parameter(torch.zeros(2, 2))])])] == [
        1,
        1,
    ]


def test_the_learning_rate_falls_with_the_distance_from_the_head() -> None:
    whole, layers = model(depth=3)
    optimizer, _ = OptimizerConfig(lr=0.1, layer_decay=0.5, warmup=0.0).build(layers, 10)
    rate = {id(p): group["initial_lr"] for group in optimizer.param_groups for p in group["params"]}
    backbone: Isotropic = whole[2]  # type: ignore[assignment]
    expected = [(whole[3], 0), (backbone.norm, 1), *((b, 4 - i) for i, b in enumerate(backbone.blocks))]
    expected += [(whole[0], 5), (whole[1], 5)]
    for module, distance in expected:
        assert {rate[id(p)] for p in module.parameters()} == {0.1 * 0.5**distance}


def test_the_learning_rate_over_a_run() -> None:
    config, steps = OptimizerConfig(warmup=0.2, min_lr=0.05), 100
    factors = [config.factor(step, steps) for step in range(steps)]
    assert factors[0] == pytest.approx(1 / 20) and factors[19] == 1.0 == max(factors)
    assert factors[9] == pytest.approx(0.5)
    assert factors[59] == pytest.approx((1 + 0.05) / 2)  # half of the way down
    assert factors[99] == pytest.approx(0.05) == config.factor(500, steps)
    assert all(a < b for a, b in pairwise(factors[:20]))
    assert all(a > b for a, b in pairwise(factors[19:]))
    assert factors[40] == pytest.approx(0.05 + 0.95 * 0.5 * (1 + math.cos(math.pi * 21 / 80)))


@pytest.mark.parametrize("steps", [1, 2, 3])
@pytest.mark.parametrize("warmup", [0.0, 0.5, 1.0])
def test_short_runs_learn(steps: int, warmup: float) -> None:
    factors = [OptimizerConfig(warmup=warmup).factor(step, steps) for step in range(steps)]
    assert all(0 < factor <= 1 for factor in factors) and max(factors) == 1


def test_the_schedule_moves_all_groups_alike() -> None:
    _, layers = model()
    config = OptimizerConfig(lr=0.1, layer_decay=0.7, warmup=0.5)
    optimizer, schedule = config.build(layers, 8)
    for step in range(8):
        for group in optimizer.param_groups:
            assert group["lr"] == pytest.approx(group["initial_lr"] * config.factor(step, 8))
        optimizer.step()
        schedule.step()


@pytest.mark.parametrize("name", ["sgd", "lion", "muon", "torch.optim.RMSprop", "AdamW"])
def test_any_optimizer_of_torch_or_timm_by_name(name: str) -> None:
    """With the same groups; timm's own list is the judge of the names."""
    _, layers = model()
    config = OptimizerConfig(name=name, lr=0.1, weight_decay=0.3, layer_decay=0.5)
    optimizer, schedule = config.build(layers, 10)
    assert type(optimizer).__name__.lower() == config.name
    wanted = OptimizerConfig(lr=0.1, weight_decay=0.3, layer_decay=0.5).build(layers, 10)[0].param_groups
    for key in ("initial_lr", "weight_decay"):
        assert [group[key] for group in optimizer.param_groups] == [group[key] for group in wanted]
    for group in optimizer.param_groups:
        for p in group["params"]:
            p.grad = torch.ones_like(p)
    before = [p.detach().clone() for p in optimizer.param_groups[0]["params"]]
    optimizer.step()
    schedule.step()
    assert any(not torch.equal(a, b) for a, b in zip(before, optimizer.param_groups[0]["params"], strict=True))


def test_an_optimizers_own_options() -> None:
    _, layers = model()
    assert OptimizerConfig(name="sgd", options={"momentum": 0.8}).build(layers, 9)[0].defaults["momentum"] == 0.8
    assert OptimizerConfig(name="lion").build(layers, 9)[0].defaults["betas"] == (0.9, 0.99)
    assert OptimizerConfig(name="lion", betas=(0.8, 0.9)).build(layers, 9)[0].defaults["betas"] == (0.8, 0.9)
    assert OptimizerConfig().build(layers, 9)[0].defaults["betas"] == (0.9, 0.98)
    for wrong, said in (
        ({"name": "lionn"}, "did you mean 'lion'"),
        ({"name": "adahessian"}, "second derivatives"),
        ({"name": "sgd", "options": {"momentun": 0.8}}, "momentun"),
        ({"schedule": "StepL"}, "did you mean 'StepLR'"),
        ({"schedule": "StepLR"}, "step_size"),
        ({"schedule": "LambdaLR"}, "schedule 'LambdaLR'"),
        ({"schedule_options": {"step_size": 3}}, "for a scheduler of torch"),
    ):
        with pytest.raises(InputError, match=said):
            OptimizerConfig(**wrong).build(layers, 9)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("schedule", "options", "wanted"),
    [
        ("linear", {}, [1, 0.75, 0.5, 0.25, 0]),  # the first step is the end of the warm-up
        ("constant", {}, [1, 1, 1, 1, 1]),
        ("StepLR", {"step_size": 2}, [1, 1, 0.1, 0.1, 0.01]),
        ("CosineAnnealingLR", {}, [0.5 * (1 + math.cos(math.pi * i / 5)) for i in range(5)]),
        ("OneCycleLR", {"pct_start": 0.2, "anneal_strategy": "linear", "div_factor": 2}, None),
    ],
)
def test_schedules_by_name(schedule: str, options: dict[str, Any], wanted: list[float] | None) -> None:
    _, layers = model()
    config = OptimizerConfig(lr=0.1, warmup=0.2, min_lr=0.0, schedule=schedule, schedule_options=options)
    steps = len(wanted or range(20))
    optimizer, scheduler = config.build(layers, steps)
    found = []
    for _ in range(steps):
        found.append(optimizer.param_groups[0]["lr"] / 0.1)
        optimizer.step()
        scheduler.step()
    if wanted is None:
        assert max(found) == pytest.approx(1) and found[-1] < 1e-4
    else:
        assert found == pytest.approx(wanted)
