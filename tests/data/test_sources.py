"""Folders, tables and published sets: what is found, and what is said when it is not."""

import bz2
import gzip
import json
import lzma
import re
from collections import Counter

import numpy as np
import pytest

from mmeff.data import AudioFolder, FileTable, ImageFolder, SpeechCommands, TextTable, TorchvisionSet
from mmeff.errors import InputError


def touch(root, *names):
    for name in names:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"x")


def test_class_folders(tmp_path):
    touch(tmp_path, "cat/1.png", "cat/deep/2.JPG", "dog/1.webp", "dog/notes.txt", "readme.png", ".cache/x/3.png")
    with pytest.warns(UserWarning, match=r"1 file in dog/: \.txt is not read; 1 file at the top"):
        found = ImageFolder(str(tmp_path)).examples()
    assert list(zip(found.ids, found.labels, strict=True)) == [
        ("cat/1.png", "cat"),
        ("cat/deep/2.JPG", "cat"),
        ("dog/1.webp", "dog"),
    ]
    assert found.items[0] == str(tmp_path / "cat/1.png")
    assert found.split is None


def test_split_folders(tmp_path):
    touch(tmp_path, "train/a/1.png", "train/b/1.png", "val/a/2.png", "test/b/3.png", "test/loose.png", "docs/c/4.png")
    with pytest.warns(UserWarning, match="1 file in docs/, which is no split; 1 file in test/, in no class folder"):
        found = ImageFolder(str(tmp_path)).examples()
    assert found.labels == ["b", "a", "b", "a"]
    assert found.split == ["test", "train", "train", "val"]


def test_a_class_may_be_called_train(tmp_path):
    touch(tmp_path, "bus/1.png", "train/1.png", "train/red/2.png", "tram/x/1.png")
    with pytest.warns(UserWarning, match="read as classes, not as splits: train/"):
        found = ImageFolder(str(tmp_path)).examples()
    assert (sorted(set(found.labels)), found.split) == (["bus", "train", "tram"], None)


def test_pattern_gives_label_group_and_split(tmp_path):
    touch(tmp_path, "0_ann_0.flac", "0_ann_7.flac", "1_bob_4.flac", "1_bob_12.flac", "noise.flac")
    pattern = r"(?P<label>\d)_(?P<group>[a-z]+)_((?P<test>[0-4])|\d+)\.flac"
    with pytest.warns(UserWarning, match="1 of 5 files"):
        found = AudioFolder(str(tmp_path), pattern).examples()
    assert found.ids == ["0_ann_0.flac", "0_ann_7.flac", "1_bob_12.flac", "1_bob_4.flac"]
    assert found.labels == ["0", "0", "1", "1"]
    assert found.group == ["ann", "ann", "bob", "bob"]
    assert found.split == ["test", "train", "train", "test"]


@pytest.mark.parametrize(
    ("pattern", "message"),
    [
        ("(", "no regular expression"),
        (r"\d.flac", "no named group"),
        (r"(?P<label>z)", r"none of the 1 files.*'0\.flac'"),
    ],
)
def test_wrong_patterns(tmp_path, pattern, message):
    touch(tmp_path, "0.flac")
    with pytest.raises(InputError, match=message):
        AudioFolder(str(tmp_path), pattern).examples()


def test_folders_that_hold_nothing(tmp_path):
    with pytest.raises(InputError, match=r"nowhere is not found"):
        ImageFolder(str(tmp_path / "nowhere")).examples()
    touch(tmp_path, "a/1.txt")
    with pytest.raises(InputError, match=r"no file that ends in \.wav \.flac"):
        AudioFolder(str(tmp_path)).examples()
    with pytest.raises(InputError, match="is not a folder"):
        ImageFolder(str(tmp_path / "a/1.txt")).examples()
    touch(tmp_path, "1.png")
    with pytest.raises(InputError, match="has no class folders"):
        ImageFolder(str(tmp_path)).examples()


CSV = 'label,title,description,part,author\nsport,"Ten, nil",a game,train,ann\nart," A ""show""",two\nlines,test,bob\n'
CSV = CSV.replace("two\nlines", '"two\nlines"')


