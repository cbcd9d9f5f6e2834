"""NaN, a full disk, Ctrl-C: a run that ends early says why in one line, and nothing that was learned is lost."""

import errno
import json
import os
import resource
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch

import mmeff
from mmeff.cli import main

ROOT = Path(__file__).parents[2]

#: Callbacks that a recipe can name: `trouble` is imported from the folder that the command runs in.
TROUBLE = """\
import os
import signal

import torch
from lightning.pytorch import Callback


class Steps(Callback):
    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
        with open("steps", "a") as file:
            file.write(f"{trainer.global_step}\\n")


class BadOutput(Callback):
    def __init__(self, layer: str, at: int):
        self.layer, self.at = layer, at

    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
        if trainer.global_step == self.at:
            layer = pl_module.model.get_submodule(self.layer)
            layer.register_forward_hook(lambda module, args, output: output * torch.nan)


class BadGradient(Callback):
    def __init__(self, parameter: str, at: int):
        self.parameter, self.at = parameter, at

    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
        if trainer.global_step == self.at:
            pl_module.model.get_parameter(self.parameter).register_hook(lambda gradient: gradient * torch.inf)


class Signal(Callback):
    def __init__(self, number: int, at: int, times: int = 1, everyone: bool = False):
        self.number, self.at, self.times, self.everyone = number, at, times, everyone

    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
        if trainer.global_step == self.at:
            for _ in range(self.times):
                os.killpg(0, self.number) if self.everyone else signal.raise_signal(self.number)
"""
LONG = ["--trainer.max_epochs", "2", "--trainer.limit_train_batches", "8", "--data.batch_size", "1"]
GO_ON = "--ckpt_path last"


@pytest.fixture(autouse=True)
def trouble(here: Path) -> Iterator[None]:
    (here / "trouble.py").write_text(TROUBLE)
    yield
    sys.modules.pop("trouble", None)


def callback(name: str, **arguments: object) -> list[str]:
    callbacks = [{"class_path": "trouble.Steps"}, {"class_path": f"trouble.{name}", "init_args": arguments}]
    return ["--trainer.callbacks", json.dumps(callbacks)]


@pytest.fixture
def long_fit(fit, trained) -> Callable[..., list[str]]:
    """The words that train for two epochs of eight steps."""
    return lambda *words: fit("image", trained["data"] / "photos", *LONG, *words)


def read(path: str | Path) -> dict:
    return torch.load(path, map_location="cpu", weights_only=True)


def assert_finite(path: str | Path) -> None:
    state = mmeff.load(path).state_dict()
    assert all(value.isfinite().all() for value in state.values() if isinstance(value, torch.Tensor))


def assert_loads(path: str | Path, photos: Path) -> None:
    assert_finite(path)
    assert main(["predict", "--ckpt", str(path), str(photos / "cat/0.png")]) == 0


def steps() -> list[int]:
    return [int(step) for step in Path("steps").read_text().split()]


@pytest.mark.parametrize(
    ("bad", "where"),
    [
        (
            {"name": "BadOutput", "layer": "backbone.blocks.0.mixer"},
            "first in the output of backbone.blocks.0.mixer.",
        ),
        (
            {"name": "BadGradient", "parameter": "tokenizers.image.project.weight"},
            "first in the gradient of tokenizers.image.project.weight.",
        ),
    ],
)
def test_a_number_that_is_none_names_the_layer_and_the_last_good_state_is_kept(long_fit, fails, trained, bad, where):
    said = fails(
        long_fit(*callback(**bad, at=3)),
        "stopped being finite at step 3",
        where,
        "runs/run/last_good.ckpt",
        "lower model.optimizer.lr or set trainer.gradient_clip_val",
        "check the data of this batch: ",
        code=1,
    )
    assert said.strip().endswith(".png"), "the example is named"
    assert read("runs/run/last_good.ckpt")["global_step"] == 3
    assert_loads("runs/run/last_good.ckpt", trained["data"] / "photos")


def test_a_learning_rate_that_is_far_too_high(long_fit, fails, trained):
    fails(long_fit("--model.optimizer.lr", "1e30"), "stopped being finite", "lower model.optimizer.lr", code=1)
    assert_finite("runs/run/last_good.ckpt")
    # Finite, and so large that what they give is not.
    fails(
        ["predict", "--ckpt", "runs/run/last_good.ckpt", str(trained["data"] / "photos/cat/0.png")], "NaN or infinite"
    )


