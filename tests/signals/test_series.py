"""Series: files of all kinds, gaps and other channels, cuts and changes; from a folder to a batch."""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

from mmeff.data import ByRatio, SeriesArrays, SeriesAugment, SeriesData, SeriesFolder, Vowels
from mmeff.errors import InputError
from mmeff.signals.files.series import read_steps
from mmeff.signals.series import read_series

STEPS = np.array([[1.0, -2.5], [3.0, 4.0], [5.5, 0.25]])
TEXT = "\n".join(",".join(map(str, row)) for row in STEPS)


def written(folder: Path, name: str) -> Path:
    path = folder / name
    if path.suffix == ".npy":
        np.save(path, STEPS)
    elif path.suffix == ".npz":
        np.savez(path, whatever=STEPS)
    elif path.suffix == ".parquet":
        pq.write_table(pa.table({"x": STEPS[:, 0], "y": STEPS[:, 1]}), path)
    else:
        head = {"named": "x,y\n", "quoted": '"x","y"\n'}.get(path.stem, "")
        separator = {".tsv": "\t"}.get(path.suffix, ";" if path.stem == "semicolon" else ",")
        path.write_text((head + TEXT).replace(",", separator))
    return path


@pytest.mark.parametrize(
    "name", ["plain.csv", "named.csv", "quoted.csv", "semicolon.csv", "named.tsv", "a.NPY", "a.npz", "a.parquet"]
)
def test_files_of_all_kinds_hold_the_same(tmp_path, name):
    path = written(tmp_path, name.lower()).rename(tmp_path / name)
    assert np.array_equal(read_steps(path), STEPS)


def test_columns_are_taken_by_name_and_in_their_order(tmp_path):
    path = tmp_path / "a.csv"
    path.write_text("time,x,y\n2026-01-01,1,2\n2026-01-02,3,4\n")
    assert read_steps(path, ["y", "x"]).tolist() == [[2, 1], [4, 3]]
    with pytest.raises(InputError, match=r"column 'time' holds date32.*no numbers: name the columns"):
        read_steps(path)
    with pytest.raises(InputError, match="no column 'yy': did you mean 'y'"):
        read_steps(path, ["yy"])


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("a.txt", b"1,2", "a series is a file that ends in .csv"),
        ("a.csv", b"", "is empty"),
        ("a.csv", b"x,y\n1,2\n3\n", "is not a series that can be read"),
        ("a.csv", b"x,y\n1,2\n,4\n", "column 'x' has no value in row 2: fill it in"),
        ("a.csv", b"x,y\n1,a\n2,b\n", "column 'y' holds string"),
        ("a.npy", b"no array", "is not a series that can be read"),
        ("a.parquet", b"PAR1", "is not a series that can be read"),
        ("none.csv", None, "is not found"),
    ],
)
def test_a_file_that_cannot_be_read_is_named(tmp_path, name, content, said):
    if content is not None:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(InputError, match=said) as error:
        read_series(tmp_path / name, 2, 10)
    assert name in str(error.value)


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (np.zeros((5, 3)), "has 3 channels and the model takes 2"),
        (np.zeros((0, 2)), "it has no step"),
        (np.array([[1.0, 2.0], [3.0, np.nan]]), "not finite, the first in channel 2 at step 2"),
        (np.array([["a", "b"]]), "it must be numbers"),
        (np.zeros((2, 2, 2)), r"it must be numbers of shape \(S, 2\)"),
    ],
)
def test_an_array_that_is_no_series_is_refused(given, said):
    with pytest.raises(InputError, match=said):
        read_series(given, 2, 10)


def test_what_is_longer_is_cut_to_its_middle_and_in_training_anywhere():
    ramp = np.arange(100.0)
    assert read_series(ramp, 1, 10)[:, 0].tolist() == list(range(45, 55))
    starts = {int(read_series(ramp, 1, 10, augment=SeriesAugment())[0, 0]) for _ in range(50)}
    assert len(starts) > 10 and max(starts) <= 90


def test_changes_keep_channels_and_the_default_changes_nothing():
    series = np.random.default_rng(0).normal(size=(40, 3)).astype(np.float32)
    assert np.array_equal(read_series(series, 3, 50, augment=SeriesAugment()).numpy(), series)
    lengths = {len(read_series(series, 3, 100, augment=SeriesAugment(speed=0.5))) for _ in range(30)}
    assert min(lengths) < 35 and max(lengths) > 45 and max(lengths) <= 60
    shorter = read_series(series, 3, 100, augment=SeriesAugment(drop=0.3))
    assert len(shorter) >= 16 and any(np.array_equal(shorter.numpy(), series[i : i + len(shorter)]) for i in range(13))
    scaled = read_series(series, 3, 50, augment=SeriesAugment(scale=0.5)) / torch.from_numpy(series)
    torch.testing.assert_close(scaled, scaled[:1].expand_as(scaled))
    assert not torch.equal(read_series(series, 3, 50, augment=SeriesAugment(noise=0.1)), torch.from_numpy(series))


def test_a_folder_of_files_becomes_batches(tmp_path):
    for i in range(12):
        folder = tmp_path / ("up" if i % 2 else "down")
        folder.mkdir(exist_ok=True)
        np.savetxt(
            folder / f"{i}.csv", np.arange(10.0 + i)[:, None] * [1, -1], delimiter=",", header="x,y", comments=""
        )
    data = SeriesData(SeriesFolder(str(tmp_path)), steps=15, columns=["y"], batch_size=4, split=ByRatio(0.2, 0.2))
    data.setup()
    assert data.specs["series"].preprocessing == {"channels": 1, "steps": 15, "columns": ["y"]}
    batch = next(iter(data.val_dataloader()))
    assert batch["series"].shape[1:] == (int(batch["lengths"].max()), 1) and (batch["series"] <= 0).all()
    with pytest.raises(InputError, match="steps is not given"):
        SeriesData(SeriesFolder(str(tmp_path))).setup()


def test_arrays_of_one_file_with_their_lengths(tmp_path):
    path = tmp_path / "set.npz"
    np.savez(path, x=np.zeros((6, 9, 2)), y=np.array([0, 1] * 3), n=np.array([3, 9, 9, 4, 5, 9]))
    found = SeriesArrays(str(path), lengths="n").examples()
    assert [len(item) for item in found.items] == [3, 9, 9, 4, 5, 9] and list(found.labels) == ["0", "1"] * 3
    split = SeriesArrays({"train": str(path), "test": str(path)}).examples()
    assert split.split == ["train"] * 6 + ["test"] * 6
    assert SeriesArrays({"Training": str(path), "dev": str(path)}).examples().split == ["train"] * 6 + ["val"] * 6
    with pytest.raises(InputError, match="'fold' is no split"):
        SeriesArrays({"fold": str(path)}).examples()
    for given, said in (({"y": "label"}, "no array 'label'; it has x, y, n"), ({"x": "y"}, "they must be")):
        with pytest.raises(InputError, match=said):
            SeriesArrays(str(path), **given).examples()
    path.write_bytes(b"PK")
    with pytest.raises(InputError, match="no NPZ file"):
        SeriesArrays(str(path)).examples()


def test_the_vowels_are_those_of_the_source():
    found = Vowels().examples()
    sizes = {name: list(found.split or ()).count(name) for name in ("train", "val", "test")}
    assert sizes == {"train": 225, "val": 45, "test": 370}
    assert {len(item) for item in found.items} <= set(range(7, 30)) and len(set(found.labels)) == 9
    assert found.items[0].shape == (20, 12) and found.items[0][0, 0] == np.float32(1.860936)
