"""What a refactoring must not change: the losses of short fits and the machine code of the kernels, bit for bit.

    python tests/refactoring.py record before.json    before the first change
    python tests/refactoring.py check before.json     after each step

Losses are of 20 steps on the CPU, of four recipes with three backbones each, seeded, and of their validation. The code
is compiled for sm_90, without a GPU. Kernels are compared in the order of their launches, so that they may be renamed.
"""

import argparse
import collections
import csv
import json
import os
import re
import subprocess
import sys
import tempfile
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "kernels")]

import torch  # noqa: E402
import triton  # noqa: E402
from torch import Tensor  # noqa: E402
from triton.backends.compiler import GPUTarget  # noqa: E402
from triton.compiler import ASTSource  # noqa: E402

FITS = {
    "vision/digits": ("attention", "vim", "linear"),
    "audio/tones": ("attention", "gla", "mambaout"),
    "text/glosses": ("attention", "ssd", "vim"),
    "multimodal/joint": ("attention", "vim", "linear"),
}
SHORT = [
    "--trainer.accelerator=cpu",
    "--trainer.max_epochs=1",
    "--trainer.limit_train_batches=20",
    "--trainer.limit_val_batches=2",
    "--trainer.limit_test_batches=0",
    "--trainer.log_every_n_steps=1",
    "--trainer.num_sanity_val_steps=0",
    "--data.num_workers=0",
]


def losses() -> dict[str, list[str]]:
    """Each fit's losses, of all steps and of the validation, as metrics.csv has them: every digit."""
    from mmeff.cli import main

    found = {}
    for recipe, backbones in FITS.items():
        for backbone in backbones:
            with tempfile.TemporaryDirectory() as folder, redirect_stdout(sys.stderr):
                words = ["-c", str(ROOT / f"recipes/{recipe}.yaml"), f"--trainer.default_root_dir={folder}/run"]
                words += ["--model.backbone", str(ROOT / f"recipes/backbones/{backbone}.yaml")]
                shallow = [] if backbone == "mambaout" else ["--model.backbone.depth=2"]
                code = main(["fit", *words, *shallow, *SHORT])
                if code:
                    raise SystemExit(f"{recipe} with {backbone} ended with {code}")
                with open(f"{folder}/run/metrics.csv", newline="") as file:
                    rows = [row["train/loss"] or row["val/loss"] for row in csv.DictReader(file)]
            found[f"{recipe} {backbone}"] = [row for row in rows if row]
    return found


def launches() -> list[tuple[Any, dict[str, Any], dict[str, Any], dict[str, Any]]]:
    """Kernel, tensors, numbers and options of each launch of the scans and the decaying states, forward and backward.
    Nothing runs: on the CPU the launcher only keeps what it is given."""
    from mmeff_kernels.decay import decay_attention
    from mmeff_kernels.launcher import Launcher
    from mmeff_kernels.selective_scan import selective_scan_routes

    kept: list[tuple[Any, dict[str, Any], dict[str, Any], dict[str, Any]]] = []
    call, interpret = Launcher.__call__, os.environ.get("TRITON_INTERPRET")
    Launcher.__call__ = lambda self, programs, *given: kept.append((self.kernel, *given))  # type: ignore[method-assign]
    triton.knobs.runtime.interpret = False  # kernels are to be compiled, although
    os.environ["TRITON_INTERPRET"] = "1"  # the operations take tensors of the CPU for the interpreter alone
    try:
        for dtype in (torch.bfloat16, torch.float32):

            def draw(*shape: int, dtype: torch.dtype = dtype) -> Tensor:
                return torch.zeros(shape, dtype=dtype, requires_grad=True)

            wide = {"dtype": torch.float32}
            for N in (1, 16):
                x, z, dt = draw(2, 256, 64), draw(2, 256, 64), draw(2, 2, 256, 64)
                A, D, B, C = draw(2, 64, N, **wide), draw(2, 64, **wide), draw(2, 2, 256, 1, N), draw(2, 2, 256, 1, N)
                routes = ("forward", "backward")
                y, _ = selective_scan_routes(x, dt, A, B, C, D, routes=routes, z=z, dt_softplus=True, impl="triton")
                y.sum().backward()
            for shape in ((2, 256, 2), (2, 256, 2, 64)):
                q, k, v, g = draw(2, 256, 2, 64), draw(2, 256, 2, 64), draw(2, 256, 2, 64), draw(*shape, **wide)
                for direction in ("forward", "both"):
                    o, _ = decay_attention(q, k, v, g, direction=direction, impl="triton")  # type: ignore[arg-type]
                    o.sum().backward()
    finally:
        Launcher.__call__ = call  # type: ignore[method-assign]
        os.environ.pop("TRITON_INTERPRET") if interpret is None else os.environ.update(TRITON_INTERPRET=interpret)
    return kept


