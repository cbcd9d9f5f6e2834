"""What the data modules of all modalities share: splits, specs, loaders."""

import os
import random
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from lightning.pytorch import LightningDataModule, Trainer
from lightning.pytorch.utilities import rank_zero_only

from mmeff.data.examples import Examples
from mmeff.data.loader import ResumableLoader, Signals
from mmeff.data.splits import AllTest, AsGiven, SplitRule
from mmeff.errors import InputError, whole
from mmeff.signals import DataSpec, read_raw


@dataclass(frozen=True)
class Part:
    """One labelled signal: its spec and its splits ("train", "val", "test"; none is empty, val and test may lack)."""

    spec: DataSpec
    splits: dict[str, Signals]


class ClassificationData(LightningDataModule, ABC):
    """Labelled signals as batches; what a task sees of the data.

    A batch is {"task": a key of `specs`, "image" | "audio" | ...: raw batch, "lengths": (B,) int64 where it is padded,
    "label": (B,) int64 or (B, K) float32, "id": B short names}; see `mmeff.data.collate` for the raw batch.

    specs  after `setup`: a DataSpec for each labelled signal, keyed by its kind (in `JointData` by its name)
    parts  after `setup`: the same keys, the examples

    Train the Trainer with `use_distributed_sampler=False`: the loaders divide examples among ranks themselves.
    """

    def __init__(self, num_workers: int | None, seed: int):
        super().__init__()
        if num_workers is not None and not 0 <= num_workers <= 64 * cores():
            raise InputError(
                f"num_workers is {num_workers}; it must lie between 0 (none) and 64 per core ({64 * cores()})"
            )
        if not isinstance(seed, int) or seed < 0:
            raise InputError(f"the seed of the data is {seed}; it must be 0 or more")
        self.num_workers, self.seed = num_workers, seed
        self.split: SplitRule | None = None
        self.parts: dict[str, Part] = {}
        self.specs: dict[str, DataSpec] = {}
        self._loaders: list[ResumableLoader] = []
        self.training: ResumableLoader | None = None
        self._resume: dict[str, Any] = {}

    @abstractmethod
    def load(self) -> dict[str, Part]:
        """Read what there is, and divide it. Called once, by `setup`."""

    def setup(self, stage: str | None = None) -> None:
        if not self.parts:
            self.parts = self.load()
            self.specs = {key: part.spec for key, part in self.parts.items()}

    def test_all(self, specs: dict[str, DataSpec]) -> None:
        """To be called before `setup`: every example is a test of the model that these specs are of."""
        if len(specs) != 1:
            raise InputError(f"the model was trained on {', '.join(specs)}, and the data is of one of them")
        (spec,) = specs.values()
        self.split = AllTest(spec.classes)

    def teardown(self, stage: str | None = None) -> None:
        while self._loaders:
            self._loaders.pop().close()

    def state_dict(self) -> dict[str, Any]:
        """Where training stands in the data: behind the last batch of which the optimizer has made a step.

        Lightning saves this of the loader too, but never loads it into a run whose optimizer asked for
        `trainer.estimated_stepping_batches`: the loader is made then, before the state of the loops is read.
        """
        return {} if self.training is None else self.training.state_without(unfinished(self.trainer))

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self._resume = state_dict

    def train_dataloader(self) -> ResumableLoader:
        self.training = self._loader("train")
        self._check_interval(self.training.whole)
        if self._resume:
            try:
                self.training.load_state_dict(self._resume)
            except (KeyError, TypeError, ValueError, AttributeError) as error:
                raise InputError(f"the checkpoint does not say where it stands in the data: {error!r}") from error
            if self.training.skipped:
                rank_zero_only(print)(
                    "the training examples are not those of the checkpoint: "
                    "this epoch leaves out as many as it had seen, others than those perhaps"
                )
            self._resume = {}
        return self.training

    def val_dataloader(self) -> ResumableLoader | list[Any]:
        return self._loader("val") if self._signals("val") else []

    def test_dataloader(self) -> ResumableLoader:
        if not self._signals("test"):
            raise InputError("there is no test split: give the source one, or cut one off with ByRatio or ByGroup")
        return self._loader("test")

    def fit_sample(self, n: int = 2048) -> dict[str, list[Any]]:
        """Up to n raw signals of each key's training split, chosen at random, without augmentation; of text all."""
        sample = {}
        for key, part in self.parts.items():
            train = part.splits["train"]
            count = len(train) if part.spec.kind.strings else min(n, len(train))
            chosen = sorted(random.Random(self.seed).sample(range(len(train)), count))
            sample[key] = [read_raw(part.spec, train.items[i]) for i in chosen]
        return sample

    def summary(self) -> str:
        """A line for each key, as "image: 5000 examples, 10 classes, 3500 train / 500 val / 1000 test"."""
        lines = []
        for key, part in self.parts.items():
            sizes = {name: len(part.splits[name]) if name in part.splits else 0 for name in ("train", "val", "test")}
            split = " / ".join(f"{size} {name}" for name, size in sizes.items())
            kind = "labels (several an example)" if part.spec.multilabel else "classes"
            lines.append(f"{key}: {sum(sizes.values())} examples, {len(part.spec.classes)} {kind}, {split}")
        return "\n".join(lines)

    def _check_interval(self, batches: int) -> None:
        trainer = self.trainer
        if trainer is None or trainer.check_val_every_n_epoch is None or not trainer.limit_val_batches:
            return
        if isinstance(trainer.val_check_interval, int) and 0 < batches < trainer.val_check_interval:
            raise InputError(
                f"trainer.val_check_interval is {trainer.val_check_interval}, and an epoch has {batches} batches: make "
                "it smaller, or set trainer.check_val_every_n_epoch to null to count batches over epochs"
            )

    def _signals(self, split: str) -> list[Signals]:
        return [part.splits[split] for part in self.parts.values() if split in part.splits]

    def _loader(self, split: str) -> ResumableLoader:
        signals = self._signals(split)
        rank, world, limit, repeat = 0, 1, None, False
        if self.trainer is not None:
            rank, world = self.trainer.global_rank, self.trainer.world_size
            if split == "train":
                # Lightning stops there; the loader must know that the epoch ends with it.
                bound = self.trainer.limit_train_batches
                total = sum(part.passes * part.batch_count(world) for part in signals)
                repeat = getattr(self.trainer, "overfit_batches", 0) > 0
                limit = bound if isinstance(bound, int) else int(total * bound) if bound is not None else None
        loader = ResumableLoader(
            signals,
            shuffle=split == "train",
            seed=self.seed,
            rank=rank,
            world=world,
            num_workers=_default_workers(signals) if self.num_workers is None else self.num_workers,
            limit=limit,
            repeat=repeat,
        )
        self._loaders.append(loader)
        return loader