@contextmanager
def files_of_at_most(size: int) -> Iterator[None]:
    """The system itself refuses to write more bytes than this into a file."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_a_checkpoint_that_cannot_be_written_leaves_the_one_before_it_whole(long_fit, fails, trained):
    assert main(long_fit("--trainer.max_epochs", "1")) == 0
    run = Path("runs/run")
    before = {path.name: path.read_bytes() for path in run.glob("*.ckpt")}
    assert before.keys() == {"best.ckpt", "last.ckpt"}
    parts = ["cannot save", "runs/run/", "The checkpoint before it is whole", "free some space", GO_ON]
    with files_of_at_most(20_000):
        fails(long_fit(*GO_ON.split()), "File too large", *parts, code=1)
    assert {path.name: path.read_bytes() for path in run.glob("*.ckpt")} == before
    assert not list(run.glob("*.part"))
    assert main(long_fit(*GO_ON.split())) == 0
    assert read(run / "last.ckpt")["global_step"] == 16


@pytest.mark.parametrize("failing", ["torch.save", "os.fsync", "os.replace"])
def test_a_full_disk_is_named_wherever_it_strikes(long_fit, fails, monkeypatch, failing):
    def full(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(failing, full)
    fails(long_fit(), "cannot save", "No space left on device", "There is no earlier checkpoint", GO_ON, code=1)
    assert not list(Path("runs/run").glob("*.part"))


def test_an_export_on_a_full_disk(fails, trained):
    with files_of_at_most(20_000):
        fails(["export", str(trained["image"]), "--to", "exported"], "exported", "File too large", code=1)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_in_mid_epoch_saves_and_the_run_goes_on(long_fit, fails, number):
    words = long_fit(*callback("Signal", number=int(number), at=3))
    fails(words, "stopped at step 4; saved runs/run/last.ckpt", f"same command and {GO_ON}", code=128 + number)
    assert read("runs/run/last.ckpt")["global_step"] == 4
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler, "the run's handler has gone with it"
    assert main([*words, *GO_ON.split()]) == 0
    assert steps() == list(range(16)), "each step is taken once"
    assert read("runs/run/last.ckpt")["global_step"] == 16


def test_a_second_ctrl_c_stops_at_once_and_leaves_the_checkpoint_before_it(long_fit, fails, trained):
    words = long_fit(*callback("Signal", number=int(signal.SIGINT), at=9, times=2))
    fails(words, "interrupted", GO_ON, code=130)
    assert steps()[-1] == 9
    assert read("runs/run/last.ckpt")["global_step"] == 8
    assert_loads("runs/run/last.ckpt", trained["data"] / "photos")


def test_ctrl_c_in_a_terminal_reaches_the_workers_too(long_fit, here):
    words = long_fit(*callback("Signal", number=int(signal.SIGINT), at=3, everyone=True), "--data.num_workers", "2")
    code = "import sys; from mmeff.cli import main; sys.exit(main())"
    env = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join(map(str, (ROOT, ROOT / "kernels")))}
    command = [sys.executable, "-W", "ignore::DeprecationWarning", "-c", code, *words]
    done = subprocess.run(command, env=env, capture_output=True, text=True, timeout=120, start_new_session=True)
    assert done.returncode == 130, done.stderr
    assert done.stdout.count("stopping after this step") == 1
    assert len(done.stderr.splitlines()) == 1, done.stderr
    assert "stopped at step 4; saved runs/run/last.ckpt" in done.stderr
    assert read("runs/run/last.ckpt")["global_step"] == 4


IMPORTED = "import signal; signal.raise_signal(signal.SIGINT)\n"
STRUCK = """\
import signal

try:
    signal.raise_signal(signal.SIGINT)
except KeyboardInterrupt:
    raise RecursionError("numpy does this when Ctrl-C strikes its import") from None
"""
READ = """\
import signal

from mmeff.data import Source


class Slow(Source):
    def examples(self):
        signal.raise_signal(signal.SIGINT)
"""


@pytest.mark.parametrize("module", [IMPORTED, STRUCK, READ], ids=["importing", "struck", "loading"])
def test_ctrl_c_before_training(long_fit, fails, here, module):
    (here / "trouble.py").write_text(module)
    fails(long_fit("--data.source", "trouble.Slow"), "interrupted", code=130)
    assert not list(here.glob("runs/**/*.ckpt"))


def test_ctrl_c_while_testing(long_fit, fails, here, trained):
    (here / "trouble.py").write_text(
        "import signal\n"
        "from lightning.pytorch import Callback\n"
        "class Signal(Callback):\n"
        "    def on_test_start(self, trainer, pl_module):\n"
        "        signal.raise_signal(signal.SIGINT)\n"
    )
    words = long_fit("--ckpt_path", str(trained["image"]), "--trainer.callbacks", '[{"class_path": "trouble.Signal"}]')
    fails(["test", *words[1:]], "interrupted", code=130)


HOOK = """\
import signal

