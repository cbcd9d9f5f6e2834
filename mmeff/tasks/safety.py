"""What keeps a run from losing work: exact resuming, atomic checkpoints, a guard against NaN."""

import os
import random
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
import torch.distributed as dist
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.plugins.io import TorchCheckpointIO
from torch import Tensor, nn

from mmeff.errors import InputError, Interrupted, TrainingError, shown
from mmeff.weights import read_checkpoint


class BestCheckpoint(ModelCheckpoint):
    """Keeps best.ckpt, the weights of the best value of what the task monitors; of equal ones the latest.

    A small validation set saturates within a few epochs, long before the weights are at their best.
    """

    def __init__(self, folder: Path, monitor: str = "val/score", mode: Literal["max", "min"] = "max"):
        super().__init__(folder, "best", monitor=monitor, mode=mode, enable_version_counter=False)

    def check_monitor_top_k(self, trainer: Trainer, current: Tensor | None = None) -> bool:
        equal = current is not None and bool(current == self.best_model_score)
        return equal or super().check_monitor_top_k(trainer, current)


class RandomState(Callback):
    """Saves the state of every random number generator with a checkpoint: a resumed run repeats it bit by bit.

    Each process has its own: batches of texts differ in length, and so in what dropout draws.
    """

    def __init__(self) -> None:
        self.pending: dict[str, Any] | None = None

    def state_dict(self) -> dict[str, Any]:
        if not (dist.is_available() and dist.is_initialized()):
            return self._own_state()
        states: list[Any] = [None] * dist.get_world_size()
        dist.all_gather_object(states, self._own_state())
        return {**states[0], "ranks": states[1:]}

    def _own_state(self) -> dict[str, Any]:
        name, keys, *position = np.random.get_state(legacy=True)
        python_version, python_state, _ = random.getstate()
        return {
            "torch": torch.get_rng_state(),
            "cuda": torch.cuda.get_rng_state_all() if torch.cuda.is_available() else [],
            "numpy": {"name": name, "keys": torch.tensor(np.asarray(keys).astype(np.int64)), "position": position},
            "python": {"version": python_version, "state": torch.tensor(python_state, dtype=torch.int64)},
        }

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.pending = state_dict

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        # As late as this: starting a run draws random numbers too.
        state, self.pending = self.pending, None
        if state is None:
            return
        try:
            if 0 < trainer.global_rank <= len(state.get("ranks", ())):
                state = state["ranks"][trainer.global_rank - 1]
            self._restore(state)
        except (AttributeError, LookupError, RuntimeError, TypeError, ValueError) as error:
            raise InputError(
                f"the checkpoint is damaged: the state of its random numbers cannot be restored: {shown(str(error))}"
            ) from error

    @staticmethod
    def _restore(state: dict[str, Any]) -> None:
        torch.set_rng_state(state["torch"].cpu())
        if torch.cuda.is_available() and len(state["cuda"]) == torch.cuda.device_count():
            torch.cuda.set_rng_state_all([s.cpu() for s in state["cuda"]])
        keys = state["numpy"]["keys"].numpy().astype(np.uint32)
        np.random.set_state((state["numpy"]["name"], keys, *state["numpy"]["position"]))
        random.setstate((state["python"]["version"], tuple(state["python"]["state"].tolist()), None))


class AtomicCheckpointIO(TorchCheckpointIO):
    """Writes a checkpoint beside its place and moves it there when it is whole: a crash never leaves half a file.

    Removes nothing but checkpoints in folders where it saved some: Lightning takes the paths of earlier ones out of the
    checkpoint that a run goes on from, and those may be any file, folder or address.
    """

    def __init__(self) -> None:
        super().__init__()
        self.folders: set[Path] = set()

    def remove_checkpoint(self, path: Any) -> None:
        path = Path(path).absolute()
        if path.parent in self.folders and path.suffix == ".ckpt" and path.is_file():
            path.unlink()

    def load_checkpoint(self, path: Any, map_location: Any = "cpu", weights_only: bool | None = True) -> dict[str, Any]:
        return read_checkpoint(path, map_location)

    def save_checkpoint(self, checkpoint: dict[str, Any], path: Any, storage_options: Any | None = None) -> None:
        path = Path(path)
        part = path.with_name(path.name + ".part")
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            with open(part, "wb") as file:
                torch.save(checkpoint, file)
                file.flush()
                os.fsync(file.fileno())
            os.replace(part, path)
            self.folders.add(path.parent.absolute())
        except (OSError, RuntimeError) as error:
            kept = "The checkpoint before it is whole" if path.exists() else "There is no earlier checkpoint"
            raise TrainingError(
                f"cannot save {path}: {describe_write_error(error)}. {kept}; "
                "free some space, then run the same command with --ckpt_path last"
            ) from error
        finally:
            part.unlink(missing_ok=True)


