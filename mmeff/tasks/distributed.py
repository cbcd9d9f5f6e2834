"""Training on several processes."""

from typing import Any

import torch.distributed as dist
from lightning.pytorch import Trainer
from lightning.pytorch.strategies import DDPStrategy
from lightning.pytorch.utilities import rank_zero_only

from mmeff.tasks.base import Task


@rank_zero_only
def say(line: str) -> None:
    """Print a line once, not once per process."""
    print(line, flush=True)


def allow_unused_parameters(trainer: Trainer, task: Task) -> None:
    """Let DDP look for parameters without gradients where the model has several tasks.

    A batch is of one task, the same on all ranks: the tokenizers and heads of the others have no gradients in that
    step, and DDP would wait for them. Adding 0 times their sum to the loss would give them gradients of zero, under
    which AdamW still moves them (momentum, weight decay); without gradients it leaves them alone, as in one process.
    """
    strategy: Any = trainer.strategy
    if isinstance(strategy, DDPStrategy) and len(task.model.tokenizers) > 1:
        strategy._ddp_kwargs["find_unused_parameters"] = True


def leave_group() -> None:
    """End the process group of a run that is over: its threads would abort a process that ends before them."""
    if dist.is_available() and dist.is_initialized():
        dist.destroy_process_group()
