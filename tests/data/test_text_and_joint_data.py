"""Texts, several modalities at once, and building data modules from YAML."""

import os
import subprocess
import sys

import pytest
from jsonargparse import ArgumentParser

from mmeff.data import AudioData, ClassificationData, Examples, ImageData, JointData, TextData, TextTable
from mmeff.errors import InputError
from mmeff.signals.text import read_text, text_lines


def texts(given, n=30):
    return given(Examples([f"text {i}" for i in range(n)], ["a", "b", "c"] * (n // 3), [str(i) for i in range(n)]))


def test_text_batches(given):
    data = TextData(texts(given), batch_size=4)
    data.setup()
    assert data.specs["text"].preprocessing == {}
    batch = next(iter(data.train_dataloader()))
    assert batch.keys() == {"task", "text", "label", "id"}
    assert batch["text"] == [f"text {name}" for name in batch["id"]]
    assert len(data.fit_sample(2)["text"]) == len(data.parts["text"].splits["train"]) == 24


def test_text_is_composed(given):
    data = TextData(given(Examples(["cafe\u0301", "b"] * 10, ["a", "b"] * 10, [str(i) for i in range(20)])))
    data.setup()
    assert set(data.fit_sample()["text"]) == {"caf\u00e9", "b"}


@pytest.mark.parametrize("text", ["", " \u00a0\n", "\0", "\ufeff\u200b", "\u2028\x85"])
def test_texts_that_show_nothing(text):
    with pytest.raises(InputError, match="no visible character"):
        read_text(text)
    assert read_text(f" e\u0301{text}f\n") == f"\u00e9{text}f"


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ((["x"], [1], ["#1"]), "#1: the label 1 is no class name"),
        ((["x"], [("a", None)], ["#1"]), "#1: the label .* is no class name"),
        ((["x"], [" "], ["#1"]), "#1: the label is empty"),
        ((["x"], ["a", "b"], ["#1", "#2"]), "Examples: 1 items for 2 labels"),
    ],
)
def test_examples_that_are_none(columns, message):
    with pytest.raises(InputError, match=message):
        Examples(*columns)


def test_empty_text_names_its_line(tmp_path):
    (tmp_path / "a.csv").write_text("text,label\nx,1\n \u00a0,2\n", encoding="utf-8")
    with pytest.raises(InputError, match=r"a\.csv:3: the text is empty"):
        TextData(TextTable(str(tmp_path / "a.csv"))).setup()


@pytest.mark.parametrize(
    ("content", "lines"),
    [
        ("\ufeffone\ntwo".encode(), ["one", "two"]),
        ("one\u2028a\u2029b\nt\x85wo\x0c\x0b\x1c3\n".encode(), ["one\u2028a\u2029b", "t\x85wo\x0c\x0b\x1c3"]),
        (b"one\r\ntwo\rthree\n\n \t\n", ["one", "two", "three"]),
        ("\u200b\n\0\na\0b".encode(), ["a\0b"]),
    ],
)
def test_lines_of_a_text_file(tmp_path, content, lines):
    path = tmp_path / "a.txt"
    path.write_bytes(content)
    assert text_lines(path) == lines


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "No such file"),
        (b"\xff\xfea\0", r"not a text in UTF-8 \(byte 0\)"),
        ("a text".encode("utf-16-le"), "a third of it is NUL"),
        ("\ufeff \n\0".encode(), "has no line of text"),
    ],
)
def test_files_that_hold_no_lines_of_text(tmp_path, content, message):
    if content is not None:
        (tmp_path / "a.txt").write_bytes(content)
    with pytest.raises(InputError, match=rf"a\.txt.*{message}"):
        text_lines(tmp_path / "a.txt")


@pytest.fixture
def joint(images, sounds, given):
    parts = {
        "even": ImageData(images(20), batch_size=4),
        "tone": AudioData(sounds(), 8000, 0.1, batch_size=3),
        "also": ImageData(images(40, seed=1), batch_size=8),
        "word": TextData(texts(given), batch_size=5),
    }
    data = JointData(parts, seed=2)
    data.setup("fit")
    return data


def test_a_small_part_can_be_passed_over_more_often(images, given):
    parts = {"small": ImageData(images(20), batch_size=4), "large": TextData(texts(given), batch_size=5)}
    data = JointData(parts, passes={"small": 3})
    data.setup()
    loader, seen = data.train_dataloader(), []
    for _ in range(2):
        batches = list(loader)
        assert len(batches) == len(loader) == 3 * 4 + 4
        ids = [(batch["task"], name) for batch in batches for name in batch["id"]]
        assert {ids.count(one) for one in ids if one[0] == "small"} == {3}
        assert {ids.count(one) for one in ids if one[0] == "large"} == {1}
        seen += [tuple(batch["id"]) for batch in batches if batch["task"] == "small"]
    assert len(set(seen)) > 4, "the passes come in one order"
    assert len(list(data.val_dataloader())) == 2