def make_part(
    signal: str,
    examples: Examples,
    split: SplitRule | None,
    preprocessing: dict[str, Any],
    read: Callable[[Any], Any] | None,
    batch_size: int,
    seed: int,
) -> Part:
    """Divide examples and number their labels. `read` reads training items; None reads them as all others."""
    if len(examples) == 0:
        raise InputError("the source has no examples")
    whole(1, batch_size=batch_size)
    rule = split or AsGiven()
    division = rule.divide(examples)
    classes = rule.classes(examples, division)
    number = {name: k for k, name in enumerate(classes)}
    multilabel = not isinstance(examples.labels[0], str)
    spec = DataSpec(signal, classes, multilabel, preprocessing)
    splits = {}
    for name, rows in division.items():
        if not rows:
            continue
        if multilabel:
            labels = torch.zeros(len(rows), len(classes))
            for row, i in zip(labels, rows, strict=True):
                row[[number[label] for label in examples.labels[i]]] = 1
        else:
            labels = torch.tensor([number[str(examples.labels[i])] for i in rows])
        splits[name] = Signals(
            key=signal,
            spec=spec,
            items=[examples.items[i] for i in rows],
            labels=labels,
            ids=[examples.ids[i] for i in rows],
            read=read if read is not None and name == "train" else partial(read_raw, spec),
            batch_size=batch_size,
            train=name == "train",
            seed=seed,
        )
    return Part(spec, splits)


def unfinished(trainer: Trainer | None) -> int:
    """Batches since the optimizer's last step in this epoch: of those whose gradients are being summed up."""
    if trainer is None:
        return 0
    progress = trainer.fit_loop.epoch_loop.batch_progress
    batches: Any = progress.current
    if batches.processed == batches.ready and progress.is_last_batch:
        return 0
    return batches.ready - batches.processed // trainer.accumulate_grad_batches * trainer.accumulate_grad_batches


def _default_workers(signals: list[Signals]) -> int:
    """0 if all is at hand and quickly prepared, else a worker a core, less this process's, at most 16."""

    def at_hand(part: Signals) -> bool:
        return part.spec.kind.strings or (len(part) <= 20_000 and not isinstance(part.items[0], str | os.PathLike))

    return 0 if all(map(at_hand, signals)) else min(16, cores() - 1)


def cores() -> int:
    """Number of CPU cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
