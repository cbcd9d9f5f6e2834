"""Options of the Trainer that it takes without a word, and that end in a traceback, or in no end, later."""

import importlib.util
import math
import os
import sys
from typing import Any

from lightning.fabric.plugins.environments.lightning import LightningEnvironment
from lightning.pytorch import Trainer
from lightning.pytorch.accelerators import CPUAccelerator
from lightning.pytorch.callbacks import BatchSizeFinder
from lightning.pytorch.strategies import DDPStrategy

from mmeff.errors import InputError

#: option -> its smallest value.
SMALLEST = {
    "accumulate_grad_batches": 1,
    "max_epochs": -1,
    "max_steps": -1,
    "check_val_every_n_epoch": 1,
    "log_every_n_steps": 0,
    "num_sanity_val_steps": -1,
    "reload_dataloaders_every_n_epochs": 0,
    "num_nodes": 1,
    "gradient_clip_val": 0,
    "overfit_batches": 0,
    "limit_train_batches": 0,
    "limit_val_batches": 0,
    "limit_test_batches": 0,
    "limit_predict_batches": 0,
}


def as_list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [] if value is None else [value]


def check_values(options: Any) -> None:
    """InputError for a number that no run can mean."""
    for name, least in SMALLEST.items():
        value = options.get(name)
        if isinstance(value, int | float) and not least <= value < math.inf:
            raise InputError(f"trainer.{name} is {value}; it must be {least} at least, and finite")
    interval = options.get("val_check_interval")
    if isinstance(interval, int | float) and not interval > 0:
        raise InputError(
            f"trainer.val_check_interval is {interval}; it must be above 0: limit_val_batches 0 turns it off"
        )
    if any(isinstance(callback, BatchSizeFinder) for callback in as_list(options.get("callbacks"))):
        raise InputError(
            "BatchSizeFinder cannot change the batches of data that is read already: try sizes with --data.batch_size, "
            "--trainer.max_steps 20 and --trainer.limit_val_batches 1"
        )
    if options.get("profiler") == "xla" and importlib.util.find_spec("torch_xla") is None:
        raise InputError("trainer.profiler is xla, and torch_xla is not installed: simple, advanced and pytorch are")


def check_seed(seed: Any) -> None:
    """InputError for a number that numpy takes for no seed; true stands for one of Lightning's choice."""
    if not isinstance(seed, bool | None) and not 0 <= seed < 2**32:
        raise InputError(f"seed_everything is {seed}; it must lie between 0 and {2**32 - 1}")


def check_processes(trainer: Trainer) -> None:
    """InputError where the processes of a run cannot be started, or would wait for others for ever."""
    strategy = trainer.strategy
    most = max(8, os.cpu_count() or 1)
    if isinstance(trainer.accelerator, CPUAccelerator) and trainer.num_devices > most:
        raise InputError(f"trainer.devices is {trainer.num_devices}; on this machine's CPU it may be {most} at most")
    if isinstance(strategy, DDPStrategy) and strategy._start_method != "popen":
        raise InputError("mmeff starts its processes anew, from the command line: set trainer.strategy to ddp")
    if isinstance(strategy, DDPStrategy) and trainer.num_devices > 1 and sys.argv[0] in ("", "-c"):
        raise InputError("further processes run the same command: start mmeff itself, or a script, not Python's -c")
    environment = getattr(strategy, "cluster_environment", None)
    if trainer.num_nodes > 1 and isinstance(environment, LightningEnvironment) and "MASTER_ADDR" not in os.environ:
        raise InputError(
            f"trainer.num_nodes is {trainer.num_nodes}: start the command on each node, with MASTER_ADDR, MASTER_PORT "
            "and NODE_RANK in its environment"
        )
