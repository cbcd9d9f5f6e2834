"""Several mixers side by side on the same input."""

from collections.abc import Callable

import torch
from torch import Tensor, nn

from mmeff.errors import whole
from mmeff.mixers.base import Mixer
from mmeff.norm import RMSNorm


class Parallel(Mixer):
    """y = W mean_m(scale_m * rms_norm(mixer_m(x))): mechanisms in parallel inside one block.

    Each output is normalised, since different mechanisms speak at different volumes; scale_m is that norm's weight.

    Source: Dong et al., Hymba, arXiv 2411.13676, eq. 3.
    """

    def __init__(self, dim: int, mixers: list[Callable[[int], Mixer]]) -> None:
        """
        Args:
            dim: width of the tokens.
            mixers: each builds a mixer of that width.
        """
        super().__init__()
        whole(1, dim=dim)
        if not mixers:
            raise ValueError("Parallel needs at least one mixer")
        self.mixers = nn.ModuleList(build(dim) for build in mixers)
        self.norms = nn.ModuleList(RMSNorm(dim) for _ in mixers)
        self.out = nn.Linear(dim, dim)
        self.causal = all(bool(mixer.causal) for mixer in self.mixers)

    def forward(self, x: Tensor, grid: tuple[int, ...], lengths: Tensor | None = None) -> Tensor:
        pairs = zip(self.mixers, self.norms, strict=True)
        return self.out(torch.stack([norm(mixer(x, grid, lengths)) for mixer, norm in pairs]).mean(0))
