"""`mmeff fit`, `validate`, `test`, and Lightning's own `predict`: a recipe, a run folder, a Trainer."""

import logging
import sys
import warnings
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch
import yaml
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch import Callback, Trainer
from lightning.pytorch.callbacks import LearningRateMonitor, ModelCheckpoint, RichProgressBar
from lightning.pytorch.cli import LightningArgumentParser, LightningCLI, SaveConfigCallback

from mmeff.build import FAILED, build
from mmeff.cli.curves import loggers
from mmeff.cli.folder import run_folder
from mmeff.cli.keys import Recipe, find_class
from mmeff.cli.place import Place
from mmeff.cli.progress import EpochLines, TimeAhead
from mmeff.cli.recipe import compose
from mmeff.cli.trainer import as_list, check_processes, check_seed, check_values
from mmeff.cli.yaml_text import dump
from mmeff.data import ClassificationData, collate
from mmeff.errors import InputError, Interrupted, as_input_error, interrupted_by
from mmeff.signals import DataSpec
from mmeff.tasks import Task
from mmeff.tasks.distributed import allow_unused_parameters, leave_group, say
from mmeff.tasks.interrupt import StopOnInterrupt, handlers_kept
from mmeff.tasks.report import TestReport
from mmeff.tasks.safety import (
    BestCheckpoint,
    NaNGuard,
    RandomState,
    read_checkpoint,
    restoring,
)


class Cli(LightningCLI):
    """LightningCLI whose model knows its classes, and its recipe, before a Trainer sees it.

    everything  the test is of all examples, not of the test split
    """

    def __init__(self, everything: bool = False, **arguments: Any) -> None:
        self.everything = everything
        super().__init__(**arguments)

    def parse_arguments(self, parser: LightningArgumentParser, args: Any) -> None:
        with as_input_error():
            self.config = parser.parse_args(args)
        check_seed(self.config[str(self.config.subcommand)].get("seed_everything"))

    def instantiate_classes(self) -> None:
        """Model and data by `mmeff.build`, as checkpoints and comparisons build them; callbacks and loggers by
        jsonargparse."""
        command = str(self.subcommand)
        recipe = yaml.safe_load(self.parser.dump(self.config, skip_unset=False))[command]
        config = self.config.clone()
        del config[command]["model"], config[command]["data"]
        with as_input_error(FAILED, MisconfigurationException, ImportError):
            self.config_init = self.parser.instantiate_classes(config)
            self.datamodule = build(ClassificationData, recipe["data"], "data")
            self.model = build(Task, recipe["model"], "model")
            self.model.recipe = recipe["model"]
            self.trainer = self.instantiate_trainer()

    def _parse_ckpt_path(self) -> None:
        pass  # checkpoints of mmeff keep their recipe under a key of their own

    def instantiate_trainer(self, **kwargs: Any) -> Trainer:
        config = self.config_init[str(self.subcommand)]
        check_values(config.trainer)
        if config.trainer.logger in (None, True):  # a test must not write over the curves of the fit
            logs = self.subcommand == "fit" and not (config.trainer.fast_dev_run or config.trainer.barebones)
            kwargs["logger"] = loggers(Path(config.trainer.default_root_dir), config.ckpt_path) if logs else False
        trainer = super().instantiate_trainer(**kwargs)
        check_processes(trainer)
        return trainer

    def after_instantiate_classes(self) -> None:
        allow_unused_parameters(self.trainer, self.model)
        if self.everything:
            stored = read_checkpoint(Path(self.config_init["test"].ckpt_path))["mmeff"]
            self.datamodule.test_all(DataSpec.from_dicts(stored["specs"]))
        self.datamodule.setup(self.subcommand)
        # A checkpoint brings what the tokenizers learnt.
        new = self.subcommand == "fit" and self.config_init["fit"].ckpt_path is None
        samples = self.datamodule.fit_sample() if new else {}
        with as_input_error(FAILED, MisconfigurationException):
            self.model.prepare(self.datamodule.specs, samples or None)
        with as_input_error("the model cannot take this data", MisconfigurationException):
            self.model.try_out(
                {task: collate(task, self.datamodule.specs[task], raw[:2]) for task, raw in samples.items()}
            )
        millions = sum(p.numel() for p in self.model.parameters()) / 1e6
        say(self.datamodule.summary())
        say(f"{type(self.model.model.backbone).__name__}: {millions:.2f} M parameters in all")


