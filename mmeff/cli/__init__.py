"""The `mmeff` command: what each word does, before anything heavy is imported."""

import difflib
import importlib
import io
import os
import signal
import sys
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from mmeff import __version__
from mmeff.errors import InputError, Interrupted, TrainingError, interrupted_by

HELP = """\
mmeff: efficient backbones for images, audio and text

  mmeff fit -c RECIPE.yaml            train, then test the best checkpoint
  mmeff validate|test -c RECIPE.yaml --ckpt_path best|last|FILE
                                      test --all: on every example of the data, as of a file that was held back
  mmeff predict --ckpt RUN FILE...    label your own images or sounds, or folders of them; text: -t "..." or a .txt
                                      of lines; --out FILE.csv or FILE.json keeps all probabilities
  mmeff list [WHAT]                   recipes, backbones, mixers, tokenizers, data
  mmeff export RUN --to DIR           safetensors + config.json, which predict, test and mmeff.load read
  mmeff compare -c PLAN.yaml          backbones side by side: accuracy, speed, memory (recipes/compare)
  mmeff compare A.parquet B.parquet   two such runs side by side
  mmeff doctor                        versions, the device, and whether every kernel is right on it

  Swap a part:       --model.backbone recipes/backbones/linear.yaml
  Change a value:    --model.backbone.depth 6   --trainer.max_epochs 5   --data.batch_size 32
  Stack recipes:     -c base.yaml -c mine.yaml
  Go on:             --ckpt_path last
  See everything:    mmeff fit -c RECIPE.yaml --print_config    mmeff fit --help

Start with: mmeff fit -c recipes/vision/digits.yaml
"""

COMMANDS = {
    "fit": "mmeff.cli.run",
    "validate": "mmeff.cli.run",
    "test": "mmeff.cli.run",
    "predict": "mmeff.cli.predict",
    "list": "mmeff.cli.listing",
    "export": "mmeff.cli.export",
    "compare": "mmeff.cli.compare",
    "doctor": "mmeff.cli.doctor",
}


def main(argv: list[str] | None = None) -> int:
    """Run one command; the exit code is 0, 1 for a run that ended early, 2 for input that cannot be used,
    or 128 + the number of the signal that stopped it (Ctrl-C: 130)."""
    words = sys.argv[1:] if argv is None else argv
    for stream in (sys.stdout, sys.stderr):  # a name that the terminal cannot show is no reason to stop
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    warnings.formatwarning = one_line
    if not words or words[0] in ("-h", "--help", "help"):
        print(HELP, end="")
        return 0
    if words[0] == "--version":
        print(f"mmeff {__version__}")
        return 0
    interrupts: list[int] = []
    try:
        with noted(interrupts):
            code = run_command(words)
            sys.stdout.flush()
            return code
    except InputError as error:
        print(f"mmeff: error: {last_line(error)}", file=sys.stderr)
        return 2
    except TrainingError as error:
        print(f"mmeff: {last_line(error)}", file=sys.stderr)
        return 1
    except Interrupted as stop:
        print(f"mmeff: {stop}", file=sys.stderr)
        return stop.code
    except BrokenPipeError:  # `mmeff list | head` has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 128 + signal.SIGPIPE
    except OSError as error:
        where = f": {error.filename}" if error.filename else ""
        print(
            f"mmeff: error: {error.strerror or error}{where}. Check the path, who may write there, and the space left",
            file=sys.stderr,
        )
        return 1
    except BaseException as error:
        # Lightning turns an interrupt into an exit, and an extension that is being imported into errors of all kinds.
        number = interrupts[0] if interrupts else interrupted_by(error)
        if number is None:
            raise
        print("mmeff: interrupted. A fit that had saved a checkpoint goes on with --ckpt_path last", file=sys.stderr)
        return 128 + number


def run_command(words: list[str]) -> int:
    if words[0] not in COMMANDS:
        near = difflib.get_close_matches(words[0], COMMANDS, 1)
        hint = f"did you mean {near[0]!r}?" if near else "mmeff --help"
        raise InputError(f"unknown command {words[0]!r}: {hint}")
    if COMMANDS[words[0]] == "mmeff.cli.run":
        from mmeff.cli.recipe import compose

        compose(words[1:], quick=True)  # typing errors are said before torch and Lightning are loaded
    return importlib.import_module(COMMANDS[words[0]]).main(words)


@contextmanager
def noted(interrupts: list[int]) -> Iterator[None]:
    """Ctrl-C, SIGTERM and SIGHUP raise KeyboardInterrupt, with their number, and are counted."""

    def note(number: int, frame: Any) -> None:
        interrupts.append(number)
        raise KeyboardInterrupt(number)

    # Python lets the main thread alone set handlers; where a signal is ignored (nohup) or handled already, that stays.
    main_thread = threading.current_thread() is threading.main_thread()
    before = {n: signal.getsignal(n) for n in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP) if main_thread}
    before = {n: h for n, h in before.items() if h in (signal.SIG_DFL, signal.default_int_handler)}
    for number in before:
        signal.signal(number, note)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


#: How Python prints warnings, for those of other packages.
PYTHONS = warnings.formatwarning


def one_line(message: Any, category: Any, filename: str, lineno: int, line: str | None = None) -> str:
    """A warning of mmeff's own as "mmeff: what is to be known", without the code that gave it."""
    own = Path(filename).is_relative_to(Path(__file__).parents[1])
    return f"mmeff: {message}\n" if own else PYTHONS(message, category, filename, lineno, line)


def last_line(error: Exception) -> str:
    """The message itself: an error from a data-loading worker carries the worker's traceback before it."""
    text = str(error).strip()
    marker = f"{type(error).__name__}: "
    return text.rsplit(marker, 1)[-1].strip() if "Traceback (most recent call last)" in text else text
