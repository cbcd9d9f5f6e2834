"""Folders as people and other tools make them: which are splits, which are classes, and what is said of the rest."""

import os
import unicodedata
import warnings
from collections import Counter

import pytest

from mmeff.data import AudioFolder, ImageFolder, TextFolder
from mmeff.data.split_names import split_names
from mmeff.errors import InputError
from mmeff.signals.audio import sound_suffixes
from mmeff.signals.image import image_suffixes


def touch(root, *names):
    for name in names:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"x")


def pairs(source):
    """How often each (label, split) is found; the split is "" where there is none. Warnings are errors."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = source.examples()
    return Counter(zip(found.labels, found.split or [""] * len(found), strict=True))


@pytest.mark.parametrize(
    ("names", "splits"),
    [
        ("Train TEST", "train test"),
        ("Training Testing", "train test"),
        ("trn tst", "train test"),
        ("train_data test-data", "train test"),
        ("traindata testset", "train test"),
        ("training_set validation_set test_set", "train val test"),
        ("train2017 val2017", "train val"),
        ("train Val", "train val"),
        ("train valid", "train val"),
        ("train dev", "train val"),
        ("train Development testing", "train val test"),
        ("train eval", "train test"),
        ("train dev eval", "train val test"),
        ("train evaluation test", "train val test"),
    ],
)
def test_splits_by_their_usual_names(tmp_path, names, splits):
    assert split_names(names.split()) == dict(zip(names.split(), splits.split(), strict=True))
    touch(tmp_path, *(f"{name}/{label}/1.png" for name in names.split() for label in ("glioma", "healthy")))
    found = pairs(ImageFolder(str(tmp_path)))
    assert found == {(label, split): 1 for label in ("glioma", "healthy") for split in splits.split()}


def test_names_that_are_no_splits():
    assert split_names(["trainer", "invalid", "tests", "set", "2017", "en", "tr", "train_1", "seg_train", ""]) == {}


CLASSES = "(?P<label>[^/]+)/.*"


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ("train/a/1 eval/b/1 bus/1", "two ways: eval/ and train/ as splits, beside bus/; or all as classes"),
        ("a/1 b/1 test/a/1", "two ways: test/ as splits, beside a/ and b/"),
        ("train/a/1 train/b/1 other/1", "two ways: train/ as splits, beside other/"),
        ("train/a/1 train/b/1 rest/a/1 rest/b/1", "two ways: train/ as splits, beside rest/"),
        ("train/1 test/1", "have no class folders: put files into test/<class>/"),
        ("a/train/1 a/test/1 b/train/1", "the class folders a/ and b/ hold splits, test/ and train/"),
        ("my_train/a/1 my_train/b/1 my_test/a/1", "my_test/ and my_train/ can be read as splits or as classes"),
        ("seg_train/seg_train/a/1 seg_train/seg_train/b/1 seg_test/seg_test/a/1", "can be read as splits or as"),
        ("train/train/a/1 train/train/b/1 test/test/a/1", "hold one folder each, test/: there is one class"),
    ],
)
def test_what_can_be_read_in_two_ways_is_refused_with_patterns_that_say_which(tmp_path, files, message):
    touch(tmp_path, *(f"{name}.png" for name in files.split()))
    with pytest.raises(InputError, match=message) as refused:
        ImageFolder(str(tmp_path)).examples()
    assert "\n" not in str(refused.value) and len(str(refused.value)) < 400
    for pattern in str(refused.value).split("pattern: '")[1:]:
        found = pairs_of_pattern(tmp_path, pattern.partition("'")[0])
        assert len({label for label, _ in found}) > 1


def pairs_of_pattern(root, pattern):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # files that the pattern leaves out
        found = ImageFolder(str(root), pattern).examples()
    return Counter(zip(found.labels, found.split or [""] * len(found), strict=True))


@pytest.mark.parametrize(
    ("files", "inside", "names"),
    [
        ("data/train/a/1 data/test/a/1 data/train/b/1", "data", "test/ and train/"),
        ("images/a/1 images/b/1", "images", "a/ and b/"),
        ("x/y/a/1 x/y/b/1 x/y/c/1 x/y/d/1 x/y/e/1 x/y/f/1", "x/y", "a/, b/, c/, d/ and 2 more"),
    ],
)
def test_a_root_that_is_one_folder_too_high(tmp_path, files, inside, names):
    touch(tmp_path, "annotations.xml", *(f"{name}.png" for name in files.split()))
    with pytest.raises(InputError, match=f"so there is one class.* are {names}, give root: {tmp_path / inside}"):
        ImageFolder(str(tmp_path)).examples()


def said(source):
    """The warnings of reading a source, as one string."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        source.examples()
    return "\n".join(str(one.message) for one in caught)


