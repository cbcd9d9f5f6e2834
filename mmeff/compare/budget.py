"""The width at which a backbone comes nearest to a budget."""

import math
from collections.abc import Iterator
from typing import Any

from torch import nn

from mmeff.compare.contenders import Contender, build_backbone
from mmeff.compare.plan import Budget
from mmeff.errors import InputError

#: Widths of backbones without heads are multiples of this, those of a pyramid's first stage of half of it.
STEP = 16

#: By which share the parameters may miss those asked for, before it is said.
MISSED = 0.1


def parameters(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


def matched(contender: Contender, budget: Budget | None) -> Contender:
    """The contender with the width, and the depth, that the budget gives it; models of timm stay as they are.

    Widths are multiples of the head width; all stages of a pyramid are widened alike.
    """
    if budget is None or contender.timm:
        return contender
    if budget.depth is not None:
        contender = contender.resized(depth=budget.depth)
    if budget.dim is not None:
        return at_width(contender, budget.dim)
    if budget.parameters is None:
        return contender
    return nearest(contender, budget.parameters)


def beside_budget(contender: Contender, budget: Budget | None) -> str:
    """A line on a contender whose nearest width is not near the budget; "" for all others."""
    if budget is None or not budget.parameters or budget.dim is not None or contender.timm:
        return ""
    size = parameters(build_backbone(contender))
    if abs(size / budget.parameters - 1) <= MISSED:
        return ""
    return (
        f"budget missed: {contender.name} has {size / 1e6:.2f} M parameters at its nearest width, "
        f"{100 * (size / budget.parameters - 1):+.0f} % of the {budget.parameters / 1e6:.2f} M asked for"
    )


def nearest(contender: Contender, wanted: int) -> Contender:
    """The width whose parameters come nearest to `wanted`; they rise with the width, so a guess has it between two."""
    step = width_step(contender)
    own = build_backbone(contender)
    guess = max(1, round(own.in_dim / step * math.sqrt(wanted / parameters(own))))
    sizes: dict[int, int] = {}
    for n in range(guess, 4 * guess + 4):
        if _note(sizes, contender, n * step) >= wanted:
            break
    for n in range(guess, 0, -1):
        if 0 < _note(sizes, contender, n * step) <= wanted:
            break
    if not sizes:
        raise InputError(
            f"{contender.name}: no multiple of {step} near {guess * step} is a width it can have: give budget.dim"
        )
    return at_width(contender, min(sizes, key=lambda dim: abs(sizes[dim] - wanted)))


def _note(sizes: dict[int, int], contender: Contender, dim: int) -> int:
    """Parameters at a width, kept in `sizes`; 0 where the backbone cannot have it."""
    if dim not in sizes:
        try:
            sizes[dim] = parameters(build_backbone(at_width(contender, dim)))
        except InputError:
            return 0
    return sizes[dim]


def at_width(contender: Contender, dim: int) -> Contender:
    """The contender `dim` wide; a pyramid in its first stage, the others in proportion."""
    return contender.resized(width=dim)


def width_step(contender: Contender) -> int:
    """Multiples of what the width may be: of all head widths that the backbone's file names."""
    heads = set(_values(contender.config["model"]["init_args"]["backbone"], "head_dim"))
    if _stages(contender) is not None:
        return STEP // 2
    return math.lcm(*heads) if heads else STEP


def _stages(contender: Contender) -> list[int] | None:
    """Widths of the stages of a pyramid."""
    return contender.config["model"]["init_args"]["backbone"].get("init_args", {}).get("dims")


def _values(config: Any, key: str) -> Iterator[int]:
    """All values under a key, however deep."""
    for name, value in config.items() if isinstance(config, dict) else enumerate(config):
        if name == key:
            yield value
        elif isinstance(value, dict | list):
            yield from _values(value, key)