@pytest.mark.parametrize(
    ("passes", "message"),
    [
        ({"huge": 2}, "passes names 'huge'; the parts are small"),
        ({"small": 0}, "passes of 'small' is 0"),
    ],
)
def test_wrong_passes(images, passes, message):
    with pytest.raises(InputError, match=message):
        JointData({"small": ImageData(images(20))}, passes)


def test_joint_specs_and_sample(joint):
    assert {key: spec.signal for key, spec in joint.specs.items()} == {
        "even": "image",
        "tone": "audio",
        "also": "image",
        "word": "text",
    }
    assert {key: len(raw) for key, raw in joint.fit_sample(5).items()} == {"even": 5, "tone": 5, "also": 5, "word": 24}
    assert joint.summary().splitlines()[1] == "tone: 20 examples, 2 classes, 16 train / 2 val / 2 test"


def test_a_joint_epoch_sees_each_part_once(joint):
    loader = joint.train_dataloader()
    batches = list(loader)
    assert len(batches) == len(loader) == 4 + 5 + 4 + 4
    order = [batch["task"] for batch in batches]
    assert {key: order.count(key) for key in joint.specs} == {"even": 4, "tone": 5, "also": 4, "word": 4}
    assert order != sorted(order, key=list(joint.specs).index)
    for batch in batches:
        assert joint.specs[batch["task"]].signal in batch
    seen = [name for batch in batches if batch["task"] == "also" for name in batch["id"]]
    assert len(seen) == len(set(seen)) == 32


def test_joint_evaluation_takes_the_parts_in_turn(joint):
    assert [batch["task"] for batch in joint.val_dataloader()] == ["even", "tone", "also", "word"]
    assert sum(len(batch["id"]) for batch in joint.test_dataloader()) == 2 + 2 + 4 + 3


@pytest.mark.parametrize(("name", "message"), [("", "cannot name"), ("a.b", "cannot name"), (None, "no parts")])
def test_names_of_parts(images, name, message):
    with pytest.raises(InputError, match=message):
        JointData({} if name is None else {name: ImageData(images())})


def test_joint_in_joint(images):
    with pytest.raises(InputError, match="part 'x' is itself a JointData"):
        JointData({"x": JointData({"y": ImageData(images())})})


def test_built_by_class_path(tmp_path):
    (tmp_path / "a.csv").write_text("text,label\n" + "x,1\ny,2\n" * 10)
    parser = ArgumentParser(exit_on_error=False)
    parser.add_subclass_arguments(ClassificationData, "data")
    table = {"class_path": "mmeff.data.TextTable", "init_args": {"path": str(tmp_path / "a.csv")}}
    text = {
        "class_path": "mmeff.data.TextData",
        "init_args": {
            "source": table,
            "split": {"class_path": "mmeff.data.ByRatio", "init_args": {"val": 0.2}},
            "batch_size": 4,
        },
    }
    image = {
        "class_path": "mmeff.data.ImageData",
        "init_args": {
            "source": {"class_path": "mmeff.data.ImageFolder", "init_args": {"root": "x"}},
            "size": [28, 20],
            "augment": {"crop_padding": 2, "affine": {"degrees": 10}, "random_resized_crop": [0.5, 1.0]},
        },
    }
    for value in (text, {"class_path": "mmeff.data.JointData", "init_args": {"parts": {"news": text}}}):
        data = parser.instantiate(parser.parse_object({"data": value})).data
        data.setup()
        assert data.summary().endswith(": 20 examples, 2 classes, 14 train / 4 val / 2 test")
    data = parser.instantiate(parser.parse_object({"data": image})).data
    assert data.size == (28, 20) and data.augment.affine.degrees == 10


@pytest.mark.parametrize("name", ["ImageData", "AudioData", "TextData", "JointData"])
def test_each_argument_has_help(name):
    import inspect

    import mmeff.data

    parser = ArgumentParser()
    parser.add_class_arguments(getattr(mmeff.data, name), "data")
    actions = {action.dest: action.help for action in parser._actions}
    for argument in list(inspect.signature(getattr(mmeff.data, name)).parameters):
        assert actions.get(f"data.{argument}"), argument


def test_importing_the_package_is_cheap():
    code = "import sys, mmeff.data; print({'torch', 'lightning', 'PIL', 'soundfile'} & set(sys.modules))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout.strip() == "set()"


def test_every_public_name_exists():
    import mmeff.data

    assert all(hasattr(mmeff.data, name) for name in mmeff.data.__all__)
    assert set(mmeff.data.__all__) == set(mmeff.data._MODULE)
    with pytest.raises(AttributeError, match="Nothing"):
        mmeff.data.Nothing  # noqa: B018


def test_default_workers(images, sounds, given, tmp_path, write_image):
    from mmeff.data import ByRatio, ImageFolder

    for data in (ImageData(images()), AudioData(sounds(), 8000), TextData(texts(given))):
        data.setup()
        assert data.train_dataloader()._batches.num_workers == 0
    for name in ("a/1.png", "b/1.png"):
        write_image(name)
    data = ImageData(ImageFolder(str(tmp_path)), size=8, split=ByRatio(0, 0))
    data.setup()
    assert data.train_dataloader()._batches.num_workers == min(8, len(os.sched_getaffinity(0)) - 1)