def main(words: list[str]) -> int:
    command, *rest = words
    recipe, names, flags = compose(rest)
    if "-h" in flags or "--help" in flags:
        Cli(**cli_arguments(command, []), args=[command, "--help"])
    if not {"model", "data"} <= set(recipe):
        raise InputError("give a recipe: mmeff fit -c recipes/vision/digits.yaml (`mmeff list recipes`)")
    everything = "--all" in flags
    if everything and (command != "test" or not recipe.get("ckpt_path")):
        raise InputError(
            "--all takes every example of the data for the test: mmeff test -c RECIPE --ckpt_path best --all"
        )
    flags = [flag for flag in flags if flag != "--all"]
    quiet()
    trainer = recipe["trainer"] = recipe.get("trainer") or {}
    given = trainer.get("default_root_dir")
    run = Path(given or Path("runs") / "-".join(names))
    # Neither writes: a test run of a step, and the recipe itself in print.
    dry = bool(trainer.get("fast_dev_run")) or any(flag.startswith("--print_config") for flag in flags)
    with run_folder(command, run, recipe.get("ckpt_path"), bool(given), dry) as (run, recipe["ckpt_path"]):
        execute(command, recipe, flags, run, dry, everything)
    leave_group()
    return 0


def execute(command: str, recipe: Recipe, flags: list[str], run: Path, dry: bool, everything: bool) -> None:
    set_defaults(recipe, command, run)
    text = dump(recipe)
    callbacks = run_callbacks(run, command, recipe["trainer"], find_class(recipe["model"]["class_path"], "model"))
    try:
        with handlers_kept(), restoring(recipe.get("ckpt_path")):
            cli = Cli(everything, **cli_arguments(command, callbacks), args=[command, "--config", text, *flags])
        if command == "fit" and not dry:
            try:
                with handlers_kept():
                    finish(cli, run)
            except (KeyboardInterrupt, SystemExit) as error:  # Lightning makes the one into the other
                number = interrupted_by(error)
                if number is None:
                    raise
                raise Interrupted(
                    f"stopped after the fit, before its test was over. All that was trained is in {run}: "
                    "test it with the same recipe, mmeff test and --ckpt_path best",
                    128 + number,
                ) from error
    except MisconfigurationException as error:  # what Lightning finds out only when it has the data
        raise InputError(" ".join(str(error).split())) from error


def cli_arguments(command: str, callbacks: list[Callback]) -> dict[str, Any]:
    return {
        "model_class": Task,
        "datamodule_class": ClassificationData,
        "subclass_mode_model": True,
        "subclass_mode_data": True,
        "parser_kwargs": {"exit_on_error": False} | {c: {"exit_on_error": False} for c in Cli.subcommands()},
        "seed_everything_default": 0,
        "save_config_callback": SaveConfigCallback if command == "fit" else None,
        "save_config_kwargs": {"overwrite": True},
        "trainer_defaults": {"callbacks": callbacks},
        "auto_configure_optimizers": False,
        "load_from_checkpoint_support": False,
    }