def describe_write_error(error: BaseException) -> str:
    """The system's own words ("No space left on device"), which torch.save hides behind its own error."""
    found: BaseException | None = error
    while found is not None:
        if isinstance(found, OSError) and found.strerror:
            return found.strerror
        found = found.__context__
    return str(error).splitlines()[0]


@contextmanager
def restoring(checkpoint: Any) -> Iterator[None]:
    """Errors of Lightning where it restores a run, which is of a damaged file, as an InputError."""
    try:
        yield
    except (InputError, TrainingError, Interrupted):
        raise
    except Exception as error:
        frames = traceback.extract_tb(error.__traceback__)
        if not any(frame.filename.endswith("checkpoint_connector.py") for frame in frames):
            raise
        reason = shown(" ".join(str(error).split()) or type(error).__name__)
        raise InputError(f"{checkpoint} is damaged: its training cannot be restored: {reason}") from error


class NaNGuard(Callback):
    """Ends a run at the first loss or gradient that is not finite, before it reaches the weights."""

    def __init__(self, checkpoint: Path):
        self.checkpoint = checkpoint
        self.batch: Any = None
        self.loss: Tensor | None = None
        #: Buffers as the last step left them: a forward pass changes the running statistics of BatchNorm.
        self.buffers: list[Tensor] | None = None

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        self.batch = batch
        if self.buffers is None:
            self.buffers = [buffer.clone() for buffer in pl_module.buffers()]

    def on_before_backward(self, trainer: Trainer, pl_module: LightningModule, loss: Tensor) -> None:
        self.loss = loss.detach()

    def on_before_optimizer_step(self, trainer: Trainer, pl_module: LightningModule, optimizer: Any) -> None:
        assert self.loss is not None
        grads = [p.grad for p in pl_module.parameters() if p.grad is not None]
        total = torch.nn.utils.get_total_norm(grads) + self.loss  # one transfer from the device, not hundreds
        # A scaler of fp16 gradients skips a step that overflows, and scales the next ones less.
        scaled = getattr(trainer.precision_plugin, "scaler", None) is not None and bool(self.loss.isfinite())
        if scaled or bool(total.isfinite()):
            self.buffers = None
            return
        where = self._locate(pl_module)
        assert self.buffers is not None
        for buffer, kept in zip(pl_module.buffers(), self.buffers, strict=True):
            buffer.copy_(kept)
        trainer.save_checkpoint(self.checkpoint)
        raise TrainingError(
            f"the loss or its gradient stopped being finite at step {trainer.global_step}: {where}. "
            f"The weights before this step are in {self.checkpoint}; lower model.optimizer.lr or set "
            "trainer.gradient_clip_val, and check the data of this batch: " + ", ".join(map(str, self.batch["id"][:4]))
        )

    @torch.no_grad()
    def _locate(self, pl_module: Any) -> str:
        """The first layer whose output is not finite, found by running the batch again."""
        found: list[str] = []

        def watch(name: str):
            def hook(module: nn.Module, args: Any, output: Any) -> None:
                tensors = [t for t in (output if isinstance(output, tuple) else (output,)) if isinstance(t, Tensor)]
                if any(not t.isfinite().all() for t in tensors if t.is_floating_point()):
                    found.append(name)

            return hook

        hooks = [m.register_forward_hook(watch(name)) for name, m in pl_module.model.named_modules() if name]
        try:
            pl_module.of_batch(self.batch)
        finally:
            for hook in hooks:
                hook.remove()
        if found:
            return f"first in the output of {found[0]}"
        # A gradient comes from the loss, so the last layer is the first one to see it go wrong.
        for name, param in reversed(list(pl_module.model.named_parameters())):
            if param.grad is not None and not param.grad.isfinite().all():
                return f"first in the gradient of {name}"
        return "in the loss itself"