def machine_code(kernel: Any, tensors: dict[str, Any], numbers: dict[str, Any], options: dict[str, Any]) -> list[Any]:
    """[name, registers, bytes of stack, {instruction: how often it stands there}] of one kernel for sm_90."""
    types = {torch.bfloat16: "*bf16", torch.float32: "*fp32", torch.int32: "*i32", torch.int64: "*i64"}
    signature: dict[str, str] = {}
    constants: dict[tuple[int, ...], Any] = {}
    aligned: dict[tuple[int, ...], Any] = {}
    compiled = {"num_warps", "num_stages", "maxnreg"}
    unspecialised = set(kernel.do_not_specialize or ())
    for place, parameter in enumerate(kernel.params):
        name, value = parameter.name, {**tensors, **numbers, **options}[parameter.name]
        if isinstance(value, Tensor):
            signature[name], aligned[(place,)] = types[value.dtype], [["tt.divisibility", 16]]
        elif parameter.is_constexpr or value is None or (value == 1 and name not in unspecialised):
            signature[name], constants[(place,)] = "constexpr", value
        else:
            signature[name] = "fp32" if isinstance(value, float) else "i32"
            if name not in unspecialised and isinstance(value, int) and value % 16 == 0:
                aligned[(place,)] = [["tt.divisibility", 16]]
    source = ASTSource(kernel, signature, constants, aligned)
    own = {name: value for name, value in options.items() if name in compiled}
    cubin = triton.compile(source, target=GPUTarget("cuda", 90, 32), options=own).asm["cubin"]
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        file.write(cubin)
        file.flush()
        tool = str(Path(triton.__path__[0]) / "backends/nvidia/bin/cuobjdump")
        code, usage = (
            subprocess.run([tool, option, file.name], capture_output=True, text=True, check=True).stdout
            for option in ("-sass", "-res-usage")
        )
    instructions = re.findall(r"^\s+/\*[0-9a-f]{4,}\*/\s+(?:@!?U?P\w+\s+)?([A-Z0-9_.]+)", code, re.MULTILINE)
    (registers,), (stack,) = re.findall(r"REG:(\d+)", usage), re.findall(r"STACK:(\d+)", usage)
    return [kernel.__name__, int(registers), int(stack), dict(sorted(collections.Counter(instructions).items()))]


def kernels() -> list[Any]:
    """The code of all launches, of those that are alike once."""
    found = []
    for launch in launches():
        code = machine_code(*launch)
        if code not in found:
            found.append(code)
    return found


def main() -> int:
    asked = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    asked.add_argument("what", choices=("record", "check"))
    asked.add_argument("file", type=Path)
    args = asked.parse_args()
    now = {"torch": torch.__version__, "triton": triton.__version__, "kernels": kernels(), "losses": losses()}
    if args.what == "record":
        args.file.write_text(json.dumps(now, indent=1))
        print(f"{len(now['losses'])} fits and {len(now['kernels'])} kernels are in {args.file}")
        return 0
    before = json.loads(args.file.read_text())
    wrong = [f"{key} is {now[key]}, was {before[key]}" for key in ("torch", "triton") if now[key] != before[key]]
    wrong += [f"losses of {name} differ" for name, wanted in before["losses"].items() if now["losses"][name] != wanted]
    if len(now["kernels"]) != len(before["kernels"]):
        wrong.append(f"{len(now['kernels'])} kernels, there were {len(before['kernels'])}")
    for (name, *code), (old, *wanted) in zip(now["kernels"], before["kernels"], strict=False):
        if code != wanted:
            counts = [sum(some[2].values()) for some in (code, wanted)]
            wrong.append(f"{name} (was {old}): registers, stack {code[:2]} (were {wanted[:2]}), instructions {counts}")
    print("\n".join(wrong) if wrong else "the same, bit for bit")
    return bool(wrong)


if __name__ == "__main__":
    sys.exit(main())