def test_what_is_left_out_is_said_and_counted(tmp_path):
    touch(tmp_path, "cat/1.png", "dog/1.png", "dog/x.xyz", "owl/1.heic", "owl/2.HEIC", "1.png", "2.png", "list.csv")
    (tmp_path / "fox").mkdir()
    text = said(ImageFolder(str(tmp_path)))
    for part in (
        "fox/, which gives no class",
        "owl/, which gives no class",
        "2 files in owl/: .heic is not read",
        "1 file in dog/: .xyz is not read",
        "2 files at the top, in no class folder",
    ):
        assert part in text
    assert "csv" not in text
    with pytest.raises(InputError, match=r"holds no file that ends in \.wav .*4 files: \.png is not read"):
        AudioFolder(str(tmp_path)).examples()


def test_what_is_left_out_beside_and_below_splits(tmp_path):
    touch(tmp_path, "train/a/1.png", "train/b/1.png", "val/a/1.png", "dev/b/2.png", "test/1.png", "docs/x/1.png")
    (tmp_path / "train/c").mkdir()
    text = said(ImageFolder(str(tmp_path)))
    for part in (
        "1 file in docs/, which is no split",
        "1 file in test/, in no class folder",
        "train/c/, which is empty",
        "dev/ and val/ make up the val split together",
    ):
        assert part in text


@pytest.mark.parametrize("names", [("train", "bus"), ("test", "control"), ("valid", "invalid")])
def test_classes_with_names_of_splits(tmp_path, names):
    touch(tmp_path, *(f"{name}/1.png" for name in names))
    with pytest.warns(UserWarning, match=f"read as classes, not as splits: {names[0]}/"):
        assert ImageFolder(str(tmp_path)).examples().split is None


def test_folders_that_all_hold_the_same_folders_are_doubted(tmp_path):
    touch(tmp_path, *(f"{top}/{label}/1.png" for top in ("Entrenamiento", "Prueba") for label in ("a", "b")))
    assert "Prueba/, yet each holds a/ and b/: if the classes lie there" in said(ImageFolder(str(tmp_path)))
    touch(tmp_path, "Prueba/1.png")
    assert pairs(ImageFolder(str(tmp_path)))["Prueba", ""] == 3


def test_all_that_the_libraries_read(tmp_path):
    from PIL import Image

    assert {".jfif", ".jp2", ".tga", ".apng", ".pbm", ".mpo"} <= set(image_suffixes())
    assert not {".pdf", ".h5", ".mpg", ".eps", ".fits", ".wmf"} & set(image_suffixes())
    assert {".w64", ".caf", ".oga", ".opus", ".aifc", ".sph"} <= set(sound_suffixes())
    assert not {".mat", ".raw", ".m4a"} & set(sound_suffixes())
    Image.new("RGB", (8, 8)).save(tmp_path / "a.tga")
    touch(tmp_path, "x/1.JFIF", "y/1.jp2")
    (tmp_path / "x/2.tga").write_bytes((tmp_path / "a.tga").read_bytes())
    (tmp_path / "a.tga").unlink()
    assert pairs(ImageFolder(str(tmp_path))) == {("x", ""): 2, ("y", ""): 1}


def test_each_real_file_once_whatever_links_there_are(tmp_path):
    root = tmp_path / "root"
    touch(tmp_path, "outside/9.png")
    touch(root, *(f"{split}/{label}/{i}.png" for split in ("train", "test") for label in "ab" for i in range(3)))
    for link, target in {
        "train/loop": "..",
        "test/a/loop": "../..",
        "train/b/above": "../../..",
        "train/a/around": str(root),
        "train/a/self.png": "self.png",
        "train/b/gone.png": "gone",
        "train/a/again.png": "0.png",
        "train/b/other.png": "../a/0.png",
        "test/a/leak.png": "../../train/a/1.png",
        "train/a/linked.png": "../../../outside/9.png",
    }.items():
        os.symlink(target, root / link)
    os.mkfifo(root / "train/a/pipe.png")
    found = ImageFolder(str(root))
    text = said(found)
    for part in ("3 files, such as test/a/leak.png: a link to one that has its place already", "a link that leads"):
        assert part in text
    with warnings.catch_warnings(action="ignore"):
        examples = found.examples()
    counts = Counter(zip(examples.labels, examples.split, strict=True))
    assert counts == {("a", "train"): 4, ("b", "train"): 3, ("a", "test"): 3, ("b", "test"): 3}
    os.symlink("../../../outside/9.png", root / "test/b/leak.png")
    assert "1 files are in two splits" in said(found) and "1 files are in two classes" in said(found)


