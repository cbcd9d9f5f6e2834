"""What a checkpoint brings is named where it does not belong into the model or its training."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from mmeff.errors import InputError
from mmeff.tasks.restored import check_keys, check_optimizer, check_training


def own() -> dict[str, Tensor]:
    return nn.Sequential(nn.Linear(2, 3), nn.BatchNorm1d(3)).state_dict()


@pytest.mark.parametrize(
    ("key", "change", "what"),
    [
        ("0.weight", lambda t: t * float("nan"), "0.weight holds numbers that are NaN or infinite"),
        ("0.bias", lambda t: t - float("inf"), "0.bias holds numbers that are NaN or infinite"),
        ("0.bias", lambda t: torch.full_like(t, 1e300, dtype=torch.float64), "0.bias holds numbers that are NaN or"),
        ("0.weight", lambda t: t + 1j, "0.weight is torch.complex64 there and torch.float32 here"),
        ("0.weight", lambda t: t.long(), "0.weight is torch.int64 there and torch.float32 here"),
        ("0.weight", lambda t: t > 0, "0.weight is torch.bool there and torch.float32 here"),
        ("0.weight", lambda t: t.to(torch.float8_e4m3fn), "0.weight is torch.float8_e4m3fn there"),
        ("1.num_batches_tracked", lambda t: t.float(), "1.num_batches_tracked is torch.float32 there and torch.int64"),
        ("0.weight", lambda t: t.T, r"another model: 0.weight is \(2, 3\) there and \(3, 2\) here"),
        ("0.weight", lambda t: None, "0.weight is NoneType there, and no tensor"),
        ("1.running_var", lambda t: -t, "1.running_var holds -1, which is no deviation or variance"),
        ("more\nand more", lambda t: torch.zeros(1), r"another model: it also has 'more\\nand more'"),
    ],
)
def test_a_value_that_is_not_the_models(key: str, change: Callable, what: str):
    stored = own()
    stored[key] = change(stored.get(key))
    with pytest.raises(InputError, match=what):
        check_keys(stored, own())


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_weights_of_another_precision_are_weights(dtype):
    stored = {key: value.to(dtype) if value.is_floating_point() else value for key, value in own().items()}
    check_keys(stored, own())


@pytest.mark.parametrize("key", ["loops", "callbacks", "optimizer_states", "lr_schedulers"])
@pytest.mark.parametrize("value", [None, [], {}, "x", 7])
def test_a_run_goes_on_from_all_that_it_saved(key, value):
    whole = {"loops": {"fit_loop": {}}, "callbacks": {"a": {}}, "optimizer_states": [{}], "lr_schedulers": [{}]}
    check_training(whole)
    with pytest.raises(InputError, match=f"holds no {key}, which a run goes on from"):
        check_training({**whole, key: value})


def trained() -> torch.optim.AdamW:
    layer = nn.Linear(4, 3)
    layer(torch.ones(2, 4)).sum().backward()
    optimizer = torch.optim.AdamW(layer.parameters(), fused=True)
    optimizer.step()
    return optimizer


@pytest.mark.parametrize(
    ("key", "value", "what"),
    [
        ("exp_avg", torch.zeros(3), r"exp_avg of its optimizer is no tensor of \(3, 4\)"),
        ("exp_avg_sq", torch.zeros(10**3, 10**3), "exp_avg_sq of its optimizer is no tensor"),
        ("exp_avg", None, "exp_avg of its optimizer is no tensor"),
        ("exp_avg", torch.zeros(3, 4, dtype=torch.long), "exp_avg of its optimizer is no tensor"),
        ("step", torch.zeros(5), "step of its optimizer is no tensor"),
        ("step", "x", "step of its optimizer is no tensor"),
    ],
)
def test_an_optimizer_never_writes_beyond_its_tensors(key, value, what):
    optimizer = trained()
    check_optimizer(optimizer)
    next(iter(optimizer.state.values()))[key] = value
    with pytest.raises(InputError, match=what):
        check_optimizer(optimizer)


@pytest.mark.parametrize(("key", "value"), [("lr", "x"), ("lr", None), ("betas", "xy"), ("betas", ["x", 0.9])])
def test_an_optimizer_is_set_by_numbers(key, value):
    optimizer = trained()
    optimizer.param_groups[0][key] = value
    with pytest.raises(InputError, match=f"{key} of its optimizer is"):
        check_optimizer(optimizer)


def test_a_view_of_fewer_numbers_becomes_a_tensor():
    optimizer = trained()
    state = next(iter(optimizer.state.values()))
    state["exp_avg"] = torch.ones(1).expand(3, 4)
    check_optimizer(optimizer)
    assert state["exp_avg"].is_contiguous() and bool((state["exp_avg"] == 1).all())
    optimizer.step()
