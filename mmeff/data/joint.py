"""Several labelled signals in one training run."""

from dataclasses import replace

from mmeff.data.base import ClassificationData, Part
from mmeff.errors import InputError, whole
from mmeff.spec import DataSpec


class JointData(ClassificationData):
    """Several data modules as one: each batch is of one of them, in training in a random schedule.

    An epoch sees each training example of a part as often as `passes` says, so that a small part is seen often enough
    and a large one not too often; validation and test take the parts one after the other, once.
    The names of the parts are the keys of `specs`, and what a batch carries as "task".

    Args:
        parts: A data module for each name, as {"digits": ImageData, "tones": AudioData}; two may share a modality.
        passes: How often an epoch goes over a part, by its name; once where none is given.
        num_workers: Processes that prepare batches; by default none if all parts are in memory and small.
        seed: Of the schedule, and of the sample that tokenizers learn from.
    """

    def __init__(
        self,
        parts: dict[str, ClassificationData],
        passes: dict[str, int] | None = None,
        num_workers: int | None = None,
        seed: int = 0,
    ):
        super().__init__(num_workers, seed)
        if not parts:
            raise InputError("JointData has no parts: name one data module at least")
        for name, data in parts.items():
            if not name or "." in name:
                raise InputError(f"JointData: {name!r} cannot name a part: a name is not empty and has no full stop")
            if isinstance(data, JointData):
                raise InputError(f"JointData: part {name!r} is itself a JointData: list its parts instead")
        for name, count in (passes or {}).items():
            if name not in parts:
                raise InputError(f"JointData: passes names {name!r}; the parts are {', '.join(parts)}")
            whole(1, **{f"passes of {name!r}": count})
        self.modules, self.passes = dict(parts), dict(passes or {})

    def test_all(self, specs: dict[str, DataSpec]) -> None:
        if set(specs) != set(self.modules):
            raise InputError(f"the model was trained on {', '.join(specs)}, the data is {', '.join(self.modules)}")
        for name, data in self.modules.items():
            data.test_all({name: specs[name]})

    def load(self) -> dict[str, Part]:
        parts = {}
        for name, data in self.modules.items():
            data.setup()
            (part,) = data.parts.values()
            splits = {split: replace(signals, key=name) for split, signals in part.splits.items()}
            if "train" in splits:
                splits["train"] = replace(splits["train"], passes=self.passes.get(name, 1))
            parts[name] = Part(part.spec, splits)
        return parts
