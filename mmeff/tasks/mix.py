"""Mixup and CutMix on batches of one signal, by timm."""

from dataclasses import dataclass

from torch import Tensor


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
        if self.mixup < 0 or self.cutmix < 0 or self.mixup + self.cutmix == 0:
            raise ValueError(f"mix needs mixup or cutmix above 0, got mixup = {self.mixup}, cutmix = {self.cutmix}")

    def __call__(self, raw: Tensor, label: Tensor, classes: int, smoothing: float) -> tuple[Tensor, Tensor]:
        """raw (B, ...), label (B,) int64 -> mixed raw, soft label (B, classes) with the smoothing in it."""
        from timm.data.mixup import Mixup, mixup_target

        cutmix = self.cutmix if raw.ndim == 4 else 0.0
        if len(raw) < 2 or self.mixup + cutmix == 0:
            return raw, mixup_target(label, classes, 1.0, smoothing)
        mix = Mixup(self.mixup, cutmix, prob=self.probability, label_smoothing=smoothing, num_classes=classes)
        even = len(raw) // 2 * 2  # timm pairs row i with row B - 1 - i
        return mix(raw[:even].clone(), label[:even])
