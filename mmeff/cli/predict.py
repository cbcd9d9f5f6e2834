"""`mmeff predict --ckpt RUN FILE...`: labels for new images, sounds and texts."""

import sys
from pathlib import Path
from typing import Any

from mmeff.cli.words import Words, positive
from mmeff.errors import InputError, as_input_error

FOR_TEXT = "This model reads text: give .txt files with one text a line, or a text after -t"


def main(words: list[str]) -> int:
    if "--ckpt" not in words and not any(word.startswith("--ckpt=") for word in words):
        if "-c" in words or "--config" in words:  # Lightning's own predict, over a recipe's data
            from mmeff.cli.run import main as run

            return run(words)
        words = [*words, "--help"] if len(words) == 1 else words
    options = parser().parse_args(words[1:])
    items = gather(options.files, options.text)
    if not items:
        raise InputError("nothing to label: give files, or texts with -t")

    import torch

    from mmeff.checkpoint import load
    from mmeff.data import collate, read_raw

    model = load(options.ckpt, trust=options.trust)
    task = choose_task(model.specs, options.task)
    spec = model.specs[task]
    names, signals = as_signals(items, spec.modality)
    model = model.to("cuda" if torch.cuda.is_available() else "cpu")
    failed = 0
    for name, signal in zip(names, signals, strict=True):
        try:
            batch = collate(task, spec, [read_raw(spec, signal)])
        except InputError as error:
            if len(names) == 1:
                raise
            failed += 1
            print(f"mmeff: error: {error}", file=sys.stderr)
            continue
        raw: Any = batch[spec.modality]
        lengths = batch.get("lengths")
        cannot = f"{options.ckpt}: the model cannot take {name}"
        with torch.inference_mode(), as_input_error(cannot, RuntimeError, LookupError, ArithmeticError):
            raw = raw.to(model.device) if isinstance(raw, torch.Tensor) else raw
            logits = model(task, raw, None if lengths is None else lengths.to(model.device))[0].float()
        if not logits.isfinite().all():
            raise InputError(f"{options.ckpt}: the model gives numbers that are NaN or infinite for {name}")
        print(line(name, logits.sigmoid() if spec.multilabel else logits.softmax(0), spec, options.top))
    if (said := model.report(task)) is not None:
        print(f"mmeff: {said}", file=sys.stderr)
    if failed:
        raise InputError(f"{failed} of {len(names)} could not be labelled; see above")
    return 0


def parser() -> Words:
    p = Words(prog="mmeff predict", description="Label images, sounds or texts with a trained model.")
    p.add_argument("--ckpt", required=True, help="run folder (its best checkpoint), .ckpt file or exported folder")
    p.add_argument("files", nargs="*", help="images or sounds; for a text model, .txt files with one text a line")
    p.add_argument("-t", "--text", action="append", default=[], help="a text to label; may be given several times")
    p.add_argument("--task", help="which head of a joint model")
    p.add_argument("--top", type=positive, default=3, help="how many labels to print (default 3)")
    p.add_argument("--trust", action="append", default=[], help="a package whose classes the checkpoint may build")
    return p


def gather(files: list[str], texts: list[str]) -> list[tuple[str, bool]]:
    """(file or text, whether it is a text) in the order given."""
    return [(file, False) for file in files] + [(text, True) for text in texts]


def choose_task(specs: dict[str, Any], asked: str | None) -> str:
    if asked is None and len(specs) == 1:
        return next(iter(specs))
    if asked not in specs:
        raise InputError(f"--task must be one of {', '.join(sorted(specs))}, got {asked}")
    return asked


def as_signals(items: list[tuple[str, bool]], modality: str) -> tuple[list[str], list[str]]:
    """-> a name to print and what to read, for each signal."""
    names: list[str] = []
    signals: list[str] = []
    for item, is_text in items:
        if is_text and modality != "text":
            raise InputError(f"this model reads {modality}: give files, not -t")
        if is_text or modality != "text":
            names.append(item)
            signals.append(item)
        else:
            try:
                lines = [text for text in Path(item).read_text(encoding="utf-8").splitlines() if text.strip()]
            except OSError as error:
                raise InputError(f"{item}: {error.strerror}. {FOR_TEXT}") from error
            except UnicodeDecodeError as error:
                raise InputError(f"{item} is not a text in UTF-8. {FOR_TEXT}") from error
            if not lines:
                raise InputError(f"{item} is empty: it has no line of text. {FOR_TEXT}")
            names += lines
            signals += lines
    return names, signals


def line(name: str, probabilities: Any, spec: Any, top: int) -> str:
    values, order = probabilities.topk(min(top, len(spec.classes)))
    # Names out of a file hold no codes that a terminal would obey.
    names = [one if one.isprintable() else ascii(one)[1:-1] for one in spec.classes]
    ranked = [f"{names[i]} {p:.1%}" for p, i in zip(values.tolist(), order.tolist(), strict=True)]
    shown = name if len(name) <= 60 else name[:57] + "..."
    return f"{shown}: " + ", ".join(ranked)