from lightning.pytorch import Callback
from lightning.pytorch.callbacks import EMAWeightAveraging


def at(hook, number, epoch, times):
    def strike(self, trainer, *_):
        struck = getattr(self, "struck", False)
        if not struck and trainer.sanity_checking == (epoch < 0) and trainer.current_epoch >= epoch:
            self.struck = True
            for _ in range(times):
                signal.raise_signal(number)
    return type("At", (Callback,), {hook: strike})


class Strike(Callback):
    def __new__(cls, hook, number, epoch, times=1):
        return at(hook, number, epoch, times)()
"""


def averages(*more: dict) -> list[str]:
    average = {"class_path": "lightning.pytorch.callbacks.EMAWeightAveraging", "init_args": {"decay": 0.9}}
    return ["--model.dropout", "0.2", "--trainer.logger", "true", "--trainer.callbacks", json.dumps([average, *more])]


def strike(hook: str, number: int, epoch: int, times: int = 1) -> dict:
    arguments = {"hook": hook, "number": int(number), "epoch": epoch, "times": times}
    return {"class_path": "trouble.Strike", "init_args": arguments}


def test_a_signal_outside_a_step_saves_and_the_run_goes_on_bit_by_bit(long_fit, fails, here, capsys):
    (here / "trouble.py").write_text(HOOK)
    words = long_fit("--trainer.log_every_n_steps", "1")
    assert main([*words, *averages(), "--trainer.default_root_dir", "runs/whole"]) == 0
    whole = read("runs/whole/last.ckpt")
    cases = [
        ("on_validation_batch_start", signal.SIGTERM, 0, 8),
        ("on_save_checkpoint", signal.SIGINT, 0, 8),  # while a checkpoint is being written
        ("on_train_epoch_start", signal.SIGHUP, 1, 8),
        ("on_train_end", signal.SIGTERM, 1, 16),
    ]
    for hook, number, epoch, step in cases:
        folder = ["--trainer.default_root_dir", f"runs/{hook}"]
        said = f"stopped at step {step}; saved runs/{hook}/last.ckpt. Go on with the same command and {GO_ON}"
        fails([*words, *averages(strike(hook, number, epoch)), *folder], said, code=128 + number)
        assert main([*words, *averages(), *folder, *GO_ON.split()]) == 0
        again = read(f"runs/{hook}/last.ckpt")
        assert again["global_step"] == 16
        differ = [k for k, v in whole["state_dict"].items() if not torch.equal(v, again["state_dict"][k])]
        assert not differ, hook
        curves = [Path(f"runs/{name}/metrics.csv").read_text() for name in ("whole", hook)]
        validated = [sum(bool(line.split(",")[-1]) for line in text.splitlines()) for text in curves]
        assert validated[0] == validated[1], f"{hook}: each epoch is validated once"
        assert [text.count("\n") for text in curves] == [curves[0].count("\n")] * 2, hook


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_where_there_is_nothing_to_save(long_fit, fails, here, number):
    (here / "trouble.py").write_text(HOOK)
    words = long_fit(*averages(strike("on_validation_batch_start", number, -1)), "--trainer.num_sanity_val_steps", "1")
    fails(words, "stopped before the first step", "Run the same command", code=128 + number)
    assert not Path("runs/run/last.ckpt").exists()
    (here / f"slow{number}.py").write_text(READ.replace("SIGINT", signal.Signals(number).name))
    fails(long_fit("--data.source", f"slow{number}.Slow"), "interrupted", code=128 + number)


def test_a_second_signal_ends_a_validation_at_once(long_fit, fails, here):
    (here / "trouble.py").write_text(HOOK)
    words = long_fit(*averages(strike("on_validation_batch_start", signal.SIGTERM, 0, 2)))
    fails(words, "interrupted", GO_ON, code=128 + signal.SIGTERM)
    assert not list(Path("runs/run").glob("*.part"))


def test_a_signal_in_the_test_after_a_fit(long_fit, fails, monkeypatch):
    def struck(*_: object, **__: object) -> None:
        signal.raise_signal(signal.SIGTERM)

    monkeypatch.setattr("mmeff.cli.run.TestReport.on_test_start", struck, raising=False)
    parts = ["stopped after the fit, before its test was over", "in runs/run: ", "--ckpt_path best"]
    fails(long_fit(), *parts, code=128 + signal.SIGTERM)
    assert read("runs/run/last.ckpt")["global_step"] == 16
