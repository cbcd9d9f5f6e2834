"""Whatever is wrong with data, a recipe, a checkpoint or a command: an exit code, and one line that names it."""

import pickle
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from mmeff.cli import main
from mmeff.errors import shorten

RUBBISH = np.random.default_rng(0).bytes(2000)


@pytest.mark.parametrize("workers", ["0", "1"])
@pytest.mark.parametrize(
    ("kind", "keep", "what"),
    [
        ("image", 200, "not an image that can be read: image file is truncated"),
        ("image", 0, "empty: it has no bytes"),
        ("audio", 30, "not a sound that can be read"),
        ("audio", 0, "empty: it has no bytes"),
    ],
)
def test_a_broken_or_empty_file_is_named(fit, fails, photos, sounds, here, kind, keep, what, workers):
    root = photos(here / "data") if kind == "image" else sounds(here / "data")
    broken = sorted((root / "cat").iterdir())[2]
    broken.write_bytes(broken.read_bytes()[:keep])
    fails(fit(kind, root, "--data.num_workers", workers), str(broken), what, "Replace it or take it out")


@pytest.mark.parametrize(
    ("name", "content", "parts"),
    [
        ("empty.csv", b"", ["empty.csv is empty: it has no row of data. Fill it"]),
        ("header.csv", b"text,label\n", ["header.csv is empty: it has no row of data. Fill it"]),
        ("rubbish.csv", RUBBISH, ["rubbish.csv is not UTF-8 text", "save it as UTF-8"]),
        ("zeros.csv", bytes(100), ["zeros.csv:1: the header has NUL bytes: this is not a table of text"]),
        ("cut.csv.xz", b"\xfd7zXZ\0\0\4", ["cut.csv.xz cannot be read", "ended before"]),
        ("rubbish.parquet", RUBBISH, ["rubbish.parquet cannot be read", "not a parquet file"]),
        ("table.docx", RUBBISH, ["table.docx: a table must end in .csv, .tsv"]),
        ("ragged.csv", b"text,label\na,b,c\n", ["ragged.csv:2: 3 cells where the header has 2; quote the separator"]),
        (
            "cell.csv",
            b"text,label\nhi,good\n  ,bad\n",
            ["cell.csv:3: the text is empty: fill it in or take the row out"],
        ),
        ("label.csv", b"text,label\nhi,good\nhello,\n", ["label.csv:3: the label (column 'label') is empty"]),
        ("column.csv", b"txt,label\nhi,good\n", ["column.csv has no column 'text'", "did you mean 'txt'?"]),
    ],
)
def test_a_table_that_cannot_be_used_is_named(fit, fails, here, name, content, parts):
    (here / name).write_bytes(content)
    fails(fit("text", here / name), *parts)


@pytest.mark.parametrize(
    ("kind", "what"), [("text", "is not found: give `path` a table"), ("image", "is not found: give `root` a folder")]
)
def test_data_that_are_not_there_are_named(fit, fails, here, kind, what):
    fails(fit(kind, here / "nowhere.csv"), str(here / "nowhere.csv"), what)


@pytest.mark.parametrize("kind", ["image", "audio"])
def test_a_file_that_a_table_names_and_that_is_not_there(fit, fails, here, kind):
    (here / "x.png").touch()
    (here / "list.csv").write_text("file,label\nx.png,cat\ny.png,dog\n")
    words = fit(kind, here, "--data.source", "mmeff.data.FileTable", "--data.source.path", "list.csv")
    fails(words, "list.csv:3: the file 'y.png' of column 'file' is not in", str(here))


@pytest.mark.parametrize("split", ["val", "test"])
def test_a_label_that_training_never_saw(fit, fails, photos, here, split):
    photos(here / "data/train")
    photos(here / "data/val", n=1)
    photos(here / "data" / split, ("cow",), n=1)
    words = fit("image", here / "data")
    fails(words, f"label 'cow' of {split}/cow/0.png is in the {split} split and never in train; give train an example")


def test_a_class_with_one_example(fit, fails, photos, here):
    photos(here / "data")
    photos(here / "data", ("cow",), n=1)
    fails(fit("image", here / "data"), "class 'cow' has one example (cow/0.png)", "add examples or leave the class out")


