"""`mmeff predict --ckpt RUN FILE...`: labels for new images, sounds and texts."""

import csv
import io
import json
import os
import shutil
import sys
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mmeff.cli.words import Words, positive
from mmeff.errors import InputError, as_input_error

if TYPE_CHECKING:
    from mmeff.predict import Prediction
    from mmeff.signals import DataSpec, Signal

#: Signals that are passed through the model together.
BATCH = 32


def main(words: list[str]) -> int:
    if "--ckpt" not in words and not any(word.startswith("--ckpt=") for word in words):
        if "-c" in words or "--config" in words:  # Lightning's own predict, over a recipe's data
            from mmeff.cli.run import main as run

            return run(words)
        words = [*words, "--help"] if len(words) == 1 else words
    options = parser().parse_args(words[1:])
    if not options.files and not options.text:
        raise InputError("nothing to label: give files or folders, or texts with -t")
    out = None if options.out is None else check_out(Path(options.out))

    import torch

    from mmeff.checkpoint import load
    from mmeff.predict import choose_task

    model = load(options.ckpt, trust=options.trust)
    task = choose_task(model, options.task)
    items = gather(options.files, options.text, model.specs[task])
    model = model.to("cuda" if torch.cuda.is_available() else "cpu")
    rows: list[Row] = []
    for row in label(model, task, items, options.ckpt):
        rows.append(row)
        if row.found is None and len(items) > 1:
            print(f"mmeff: error: {row.error}", file=sys.stderr)
        elif row.found is not None:
            print(line(row.item, row.found, options.top))
    if out is not None:
        write(out, rows, model.specs[task].classes)
    if (said := model.report(task)) is not None:
        print(f"mmeff: {said}", file=sys.stderr)
    failed = [row for row in rows if row.found is None]
    if failed:
        raise InputError(
            failed[0].error if len(rows) == 1 else f"{len(failed)} of {len(rows)} could not be labelled; see above"
        )
    return 0


def parser() -> Words:
    p = Words(prog="mmeff predict", description="Label images, sounds or texts with a trained model.")
    p.add_argument("--ckpt", required=True, help="run folder (its best checkpoint), .ckpt file or exported folder")
    p.add_argument(
        "files", nargs="*", help="images or sounds, or folders of them; for a text model, .txt files with a text a line"
    )
    p.add_argument("-t", "--text", action="append", default=[], help="a text to label; may be given several times")
    p.add_argument("--task", help="which head of a joint model")
    p.add_argument("--top", type=positive, default=3, help="how many labels to print (default 3)")
    p.add_argument("--out", help="a .csv or .json file for all signals, whole, with the probability of every class")
    p.add_argument("--trust", action="append", default=[], help="a package whose classes the checkpoint may build")
    return p


@dataclass(frozen=True)
class Row:
    """One signal: its path or text, and what was found, or why nothing was."""

    item: str
    found: "Prediction | None" = None
    error: str = ""


def gather(files: list[str], texts: list[str], spec: "DataSpec") -> list[str]:
    """All signals in the order given: files, those below folders by name, what files of lines hold, texts."""
    kind = spec.kind
    if texts and not kind.strings:
        raise InputError(f"this model reads {kind.name}: give files, not -t")
    below = [path for file in files for path in (files_below(file, kind) if os.path.isdir(file) else [file])]
    return [*(item for path in below for item in kind.items(path)), *texts]


def files_below(folder: str, kind: "Signal") -> list[str]:
    from mmeff.data.scan import scan

    return [os.path.join(folder, name) for name in scan(Path(folder), kind.suffixes()).files]


def label(model: Any, task: str, items: list[str], ckpt: str) -> Iterable[Row]:
    """A row for each item, in order. One that cannot be read does not keep the others from being labelled."""
    from mmeff.predict import outputs_of
    from mmeff.signals import read_raw

    spec = model.specs[task]
    for start in range(0, len(items), BATCH):
        some = items[start : start + BATCH]
        raws: dict[int, Any] = {}
        errors: dict[int, str] = {}
        for i, item in enumerate(some):
            try:
                raws[i] = read_raw(spec, item)
            except InputError as error:
                errors[i] = str(error)
        readable = ", ".join(some[i] for i in list(raws)[:1]) + (" and others" if len(raws) > 1 else "")
        cannot = f"{ckpt}: the model cannot take {readable}"
        with as_input_error(cannot, RuntimeError, LookupError, ArithmeticError):
            outputs = dict(zip(raws, outputs_of(model, task, list(raws.values())), strict=True)) if raws else {}
        for i, item in enumerate(some):
            if i in errors:
                yield Row(item, error=errors[i])
                continue
            try:
                yield Row(item, model.answer(task, outputs[i]))
            except InputError as error:
                raise InputError(f"{ckpt}: {error} for {item}") from error


def line(item: str, found: "Prediction", top: int) -> str:
    """ "cat.png: cat 91.2%, dog 8.0%", the item cut where a terminal is too narrow for all of it."""
    # Names out of a file hold no codes that a terminal would obey.
    ranked = ", ".join(f"{printable(name)} {p:.1%}" for name, p in list(found.probabilities.items())[:top])
    name = printable(item)
    room = max(20, shutil.get_terminal_size().columns - len(ranked) - 2)
    if sys.stdout.isatty() and len(name) > room:
        name = name[: room - 3] + "..."
    return f"{name}: {ranked}"


def printable(text: str) -> str:
    return text if text.isprintable() else ascii(text)[1:-1]


def check_out(path: Path) -> Path:
    if path.suffix not in (".csv", ".json"):
        raise InputError(f"--out {path}: it must end in .csv or .json")
    if path.is_dir() or not path.absolute().parent.is_dir():
        raise InputError(f"--out {path}: {'it is a folder' if path.is_dir() else 'there is no such folder'}")
    return path


def write(path: Path, rows: list[Row], classes: tuple[str, ...]) -> None:
    """item, label, probability, error, and the probability of each class, in a column "p(CLASS)" each or a mapping."""
    if path.suffix == ".json":
        kept = [
            {
                "item": row.item,
                "label": row.found.label if row.found else None,
                "labels": list(row.found.labels) if row.found else None,
                "probability": row.found.probability if row.found else None,
                "probabilities": row.found.probabilities if row.found else None,
                "error": row.error or None,
            }
            for row in rows
        ]
        text = json.dumps(kept, indent=1, ensure_ascii=False) + "\n"
    else:
        file = io.StringIO(newline="")
        writer = csv.writer(file)
        writer.writerow(["item", "label", "probability", "error", *(f"p({name})" for name in classes)])
        for row in rows:
            found = row.found
            cells = (
                ["", "", row.error, *("" for _ in classes)]
                if found is None
                else ["|".join(found.labels), found.probability, "", *(found.probabilities[name] for name in classes)]
            )
            writer.writerow([row.item, *cells])
        text = file.getvalue()
    part = path.with_name(path.name + ".part")
    try:
        # Names of files may hold bytes that are no text.
        part.write_text(text, encoding="utf-8", errors="backslashreplace", newline="")
        os.replace(part, path)
    finally:
        part.unlink(missing_ok=True)
