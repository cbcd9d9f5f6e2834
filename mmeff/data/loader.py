"""Batches in an order that depends on (seed, epoch) alone, from any batch of any epoch on."""

import itertools
import random
import signal
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler

from mmeff.errors import InputError
from mmeff.signals import DataSpec, collate

#: (part, pass, indices of the examples, whether another batch has them all): what a worker needs to make a batch.
Entry = tuple[int, int, list[int], bool]

#: (part, pass, the batch of each rank).
Step = tuple[int, int, list[list[int]]]

#: (part, pass) -> indices of the examples.
Left = dict[tuple[int, int], np.ndarray]


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
        together = self.batch_size * world
        return len(self) // together if self._whole(len(self), world) else -(-len(self) // together)

    def order(self, number: int) -> np.ndarray:
        """The examples in the order of pass `number`."""
        order = np.arange(len(self))
        return np.random.default_rng((self.seed, number)).permutation(order) if self.train else order

    def batches(self, number: int, rank: int = 0, world: int = 1) -> list[list[int]]:
        """The examples of each of this rank's batches in pass `number`."""
        return [step[rank] for step in self.steps(self.order(number), world)]

    def steps(self, order: np.ndarray, world: int = 1) -> list[list[list[int]]]:
        """Divide examples into batches: steps, each of a batch per rank.

        In training all batches of all ranks are of one size. Else each example is seen once, by one rank, in batches
        whose sizes differ by one at most; examples repeat only where a rank would have an empty batch.
        """
        n, size = len(order), self.batch_size
        if self._whole(n, world):
            return order[: n // (world * size) * world * size].reshape(-1, world, size).tolist()
        if self.train:
            filled = np.resize(order, -(-n // world) * world)
            return [[filled[rank::world].tolist() for rank in range(world)]] if n else []
        count = -(-n // (world * size))
        ranks = [order[rank::world] if rank < n else order[:1] for rank in range(world)]
        split = [np.array_split(np.resize(own, max(len(own), count)), count) for own in ranks]
        return [[batch.tolist() for batch in step] for step in zip(*split, strict=True)]

    def batch(self, number: int, indices: list[int]) -> dict[str, Any]:
        """The batch of these examples. Its randomness is drawn for (seed, pass, example), wherever it is made."""
        if self.train:
            with _global_generators_kept():
                raws = [self._draw(number, i) for i in indices]
        else:
            raws = [self.read(self.items[i]) for i in indices]
        batch = collate(self.key, self.spec, raws)
        return {**batch, "label": self.labels[indices], "id": [self.ids[i] for i in indices]}

    def _whole(self, n: int, world: int) -> bool:
        return self.train and n >= self.batch_size * world

    def _draw(self, number: int, i: int) -> Any:
        random.seed(f"{self.seed}/{number}/{i}")
        np.random.seed(random.getrandbits(32))
        torch.default_generator.manual_seed(random.getrandbits(63))
        return self.read(self.items[i])


@dataclass(frozen=True)
class Stretch:
    """Training batches that were handed out one after another, within an epoch, under settings that stayed the same.

    batches  per rank
    world    number of ranks
    sizes    examples per batch, for each key of the parts
    """

    batches: int
    world: int
    sizes: dict[str, int]


class ResumableLoader:
    """Batches of one or several signals, an epoch an iteration, that goes on where its `state_dict` was taken.

    The state counts the examples that were handed out in this epoch, to all ranks, not those that were prefetched.
    After `load_state_dict` the next iteration yields what was left of that epoch, as Lightning expects; `len` is that
    of a whole epoch. The order of an epoch is a function of the seeds and its number; `num_workers` changes nothing but
    the speed.

    A run may go on with other batch sizes or another number of ranks: the rest of the epoch is the examples that it
    has not seen, in batches of the new size. Where the order is another one (more or fewer examples, other passes or
    seeds) no example can be told to have been seen: then as many are left out as were handed out.

    Several signals are interleaved, a batch is of one of them: in training in a random schedule in which each batch
    of each has one place, else one after the other. Where a rank has fewer examples to evaluate than others, one is
    read again, in a batch with "repeated": True.

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
        #: Batches of this epoch, under these settings; `earlier` ones were under others.
        self.handed_out = 0
        self.earlier: list[Stretch] = []
        #: Examples of each key that were handed out before those, in another order.
        self.skipped: dict[str, int] = {}
        self._start = 0
        self._begun = False
        self._waiting = _Waiting()
        num_workers = min(num_workers, len(self))
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
            self._go_to(self.epoch + 1)
        self._waiting.entries = self._entries()
        for batch in self._batches:
            if isinstance(batch, InputError):
                raise batch
            self.handed_out += 1
            self._begun = True
            yield batch

    def close(self) -> None:
        """Send the workers home. Left to the collector of cycles, they would be waited for, 5 s each."""
        self._batches = None

    @property
    def whole(self) -> int:
        """Batches of a whole epoch."""
        return len(self) if self.limit is None else min(len(self), self.limit)

    @property
    def begun(self) -> bool:
        """Whether some of this epoch has been handed out."""
        return bool(self.handed_out or self.earlier or self.skipped)

    @property
    def remaining(self) -> int:
        """Batches left of this epoch."""
        return len(self._entries())

    def state_dict(self) -> dict[str, Any]:
        return self.state_without(0)

    def state_without(self, batches: int) -> dict[str, Any]:
        """The state before the last `batches` of this epoch, as far as this loader has handed them out."""
        stretches = [*self.earlier, self._stretch(max(self._start, self.handed_out - batches))]
        left = self._left(stretches)
        examples = {
            part.key: sum(len(part) - len(left[key]) for key in left if key[0] == place)
            for place, part in enumerate(self.parts)
        }
        return {
            "epoch": self.epoch,
            "examples": examples,
            "skipped": self.skipped,
            "stretches": [asdict(stretch) for stretch in stretches if stretch.batches],
            "order": self._order(),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Also of a state that an earlier version wrote, {"epoch", "batches"}: of batches under the present settings.

        A state at the end of an epoch begins the next one.
        """
        self._go_to(state["epoch"])
        if "batches" in state:
            self.handed_out = state["batches"]
        elif state["order"] == self._order():
            self.skipped = dict(state["skipped"])
            *self.earlier, last = [Stretch(**stretch) for stretch in state["stretches"]] or [self._stretch(0)]
            if last.batches and last.batches >= len(self._steps_of(last, self._left(self.earlier))):
                self.end_epoch()
            elif last == self._stretch(last.batches):
                self.handed_out = last.batches
            else:
                self.earlier.append(last)
        else:
            self.skipped = dict(state["examples"])
        self._start = self.handed_out
        if not self.remaining:
            self.end_epoch()

    def end_epoch(self) -> None:
        """Begin the next epoch with the next iteration."""
        self._go_to(self.epoch + 1)

    def _go_to(self, epoch: int) -> None:
        self.epoch, self.handed_out, self.earlier, self.skipped = epoch, 0, [], {}
        self._start, self._begun = 0, False

    def _stretch(self, batches: int) -> Stretch:
        return Stretch(batches, self.world, {part.key: part.batch_size for part in self.parts})

    def _order(self) -> list[Any]:
        """All that the order of an epoch depends on, besides the batch sizes and the number of ranks."""
        return [self.seed, [[part.key, len(part), part.seed, part.passes] for part in self.parts]]

    def _entries(self) -> list[Entry]:
        """What is left of this epoch for this rank."""
        steps = self._steps(self._left(self.earlier), self.parts, self.world)
        # An epoch that is cut short counts what it saw under other settings in batches of the present size.
        return self._of_rank(steps)[self.handed_out : max(0, self.whole - (len(self) - len(steps)))]

    def _left(self, stretches: Sequence[Stretch]) -> Left:
        """The examples of this epoch that were not handed out in these stretches."""
        epoch = 0 if self.repeat else self.epoch
        left: Left = {}
        for place, part in enumerate(self.parts):
            skipped = self.skipped.get(part.key, 0)
            for number in range(epoch * part.passes, (epoch + 1) * part.passes):
                left[place, number] = part.order(number)[skipped:]
                skipped = max(0, skipped - len(part))
        for stretch in stretches:
            seen: dict[tuple[int, int], list[int]] = {key: [] for key in left}
            for place, number, step in self._steps_of(stretch, left)[: stretch.batches]:
                seen[place, number] += itertools.chain.from_iterable(step)
            left = {key: examples[~np.isin(examples, seen[key])] for key, examples in left.items()}
        return left

    def _steps_of(self, stretch: Stretch, left: Left) -> list[Step]:
        parts = [replace(part, batch_size=stretch.sizes[part.key]) for part in self.parts]
        return self._steps(left, parts, stretch.world)

    def _steps(self, left: Left, parts: Sequence[Signals], world: int) -> list[Step]:
        steps = [(i, n, step) for (i, n), examples in left.items() for step in parts[i].steps(examples, world)]
        if self.shuffle and len(parts) > 1:
            # The same on each rank: all ranks step on the same signal.
            random.Random(f"{self.seed}/{0 if self.repeat else self.epoch}").shuffle(steps)
        return steps

    def _of_rank(self, steps: list[Step]) -> list[Entry]:
        entries = []
        seen: set[tuple[int, int]] = set()
        for place, number, step in steps:
            for rank, batch in enumerate(step):
                examples = {(place, i) for i in batch}
                if rank == self.rank:
                    entries.append((place, number, batch, not self.parts[place].train and examples <= seen))
                seen |= examples
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
        place, number, indices, repeated = entry
        try:
            batch = self.parts[place].batch(number, indices)
            return {**batch, "repeated": True} if repeated else batch
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