def test_one_class(fit, fails, photos, here):
    fails(fit("image", photos(here / "data", ("cat",))), "training split has 1 class(es) ['cat']: give two at least")


@pytest.mark.parametrize(("empty", "full"), [("val", "train"), ("train", "val"), ("test", "train")])
def test_a_split_folder_without_files(fit, fails, photos, here, empty, full):
    photos(here / "data" / full)
    (here / "data" / empty / "cat").mkdir(parents=True)
    fails(fit("image", here / "data"), f"{here / 'data' / empty} has no files in class folders: fill it or remove it")


def test_a_folder_without_files(fit, fails, here):
    (here / "data").mkdir()
    fails(fit("image", here / "data"), f"{here / 'data'} holds no file that ends in .png .jpg")


@pytest.mark.parametrize(
    ("val", "test", "parts"),
    [
        ("0.5", "0.5", ["fractions (0.5, 0.5) must leave something to train on"]),
        ("-0.1", "0.1", ["a fraction of the split (val, test) is -0.1; it must be in [0, 1)"]),
        ("0.45", "0.45", ["the val split is empty: give it examples, or use another split rule or fraction"]),
    ],
)
def test_ratios_that_leave_a_split_empty(fit, fails, photos, here, val, test, parts):
    split = ["--data.split", "mmeff.data.ByRatio", "--data.split.val", val, "--data.split.test", test]
    fails(fit("image", photos(here / "data", n=2), *split), *parts)


@pytest.mark.parametrize(
    ("words", "parts"),
    [
        (["--data.sample_rate", "0"], ["data.sample_rate is 0; it must be a whole number of at least 1"]),
        (
            ["--model.tokenizer.log_mel.sample_rate", "0"],
            ["sample_rate is 0; it must be a whole number of at least 51"],
        ),
        (["--data.seconds", "0.01"], ["data.seconds is 0.01; it must be in [0.025, inf)"]),
        (
            ["--data.sample_rate", "8000"],
            ["8000 Hz", "16000 Hz", "set data.sample_rate to 16000 or", "log_mel.sample_rate"],
        ),
        (["--model.tokenizer.log_mel.sample_rate", "8000"], ["8000 Hz", "16000 Hz", "set data.sample_rate to 8000 or"]),
    ],
)
def test_sample_rates_that_cannot_be(fit, fails, sounds, here, words, parts):
    fails(fit("audio", sounds(here / "data", n=3), *words), *parts)


def test_a_sound_shorter_than_one_window(fit, fails, sounds, here, trained):
    import soundfile

    root = sounds(here / "data", n=3)
    short = root / "cat/1.wav"
    soundfile.write(short, np.full(199, 0.1), 8000)
    parts = [f"{short} lasts 24.9 ms, less than one window of 25 ms: take it out, or give a longer recording"]
    fails(fit("audio", root), *parts)
    fails(["predict", "--ckpt", str(trained["audio"]), str(short)], *parts)
    soundfile.write(short, np.full(200, 0.1), 8000)
    assert main(["predict", "--ckpt", str(trained["audio"]), str(short)]) == 0


@pytest.mark.parametrize(
    ("words", "parts"),
    [
        (["--model.tokenizer.channels", "1"], ["images of 3 channels", "built for 1", "set data.channels to 1 or"]),
        (["--data.channels", "1"], ["images of 1 channels", "built for 3", "set data.channels to 3 or"]),
        (["--data.channels", "2"], ["data.channels: expected one of [1, 3]"]),
    ],
)
def test_wrong_channels(fit, fails, photos, here, words, parts):
    fails(fit("image", photos(here / "data", n=3), *words), *parts)


def test_a_tokenizer_of_another_signal(fit, fails, photos, here):
    words = fit("image", photos(here / "data", n=3), "--model.tokenizer", "mmeff.tokenizers.TextBytes")
    fails(words, "the model has tokenizers for ['text'], the data is ['image']")