def test_folders_that_lead_into_each_other_end(tmp_path):
    for name in "abcdef":
        touch(tmp_path, f"{name}/1.png")
        for other in "abcdef":
            os.symlink(f"../{other}", tmp_path / name / f"to_{other}")
    found = ImageFolder(str(tmp_path))
    assert "150 files, such as a/to_b/1.png: a link to one that has its place already" in said(found)
    with warnings.catch_warnings(action="ignore"):
        assert len(found.examples()) == 6


def test_a_folder_that_cannot_be_read_is_named(tmp_path, monkeypatch):
    touch(tmp_path, "a/1.png", "b/1.png")
    scandir = os.scandir

    def refuse(path):
        if str(path).rstrip("/").endswith("/b"):
            raise PermissionError(13, "Permission denied")
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refuse)
    with pytest.raises(InputError, match="b cannot be read: Permission denied"):
        ImageFolder(str(tmp_path)).examples()


def test_labels_have_one_form(tmp_path):
    for form in ("NFC", "NFD"):
        touch(
            tmp_path, f"train/{unicodedata.normalize(form, 'café')}/{form}.png", "train/tea /1.png", "train/tea/2.png"
        )
    touch(tmp_path, f"test/{unicodedata.normalize('NFD', 'café')}/1.png")
    found = pairs(ImageFolder(str(tmp_path)))
    assert found == {("caf\u00e9", "train"): 2, ("tea", "train"): 2, ("caf\u00e9", "test"): 1}
    pattern = r"(?P<train>train)/(?P<label>[^/]+)/(?P<group>\w+)\.png"
    with pytest.warns(UserWarning, match="1 of 5 files"):
        assert set(ImageFolder(str(tmp_path), pattern).examples().labels) == {"caf\u00e9", "tea"}
    touch(tmp_path, "test/a\nb/1.png")
    with pytest.raises(InputError, match=r"the label 'a\\nb' has a control character") as refused:
        ImageFolder(str(tmp_path)).examples()
    assert "\n" not in str(refused.value)


def test_a_folder_whose_name_is_not_utf8(tmp_path):
    touch(tmp_path, "a/1.png", os.fsdecode(b"caf\xe9/1.png"))
    assert sorted(ImageFolder(str(tmp_path)).examples().labels)[1].encode() == b"caf\\udce9"


def test_texts_a_file_an_example(tmp_path):
    touch(tmp_path, "Train/neg/1.txt", "Train/pos/1.txt", "Test/pos/2.txt")
    (tmp_path / "Train/pos/1.txt").write_text("\ufeffone\u2028line\r\n\r\ntwo\x0clines", newline="")
    found = TextFolder(str(tmp_path)).examples()
    assert (found.labels, found.split) == (["pos", "neg", "pos"], ["test", "train", "train"])
    assert found.items == ["x", "x", "one\u2028line\ntwo\x0clines"]
    (tmp_path / "Train/neg/1.txt").write_bytes("x".encode("utf-16"))
    with pytest.raises(InputError, match=r"neg/1\.txt is not a text in UTF-8"):
        TextFolder(str(tmp_path)).examples()


def test_labels_in_files_beside(tmp_path):
    touch(tmp_path, "train/1.jpg", "train/deep/2.png", "test/3.png")
    for name, label in (("train/1", "cat\n"), ("train/deep/2", "\ufeff dog "), ("test/3", "cat")):
        (tmp_path / f"{name}.txt").write_text(label)
    for suffix in (".txt", "txt"):
        assert pairs(ImageFolder(str(tmp_path), label_file=suffix)) == {
            ("cat", "train"): 1,
            ("dog", "train"): 1,
            ("cat", "test"): 1,
        }
    with pytest.raises(InputError, match=r"label_file is '\.json': a label file holds a label and nothing else"):
        ImageFolder(str(tmp_path), label_file=".json").examples()
    with pytest.raises(InputError, match="leave one out"):
        ImageFolder(str(tmp_path), CLASSES, ".txt").examples()
    (tmp_path / "test/3.txt").write_text("cat\ndog\n")
    with pytest.raises(InputError, match=r"3\.txt has 2 lines of text: a label file holds one label"):
        ImageFolder(str(tmp_path), label_file=".txt").examples()
    (tmp_path / "train/1.txt").unlink()
    (tmp_path / "test/3.txt").write_text("cat")
    with pytest.raises(InputError, match=r"1 of 3 files of .* have no \.txt beside them, such as train/1\.jpg"):
        ImageFolder(str(tmp_path), label_file=".txt").examples()
