"""Where series come from: folders of files, one file of arrays, and recordings that come with the project."""

import io
from pathlib import Path

import numpy as np

from mmeff.data.embedded import read_asset
from mmeff.data.examples import Examples, Source
from mmeff.data.folders import folder_examples
from mmeff.data.split_names import files_by_split
from mmeff.errors import InputError
from mmeff.signals.files.series import SUFFIXES


class SeriesFolder(Source):
    """Series under `root`, a file each: `<class>/**/x.csv`, or `train/<class>/...` beside `val/` and `test/`.

    CSV, TSV and Parquet (a row a step, a column a channel), NPY and NPZ (an array (S, C)) are read. The splits may have
    any usual names (`Training`, `valid`, `dev`, `eval`, `test_set`). For paths in a table, see `FileTable`.

    Args:
        root: The folder. Hidden files, and files outside a class folder, are left out.
        pattern: Regular expression that the path of a file relative to `root` must match in full, instead of class
            folders. Named groups: `label` (required), `group`, and `train`, `val` or `test`, of which the one that
            takes part in the match gives the split (none does: train).
    """

    def __init__(self, root: str, pattern: str | None = None):
        self.root, self.pattern = root, pattern

    def examples(self) -> Examples:
        return folder_examples(self.root, SUFFIXES, self.pattern, None)


class SeriesArrays(Source):
    """All series in one NPZ file: x (N, S, C), or (N, S) of one channel, and y (N,) their labels.

    Args:
        path: The file; or {"train": path, "val": path, "test": path} (val and test may be missing).
        x: Name of the array of series.
        y: Name of the array of labels: numbers or strings.
        lengths: Name of the array (N,) of their steps, where shorter series are padded; null: none is.
    """

    def __init__(self, path: str | dict[str, str], x: str = "x", y: str = "y", lengths: str | None = None):
        self.path, self.x, self.y, self.lengths = path, x, y, lengths

    def examples(self) -> Examples:
        files = (
            [("", Path(self.path).expanduser())] if isinstance(self.path, str) else files_by_split(self.path, "file")
        )
        items, labels, ids, splits = [], [], [], []
        for split, path in files:
            x, y, n = self._read(path)
            items += [row[:length] for row, length in zip(x, n, strict=True)]
            labels += [str(label) for label in y.tolist()]
            ids += [f"{split}#{i}" for i in range(len(x))]
            splits += [split] * len(x)
        return Examples(items, labels, ids, split=None if isinstance(self.path, str) else splits)

    def _read(self, path: Path) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        try:
            with np.load(path, allow_pickle=False) as file:
                wanted = [self.x, self.y, *([self.lengths] if self.lengths else [])]
                for name in wanted:
                    if name not in file.files:
                        raise InputError(f"{path} has no array {name!r}; it has {', '.join(file.files)}")
                x, y, *n = (file[name] for name in wanted)
        except (OSError, ValueError, EOFError) as error:
            if isinstance(error, InputError):
                raise
            raise InputError(f"{path} is no NPZ file of plain arrays that can be read: {error}") from error
        if x.ndim not in (2, 3) or y.shape != x.shape[:1] or any(one.shape != y.shape for one in n):
            raise InputError(f"{path}: x is {x.shape} and y {y.shape}; they must be (N, S, C) and (N,)")
        steps = n[0] if n else np.full(len(x), x.shape[1])
        if n and (steps.dtype.kind not in "iu" or not ((steps > 0) & (steps <= x.shape[1])).all()):
            raise InputError(f"{path}: {self.lengths} must be whole numbers from 1 to {x.shape[1]}")
        return x, y, steps


class Vowels(Source):
    """640 utterances of the vowels /ae/ by nine men, 7 to 29 steps of 12 cepstral coefficients; who speaks?

    225 train, 45 val and 370 test, those of the source. An item is float32 (S, 12), a step every 6.4 ms.

    By M. Kudo, J. Toyama and M. Shimbo (1999), "Multidimensional curve classification using passing-through regions";
    UCI Machine Learning Repository, doi 10.24432/C5NS47, CC BY 4.0.
    """

    SHA256 = "e6bb9bbec5f72103b261dd4f06b0badb93590d6a16de19ae29785bb487679d5a"

    def examples(self) -> Examples:
        with np.load(io.BytesIO(read_asset("vowels.npz", self.SHA256)), allow_pickle=False) as file:
            steps, lengths, speakers, splits = (file[name] for name in ("steps", "lengths", "speakers", "splits"))
        ends = lengths.cumsum()
        return Examples(
            items=[steps[end - n : end] for end, n in zip(ends, lengths, strict=True)],
            labels=[f"speaker {k}" for k in speakers.tolist()],
            ids=[f"#{i}" for i in range(len(lengths))],
            split=[("train", "val", "test")[k] for k in splits.tolist()],
        )
