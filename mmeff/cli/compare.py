"""`mmeff compare`: which backbone, for which signal, at which length, on this machine."""

import os
import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mmeff.cli.keys import Recipe, check_groups, find_class, known, parameters
from mmeff.cli.recipe import compose, find_recipe, set_value, split_equals
from mmeff.cli.words import Words
from mmeff.cli.yaml_text import read_value, read_yaml
from mmeff.errors import InputError, Interrupted

if TYPE_CHECKING:
    from mmeff.compare.contenders import Contender
    from mmeff.compare.plan import Plan

EPILOG = """Values of the plan: --train.steps 50 --lengths.image '[64, 128]' --budget null. Two runs side by side:
mmeff compare a/results.parquet b/results.parquet. A page of results: mmeff compare --publish DIR RUN_FOLDER..."""
#: The name of torch's own Transformer among the baselines, and its class.
TRANSFORMER = "transformer", "mmeff.compare.baselines.Transformer"
#: The tokenizer of timm's models.
PIXELS = "mmeff.compare.baselines.Pixels"


def main(words: list[str]) -> int:
    files = [word for word in words[1:] if word.endswith(".parquet")]
    if len(files) == 2 == len(words) - 1:
        from mmeff.compare.diff import compare_files

        return compare_files(*map(Path, files))
    if "--publish" in split_equals(words):
        return publish(split_equals(words))
    p = Words(prog="mmeff compare", description=__doc__, allow_abbrev=False, epilog=EPILOG)
    p.add_argument("-c", "--config", metavar="PLAN.yaml", required=True, help="what to compare")
    p.add_argument("--speed-only", action="store_true", help="train nothing")
    p.add_argument("--out", type=Path, metavar="DIR", help="folder of the results (default: runs/compare-NAME)")
    p.add_argument("--device", choices=("cpu", "cuda"), help="default: cuda where there is one")
    options, rest = p.parse_known_args(split_equals(words[1:]))
    path = find_recipe(options.config)
    values = overridden(read_yaml(path), rest)
    if options.speed_only:
        values["train"] = None
    out = options.out or Path("runs") / f"compare-{path.stem}"
    return run(values, out, options.device, shlex.join(["mmeff", *words]))


def publish(words: list[str]) -> int:
    """`mmeff compare --publish DIR RUN_FOLDER...`: a page of the results of these runs."""
    p = Words(prog="mmeff compare", description=publish.__doc__, allow_abbrev=False)
    p.add_argument("--publish", type=Path, metavar="DIR", required=True, help="folder of the page, README.md")
    p.add_argument("runs", nargs="+", type=Path, metavar="RUN_FOLDER", help="folders that mmeff compare left")
    options = p.parse_args(words[1:])
    from mmeff.compare.publish import publish as write

    write(options.publish, options.runs)
    print(f"wrote {options.publish / 'README.md'}")
    return 0


def run(values: Recipe, out: Path, device: str | None, command: str) -> int:
    # What the profiler and torch's allocator say of a machine without a GPU; they read it when torch is loaded.
    os.environ.setdefault("KINETO_LOG_LEVEL", "99")
    os.environ.setdefault("TORCH_CPP_LOG_LEVEL", "ERROR")
    import torch

    from mmeff.cli.run import quiet
    from mmeff.compare.plan import Plan, read_plan
    from mmeff.compare.run import compare
    from mmeff.tasks.interrupt import handlers_kept

    if device == "cuda" and not torch.cuda.is_available():
        raise InputError("there is no CUDA device here: leave --device cuda out, or see that torch finds its driver")
    known(values, parameters(Plan), "the plan")
    check_groups(values, Plan, "the plan")
    plan = read_plan(values)
    contenders = contenders_of(plan)
    quiet()
    try:
        with handlers_kept():
            found = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
            failed = compare(plan, contenders, out, found, command)
    except BaseException as error:
        # Lightning turns Ctrl-C into an exit.
        if not any(isinstance(e, KeyboardInterrupt) for e in (error, error.__context__)):
            raise
        raise Interrupted(
            f"interrupted: the same command goes on where it was; so far: {out}/report.html", 130
        ) from None
    print(f"{failed} contenders failed: their errors stand in the report. " if failed else "", end="")
    print(f"everything is in {out}: open {out}/report.html")
    return 0


def overridden(plan: Recipe, words: list[str]) -> Recipe:
    """The plan with the values of dotted options, as `--train.steps 50`."""
    queue = list(words)
    while queue:
        word = queue.pop(0)
        if not word.startswith("--") or not queue:
            raise InputError(f"{word!r} stands alone: values of a plan are set as in --train.steps 50")
        set_value(plan, word.removeprefix("--"), read_value(word, queue.pop(0)))
    return plan


def contenders_of(plan: "Plan") -> list["Contender"]:
    """Every recipe with every backbone and baseline that serves its signal."""
    from mmeff.compare.contenders import TIMM, Contender

    found = []
    for line in plan.recipes:
        words = ["-c", *shlex.split(line)]
        recipe, names, rest = compose(words)
        if rest or not {"model", "data"} <= set(recipe):
            raise InputError(f"recipes: {line!r} is no recipe with options: see `mmeff list recipes`")
        for path in plan.backbones:
            composed, _, _ = compose([*words, "--model.backbone", path])
            found.append(Contender(names[0], Path(path).stem, "mmeff", composed))
        for name in plan.baselines:
            composed, _, _ = compose(words)
            model = composed["model"]["init_args"]
            if name == TRANSFORMER[0]:
                model["backbone"] = {"class_path": TRANSFORMER[1]}
            elif signal_of(model) == find_class(PIXELS, "baselines").signal:
                channels = composed["data"]["init_args"].get("channels", 3)
                model["tokenizer"] = {"class_path": PIXELS}
                model["backbone"] = {"class_path": TIMM, "init_args": {"name": name, "channels": channels}}
            else:
                continue
            found.append(Contender(names[0], name, "baseline", composed))
    return found


def signal_of(model: dict[str, Any]) -> str:
    tokenizer = model.get("tokenizer")
    if not isinstance(tokenizer, dict):
        raise InputError("a comparison wants recipes of one signal, with one model.tokenizer")
    return find_class(tokenizer["class_path"], "model.tokenizer").signal
