"""Mixup and CutMix on batches of one signal, by timm."""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from mmeff.errors import InputError, within


@dataclass
class Mix:
    """Each training batch is blended with itself in reverse order, and the labels with it (timm's `Mixup`).

    mixup: x = lam x + (1 - lam) x', lam ~ Beta(mixup, mixup) (Zhang et al. 2018), images and sounds.
    cutmix: a box of share 1 - lam of the image comes from x' (Yun et al. 2019), images only.
    Single-label only; where both are on, a coin decides for each batch.

    Args:
        mixup: Beta parameter of mixup; 0 for none.
        cutmix: Beta parameter of CutMix; 0 for none.
        probability: share of batches that are mixed at all.
    """

    mixup: float = 0.0
    cutmix: float = 0.0
    probability: float = 1.0

    def __post_init__(self) -> None:
        within("[0, inf)", mixup=self.mixup, cutmix=self.cutmix)
        within("[0, 1]", probability=self.probability)
        if self.mixup + self.cutmix == 0:
            raise InputError(f"mix needs mixup or cutmix above 0, got mixup = {self.mixup}, cutmix = {self.cutmix}")

    def __call__(
        self, raw: Tensor, lengths: Tensor | None, label: Tensor, classes: int, smoothing: float
    ) -> tuple[Tensor, Tensor | None, Tensor]:
        """raw (B, ...), lengths (B,), label (B,) int64 -> mixed raw, lengths, soft label (B, classes), smoothed."""
        from timm.data.mixup import Mixup, mixup_target

        cutmix = self.cutmix if raw.ndim == 4 else 0.0
        if len(raw) < 2 or self.mixup + cutmix == 0 or np.random.rand() >= self.probability:
            return raw, lengths, mixup_target(label, classes, 1.0, smoothing)
        mix = Mixup(self.mixup, cutmix, label_smoothing=smoothing, num_classes=classes)
        even = len(raw) // 2 * 2  # timm pairs row i with row B - 1 - i
        if lengths is not None:  # a blend of two clips is as long as the longer one
            lengths = torch.maximum(lengths[:even], lengths[:even].flip(0))
        raw, target = mix(raw[:even].clone(), label[:even])
        return raw, lengths, target