@pytest.mark.parametrize(
    ("suffix", "pack"), [("", bytes), (".gz", gzip.compress), (".bz2", bz2.compress), (".xz", lzma.compress)]
)
def test_csv(tmp_path, suffix, pack):
    path = tmp_path / f"news.csv{suffix}"
    path.write_bytes(pack(b"\xef\xbb\xbf" + (CSV + "sport,t,d,valid,cy\n").encode()))
    found = TextTable(str(path), ["title", "description"], split="part", group="author").examples()
    assert found.items == ["Ten, nil a game", 'A "show" two\nlines', "t d"]
    assert found.labels == ["sport", "art", "sport"]
    assert found.split == ["train", "test", "val"]
    assert found.group == ["ann", "bob", "cy"]
    assert found.ids == [f"{path.name}:2", f"{path.name}:3", f"{path.name}:5"]


def test_tsv_and_separator(tmp_path):
    (tmp_path / "a.tsv").write_text("text\tlabel\none, two\t1\n")
    assert TextTable(str(tmp_path / "a.tsv")).examples().items == ["one, two"]
    (tmp_path / "a.csv").write_text("text;label\none, two;1\n")
    assert TextTable(str(tmp_path / "a.csv"), separator=";").examples().items == ["one, two"]


def test_jsonl_and_parquet(tmp_path):
    import pyarrow
    import pyarrow.parquet

    rows = [{"text": "a", "label": 1, "split": "train"}, {"text": "b", "label": 2, "split": "test"}]
    (tmp_path / "a.jsonl").write_text("\n\n".join(map(json.dumps, rows)))
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), tmp_path / "a.parquet")
    for name, ids in (("a.jsonl", ["a.jsonl:1", "a.jsonl:3"]), ("a.parquet", ["a.parquet:1", "a.parquet:2"])):
        found = TextTable(str(tmp_path / name), split="split").examples()
        assert (found.items, found.labels, found.split) == (["a", "b"], ["1", "2"], ["train", "test"])
        assert found.ids == ids


def test_multilabel(tmp_path):
    (tmp_path / "a.csv").write_text("text,label\nx,cat| dog\ny,\nz,dog\n")
    assert TextTable(str(tmp_path / "a.csv"), label_separator="|").examples().labels == [("cat", "dog"), (), ("dog",)]
    (tmp_path / "a.jsonl").write_text('{"text": "x", "label": ["cat", "dog"]}\n{"text": "y", "label": []}\n')
    assert TextTable(str(tmp_path / "a.jsonl")).examples().labels == [("cat", "dog"), ()]


def test_a_table_a_split(tmp_path):
    for name, text in (("tr", "a"), ("va", "b"), ("te", "c")):
        (tmp_path / f"{name}.csv").write_text(f"text,label\n{text},1\n")
    paths = {
        "train": str(tmp_path / "tr.csv"),
        "validation": str(tmp_path / "va.csv"),
        "test": str(tmp_path / "te.csv"),
    }
    found = TextTable(paths).examples()
    assert (found.items, found.split) == (["a", "b", "c"], ["train", "val", "test"])
    with pytest.raises(InputError, match="'tests' is no split"):
        TextTable({"tests": paths["test"]}).examples()
    with pytest.raises(InputError, match="names no table"):
        TextTable({}).examples()


def test_paths_are_relative_to_the_table(tmp_path):
    touch(tmp_path, "img/1.png", "snd/1.wav")
    (tmp_path / "i.csv").write_text("file,label\nimg/1.png,a\n")
    (tmp_path / "s.csv").write_text("sound,label\nsnd/1.wav,a\nsnd/2.wav,a\n")
    assert FileTable(str(tmp_path / "i.csv")).examples().items == [str(tmp_path / "img/1.png")]
    with pytest.raises(InputError, match=r"s\.csv:3: the file 'snd/2\.wav' of column 'sound' is not in"):
        FileTable(str(tmp_path / "s.csv"), "sound").examples()


