"""Files merged, parts replaced, values set; and what is said of a word that cannot be used."""

from pathlib import Path

import pytest
import yaml

from mmeff.cli.recipe import compose
from mmeff.errors import InputError

BASE = """\
trainer: {max_epochs: 3, gradient_clip_val: 1.0}
model:
  backbone:
    class_path: mmeff.backbones.Isotropic
    init_args:
      dim: 96
      depth: 4
      mixer: {class_path: mmeff.mixers.Attention, init_args: {head_dim: 32}}
data:
  class_path: mmeff.data.ImageData
  init_args: {source: {class_path: mmeff.data.Digits}, batch_size: 64}
"""


@pytest.fixture
def base(tmp_path) -> str:
    return write(tmp_path / "base.yaml", BASE)


def write(path: Path, text: str) -> str:
    path.write_text(text)
    return str(path)


def backbone(recipe: dict) -> dict:
    return recipe["model"]["init_args"]["backbone"]


def test_a_model_without_a_class_is_a_classifier(base):
    recipe, names, rest = compose(["-c", base])
    assert recipe["model"]["class_path"] == "mmeff.tasks.Classify"
    assert backbone(recipe) == yaml.safe_load(BASE)["model"]["backbone"]
    assert (names, rest) == (["base"], [])


def test_a_second_recipe_without_a_class_changes_single_keys(base, tmp_path):
    mine = write(tmp_path / "mine.yaml", "trainer: {max_epochs: 9}\nmodel: {backbone: {depth: 2}}\n")
    recipe, names, _ = compose(["-c", base, "--config", mine])
    assert recipe["trainer"] == {"max_epochs": 9, "gradient_clip_val": 1.0}
    assert backbone(recipe)["init_args"]["depth"] == 2
    assert backbone(recipe)["init_args"]["dim"] == 96
    assert names == ["base", "mine"]


def test_a_second_recipe_with_a_class_replaces_the_part_whole(base, tmp_path):
    other = {"class_path": "mmeff.backbones.Isotropic", "init_args": {"dim": 32}}
    mine = write(tmp_path / "mine.yaml", yaml.safe_dump({"model": {"backbone": other}}))
    assert backbone(compose(["-c", base, "-c", mine])[0]) == other


def test_a_file_as_a_value_replaces_the_part_whole_and_names_the_run(base, tmp_path):
    other = {"class_path": "mmeff.backbones.Isotropic", "init_args": {"dim": 32}}
    part = write(tmp_path / "small.yaml", yaml.safe_dump(other))
    recipe, names, _ = compose(["-c", base, "--model.backbone", part])
    assert backbone(recipe) == other
    assert names == ["base", "small"]


@pytest.mark.parametrize("words", [["--model.backbone.depth", "7"], ["--model.backbone.depth=7"]])
def test_a_dotted_key_sets_one_value(base, words):
    recipe = compose(["-c", base, *words])[0]
    expected = yaml.safe_load(BASE)["model"]["backbone"]
    expected["init_args"]["depth"] = 7
    assert backbone(recipe) == expected


def test_later_words_win(base):
    assert compose(["-c", base, "--trainer.max_epochs", "5"])[0]["trainer"]["max_epochs"] == 5
    assert compose(["--trainer.max_epochs", "5", "-c", base])[0]["trainer"]["max_epochs"] == 3


@pytest.mark.parametrize("key", ["--model.backbone.mixer", "--model.backbone.mixer.class_path"])
def test_the_name_of_a_class_replaces_the_part_with_its_arguments(base, key):
    recipe = compose(["-c", base, key, "mmeff.mixers.GatedConv"])[0]
    assert backbone(recipe)["init_args"]["mixer"] == {"class_path": "mmeff.mixers.GatedConv"}


def test_the_arguments_of_a_class_that_was_just_named_can_follow(base):
    words = ["--data.source", "mmeff.data.FileTable", "--data.source.path", "labels.csv"]
    source = compose(["-c", base, *words])[0]["data"]["init_args"]["source"]
    assert source == {"class_path": "mmeff.data.FileTable", "init_args": {"path": "labels.csv"}}


def test_words_that_are_not_about_the_recipe_are_handed_on(base):
    assert compose(["-c", base, "--print_config"])[2] == ["--print_config"]


def test_recipes_of_the_package_are_found_from_any_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert compose(["-c", "recipes/vision/digits.yaml"])[1] == ["digits"]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--trainer.max_epoch", "3"], "unknown key 'max_epoch' in trainer: did you mean 'max_epochs'?"),
        (["--model.backbone.dept", "3"], r"unknown key 'dept' in model\.backbone.*did you mean 'depth'\?"),
        (["--model.backbone.depth.x", "3"], "--model.backbone.depth.x: depth is 4 in this recipe and has no parts"),
        (["--model.backbone.mixer", "Attention"], "rite 'Attention' with its module, such as mmeff.mixers.Attention"),
        (["--model.backbone.mixer", "mmeff.mixers.Atention"], "no Atention: did you mean mmeff.mixers.Attention?"),
        (["--model.backbone.mixer", "nowhere.Mixer"], "cannot import nowhere.Mixer"),
        (["--trainer", "3"], "trainer must be a mapping of keys to values, got 3"),
        (["-c"], "-c needs the path of a recipe"),
        (["-c", "recipes/vision/digit.yaml"], "did you mean recipes/vision/digits.yaml?"),
        (["--model.backbone", "recipes/backbones/atention.yaml"], "did you mean recipes/backbones/attention.yaml?"),
        (["digits.yaml"], "'digits.yaml' stands alone"),
    ],
)
def test_a_word_that_cannot_be_used_is_named(base, words, message):
    pattern = message if "\\" in message else message.replace("?", r"\?")
    with pytest.raises(InputError, match=pattern) as caught:
        compose(["-c", base, *words])
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("trainer: {max_epochs: 3", "is not a YAML file"),
        ("", "holds no keys"),
        ("- a\n- b\n", "holds no keys"),
        ("trainr: {max_epochs: 3}\n", "unknown key 'trainr' in the recipe: did you mean 'trainer'"),
    ],
)
def test_a_file_that_is_no_recipe_is_named(tmp_path, text, message):
    with pytest.raises(InputError, match=message) as caught:
        compose(["-c", write(tmp_path / "bad.yaml", text)])
    assert "\n" not in str(caught.value)


