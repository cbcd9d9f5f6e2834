"""Published sets in the layout they are published in, from the disk: nothing here downloads."""

import re
from pathlib import Path
from typing import Literal

from mmeff.data.examples import Examples, Source
from mmeff.data.scan import folder, scan
from mmeff.errors import InputError

LISTS = {"val": "validation_list.txt", "test": "testing_list.txt"}


class TorchvisionSet(Source):
    """A set that torchvision reads whole into memory, with its own train and test split.

    Args:
        name: Its class in torchvision.datasets.
        root: The folder that torchvision was given when it downloaded the set.
    """

    def __init__(self, name: Literal["CIFAR10", "CIFAR100", "MNIST", "FashionMNIST", "KMNIST"], root: str):
        self.name, self.root = name, root

    def examples(self) -> Examples:
        import numpy as np
        from torchvision import datasets

        root = folder(self.root)
        items, labels, ids, splits = [], [], [], []
        for split in ("train", "test"):
            try:
                part = getattr(datasets, self.name)(str(root), train=split == "train", download=False)
            except RuntimeError as error:
                raise InputError(
                    f"{root.absolute()} does not hold {self.name} ({error}); put it there with "
                    f"torchvision.datasets.{self.name}({self.root!r}, download=True)"
                ) from None
            items += list(np.asarray(part.data))
            labels += [part.classes[int(target)] for target in part.targets]
            ids += [f"{split} #{i}" for i in range(len(part.data))]
            splits += [split] * len(part.data)
        return Examples(items, labels, ids, splits)


class SpeechCommands(Source):
    """Speech Commands v0.01 or v0.02 (Warden 2018, arXiv:1804.03209): one-second words, its lists give the split.

    Groups are speakers. `_background_noise_` is left out.

    Args:
        root: The folder that holds the words' folders, `validation_list.txt` and `testing_list.txt`, or the folder
            that torchaudio.datasets.SPEECHCOMMANDS was given.
    """

    def __init__(self, root: str):
        self.root = root

    def examples(self) -> Examples:
        base = folder(self.root)
        inner = [base, *sorted(base.glob("speech_commands_v0*"), reverse=True)]
        inner += sorted(base.glob("SpeechCommands/speech_commands_v0*"), reverse=True)
        root = next((path for path in inner if (path / "testing_list.txt").is_file()), None)
        if root is None:
            raise InputError(
                f"{base.absolute()} has no testing_list.txt: unpack speech_commands_v0.02.tar.gz there, "
                "so that word folders and the two lists lie in it"
            )
        listed = {split: _listed(root / name) for split, name in LISTS.items()}
        files = [name for name in scan(root, (".wav",)).files if not name.startswith("_") and "/" in name]
        return Examples(
            items=[f"{root}/{name}" for name in files],
            labels=[name.split("/")[0] for name in files],
            ids=files,
            split=[next((split for split in listed if name in listed[split]), "train") for name in files],
            group=[re.sub(r"_nohash_.*", "", name.split("/")[-1]) for name in files],
        )


def _listed(path: Path) -> set[str]:
    if not path.is_file():
        raise InputError(f"{path.absolute()} is not found: it says which files are in its split")
    try:
        return set(path.read_text(encoding="utf-8-sig").split())
    except UnicodeDecodeError as error:
        raise InputError(f"{path} is not a text in UTF-8 (byte {error.start}): save it as UTF-8") from None