def test_texts_that_are_cut_are_counted(fit, trained, capsys):
    assert main(fit("text", trained["data"] / "table.csv", "--model.tokenizer.max_length", "2")) == 0
    assert "2 of 2 texts were longer than max_length = 2 tokens and were cut there" in capsys.readouterr().out
    assert main(["predict", "--ckpt", "runs/run", "-t", "a good thing", "-t", "a"]) == 0
    assert "1 of 2 texts were longer than max_length = 2 tokens and were cut there" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "parts"),
    [
        (["--data.batchsize", "3"], ["unknown key 'batchsize' in data (ImageData)", "did you mean 'batch_size'?"]),
        (["--data.source.rot", "x"], ["unknown key 'rot' in data.source (ImageFolder)", "did you mean 'root'?"]),
        (["--trainr.max_epochs", "3"], ["unknown option --trainr.max_epochs", "did you mean 'trainer'?"]),
        (["--print_confg"], ["unknown option --print_confg", "did you mean 'print_config'?"]),
        (
            ["--model.backbone.mixer.heads", "3"],
            ["unknown key 'heads' in model.backbone.mixer (Attention)", "'head_dim'"],
        ),
        (
            ["--model.optimizer.lrr", "1"],
            ["unknown key 'lrr' in model.optimizer (OptimizerConfig)", "did you mean 'lr'?"],
        ),
        (
            ["--data.augment.flop", "true"],
            ["unknown key 'flop' in data.augment (ImageAugment)", "did you mean 'flip'?"],
        ),
        (["--model.backbone.depth", "many"], ["model.backbone.depth: expected int. Got value: many"]),
        (["--trainer.precision", "11"], ["trainer.precision: expected one of [64, 32, 16]", "got 11"]),
        (["--trainer.max_epochs"], ["trainer.max_epochs", "expected"]),
        (["--trainer.max_epochs", "-5"], ["max_epochs", "-5"]),
        (["--trainer.accelerator", "gpuu"], ["accelerator", "'gpuu'", "cpu"]),
        (["--model.dropout", "[1"], ["--model.dropout: '[1' is not YAML: line 1"]),
        (["--model.mix", "{mixup: 0}"], ["mix needs mixup or cutmix above 0, got mixup = 0.0, cutmix = 0.0\n"]),
        (["--model.dropout", "2"], ["dropout is 2.0; it must be in [0, 1)"]),
        (["--model.backbone.depth", "0"], ["depth is 0; it must be a whole number of at least 1"]),
        (["--model.backbone.mixer.head_dim", "5"], ["head_dim 5 does not divide dim 32"]),
        (["--model.optimizer.lr", "-1"], ["lr is -1.0; it must be in [0, inf)"]),
        (["--data.batch_size", "0"], ["batch_size is 0"]),
        (["--data.source", "mmeff.data.ImageFoldr"], ["data.source: mmeff.data has no ImageFoldr", "ImageFolder?"]),
        (["-c", "nowhere.yaml"], ["no recipe at nowhere.yaml", "mmeff list recipes"]),
    ],
)
def test_a_word_that_cannot_be_used_is_named(fit, fails, trained, words, parts):
    fails(fit("image", trained["data"] / "photos", *words), *parts)


@pytest.mark.parametrize(
    ("content", "parts"),
    [
        (b"model: [1\ndata: }\n", ["mine.yaml is not a YAML file: line 2: expected ',' or ']'"]),
        (RUBBISH, ["mine.yaml is not a YAML file", "utf-8"]),
        (b"", ["mine.yaml holds no keys: a recipe is a mapping"]),
        (b"trainr: {max_epochs: 3}\n", ["unknown key 'trainr' in the recipe", "did you mean 'trainer'?"]),
        (b"trainer: {max_epoch: 3}\n", ["unknown key 'max_epoch' in trainer", "did you mean 'max_epochs'?"]),
        (
            b"model: {backbone: {class_path: mmeff.backbones.Isotropic, init_args: "
            b"{mixer: {class_path: mmeff.mixers.Attention, init_args: {head_dims: 8}}}}}\n",
            ["unknown key 'head_dims' in model.backbone.mixer (Attention)", "did you mean 'head_dim'?"],
        ),
        (
            b"model: {backbone: {class_path: mmeff.backbones.Isotropic, init_args: "
            b"{mixer: [{class_path: mmeff.mixers.Attention, init_args: {head_dims: 8}}]}}}\n",
            ["unknown key 'head_dims' in model.backbone.mixer[0] (Attention)", "did you mean 'head_dim'?"],
        ),
    ],
)
def test_a_recipe_that_cannot_be_used_is_named(fit, fails, here, content, parts):
    (here / "mine.yaml").write_bytes(content)
    fails(fit("image", here, "-c", "mine.yaml"), *parts)


