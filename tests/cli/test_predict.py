"""Labels for new signals: by `model.predict`, and by `mmeff predict` on files, folders and texts."""

import csv
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from PIL import Image

import mmeff
from mmeff.cli import main

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def models(trained_once):
    return {kind: mmeff.load(trained_once[kind]) for kind in ("image", "audio", "text")}


def test_one_signal_in_any_form_gives_the_same_prediction(models, trained):
    path = trained["data"] / "photos/cat/0.png"
    image = Image.open(path).convert("RGB")
    wave, rate = soundfile.read(trained["data"] / "sounds/dog/0.wav", dtype="float32")
    forms = {
        "image": [str(path), path, np.array(image), torch.from_numpy(np.array(image)), image],
        "audio": [trained["data"] / "sounds/dog/0.wav", (wave, rate), (torch.from_numpy(wave), rate)],
    }
    for kind, signals in forms.items():
        found = [models[kind].predict(signal) for signal in signals]
        assert all(one == found[0] for one in found), kind
        one = found[0]
        assert isinstance(one, mmeff.Prediction)
        assert set(one.probabilities) == set(models[kind].classes) == {"cat", "dog"}
        assert list(one.probabilities.values()) == sorted(one.probabilities.values(), reverse=True)
        assert sum(one.probabilities.values()) == pytest.approx(1, abs=1e-6)
        assert one.label == next(iter(one.probabilities)) and one.labels == (one.label,)
        assert one.probability == one.probabilities[one.label]


def test_a_list_gives_a_list_in_batches_of_any_size(models, trained):
    texts = [f"a good thing number {i} {'and more ' * (i % 5)}" for i in range(7)]
    alone = [models["text"].predict(text) for text in texts]
    for size in (1, 3, 32):
        together = models["text"].predict(texts, batch_size=size)
        assert [one.label for one in together] == [one.label for one in alone]
        for one, same in zip(together, alone, strict=True):
            assert one.probability == pytest.approx(same.probability, abs=1e-5)
    assert models["text"].predict([]) == []


def test_predicting_leaves_the_model_as_it_was(models):
    model = models["text"]
    model.train()
    model.model.backbone.eval()
    before = [module.training for module in model.modules()]
    first, second = model.predict("a good thing"), model.predict("a good thing")
    assert first == second, "dropout was on"
    assert [module.training for module in model.modules()] == before
    model.eval()


def test_several_labels_per_signal(models):
    spec = mmeff.tasks.Classify  # the parts are found through the package alone
    assert spec.__name__ == "Classify"
    several = mmeff.predict.Prediction.of(
        torch.tensor([-1.0, 2.0, 1.0]), _Spec(classes=("a", "b", "c"), multilabel=True)
    )
    assert several.labels == ("b", "c") and several.label == "b" and several.probabilities["a"] < 0.5
    with pytest.raises(mmeff.InputError, match="NaN"):
        mmeff.predict.Prediction.of(torch.tensor([0.0, torch.nan]), _Spec(classes=("a", "b"), multilabel=False))


class _Spec:
    def __init__(self, classes, multilabel):
        self.classes, self.multilabel = classes, multilabel


@pytest.mark.parametrize(
    ("kind", "signal", "said"),
    [
        ("text", Path("a.txt"), "give strings"),
        ("text", 3, "give strings, not int"),
        ("text", " ", "the text is empty"),
        ("image", "nowhere.png", "nowhere.png is not found"),
        ("image", np.zeros((4, 4), np.float32), "float32"),
        ("audio", np.zeros(800, np.float32), "sample rate"),
    ],
)
def test_what_cannot_be_read_is_said(models, kind, signal, said):
    with pytest.raises(mmeff.InputError, match=said):
        models[kind].predict(signal)


def test_another_models_task_is_refused(models):
    with pytest.raises(mmeff.InputError, match="task must be one of text, not 'digits'"):
        models["text"].predict("a text", task="digits")


def test_a_folder_into_a_table_and_json(trained, here, capsys):
    folder = here / "new"
    for name in ("b/2.png", "a.png", "b/1.png"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes((trained["data"] / "photos/cat/0.png").read_bytes())
    (folder / "b/0.png").write_text("no image")
    words = ["predict", "--ckpt", str(trained["image"]), str(folder)]
    capsys.readouterr()
    assert main([*words, "--out", "p.csv"]) == 2, "one could not be read"
    said = capsys.readouterr()
    assert [line.partition(": ")[0] for line in said.out.splitlines()] == [
        str(folder / name) for name in ("a.png", "b/1.png", "b/2.png")
    ]
    assert "1 of 4 could not be labelled" in said.err
    with open("p.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["item"] for row in rows] == [str(folder / n) for n in ("a.png", "b/0.png", "b/1.png", "b/2.png")]
    assert rows[1]["label"] == "" and "not an image" in rows[1]["error"]
    assert float(rows[0]["p(cat)"]) + float(rows[0]["p(dog)"]) == pytest.approx(1, abs=1e-5)
    (folder / "b/0.png").unlink()
    assert main([*words, "--out", "p.json"]) == 0
    kept = json.loads(Path("p.json").read_text())
    assert [one["label"] for one in kept] == [row["label"] for row in rows if row["label"]]
    assert kept[0]["probabilities"].keys() == {"cat", "dog"} and kept[0]["error"] is None


def test_texts_are_whole_in_the_output(trained, here, capsys):
    long = "a good thing " * 60
    assert main(["predict", "--ckpt", str(trained["text"]), "-t", long, "-t", "狗 is a dog", "--out", "p.csv"]) == 0
    assert capsys.readouterr().out.startswith(long.strip())
    with open("p.csv", newline="", encoding="utf-8") as file:
        assert [row["item"] for row in csv.DictReader(file)] == [long, "狗 is a dog"]


def test_out_is_checked_before_anything_is_loaded(trained, fails, here):
    words = ["predict", "--ckpt", "nowhere", "a.png", "--out"]
    fails([*words, "p.txt"], "p.txt", ".csv or .json")
    fails([*words, "no/p.csv"], "no/p.csv", "no such folder")


def test_names_that_the_terminal_cannot_show_are_escaped_and_python_m_runs(trained, here):
    """One process: an ASCII terminal, a CJK text, a file name that is no UTF-8, a module that lies in wait."""
    (here / "torch.py").write_text("raise SystemExit('a module of the current folder was run')")
    name = os.fsdecode(b"caf\xe9.png")
    (here / name).write_bytes((trained["data"] / "photos/cat/0.png").read_bytes())
    env = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join(map(str, (ROOT, ROOT / "kernels")))}
    env |= {"PYTHONIOENCODING": "ascii", "PYTHONUTF8": "0", "LC_ALL": "C"}
    command = [sys.executable, "-m", "mmeff", "predict", "--ckpt", str(trained["image"]), "./狗.png", f"./{name}"]
    done = subprocess.run(command, env=env, capture_output=True, text=True, timeout=120)
    assert done.returncode == 2 and "Traceback" not in done.stderr, done.stderr
    assert ".png is not found" in done.stderr and "1 of 2" in done.stderr
    assert len(done.stdout.splitlines()) == 1 and "caf\\udce9.png: " in done.stdout


def test_the_package_lists_what_it_holds():
    code = "import sys, mmeff; print(*dir(mmeff)); print('torch' in sys.modules)"
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(map(str, (ROOT, ROOT / "kernels")))}
    names, heavy = subprocess.check_output([sys.executable, "-c", code], env=env, text=True).splitlines()
    assert {"load", "mixers", "backbones", "data", "tasks", "Prediction"} <= set(names.split())
    assert heavy == "False"
