"""Batches in an order that depends on (seed, epoch) alone, from any batch of any epoch on."""

import random
import signal
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler

from mmeff.data.raw import collate
from mmeff.errors import InputError
from mmeff.spec import DataSpec

#: (part, pass, indices of the examples): what a worker needs to make a batch.
Entry = tuple[int, int, list[int]]


@dataclass(frozen=True)
class Signals:
    """One split of one labelled signal, N examples, and how they become batches.

    read      item -> raw signal; may draw from `random`, numpy and torch if `train`
    labels    (N,) int64, or (N, K) float32 for multi-label
    train     True: shuffled, whole batches (if there are enough examples for one), reproducible random reading
    passes    how often one epoch of a loader goes over the examples
    """

    key: str
    spec: DataSpec
    items: Sequence[Any]
    labels: Tensor
    ids: Sequence[str]
    read: Callable[[Any], Any]
    batch_size: int
    train: bool = False
    seed: int = 0
    passes: int = 1

    def __len__(self) -> int:
        return len(self.ids)

    def batch_count(self, world: int = 1) -> int:
        """Batches per rank and pass, the same on each of `world` ranks."""
        each = len(self) // world if self._whole(world) else -(-len(self) // world)
        return each // self.batch_size if self._whole(world) else -(-each // self.batch_size)

    def batches(self, number: int, rank: int = 0, world: int = 1) -> list[list[int]]:
        """The examples of each of this rank's batches in pass `number`.

        In training all batches of all ranks are of one size. Else each example is seen once, by one rank, in batches
        whose sizes differ by one at most; examples repeat only where a rank would have an empty batch.
        """
        count = self.batch_count(world)
        order = np.arange(len(self))
        if self.train:
            order = np.random.default_rng((self.seed, number)).permutation(order)
        if self._whole(world):
            mine = order[: count * world * self.batch_size].reshape(count, world, -1)[:, rank]
        elif self.train:
            mine = [np.resize(order, -(-len(self) // world) * world)[rank::world]]
        else:
            own = order[rank::world] if rank < len(self) else order[:1]
            mine = np.array_split(np.resize(own, max(len(own), count)), count)
        return [indices.tolist() for indices in mine]

    def batch(self, number: int, indices: list[int]) -> dict[str, Any]:
        """The batch of these examples. Its randomness is drawn for (seed, pass, example), wherever it is made."""
        if self.train:
            with _global_generators_kept():
                raws = [self._draw(number, i) for i in indices]
        else:
            raws = [self.read(self.items[i]) for i in indices]
        batch = collate(self.key, self.spec, raws)
        return {**batch, "label": self.labels[indices], "id": [self.ids[i] for i in indices]}

    def _whole(self, world: int) -> bool:
        return self.train and len(self) >= self.batch_size * world

    def _draw(self, number: int, i: int) -> Any:
        random.seed(f"{self.seed}/{number}/{i}")
        np.random.seed(random.getrandbits(32))
        torch.default_generator.manual_seed(random.getrandbits(63))
        return self.read(self.items[i])


class ResumableLoader:
    """Batches of one or several signals, an epoch an iteration, that goes on where its `state_dict` was taken.

    The state is {"epoch", "batches"}, of batches that were handed out, not prefetched. After `load_state_dict` the
    next iteration yields what was left of that epoch, as Lightning expects; `len` is that of a whole epoch. The
    order of an epoch is a function of the seeds and its number; `num_workers` changes nothing but the speed.

    Several signals are interleaved, a batch is of one of them: in training in a random schedule in which each batch
    of each has one place, else one after the other.

    Args:
        parts: The signals.
        shuffle: Whether several signals are interleaved at random.
        seed: Of that schedule.
        rank: Which of the `world` processes this is.
        world: How many processes share the examples.
        num_workers: Processes that read; 0 reads in this one.
        limit: Stop an epoch after this many batches.
        repeat: Make every epoch the first one again, augmentation included: for overfitting on purpose.
    """

    def __init__(
        self,
        parts: Sequence[Signals],
        *,
        shuffle: bool = False,
        seed: int = 0,
        rank: int = 0,
        world: int = 1,
        num_workers: int = 0,
        limit: int | None = None,
        repeat: bool = False,
    ):
        self.parts, self.shuffle, self.seed, self.rank, self.world = list(parts), shuffle, seed, rank, world
        self.limit, self.repeat, self.num_workers = limit, repeat, num_workers
        self.epoch = 0
        self.handed_out = 0
        self._begun = False
        self._waiting = _Waiting()
        self._batches: DataLoader | None = DataLoader(
            _Batches(self.parts),
            batch_size=None,
            sampler=self._waiting,
            collate_fn=_unchanged,
            num_workers=num_workers,
            persistent_workers=num_workers > 0,
            worker_init_fn=_leave_interrupts_to_the_parent,
            pin_memory=torch.cuda.is_available(),
            # Its own: a new epoch must not draw from the stream of dropout.
            generator=torch.Generator(),
        )

    def __len__(self) -> int:
        return sum(part.passes * part.batch_count(self.world) for part in self.parts)

    def __iter__(self) -> Iterator[dict[str, Any]]:
        if self._batches is None:
            raise RuntimeError("the loader is closed")
        if self._begun:
            self.epoch, self.handed_out, self._begun = self.epoch + 1, 0, False
        self._waiting.entries = self._schedule(0 if self.repeat else self.epoch)[self.handed_out : self.limit]
        for batch in self._batches:
            if isinstance(batch, InputError):
                raise batch
            self.handed_out += 1
            self._begun = True
            yield batch

    def close(self) -> None:
        """Send the workers home. Left to the collector of cycles, they would be waited for, 5 s each."""
        self._batches = None

    def state_dict(self) -> dict[str, int]:
        return {"epoch": self.epoch, "batches": self.handed_out}

    def load_state_dict(self, state: dict[str, int]) -> None:
        self.epoch, self.handed_out, self._begun = state["epoch"], state["batches"], False
        if self.handed_out >= min(len(self), self.limit or len(self)):
            self.epoch, self.handed_out = self.epoch + 1, 0

    def _schedule(self, epoch: int) -> list[Entry]:
        entries = [
            (place, number, indices)
            for place, part in enumerate(self.parts)
            for number in range(epoch * part.passes, (epoch + 1) * part.passes)
            for indices in part.batches(number, self.rank, self.world)
        ]
        if self.shuffle and len(self.parts) > 1:
            # The same on each rank: all ranks step on the same signal.
            random.Random(f"{self.seed}/{epoch}").shuffle(entries)
        return entries


class _Waiting(Sampler[Entry]):
    """The entries that a loader has yet to hand out; it changes with the epoch, while the workers stay."""

    def __init__(self) -> None:
        self.entries: list[Entry] = []

    def __iter__(self) -> Iterator[Entry]:
        return iter(self.entries)

    def __len__(self) -> int:
        return len(self.entries)


class _Batches(Dataset):
    """Entry -> batch, or the InputError itself: torch would bury its message in a worker's traceback."""

    def __init__(self, parts: list[Signals]):
        self.parts = parts

    def __getitem__(self, entry: Entry) -> dict[str, Any] | InputError:
        place, number, indices = entry
        try:
            return self.parts[place].batch(number, indices)
        except InputError as error:
            return error


def _leave_interrupts_to_the_parent(worker: int) -> None:
    """A terminal sends Ctrl-C to every process of a run; only the first can save it."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)


def _unchanged(batch: Any) -> Any:
    return batch


@contextmanager
def _global_generators_kept() -> Iterator[None]:
    """Leave the streams of `random`, numpy and torch (CPU) as they were found."""
    states = random.getstate(), np.random.get_state(), torch.default_generator.get_state()
    try:
        yield
    finally:
        random.setstate(states[0])
        np.random.set_state(states[1])
        torch.default_generator.set_state(states[2])