@pytest.mark.parametrize(
    ("name", "content", "arguments", "message"),
    [
        ("a.csv", None, {}, r"a\.csv is not found"),
        ("a.xlsx", "x", {}, r"must end in \.csv"),
        ("a.csv", "", {}, r"a\.csv is empty"),
        ("a.csv", "text,label\n", {}, r"a\.csv is empty: it has no row"),
        ("a.csv", "texts,label\nx,1\n", {}, r"no column 'text'; it has 'texts', 'label'; did you mean 'texts'"),
        ("a.csv", "text,label\nx,1\n", {"group": "who"}, r"no column 'who'"),
        ("a.csv", "text,label\nx,1\ny, \n", {}, r"a\.csv:3: the label \(column 'label'\) is empty"),
        ("a.csv", "text,label\nx,1,2\n", {}, r"a\.csv:2: 3 cells where the header has 2"),
        ("a.csv", 'text,label\n"x,1\n', {}, "cannot be read"),
        ("a.csv", "text,text,label\nx,y,1\n", {}, r"a\.csv:1: the header has two columns 'text'"),
        ("a.csv", b"text,label\nx\xff,1\n", {}, "not UTF-8 text"),
        ("a.csv", "text,label,s\nx,1,later\n", {"split": "s"}, r"a\.csv:2: column 's' says 'later'"),
        ("a.csv.xz", b"no archive", {}, r"a\.csv\.xz cannot be read"),
        ("a.csv.gz", gzip.compress(b"text,label\nx,1\n" * 99, mtime=0)[:30], {}, r"a\.csv\.gz cannot be read"),
        ("a.jsonl", '{"text": 1}\n{"text"\n', {}, r"a\.jsonl:2: no JSON"),
        (
            "a.jsonl",
            '{"text": "x", "label": "a"}\n{"text": "x", "label": ["a"]}\n',
            {},
            r"a\.jsonl:2: column 'label' has",
        ),
        ("a.jsonl", "[1]\n", {}, r"a\.jsonl:1: a line must be an object"),
        ("a.jsonl", '{"text": "x", "label": null}\n', {}, r"a\.jsonl:1: the label"),
        ("a.parquet", b"PAR1 not really PAR1", {}, r"a\.parquet cannot be read"),
    ],
)
def test_unusable_tables(tmp_path, name, content, arguments, message):
    path = tmp_path / name
    if content is not None:
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(InputError, match=message) as caught:
        TextTable(str(path), **arguments).examples()
    assert "\n" not in str(caught.value)


def test_torchvision_set(tmp_path):
    import torch

    folder = tmp_path / "MNIST/raw"
    folder.mkdir(parents=True)
    for name, n in (("train", 6), ("t10k", 4)):
        images = np.arange(n * 28 * 28, dtype=np.uint8).tobytes()
        (folder / f"{name}-images-idx3-ubyte").write_bytes(
            bytes([0, 0, 8, 3, 0, 0, 0, n, 0, 0, 0, 28, 0, 0, 0, 28]) + images
        )
        (folder / f"{name}-labels-idx1-ubyte").write_bytes(bytes([0, 0, 8, 1, 0, 0, 0, n]) + bytes(range(n)))
    found = TorchvisionSet("MNIST", str(tmp_path)).examples()
    assert Counter(found.split) == {"train": 6, "test": 4}
    assert found.labels[:2] == ["0 - zero", "1 - one"]
    assert found.items[1].shape == (28, 28) and torch.from_numpy(found.items[1]).dtype == torch.uint8
    with pytest.raises(InputError, match=r"does not hold CIFAR10.*download=True"):
        TorchvisionSet("CIFAR10", str(tmp_path)).examples()
    with pytest.raises(InputError, match="is not found"):
        TorchvisionSet("CIFAR10", str(tmp_path / "nowhere")).examples()


@pytest.mark.parametrize("inner", ["", "SpeechCommands/speech_commands_v0.02"])
def test_speech_commands(tmp_path, inner):
    root = tmp_path / inner
    touch(root, "no/a1_nohash_0.wav", "no/b2_nohash_0.wav", "yes/a1_nohash_1.wav", "_background_noise_/hum.wav")
    (root / "testing_list.txt").write_text("no/b2_nohash_0.wav\n")
    with pytest.raises(InputError, match=r"validation_list\.txt is not found"):
        SpeechCommands(str(tmp_path)).examples()
    (root / "validation_list.txt").write_text("yes/a1_nohash_1.wav\n")
    found = SpeechCommands(str(tmp_path)).examples()
    assert found.labels == ["no", "no", "yes"]
    assert found.split == ["train", "test", "val"]
    assert found.group == ["a1", "b2", "a1"]


def test_speech_commands_elsewhere(tmp_path):
    with pytest.raises(InputError, match=re.escape(str(tmp_path)) + r".*has no testing_list\.txt: unpack"):
        SpeechCommands(str(tmp_path)).examples()
