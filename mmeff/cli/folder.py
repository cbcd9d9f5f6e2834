"""The folder of a run: its name, who works in it, and which of several runs "last" and "best" mean."""

import fcntl
import itertools
import json
import os
import re
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from lightning.pytorch.utilities import rank_zero_only

from mmeff.errors import InputError, spelled
from mmeff.tasks.distributed import say

#: In the run folder: locked while a fit works there; it holds the name that the run was started under, and by whom.
LOCK = "run.lock"
#: Tells the processes that Lightning starts by the same command line which folder the first one took.
TAKEN = "MMEFF_RUN_FOLDER"

held: set[int] = set()


def _let_go() -> None:
    # A data worker that outlives a killed run must not hold its lock.
    for descriptor in held:
        os.close(descriptor)
    held.clear()


os.register_at_fork(after_in_child=_let_go)


class Held(Exception):
    """Another process works in the folder."""


@contextmanager
def run_folder(command: str, run: Path, checkpoint: str | None, given: bool, dry: bool) -> Iterator[tuple[Path, Any]]:
    """The folder of a run and the checkpoint it starts from, for as long as the run lasts.

    A new fit makes a folder of its own: `run`, or the first of `run`-2, `run`-3, ... that nobody has. A fit that goes
    on has its folder alone.

    Args:
        command: fit, validate or test.
        run: The folder that the recipe names.
        checkpoint: A file; "last" or "best", which is the newest of the runs of this name; None.
        given: Whether the user named the folder; otherwise it is named after the recipe.
        dry: Whether the run writes nothing.
    """
    if checkpoint in ("last", "best"):
        file = find(run, checkpoint, given)
        run, checkpoint = file.parent, str(file)
    elif checkpoint is not None:
        if not Path(checkpoint).is_file():
            raise InputError(f"no checkpoint at {checkpoint}: --ckpt_path takes a .ckpt file, last or best")
        run = Path(checkpoint).parent
    elif command != "fit":
        raise InputError(f"say which weights to {command}: --ckpt_path best, last or a .ckpt file")
    if command != "fit" or dry:
        yield run, checkpoint
    elif rank_zero_only.rank or os.environ.get("NODE_RANK", "0") != "0":  # the first of all processes takes the folder
        yield Path(os.environ.get(TAKEN, run)), checkpoint
    else:
        run, lock = claim(run) if checkpoint is None else (run, own(run))
        os.environ[TAKEN] = str(run)
        try:
            yield run, checkpoint
        finally:
            os.environ.pop(TAKEN, None)
            if checkpoint is None and contents(run) == [LOCK]:  # the run ended before it wrote anything
                (run / LOCK).unlink()
                run.rmdir()
            held.discard(lock)
            os.close(lock)


def find(run: Path, name: str, given: bool) -> Path:
    """The newest `name`.ckpt of the runs of this name."""
    first = run / f"{name}.ckpt"
    # The second run of another recipe may lie where the first of this one would.
    taken = not given and re.fullmatch(re.escape(base_name(run) or "") + r"-[1-9]\d*", run.name, re.ASCII)
    files = [first] if first.is_file() and not taken else []
    for number, other in later_runs(run):
        file = other / first.name
        if number > 1 and base_name(other) in (None, run.name) and file.is_file():
            files.append(file)
    if not files:
        raise InputError(f"there is no {name}.ckpt in {run}: run `mmeff fit` with this recipe first")
    newest = max(files, key=lambda file: file.stat().st_mtime)
    if newest != first:
        say(f"taking {newest}" + (f", the newest of {len(files)} runs" if len(files) > 1 else ""))
    return newest


def later_runs(run: Path) -> list[tuple[int, Path]]:
    """The folders `run`-2, `run`-3, ... with their numbers, in order."""
    try:
        names = os.listdir(run.parent)
    except OSError:
        return []
    found = [re.fullmatch(re.escape(run.name) + r"-([1-9]\d*)", name, re.ASCII) for name in names]
    return sorted((int(match[1]), run.with_name(match[0])) for match in found if match and match[1] != "1")


def base_name(run: Path) -> str | None:
    """The name that a run was started under, without the number."""
    return holder(run).get("name")


def holder(run: Path) -> dict[str, Any]:
    try:
        found = json.loads((run / LOCK).read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}


def contents(run: Path) -> list[str]:
    try:
        return os.listdir(run)
    except FileNotFoundError:
        return []
    except OSError as error:
        raise InputError(f"cannot use {spelled(run)} as a run folder: {error.strerror}") from error


def claim(run: Path) -> tuple[Path, int]:
    """A folder of one's own, and the descriptor that keeps it so."""
    for number in itertools.count(1):
        folder = run if number == 1 else run.with_name(f"{run.name}-{number}")
        if number > 1 and os.path.lexists(folder) and not folder.is_dir():  # a file has this name
            continue
        try:
            made = make(folder)
            # Who finds an empty folder contends for the lock with its maker.
            if not made and contents(folder) not in ([], [LOCK]):
                continue
            lock = take(folder, run.name)
        except Held:
            continue
        if set(contents(folder)) <= {LOCK}:
            return folder, lock
        held.discard(lock)
        os.close(lock)
    raise AssertionError


def make(folder: Path) -> bool:
    """Whether the folder was made here, by this process."""
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        os.mkdir(folder)
        return True
    except FileExistsError as error:
        if folder.is_dir():
            return False
        reason = error.strerror
    except OSError as error:
        reason = error.strerror
    raise InputError(
        f"cannot make the run folder {spelled(folder)}: {reason}. Name another with --trainer.default_root_dir FOLDER"
    )


def own(run: Path) -> int:
    """The lock of a run that goes on; InputError that says who has it."""
    try:
        return take(run, None)
    except Held as error:
        who = holder(run)
        process = f"process {who.get('pid', 'of somebody else')}"
        host = who.get("host")
        process += f" on {host}" if host not in (None, socket.gethostname()) else ""
        since = f", since {who['since']}" if "since" in who else ""
        raise InputError(
            f"{spelled(run)} is in use ({process}{since}): two runs would mix their rows and checkpoints. "
            "Wait for it or end it, then go on"
        ) from error


def take(folder: Path, name: str | None) -> int:
    """Lock a folder for as long as this process lives; raises Held where another one has it."""
    path = folder / LOCK
    while True:
        try:
            lock = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
        except FileNotFoundError:  # its maker gave it up again
            make(folder)
            continue
        except OSError as error:
            raise InputError(f"cannot write into the run folder {spelled(folder)}: {error.strerror}") from error
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except (BlockingIOError, PermissionError) as error:
            os.close(lock)
            raise Held from error
        except OSError as error:
            say(f"{spelled(path)} cannot be locked ({error.strerror}): see to it that no other run works there")
        if path.exists() and os.path.samestat(os.fstat(lock), path.stat()):
            break
        os.close(lock)
    since = time.strftime("%Y-%m-%d %H:%M:%S")
    name = base_name(folder) or name
    text = json.dumps({"name": name, "pid": os.getpid(), "host": socket.gethostname(), "since": since}) + "\n"
    os.ftruncate(lock, 0)
    os.pwrite(lock, text.encode(), 0)
    held.add(lock)
    return lock
