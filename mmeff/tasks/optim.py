"""AdamW with decay groups, and the learning rate over a run."""

import math
from dataclasses import dataclass

from torch import nn, optim
from torch.optim.lr_scheduler import LambdaLR

from mmeff.errors import InputError, within


@dataclass
class AdamWCosine:
    """AdamW under a linear warm-up and a cosine decay to `min_lr * lr` at the last step.

    Args:
        lr: peak learning rate.
        weight_decay: decoupled decay (Loshchilov and Hutter 2019) of matrices; vectors, embeddings of positions and
            parameters marked `_no_weight_decay` have none.
        betas: AdamW's averaging factors.
        warmup: share of all steps spent warming up.
        min_lr: last learning rate as a share of `lr`.
        layer_decay: factor on the learning rate for each layer further from the head (Clark et al. 2020); 1 for none.
    """

    lr: float = 1e-3
    weight_decay: float = 0.05
    betas: tuple[float, float] = (0.9, 0.98)
    warmup: float = 0.1
    min_lr: float = 0.01
    layer_decay: float = 1.0

    def __post_init__(self) -> None:
        within("[0, inf)", lr=self.lr, weight_decay=self.weight_decay)
        within("[0, 1)", betas=self.betas)
        if len(self.betas) != 2:
            raise InputError(f"betas is {self.betas}; it must be two numbers")
        within("[0, 1]", warmup=self.warmup, min_lr=self.min_lr, layer_decay=self.layer_decay)

    def build(
        self, layers: list[list[nn.Module]], steps: int, autocast: bool = False
    ) -> tuple[optim.Optimizer, LambdaLR]:
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
        cuda = any(p.is_cuda for params in groups.values() for p in params)
        return (
            # Lightning clips no gradients for a fused optimizer under autocast; CUDA runs use it by default.
            optimizer := optim.AdamW(named, lr=self.lr, betas=self.betas, fused=not (cuda or autocast)),
            LambdaLR(optimizer, lambda step: self.factor(step, steps)),
        )

    def factor(self, step: int, steps: int) -> float:
        """Learning rate of step `step` of `steps`, counted from 0, as a share of its peak."""
        warm = max(1, round(self.warmup * steps))
        if step < warm:
            return (step + 1) / warm
        progress = min(1.0, (step + 1 - warm) / max(1, steps - warm))
        return self.min_lr + (1 - self.min_lr) * 0.5 * (1 + math.cos(math.pi * progress))


def split_by_decay(modules: list[nn.Module]) -> tuple[list[nn.Parameter], list[nn.Parameter]]:
    """Trainable parameters of the modules: those that weight decay pulls to zero, and those it leaves alone."""
    decayed, free = [], []
    for module in modules:
        for param in module.parameters():
            if param.requires_grad:
                (free if param.ndim <= 1 or getattr(param, "_no_weight_decay", False) else decayed).append(param)
    return decayed, free