def test_a_rule_that_the_recipe_does_not_have_takes_its_arguments_one_by_one(fit, trained, capsys):
    words = ["--data.split", "mmeff.data.ByRatio", "--data.split.val", "0.5", "--data.split.test", "0.2"]
    assert main(fit("image", trained["data"] / "photos", *words)) == 0
    assert "4 train / 6 val / 2 test" in capsys.readouterr().out


def test_a_run_folder_that_cannot_be_written(fit, fails, here, trained):
    (here / "file").touch()
    words = fit("image", trained["data"] / "photos", "--trainer.default_root_dir", "file/run")
    fails(words, "cannot make the run folder file/run: ", "Name another with --trainer.default_root_dir FOLDER")


@pytest.mark.parametrize("command", ["fit", "test"])
@pytest.mark.parametrize(
    ("other", "parts"),
    [
        (
            ["--model.backbone.dim", "64"],
            ["checkpoint is of another model: tokenizers.image.project.weight is (32,", "(64,"],
        ),
        (["--model.backbone.depth", "2"], ["checkpoint is of another model: it has no backbone.blocks.1"]),
        (["--model.backbone.channel", "null"], ["checkpoint is of another model: it also has backbone.blocks.0"]),
        (
            ["--data.size", "8"],
            ["checkpoint was trained on image as {'size': [16, 16]", "the data gives {'size': [8, 8]"],
        ),
    ],
)
def test_a_checkpoint_of_another_model(fit, fails, trained, command, other, parts):
    words = fit("image", trained["data"] / "photos", *other, "--ckpt_path", str(trained["image"]))
    fails([command, *words[1:]], *parts)


def test_a_checkpoint_of_other_classes(fit, fails, photos, here, trained):
    words = fit("image", photos(here / "data", ("cat", "cow"), n=3), "--ckpt_path", str(trained["image"]))
    fails(words, "not in both: ['cow', 'dog']. Take the checkpoint of a run on this data")


def test_a_checkpoint_of_another_signal(fit, fails, trained):
    words = fit("image", trained["data"] / "photos", "--ckpt_path", str(trained["audio"]))
    fails(words, "the checkpoint is of a model for ['audio'], the data is ['image']")


class Evil:
    """Unpickled, it writes a file."""

    def __reduce__(self) -> tuple:
        return open, ("was_executed", "w")


def with_code(path: Path, good: Path) -> None:
    torch.save({**torch.load(good, weights_only=True), "hyper_parameters": Evil()}, path)


def with_recipe(change: Callable[[dict], None]) -> Callable[[Path, Path], None]:
    def write(path: Path, good: Path) -> None:
        checkpoint = torch.load(good, weights_only=True)
        change(checkpoint["mmeff"]["model"])
        torch.save(checkpoint, path)

    return write


@pytest.mark.parametrize("command", ["fit", "test", "predict", "export"])
@pytest.mark.parametrize(
    ("write", "what"),
    [
        (
            lambda path, good: path.write_text("hello there"),
            "cannot be read as a checkpoint: it is a file of another kind",
        ),
        (lambda path, good: path.touch(), "cannot be read as a checkpoint: it is empty"),
        (
            lambda path, good: path.write_bytes(good.read_bytes()[:5000]),
            "cannot be read as a checkpoint: it is cut short",
        ),
        (lambda path, good: path.write_bytes(pickle.dumps(Evil())), "cannot be read as a checkpoint"),
        (
            with_code,
            "cannot be read as a checkpoint: it asks to run io.open, and only tensors and plain values are read",
        ),
        (lambda path, good: torch.save({"state_dict": {}}, path), "was not written by `mmeff fit`"),
        (lambda path, good: torch.save([1, 2], path), "was not written by `mmeff fit`"),
    ],
    ids=["text", "empty", "cut", "pickle", "code", "foreign", "list"],
)
def test_a_file_that_is_no_checkpoint(fit, fails, here, trained, command, write, what):
    path = here / "bad.ckpt"
    write(path, trained["image"])
    words = {
        "predict": ["predict", "--ckpt", str(path), "x.png"],
        "export": ["export", str(path), "--to", "exported"],
    }.get(command, [command, *fit("image", trained["data"] / "photos", "--ckpt_path", str(path))[1:]])
    fails(words, str(path), what)
    assert not (here / "was_executed").exists()
    assert not (here / "exported").exists()


