"""What one example costs by count: FLOPs, bytes, the size of recurrent states. Nothing is computed."""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import DataDependentOutputException, DynamicOutputShapeException
from torch.func import functional_call
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import FlopCounterMode

from mmeff.compare.formulas import CORRECTIONS, as_kernels
from mmeff_kernels.dispatch import state_bytes


@dataclass(frozen=True)
class Counts:
    """Of one example; None where the work depends on the data (mixtures of experts).

    FLOPs are those of products, convolutions and attention, and of scans by their own formulas, which count the
    exponentials too; what else works on elements (norms, activations, sums) is left out, as torch does. Operators are
    counted in the form that the kernels have, also where another form runs on a CPU.
    """

    forward_flops: int | None = None
    forward_macs: int | None = None
    training_flops: int | None = None
    bytes_moved: int | None = None
    state_bytes: int | None = None


class Traffic(TorchDispatchMode):
    """Counts the bytes that operators read and write, and those of the recurrent states that they hold.

    Each operator reads its inputs once and writes its outputs once; views move nothing.
    """

    def __init__(self) -> None:
        super().__init__()
        self.bytes = self.states = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        made = [t for t in tree_leaves(out) if isinstance(t, Tensor)]
        if made and not func.is_view and "empty" not in str(func):
            read = [t for t in tree_leaves((args, kwargs)) if isinstance(t, Tensor)]
            self.bytes += sum(map(stored_bytes, read + made))
        self.states += state_bytes(func, args, out)
        return out


def stored_bytes(tensor: Tensor) -> int:
    """Bytes that a tensor reads of its memory: repeated elements count once."""
    return min(tensor.numel() * tensor.itemsize, tensor.untyped_storage().nbytes())


def count(model: nn.Module, *given: Any, bf16: bool = False) -> Counts:
    """Counts of a training and of a forward pass over one example, given as the model takes it.

    Bytes are those of bf16 under autocast, or of fp32.
    """
    try:
        with as_kernels(), torch.autocast("cpu", torch.bfloat16, enabled=bf16):
            return _counted(model, given)
    except (DataDependentOutputException, DynamicOutputShapeException):
        return Counts()


def _counted(model: nn.Module, given: tuple[Any, ...]) -> Counts:
    named = [*model.named_parameters(), *model.named_buffers()]
    weights = {name: torch.empty_like(t, device="cpu").requires_grad_(t.requires_grad) for name, t in named}
    given = tuple(torch.empty_like(x, device="cpu") if isinstance(x, Tensor) else x for x in given)
    counter = FlopCounterMode(display=False, custom_mapping=CORRECTIONS)
    traffic = Traffic()
    was_training = model.training
    # With gradients: torch's own layers have a shortcut without them, whose FLOPs nobody counts. A training step is
    # this pass and its backward one: what training does besides (dropout) has no products.
    with counter:
        with traffic:
            logits = functional_call(model.eval(), weights, given)
        flops = counter.get_total_flops()
        logits.sum().backward()
    model.train(was_training)
    return Counts(flops, flops // 2, counter.get_total_flops(), traffic.bytes, traffic.states or None)
