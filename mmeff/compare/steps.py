"""One contender's forward pass and training step on a batch of random signals."""

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from mmeff.feedforward import MoE
from mmeff.model import Model

#: Batch size -> what a model is given: the task, and raw signals of one length.
Signals = Callable[[int], tuple[Any, ...]]


class Steps:
    """`infer` and `train` on one batch: fp32 on the CPU, bf16 under autocast on CUDA; AdamW.

    After `train` the gradients are gone, as in a training loop.
    """

    def __init__(self, model: Model, signals: Signals, batch: int, device: torch.device):
        self.model, self.batch, self.device = model.to(device), batch, device
        self.given = signals(batch)
        self.labels = torch.zeros(batch, dtype=torch.long, device=device)
        self.optimizer = torch.optim.AdamW(model.parameters(), 1e-4, fused=True)
        self.mixtures = [module for module in model.backbone.modules() if isinstance(module, MoE)]

    def logits(self) -> Tensor:
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.device.type == "cuda"):
            return self.model(*self.given)

    @torch.no_grad()
    def infer(self) -> None:
        if self.model.training:  # to walk all modules takes the host as long as a block
            self.model.eval()
        self.logits()

    def train(self) -> None:
        if not self.model.training:
            self.model.train()
        loss = F.cross_entropy(self.logits().float(), self.labels)
        for mixture in self.mixtures:
            if mixture.aux_loss is not None:
                loss = loss + mixture.aux_loss
        loss.backward()
        self.optimizer.step()
        self.optimizer.zero_grad()


def fitting(model: Model, signals: Signals, batch: int, device: torch.device) -> Steps:
    """Steps on `batch` examples, or on the half, the quarter, ... that fits into memory. OutOfMemoryError if not one
    does."""
    while True:
        try:
            steps = Steps(model, signals, batch, device)
            steps.train()
            steps.infer()
            return steps
        except torch.OutOfMemoryError:
            if batch == 1:
                raise
        batch //= 2  # outside the handler, which holds the tensors of the pass that failed
        torch.cuda.empty_cache()