@pytest.mark.parametrize(
    ("change", "parts"),
    [
        (lambda model: model["init_args"].update(dropuot=0), ["does not fit this version of mmeff", "'dropuot'"]),
        (
            lambda model: model["init_args"]["backbone"]["init_args"].update(depth="many"),
            ["does not fit this version of mmeff: model.backbone.depth: expected int, got 'many'"],
        ),
        (
            lambda model: model["init_args"]["backbone"]["init_args"].update(depth=0),
            ["changed.ckpt: depth is 0; it must be a whole number of at least 1"],
        ),
        (
            lambda model: model["init_args"].update(tokenizer={"class_path": "os.system"}),
            ["the checkpoint asks to build os.system", "--trust os"],
        ),
    ],
)
def test_a_checkpoint_whose_recipe_cannot_be_built(fails, here, trained, change, parts):
    with_recipe(change)(here / "changed.ckpt", trained["image"])
    fails(["predict", "--ckpt", "changed.ckpt", "x.png"], *parts)


@pytest.mark.parametrize("file", ["config.json", "model.safetensors"])
@pytest.mark.parametrize("content", [b"", b"[]", RUBBISH])
def test_an_export_that_is_not_whole(fails, here, trained, file, content):
    assert main(["export", str(trained["image"]), "--to", "exported"]) == 0
    (here / "exported" / file).write_bytes(content)
    fails(
        ["predict", "--ckpt", "exported", "x.png"], "exported is not a whole export (config.json and model.safetensors)"
    )


@pytest.mark.parametrize(
    ("words", "parts"),
    [
        (["--ckpt_path", "none.ckpt"], ["no checkpoint at none.ckpt: --ckpt_path takes a .ckpt file, last or best"]),
        (["--ckpt_path", "last"], ["there is no last.ckpt in runs/run: run `mmeff fit` with this recipe first"]),
    ],
)
def test_a_checkpoint_that_is_not_there(fit, fails, here, words, parts):
    fails(fit("image", here, *words), *parts)


@pytest.mark.parametrize(
    ("kind", "words", "parts"),
    [
        ("image", ["nowhere.png"], ["nowhere.png is not found"]),
        ("audio", ["nowhere.wav"], ["nowhere.wav is not found"]),
        ("text", ["nowhere.txt"], ["nowhere.txt: No such file", "This model reads text", "after -t"]),
        ("text", ["rubbish"], ["rubbish is not a text in UTF-8", "This model reads text", "after -t"]),
        ("text", ["empty"], ["empty is empty: it has no line of text", "This model reads text"]),
        ("text", ["-t", " "], ["the text is empty"]),
        ("image", ["rubbish"], ["rubbish is not an image that can be read: its kind is unknown"]),
        ("audio", ["rubbish"], ["rubbish is not a sound that can be read"]),
        ("image", ["empty"], ["empty is empty: it has no bytes"]),
        ("image", ["."], ["holds no file that ends in .png", "2 files: a name without a suffix"]),
        ("image", ["-t", "hello"], ["this model reads image: give files, not -t"]),
        ("image", [], ["nothing to label: give files or folders, or texts with -t"]),
        ("image", ["--task", "sound", "x.png"], ["task must be one of image, not 'sound'"]),
        ("image", ["--top", "0", "x.png"], ["--top: invalid whole number above 0 value: '0'", "mmeff predict --help"]),
        ("image", ["--tpo", "1", "x.png"], ["unrecognized arguments: --tpo", "mmeff predict --help"]),
    ],
)
def test_what_predict_cannot_label(fails, here, trained, kind, words, parts):
    (here / "rubbish").write_bytes(RUBBISH)
    (here / "empty").touch()
    fails(["predict", "--ckpt", str(trained[kind]), *words], *parts)


def test_one_bad_file_keeps_no_other_from_its_label(trained, capsys):
    good = str(trained["data"] / "photos/cat/0.png")
    assert main(["predict", "--ckpt", str(trained["image"]), "nowhere.png", good]) == 2
    said = capsys.readouterr()
    assert said.err.splitlines() == [
        "mmeff: error: nowhere.png is not found",
        "mmeff: error: 1 of 2 could not be labelled; see above",
    ]
    assert "cat" in said.out and "%" in said.out


