"""The optimizer, its decay groups, and the learning rate over a run."""

import inspect
import math
from dataclasses import dataclass, field
from typing import Any

from torch import nn, optim
from torch.optim import lr_scheduler
from torch.optim.lr_scheduler import LambdaLR, LRScheduler

from mmeff.errors import InputError, meant, within

#: What the learning rate falls along behind the warm-up, from 1 to 0 as the run goes from 0 to 1.
FALLS = {
    "cosine": lambda progress: 0.5 * (1 + math.cos(math.pi * progress)),
    "linear": lambda progress: 1 - progress,
    "constant": lambda progress: 1.0,
}
#: torch's schedulers that are made of functions, or of others.
COMPOSED = {"LRScheduler", "_LRScheduler", "LambdaLR", "MultiplicativeLR", "SequentialLR", "ChainedScheduler"}
#: What the steps of the whole run are called by those of torch's schedulers that end with it.
WHOLE_RUN = {"CosineAnnealingLR": "T_max", "OneCycleLR": "total_steps", "PolynomialLR": "total_iters"}


@dataclass
class OptimizerConfig:
    """An optimizer and its learning rate over a run: by default AdamW, a linear warm-up and a cosine decay.

    Args:
        lr: peak learning rate.
        weight_decay: decay of matrices, decoupled in AdamW (Loshchilov and Hutter 2019); vectors, embeddings of
            positions and parameters marked `_no_weight_decay` have none.
        betas: averaging factors, of an optimizer that has any; by default its own, (0.9, 0.98) for AdamW.
        warmup: share of all steps spent warming up.
        min_lr: last learning rate as a share of `lr`.
        layer_decay: factor on the learning rate for each layer further from the head (Clark et al. 2020); 1 for none.
        name: any optimizer of torch or timm, as `timm.optim.list_optimizers()` has it: sgd, lamb, lion, muon.
        options: what else that optimizer takes, as {momentum: 0.9}.
        schedule: cosine, linear or constant behind the warm-up; or a scheduler of torch.optim.lr_scheduler, as
            OneCycleLR or StepLR, in place of `warmup` and `min_lr`. It counts steps, ReduceLROnPlateau epochs.
        schedule_options: what that scheduler takes, as {step_size: 1000}; the steps of the whole run are filled in.
    """

    lr: float = 1e-3
    weight_decay: float = 0.05
    betas: tuple[float, float] | None = None
    warmup: float = 0.1
    min_lr: float = 0.01
    layer_decay: float = 1.0
    name: str = "adamw"
    options: dict[str, Any] = field(default_factory=dict)
    schedule: str = "cosine"
    schedule_options: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        within("[0, inf)", lr=self.lr, weight_decay=self.weight_decay)
        if self.betas is not None:
            within("[0, 1)", betas=self.betas)
            if len(self.betas) != 2:
                raise InputError(f"betas is {self.betas}; it must be two numbers")
        within("[0, 1]", warmup=self.warmup, min_lr=self.min_lr, layer_decay=self.layer_decay)
        self.name = self.name.rpartition(".")[2].lower()  # torch.optim.SGD is timm's sgd
        if self.name != "adamw":
            check_name(self.name)
        if self.schedule not in FALLS and self.schedule not in schedulers():
            raise InputError(f"schedule {self.schedule!r}: {meant(self.schedule, [*FALLS, *schedulers()])}")
        if self.schedule in FALLS and self.schedule_options:
            raise InputError(
                f"schedule_options are for a scheduler of torch; {self.schedule!r} takes warmup and min_lr"
            )

    def build(
        self, layers: list[list[nn.Module]], steps: int, autocast: bool = False
    ) -> tuple[optim.Optimizer, LRScheduler]:
        """layers: from the input to the head; modules at the same depth stand in one list.

        autocast: whether the run is one of mixed precision, whatever the device.
        """
        # A group is a launch of its own: layers that are treated alike share one.
        groups: dict[tuple[float, float], list[nn.Parameter]] = {}
        for depth, modules in enumerate(layers):
            lr = self.lr * self.layer_decay ** (len(layers) - 1 - depth)
            for decay, params in zip((self.weight_decay, 0.0), split_by_decay(modules), strict=True):
                groups.setdefault((lr, decay), []).extend(params)
        named = [
            {"params": params, "lr": lr, "weight_decay": decay} for (lr, decay), params in groups.items() if params
        ]
        if self.name == "adamw":
            cuda = any(p.is_cuda for params in groups.values() for p in params)
            # Lightning clips no gradients for a fused optimizer under autocast; CUDA runs use it by default.
            given = {"betas": self.betas or (0.9, 0.98), "fused": not (cuda or autocast), **self.options}
            optimizer = made(optim.AdamW, named, lr=self.lr, **given)
        else:
            from timm.optim import _optim_factory as timms

            given = ({} if self.betas is None else {"betas": tuple(self.betas)}) | self.options
            optimizer = made(timms.create_optimizer_v2, named, opt=self.name, lr=self.lr, **given)
        return optimizer, self.scheduler(optimizer, steps)

    def scheduler(self, optimizer: optim.Optimizer, steps: int) -> LRScheduler:
        if self.schedule in FALLS:
            return LambdaLR(optimizer, lambda step: self.factor(step, steps))
        kind, given = schedulers()[self.schedule], {}
        if self.schedule in WHOLE_RUN:
            given[WHOLE_RUN[self.schedule]] = steps
        if "max_lr" in inspect.signature(kind).parameters:
            given["max_lr"] = [group["lr"] for group in optimizer.param_groups]
        return made(kind, optimizer, **{**given, **self.schedule_options})

    def factor(self, step: int, steps: int) -> float:
        """Learning rate of step `step` of `steps`, counted from 0, as a share of its peak."""
        warm = max(1, round(self.warmup * steps))
        if step < warm:
            return (step + 1) / warm
        progress = min(1.0, (step + 1 - warm) / max(1, steps - warm))
        return self.min_lr + (1 - self.min_lr) * FALLS[self.schedule](progress)