def set_defaults(recipe: Recipe, command: str, run: Path) -> None:
    """What every run has unless its recipe says otherwise."""
    trainer = recipe["trainer"]
    recipe.setdefault("weights_only", True)
    if command in ("validate", "test"):
        recipe.setdefault("verbose", False)  # Lightning's table of the results; EpochLines says them in one
    trainer["default_root_dir"] = str(run)
    trainer.setdefault("use_distributed_sampler", False)  # the loaders of mmeff.data divide the data themselves
    if not trainer.get("barebones"):  # which refuses even to be told how often to log
        trainer.setdefault("log_every_n_steps", 10)
    trainer.setdefault("enable_model_summary", False)
    trainer.setdefault("plugins", [{"class_path": "mmeff.tasks.safety.AtomicCheckpointIO"}])
    trainer.setdefault("enable_progress_bar", sys.stdout.isatty() and not trainer.get("barebones"))
    if trainer.get("precision") in ("bf16-true", "16-true"):
        half = {"class_path": "mmeff.tasks.precision.HalfButRaw", "init_args": {"precision": trainer["precision"]}}
        trainer["plugins"] = [*as_list(trainer["plugins"]), half]
        del trainer["precision"]
    elif torch.cuda.is_available() and trainer.get("accelerator", "auto") in ("auto", "gpu", "cuda"):
        trainer.setdefault("precision", "bf16-mixed")


def run_callbacks(run: Path, command: str, trainer: dict[str, Any], task: type[Task]) -> list[Callback]:
    bar: list[Callback] = [RichProgressBar(leave=True)] if trainer["enable_progress_bar"] else []
    if command != "fit":
        return [*bar, EpochLines(), *([TestReport(run)] if command == "test" else [])]
    barebones = bool(trainer.get("barebones"))
    logs = trainer.get("logger") is not False and not (trainer.get("fast_dev_run") or barebones)
    last: dict[str, Any] = {"dirpath": run, "filename": "last", "enable_version_counter": False}
    checkpoints = [
        BestCheckpoint(run, task.monitor, task.mode),
        ModelCheckpoint(**last, every_n_epochs=1, save_on_train_epoch_end=True),
        ModelCheckpoint(**last, train_time_interval=timedelta(minutes=1)),
    ]
    return [
        *(bar or [EpochLines()]),
        TimeAhead(),
        RandomState(),
        Place(),
        NaNGuard(run / "last_good.ckpt"),
        StopOnInterrupt(run / "last.ckpt"),
        *([LearningRateMonitor("step")] if logs else []),
        *([] if trainer.get("enable_checkpointing") is False or barebones else checkpoints),
    ]


def finish(cli: Cli, run: Path) -> None:
    """After a fit: test the best checkpoint where there is a test split, and say what to do next."""
    model, data, trainer = cli.model, cli.datamodule, cli.trainer
    run = trainer.strategy.broadcast(run)
    best = run / "best.ckpt"
    if best.is_file() and any("test" in part.splits for part in data.parts.values()):
        model.load_state_dict(read_checkpoint(best)["state_dict"])
        # The same Trainer: all its processes test, each its share. It must not write over the curves of the fit.
        trainer.loggers = []
        trainer.callbacks = [EpochLines(), TestReport(run)]  # pyright: ignore[reportAttributeAccessIssue]
        trainer.test(model, datamodule=data, verbose=False)
        limit: Any = trainer.limit_test_batches
        if trainer.is_global_zero and isinstance(limit, float) and limit == 1:  # the whole number 1 is one batch
            print(*model.beside_baselines(data.parts, trainer.callback_metrics), sep="\n", flush=True)
    if not any(run.glob("*.ckpt")):
        return
    first, *lines = model.usage(run)
    say("\n".join([f"everything is in {run}. {first}", *lines]))


def quiet() -> None:
    """What Lightning says of its own defaults and workings is not about the user's run."""
    for name in ("lightning.pytorch", "lightning.fabric"):
        logging.getLogger(name).setLevel(logging.WARNING)
    for message in (
        ".*does not have many workers.*",
        ".*exists and is not empty.*",
        ".*number of training batches.*",
        ".*LeafSpec.*is deprecated.*",
        ".*callbacks used to create the checkpoint.*",
        ".*The dirpath has changed.*",
        ".*Grad strides do not match bucket view strides.*",
    ):
        warnings.filterwarnings("ignore", message)