def test_options_without_a_recipe_say_how_to_give_one(capsys):
    from mmeff.cli import main

    assert main(["fit", "--trainer.max_epochs", "3"]) == 2
    assert "give a recipe: mmeff fit -c recipes/vision/digits.yaml" in capsys.readouterr().err


TABLE = ["-c", "recipes/text/table.yaml"]


@pytest.mark.parametrize(
    "text", ["|", ",", "\t", "2024-01-01", "no", "on", "1e3", "0o17", "~", "[x", "{a}", "*a", "&b", "%", "@x", "a: #b"]
)
def test_a_text_stands_as_it_is(text):
    for word in (["--data.source.separator", text], [f"--data.source.separator={text}"]):
        assert compose([*TABLE, *word])[0]["data"]["init_args"]["source"]["init_args"]["separator"] == text


@pytest.mark.parametrize(
    ("key", "text", "value"),
    [
        ("separator", "null", None),
        ("separator", "-", "-"),
        ("separator", "a=b", "a=b"),
        ("path", "list.yaml", "list.yaml"),
        ("label", "", ""),
        ("label", "007", "007"),
        ("text", "[2024, no]", ["2024", "no"]),
        ("header", "false", False),
        ("splits", "{val: true, test: [4, 5]}", {"val": True, "test": [4, 5]}),
    ],
)
def test_a_value_is_read_as_its_parameter_says(key, text, value):
    found = compose([*TABLE, f"--data.source.{key}", text])[0]["data"]["init_args"]["source"]["init_args"]
    if key == "text":
        value = [str(one) for one in value]
        found[key] = [str(one) for one in found[key]]
    assert found[key] == value and type(found[key]) is type(value)


def test_numbers_and_values_before_their_recipe():
    words = ["--data.source.separator", "no", "--model.optimizer.lr", "1e-3", *TABLE, "--model.optimizer.lr=1e-3"]
    recipe = compose([*words, "--data.source.separator", "no", "--trainer.limit_train_batches", "1.0"])[0]
    assert recipe["model"]["init_args"]["optimizer"]["lr"] == 1e-3
    assert recipe["data"]["init_args"]["source"]["init_args"]["separator"] == "no"
    assert recipe["trainer"]["limit_train_batches"] == 1.0


def test_callbacks_are_added_by_name_and_take_arguments():
    words = ["--trainer.callbacks+=LearningRateMonitor"]
    words += ["--trainer.callbacks+=EarlyStopping", "--trainer.callbacks.monitor=val/loss"]
    callbacks = compose([*TABLE, *words])[0]["trainer"]["callbacks"]
    assert len(callbacks) == 2
    name = "lightning.pytorch.callbacks.EarlyStopping"
    assert callbacks[1] == {"class_path": name, "init_args": {"monitor": "val/loss"}}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"a: &a [*a]", "an alias stands inside what it names"),
        (
            b"a: &a [1, 1]\n"
            + b"".join(b"%c: &%c [%s]\n" % (c, c, b", ".join([b"*%c" % (c - 1)] * 9)) for c in range(98, 108)),
            "more than 100000 values",
        ),
        (b"trainer: {max_epochs: 1, max_epochs: 2}", "line 1: the key 'max_epochs' is given twice"),
        (b"a: !!python/object/apply:os.getcwd []", "could not determine a constructor"),
        ("a: \u00e9".encode("latin-1"), "Save it as UTF-8"),
        (b"a:\n\tb: 1", "indent with spaces"),
        (b"[" * 5000, "nested too deeply"),
    ],
)
def test_a_dangerous_or_broken_file_is_one_line(tmp_path, content, message):
    (tmp_path / "bad.yaml").write_bytes(content)
    with pytest.raises(InputError, match=message) as caught:
        compose(["-c", str(tmp_path / "bad.yaml")])
    assert "\n" not in str(caught.value)


def test_a_folder_or_pipe_is_no_recipe(tmp_path):
    import os

    os.mkfifo(tmp_path / "pipe.yaml")
    for place, what in ((tmp_path, "is a folder"), (tmp_path / "pipe.yaml", "no regular file")):
        with pytest.raises(InputError, match=what):
            compose(["-c", str(place)])


def test_typing_errors_are_said_before_anything_heavy_is_loaded():
    import subprocess
    import sys

    code = """
import sys
from mmeff.cli import main
for words in sys.argv[1:]:
    assert main(["fit", *words.split()]) == 2
assert not {"torch", "lightning"} & set(sys.modules)
"""
    words = ["--trainer.max_epoch 3", "--model.bakbone x", "--model.backbone vim", "--data.source.seperator ;"]
    words = [f"-c recipes/text/table.yaml {one}" for one in words]
    said = subprocess.run([sys.executable, "-c", code, *words], capture_output=True, text=True)
    assert said.returncode == 0, said.stderr
    for hint in ("'max_epochs'?", "'backbone'?", "recipes/backbones/vim.yaml?", "'separator'?"):
        assert hint in said.stderr
