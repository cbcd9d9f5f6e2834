"""Checks of what a checkpoint brings to a model and its training: anything that does not belong there is named."""

from typing import Any

import torch
from torch import Tensor

from mmeff.errors import InputError, shown

#: Any of them may be loaded into any other; complex and whole numbers would be, too, with a loss.
FLOATS = {torch.float16, torch.bfloat16, torch.float32, torch.float64}
#: Statistics of the training data that something is divided by: the least that they are.
LEAST = {"std": torch.finfo(torch.float32).tiny, "running_var": 0.0}


def check_keys(stored: dict[str, Any], own: dict[str, Any]) -> None:
    """InputError that names the first value in which a checkpoint and the model differ, or that is not finite."""
    other = "the checkpoint is of another model"
    for key, value in own.items():
        if key not in stored:
            raise InputError(f"{other}: it has no {key}. Give the recipe it was trained with")
        found = stored[key]
        if not isinstance(value, Tensor):
            continue
        if not isinstance(found, Tensor):
            raise InputError(f"the checkpoint is damaged: {key} is {type(found).__name__} there, and no tensor")
        if not key.endswith("_extra_state") and found.shape != value.shape:
            raise InputError(
                f"{other}: {key} is {tuple(found.shape)} there and {tuple(value.shape)} here. "
                "Give the recipe it was trained with"
            )
        if found.dtype != value.dtype and not {found.dtype, value.dtype} <= FLOATS:
            raise InputError(f"the checkpoint is damaged: {key} is {found.dtype} there and {value.dtype} here")
        if found.dtype in FLOATS and not found.to(value.dtype).isfinite().all():
            raise InputError(f"the checkpoint is damaged: {key} holds numbers that are NaN or infinite")
        least = LEAST.get(key.rpartition(".")[2])
        if least is not None and not (found >= least).all():
            raise InputError(
                f"the checkpoint is damaged: {key} holds {found.min().item():g}, which is no deviation or variance"
            )
    extra = sorted(set(stored) - set(own))
    if extra:
        raise InputError(f"{other}: it also has {shown(extra[0])}. Give the recipe it was trained with")


def check_training(checkpoint: dict[str, Any]) -> None:
    """InputError if a checkpoint lacks what a run goes on from."""
    kinds = {"loops": dict, "callbacks": dict, "optimizer_states": list, "lr_schedulers": list}
    for key, kind in kinds.items():
        if not isinstance(checkpoint.get(key), kind) or not checkpoint[key]:
            raise InputError(f"the checkpoint holds no {key}, which a run goes on from: give last.ckpt of a run")


def check_optimizer(optimizer: Any) -> None:
    """InputError if what an optimizer restored is not numbers of the shapes of its parameters: torch's own kernels
    look at neither, and would write beyond them."""
    for group in optimizer.param_groups:
        for key, default in optimizer.defaults.items():
            value = group.get(key)
            numbers = value if isinstance(default, tuple) and isinstance(value, list | tuple) else [value]
            if isinstance(default, float | tuple) and not all(isinstance(n, int | float | Tensor) for n in numbers):
                raise InputError(f"the checkpoint is damaged: {key} of its optimizer is {shown(repr(value))}")
    for parameter, state in optimizer.state.items():
        for key in state.keys() & {"exp_avg", "exp_avg_sq", "max_exp_avg_sq", "momentum_buffer", "step"}:
            value, shape = state[key], () if key == "step" else parameter.shape
            if (key, type(value)) in (("step", int), ("step", float), ("momentum_buffer", type(None))):
                continue
            if not isinstance(value, Tensor) or value.shape != shape or value.dtype not in FLOATS:
                raise InputError(f"the checkpoint is damaged: {key} of its optimizer is no tensor of {tuple(shape)}")
            if key != "step" and value.stride() != parameter.stride():
                state[key] = torch.empty_like(parameter, dtype=value.dtype).copy_(value)
