"""A run has its folder alone, and "last" means a run of its own name."""

import errno
import fcntl
import json
import os
import shutil
import subprocess
import sys
from multiprocessing import get_context
from pathlib import Path

import pytest

from mmeff.cli import folder, main
from mmeff.cli.folder import claim, find, own, run_folder
from mmeff.errors import InputError

HOLD = """\
import sys, time
from pathlib import Path
from mmeff.cli.folder import run_folder
with run_folder("fit", Path(sys.argv[1]), sys.argv[2] if len(sys.argv) > 2 else None, True, False) as (run, _):
    (run / "last.ckpt").touch()
    print(run, flush=True)
    time.sleep(120)
"""


def hold(*words: str) -> subprocess.Popen:
    return subprocess.Popen([sys.executable, "-c", HOLD, *words], stdout=subprocess.PIPE, text=True)


def test_processes_that_start_or_go_on_together_do_not_share_a_folder(here, fit, fails, trained):
    """Of two that start each has a folder; of two that go on the second is told who the first is, until it is gone."""
    holders = [hold("runs/run"), hold("runs/run")]
    try:
        folders = [str(holder.stdout.readline().strip()) for holder in holders if holder.stdout]
        assert sorted(folders) == ["runs/run", "runs/run-2"]
        first = holders[folders.index("runs/run")]
        shutil.copy(trained["image"], "runs/run/last.ckpt")
        shutil.rmtree("runs/run-2")
        words = fit("image", trained["data"] / "photos", "--ckpt_path", "last", "--trainer.max_epochs", "2")
        fails(words, "runs/run is in use (process", f"{first.pid}, since 20", "Wait for it or end it, then go on")
        first.kill()
        first.wait()
        assert main(words) == 0, "a killed process holds nothing"
        assert main(["test", *words[1:]]) == 0
    finally:
        for holder in holders:
            holder.kill()
            holder.wait()


def sleep_in_folder(pipe) -> None:
    pipe.send(None)
    pipe.recv()


def test_a_data_worker_that_outlives_its_run_holds_nothing(here):
    context = get_context("fork")
    ours, theirs = context.Pipe()
    with run_folder("fit", Path("run"), None, True, False) as (run, _):
        (run / "last.ckpt").touch()
        worker = context.Process(target=sleep_in_folder, args=(theirs,))
        worker.start()
        ours.recv()
    os.close(own(run))
    ours.send(None)
    worker.join()


def test_a_fit_takes_the_first_folder_that_nobody_has(here):
    Path("run-2").mkdir()  # empty
    Path("run-3").touch()
    Path("run-4").mkdir()
    Path("run-4/other").touch()
    with run_folder("fit", Path("run"), None, True, False) as (first, _):
        (first / "last.ckpt").touch()
        with run_folder("fit", Path("run"), None, True, False) as (second, _):
            (second / "x").touch()
            assert (first, second) == (Path("run"), Path("run-2"))
            with pytest.raises(InputError, match=r"^run is in use \(process \d+, since"):
                own(first)
            with run_folder("fit", Path("run"), None, True, False) as (third, _):
                assert third == Path("run-5"), "run-3 is a file, run-4 has something in it"
            with pytest.raises(InputError, match="cannot make the run folder run-3: File exists"):
                claim(Path("run-3"))
    assert not third.exists(), "a run that wrote nothing leaves nothing"
    assert not (Path("run-4") / folder.LOCK).exists()
    with run_folder("fit", Path("run"), "run/last.ckpt", True, False) as (again, _):
        assert again == first
    assert first.is_dir()
    with run_folder("fit", Path("dry"), None, True, True):
        assert not Path("dry").exists()


def test_the_processes_of_one_run_use_the_folder_of_the_first(here, monkeypatch):
    with run_folder("fit", Path("run"), None, True, False) as (first, _):
        (first / "x").touch()
        monkeypatch.setattr(folder.rank_zero_only, "rank", 1)
        with run_folder("fit", Path("run"), None, True, False) as (run, _):
            assert run == first
    assert folder.TAKEN not in os.environ


def test_a_file_system_without_locks(here, monkeypatch, capsys):
    def unlockable(*_: object) -> None:
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr(fcntl, "flock", unlockable)
    run, _ = claim(Path("run"))
    assert capsys.readouterr().out.startswith("run/run.lock cannot be locked (No locks available): ")
    (run / "x").touch()
    assert claim(Path("run"))[0] == Path("run-2")


def make_run(name: str, base: str | None, age: int) -> Path:
    run = Path("runs") / name
    run.mkdir(parents=True)
    (run / "last.ckpt").touch()
    os.utime(run / "last.ckpt", (1e9 - age, 1e9 - age))
    if base is not None:
        (run / folder.LOCK).write_text(json.dumps({"name": base}))
    return run


def test_last_is_of_a_run_of_this_name(here, capsys):
    own = make_run("digits", "digits", 9)
    for other in (
        "digits-2nd",
        "digits-2x",
        "digits-02",
        "digits-1",
        "digits-0",
        "digits--3",
        "digits-2-3",
        "digits-٣",
    ):
        make_run(other, None, 0)
    make_run("digits-2024", "digits-2024", 0)
    make_run("digits-5", "digits-5", 0)
    (here / "runs/digits-7").touch()
    assert find(Path("runs/digits"), "last", False) == own / "last.ckpt"
    assert capsys.readouterr().out == ""
    for name, base, age in (("digits-12", "digits", 5), ("digits-4", None, 3)):  # one of before there were names
        second = make_run(name, base, age)
        assert find(Path("runs/digits"), "last", False) == second / "last.ckpt"
        assert capsys.readouterr().out.startswith(f"taking {second}/last.ckpt, the newest of ")
    (Path("runs/digits-12") / folder.LOCK).write_bytes(b"\xff[")
    assert find(Path("runs/digits"), "last", False).parent.name == "digits-4"

    # A recipe named digits-12 has run once, as digits-12-2: digits-12 is the twelfth run of digits, unless it is named.
    (Path("runs/digits-12") / folder.LOCK).write_text('{"name": "digits"}')
    with pytest.raises(InputError, match=r"there is no last\.ckpt in runs/digits-12"):
        find(Path("runs/digits-12"), "last", False)
    assert find(Path("runs/digits-12"), "last", True).parent.name == "digits-12"
    assert find(make_run("digits-12-2", "digits-12", 0).with_name("digits-12"), "last", False).parent.name[-2:] == "-2"

    make_run("moved", "before", 0)
    assert find(Path("runs/moved"), "last", False).parent.name == "moved"
    for odd in ("a[1]", "b*", "c?"):
        first, second = make_run(odd, odd, 2), make_run(f"{odd}-2", odd, 1)
        assert find(first, "last", False) == second / "last.ckpt"
    make_run("a1-2", None, 0)
    assert find(Path("runs/a[1]"), "last", False).parent.name == "a[1]-2"