@pytest.mark.parametrize(
    ("words", "parts"),
    [
        (["fti"], ["unknown command 'fti': did you mean 'fit'?"]),
        (["fit"], ["give a recipe: mmeff fit -c"]),
        (["list", "mixer"], ["cannot list 'mixer': it is one of recipes"]),
        (["export"], ["the following arguments are required: run, --to", "mmeff export --help"]),
        (["export", "nowhere", "--to", "x"], ["no checkpoint at nowhere: give a run folder"]),
        (["predict", "--ckpt", "nowhere", "x"], ["no checkpoint at nowhere: give a run folder"]),
        (["predict", "--ckpt", ".", "x"], [". holds neither best.ckpt, last.ckpt nor config.json"]),
    ],
)
def test_a_command_that_cannot_be_run(fails, words, parts):
    fails(words, *parts)


@pytest.mark.parametrize("there", ["file", "folder"])
def test_an_export_overwrites_nothing(fails, here, trained, there):
    kept = here / "to" if there == "file" else here / "to/kept"
    kept.parent.mkdir(exist_ok=True)
    kept.write_text("mine")
    fails(["export", str(trained["image"]), "--to", "to"], "to is already there: give --to a new folder")
    assert kept.read_text() == "mine"


UNION = """\
Parser key "data":
  Does not validate against any of the Union subtypes
  Subtypes: [<class 'mmeff.data.ClassificationData'>, <class 'NoneType'>]
  Errors:
    - Problem with given class_path 'mmeff.data.ImageData':
        Parser key "size":
          Does not validate against any of the Union subtypes
          Subtypes: [<class 'int'>, <class 'NoneType'>]
          Errors:
            - Expected a <class 'int'>
            - Expected a typing.Literal['auto']
            - Expected a <class 'NoneType'>
          Given value type: <class 'str'>
          Given value: large
    - Expected a <class 'NoneType'>
  Given value type: <class 'dict'>
  Given value: {'class_path': 'mmeff.data.ImageData', 'init_args': {'size': 'large'}}
"""


@pytest.mark.parametrize(
    ("message", "short"),
    [
        (UNION, "data.size: expected int or expected one of ['auto']; got large"),
        (
            "Parser key \"model.dropout\":\n  Expected a <class 'float'>. Got value: x",
            "model.dropout: expected float. Got value: x",
        ),
        ("max_epochs is wrong", "max_epochs is wrong"),
    ],
)
def test_the_innermost_reason_is_left_of_a_long_message(message, short):
    assert shorten(message) == short


def test_a_model_that_cannot_take_the_data_says_so_before_training(fit, fails, sounds, here):
    short = '{"class_path": "mmeff.tokenizers.LearnedPositions", "init_args": {"grid": [1, 8]}}'
    words = fit("audio", sounds(here / "data"), "--model.tokenizer.positions", short)
    fails(words, "the model cannot take this data: ")
    assert not list(here.rglob("*.ckpt"))


def test_a_resumed_run_reads_no_sample_for_its_tokenizers(fit, trained, monkeypatch):
    from mmeff.data import ImageData

    monkeypatch.setattr(ImageData, "fit_sample", lambda self: pytest.fail("read the sample again"))
    again = ["--ckpt_path", str(trained["image"]), "--trainer.max_epochs", "2"]
    assert main(fit("image", trained["data"] / "photos", *again)) == 0


def test_a_reader_that_has_seen_enough():
    code = "import sys; from mmeff.cli import main; sys.exit(main(['list']))"
    done = subprocess.run(
        ["bash", "-c", f'"$0" -c "{code}" | head -1; exit ${{PIPESTATUS[0]}}', sys.executable],
        capture_output=True,
        text=True,
    )
    assert (done.stdout, done.stderr) == ("recipes:\n", "")
    assert done.returncode == 141


def test_a_resumed_run_that_keeps_curves_names_a_broken_checkpoint_too(fit, fails, here, trained):
    (here / "broken.ckpt").write_bytes(trained["image"].read_bytes()[:5000])
    words = fit(
        "image", trained["data"] / "photos", "--ckpt_path", str(here / "broken.ckpt"), "--trainer.logger", "true"
    )
    fails(words, "broken.ckpt cannot be read as a checkpoint: it is cut short")