def schedulers() -> dict[str, type[LRScheduler]]:
    """torch's schedulers that plain values describe, by name."""
    found = {name: kind for name, kind in vars(lr_scheduler).items() if inspect.isclass(kind)}
    return {n: kind for n, kind in found.items() if issubclass(kind, LRScheduler) and n not in COMPOSED}


def check_name(name: str) -> None:
    """InputError if timm has no optimizer of this name, or one that needs more than a gradient."""
    from timm.optim import _optim_factory as timms

    names = [str(known) for known in timms.list_optimizers()]
    if name not in names:
        raise InputError(f"optimizer name {name!r}: {meant(name, names)}")
    if timms.get_optimizer_info(name).second_order:
        raise InputError(f"the optimizer {name} wants second derivatives, which our kernels do not have")


def made(make: Any, *given: Any, **options: Any) -> Any:
    """What `make` gives; an InputError for options that it does not take, or a package that it wants."""
    try:
        return make(*given, **options)
    except (TypeError, ValueError, ImportError, AssertionError, RuntimeError, ArithmeticError) as error:
        what = options.get("opt") or make.__name__
        reason = " ".join(str(error).split()) or "a package that it needs is not installed"
        raise InputError(f"{what} cannot be built with {options}: {reason}") from error


def split_by_decay(modules: list[nn.Module]) -> tuple[list[nn.Parameter], list[nn.Parameter]]:
    """Trainable parameters of the modules: those that weight decay pulls to zero, and those it leaves alone."""
    decayed, free = [], []
    for module in modules:
        for param in module.parameters():
            if param.requires_grad:
                (free if param.ndim <= 1 or getattr(param, "_no_weight_decay", False) else decayed).append(param)
    return decayed, free
