"""Files from anybody: whatever a checkpoint or an export says, nothing is run, imported or opened, and little is made.

`python tests/test_untrusted.py FOLDER` walks the attacks in a process of its own, which counts what it should not do.
"""

import json
import os
import pickle
import resource
import sys
import time
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file

import mmeff
from mmeff.cli import main
from mmeff.errors import InputError

ROOT = Path(__file__).parents[1]
ISOTROPIC = {"dim": 8, "depth": 1, "mixer": {"class_path": "mmeff.mixers.Attention", "init_args": {"head_dim": 8}}}
CONFIG = {
    "mmeff": "0.1.0",
    "model": {
        "class_path": "mmeff.tasks.Classify",
        "init_args": {
            "tokenizer": {"class_path": "mmeff.tokenizers.TextBytes", "init_args": {"max_length": 64}},
            "backbone": {"class_path": "mmeff.backbones.Isotropic", "init_args": ISOTROPIC},
            "pool": {"class_path": "mmeff.heads.MaxPool"},
            "optimizer": {"lr": "1e-3"},
        },
    },
    "specs": {"text": {"modality": "text", "classes": ["good", "bad"], "multilabel": False, "preprocessing": {}}},
}
#: Where in a recipe a value may stand.
PLACES = (
    "", "class_path", "init_args", "init_args.tokenizer", "init_args.tokenizer.class_path",
    "init_args.tokenizer.init_args", "init_args.tokenizer.init_args.max_length",
    "init_args.tokenizer.init_args.positions", "init_args.backbone", "init_args.backbone.init_args",
    "init_args.backbone.init_args.dim", "init_args.backbone.init_args.mixer",
    "init_args.backbone.init_args.mixer.class_path", "init_args.backbone.init_args.mixer.init_args",
    "init_args.backbone.init_args.channel", "init_args.backbone.init_args.drop_path",
    "init_args.backbone.init_args.recompute", "init_args.pool", "init_args.dropout", "init_args.mix",
    "init_args.optimizer", "init_args.optimizer.lr",
)  # fmt: skip
EVIL = "evil_parts.Evil"
NAMES = (
    EVIL, "evil.yaml", "./evil.yaml", "{folder}/evil.yaml", "evil.json", "~/evil.yaml", "file://{folder}/evil.yaml",
    "os.system", "builtins.eval", "subprocess.Popen", "torch.load", "torch.hub.load", "timm.create_model",
    "mmeff.load", "mmeff.checkpoint.load", "mmeff.checkpoint.export", "mmeff.build.build", "mmeff.cli.main",
    "mmeff.cli.run.main", "mmeff.cli.sys.exit", "mmeff.cli.importlib.import_module", "mmeff.cli.run.yaml.unsafe_load",
    "mmeff.data.ImageFolder", "mmeff.weights.read_checkpoint", "mmeff.compare.workers.run", "mmeff.norm.torch.load",
    "mmeff.compare.baselines.TimmModel", "mmeff.tasks.classify.LightningModule", "mmeff.mixers.Mixer",
    "mmeff.tasks.Classification", "mmeff.tasks.classify.Classification.load_from_checkpoint", "mmeff.backbones.Block",
    "mmeff.mixers.__builtins__", "mmeff.mixers.__loader__.load_module", "__main__.Evil", "__import__", "..evil", "a.",
    "mmeff.mixers.attention.nn.Linear", "torch.nn.Linear", "\x1b[2Jevil", "x" * 10**6, "evil\nmmeff: all is well",
)  # fmt: skip
VALUES = (
    *NAMES,
    *({"class_path": name} for name in NAMES),
    json.dumps({"class_path": EVIL}),
    json.dumps([{"class_path": EVIL}]),
    json.dumps({"class_path": "mmeff.checkpoint.load", "init_args": {"path": ".", "trust": ["evil_parts"]}}),
    "!!python/object/apply:os.system ['touch ran']",
    "{class_path: evil_parts.Evil}",
    "[evil_parts.Evil]",
    [EVIL],
    [[[{"class_path": EVIL}]]],
    {"class_path": [EVIL]},
    {"class_path": 7},
    {"class_path": None},
    {"class_path": {"class_path": EVIL}},
    {"class_path": json.dumps({"class_path": EVIL})},
    {"class_path": "mmeff.mixers.Attention", "init_args": json.dumps({"head_dim": 8})},
    {"class_path": "mmeff.mixers.Attention", "init_args": ["head_dim", 8]},
    {"class_path": "mmeff.mixers.Attention", "dict_kwargs": {"mixer": EVIL}},
    {"class_path": "mmeff.mixers.Attention", "trust": ["evil_parts"]},
    {"class_path": "mmeff.mixers.Attention", "init_args": {"__class__": EVIL}},
    {"class_path": "mmeff.mixers.Parallel", "init_args": {"mixers": [EVIL, "evil.yaml"]}},
    {"class_path": "mmeff.checkpoint.load", "init_args": {"path": ".", "trust": ["evil_parts"]}},
    {"class_path": "mmeff.compare.baselines.TimmModel", "init_args": {"name": "hf-hub:evil/model"}},
    {"class_path": "timm.create_model", "init_args": {"model_name": "vit", "pretrained": True}},
    {"class_path": "timm.create_model", "init_args": {"model_name": "vit", "checkpoint_path": "evil.ckpt"}},
    {"init_args": {"dim": EVIL}},
    {"__path__": "evil.yaml"},
    {"$ref": "evil.yaml"},
    {"trust": ["evil_parts"]},
    {7: 7},
    {},
    10**400,
    -(10**9),
    1e308,
    [0] * 5000,
    ["x"] * 5000,
    {str(i): i for i in range(5000)},
)  # fmt: skip


def changed(place: str, value: Any, config: Any = CONFIG["model"]) -> Any:
    """A recipe with another value at a dotted place."""
    key, _, rest = place.partition(".")
    if not key:
        return value
    return {**config, key: changed(rest, value, config.get(key, {}))}


def nested(levels: int) -> Any:
    mixer: Any = "mmeff.mixers.Attention"
    for _ in range(levels):
        mixer = {"class_path": "mmeff.mixers.Parallel", "init_args": {"mixers": [mixer]}}
    return mixer


BACKBONE, TOKENIZER = "init_args.backbone", "init_args.tokenizer"
ARGUMENTS = f"{BACKBONE}.init_args"
#: A recipe that asks for more than the file's weights.
LARGE: tuple[tuple[str, Any], ...] = (
    (f"{ARGUMENTS}.depth", 10**9),
    (f"{ARGUMENTS}.depth", 1000),
    (f"{ARGUMENTS}.dim", 10**7),
    (f"{ARGUMENTS}.dim", 2**62),
    (f"{ARGUMENTS}.mixer", [{"class_path": "mmeff.mixers.Attention"}] * 3000),
    (f"{ARGUMENTS}.mixer", {"class_path": "mmeff.mixers.Parallel", "init_args": {"mixers": ["Attention"] * 999}}),
    (f"{ARGUMENTS}.mixer", nested(30)),
    (f"{ARGUMENTS}.mixer", nested(300)),
    (f"{ARGUMENTS}.mixer", {"class_path": "mmeff.mixers.Mamba", "init_args": {"expand": 1e9}}),
    (f"{ARGUMENTS}.mixer", {"class_path": "mmeff.mixers.Mamba", "init_args": {"state": 10**9}}),
    (f"{ARGUMENTS}.mixer", {"class_path": "mmeff.mixers.WindowAttention", "init_args": {"window": 10**6}}),
    (f"{ARGUMENTS}.mixer", {"class_path": "mmeff.mixers.RWKV6", "init_args": {"mix_rank": 10**9}}),
    (f"{ARGUMENTS}.channel", {"class_path": "mmeff.feedforward.MoE", "init_args": {"experts": 10**9}}),
    (f"{ARGUMENTS}.channel", {"class_path": "mmeff.feedforward.MLP", "init_args": {"ratio": 1e12}}),
    (BACKBONE, {"class_path": "mmeff.backbones.Pyramid", "init_args": {"dims": [8], "depths": [10**9]}}),
    (BACKBONE, {"class_path": "mmeff.backbones.Pyramid", "init_args": {"dims": [10**9], "depths": [1]}}),
    (TOKENIZER, {"class_path": "mmeff.tokenizers.TextBPE", "init_args": {"vocab": 10**10}}),
    (f"{TOKENIZER}.init_args.positions", {"class_path": "LearnedPositions", "init_args": {"grid": [10**5, 10**5]}}),
    (f"{TOKENIZER}.init_args.positions", {"class_path": "LearnedPositions", "init_args": {"grid": [2**40] * 500}}),
    (TOKENIZER, {"class_path": "mmeff.tokenizers.ImageStem", "init_args": {"widths": [10**6] * 900}}),
    (TOKENIZER, {"class_path": "mmeff.tokenizers.ImagePatches", "init_args": {"channels": 10**9}}),
    (TOKENIZER, {"class_path": "mmeff.tokenizers.AudioFrames", "init_args": {"log_mel": {"mels": 10**7}}}),
    (TOKENIZER, {"class_path": "mmeff.tokenizers.AudioFrames", "init_args": {"log_mel": {"sample_rate": 10**15}}}),
    (TOKENIZER, {"class_path": "mmeff.tokenizers.AudioFrames", "init_args": {"log_mel": {"window_ms": 1e300}}}),
    (TOKENIZER, {"class_path": "mmeff.tokenizers.AudioWave", "init_args": {"strides": [10**6] * 900}}),
    ("init_args.pool", {"class_path": "mmeff.heads.AttentionPool", "init_args": {"heads": 10**9}}),
)


class Evil:
    """Unpickled, it writes a file."""

    def __reduce__(self) -> Any:
        return open, ("ran", "w")


def state() -> dict[str, torch.Tensor]:
    torch.manual_seed(0)
    from mmeff.build import build
    from mmeff.spec import DataSpec

    enough = {"": torch.zeros(10**5)}
    return build(CONFIG["model"], DataSpec.from_dicts(CONFIG["specs"]), enough).state_dict()


def exported(folder: Path, config: Any = CONFIG, weights: dict[str, torch.Tensor] | None = None) -> Path:
    """A folder as `mmeff export` writes it."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(config if isinstance(config, str) else json.dumps(config))
    save_file(state() if weights is None else weights, folder / "model.safetensors")
    return folder


def saved(path: Path, config: Any = CONFIG, weights: Any = None, **more: Any) -> Path:
    """A checkpoint as `mmeff fit` writes it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    weights = state() if weights is None else weights
    torch.save({"state_dict": weights, "pytorch-lightning_version": "2.6.6", "mmeff": config, **more}, path)
    return path


def rewritten(path: Path, change: Callable[[str, bytes], bytes], compression: int = zipfile.ZIP_STORED) -> Path:
    """The same archive with other bytes in its records."""
    records = [(name, change(name, zipfile.ZipFile(path).read(name))) for name in zipfile.ZipFile(path).namelist()]
    with zipfile.ZipFile(path, "w", compression) as archive:
        for name, content in records:
            archive.writestr(name, content)
    return path


def asks_for(name: str, argument: bytes) -> Callable[[str, bytes], bytes]:
    """A pickle that begins with a call of an allowed name."""
    call = b"c" + name.encode() + b"\n(" + argument + b"tR0"
    return lambda record, content: content[:2] + call + content[2:] if record.endswith("data.pkl") else content


def odd_files(folder: Path) -> Iterator[Path]:
    """Files that are no data, or more than they seem."""
    for name in ("config.json", "model.safetensors"):
        os.mkfifo_at = exported(folder / f"pipe-{name}") / name
        os.mkfifo_at.unlink()
        os.mkfifo(os.mkfifo_at)
        yield os.mkfifo_at.parent
        device = exported(folder / f"device-{name}")
        (device / name).unlink()
        (device / name).symlink_to("/dev/zero")
        yield device
        own = exported(folder / f"folder-{name}")
        (own / name).unlink()
        (own / name).mkdir()
        yield own
    os.mkfifo(folder / "pipe.ckpt")
    yield folder / "pipe.ckpt"
    yield Path("/dev/zero")
    yield Path("/dev/stdin")
    sparse = exported(folder / "sparse")
    with open(sparse / "config.json", "r+b") as file:
        file.truncate(2**30)
    yield sparse
    with open(exported(folder / "long") / "config.json", "w") as file:
        file.write('{"model": {"class_path": "' + "a" * 10**8 + '"}, "specs": {}}')
    yield folder / "long"
    texts = {
        "deep": '{"model": ' + "[" * 10**5 + "]" * 10**5 + ', "specs": {}}',
        "deeper": '{"model": ' + '{"a":' * 10**5 + "1" + "}" * 10**5 + ', "specs": {}}',
        "twice": json.dumps(CONFIG)[:-1] + ', "model": {"class_path": "evil_parts.Evil"}}',
        "nan": json.dumps({**CONFIG, "model": changed("init_args.dropout", float("nan"))}),
        "infinity": json.dumps({**CONFIG, "model": changed("init_args.dropout", float("inf"))}),
        "overflow": json.dumps(CONFIG).replace('"1e-3"', "1e999"),
        "digits": json.dumps(CONFIG).replace('"1e-3"', "9" * 10**5),
        "no text": "\x00" * 100,
        "a list": "[]",
        "a string": json.dumps(json.dumps(CONFIG)),
    }
    for name, text in texts.items():
        yield exported(folder / name, text)
    pickled = exported(folder / "pickled")
    (pickled / "model.safetensors").write_bytes(pickle.dumps(Evil()))
    yield pickled
    yield saved(folder / "code.ckpt", weights={**state(), "backbone.norm.weight": Evil()})
    yield saved(folder / "code2.ckpt", callbacks=Evil())
    (folder / "bare.ckpt").write_bytes(pickle.dumps(Evil()))
    yield folder / "bare.ckpt"
    for name, argument in (("builtins\nbytearray", b"J\xff\xff\xff\x7f"), ("torch\nTensor", b"J\xff\xff\xff\x7f")):
        yield rewritten(saved(folder / f"{name.split()[1]}.ckpt"), asks_for(name, argument))
    yield rewritten(saved(folder / "bomb.ckpt", weights={"a": torch.zeros(2**24)}), lambda _, c: c, zipfile.ZIP_DEFLATED)
    yield saved(folder / "views.ckpt", weights={"a": torch.zeros(1).expand(2**40)})
    one = torch.zeros(2**16)
    yield saved(folder / "shared.ckpt", weights={f"{i}": one[i:] for i in range(2000)})
    laughs: list[Any] = ["ha"]
    for _ in range(40):
        laughs = [laughs] * 10
    yield saved(folder / "laughs.ckpt", {**CONFIG, "model": changed(f"{ARGUMENTS}.mixer", laughs)})
    yield saved(folder / "laughs2.ckpt", {**CONFIG, "specs": {"text": {"modality": laughs, "classes": laughs}}})
    circle: dict[str, Any] = {"class_path": "mmeff.mixers.Parallel"}
    circle["init_args"] = {"mixers": [circle]}
    yield saved(folder / "circle.ckpt", {**CONFIG, "model": changed(f"{ARGUMENTS}.mixer", circle)})
    yield saved(folder / "tensors.ckpt", {**CONFIG, "model": changed("init_args.dropout", torch.zeros(3))})
    yield saved(folder / "no-classes.ckpt", {**CONFIG, "specs": {"text": {"modality": "text", "classes": ["a"] * 10**6}}})


def walk(folder: Path) -> None:
    """Try every attack; print what was done that should not be, and how many were tried."""
    start, seen, tried = torch.zeros(1), [], 0
    del start
    (folder / "evil").mkdir()
    os.chdir(folder / "evil")
    for name in ("evil_parts", "sitecustomize", "usercustomize", "torch", "mmeff", "tokenizers", "timm"):
        Path(f"{name}.py").write_text("open('ran', 'w')\nclass Evil: ...\n")
    for name in ("evil.yaml", "evil.json", "evil.ckpt"):
        Path(name).write_text(json.dumps({"class_path": EVIL}))
    sys.path.append(os.getcwd())  # as far as `python -m` goes
    weights = state()
    mmeff.load(exported(Path("export"), weights=weights))  # what is imported late is imported now
    assert main(["predict", "--ckpt", "export", "-t", "a text"]) == 0

    def watch(event: str, details: tuple[Any, ...]) -> None:
        if event == "import" and details[0].split(".")[0] in ("evil_parts", "evil", "builtins", "subprocess", "__main__"):
            seen.append((event, details[0]))
        if event == "open" and isinstance(details[0], str | bytes | os.PathLike):
            name = os.path.basename(os.fsdecode(details[0]))
            own = name.endswith((".ckpt", ".json", ".safetensors")) and not name.startswith("evil")
            if ("evil" in os.path.abspath(os.fsdecode(details[0])) and not own) or name == "ran":
                seen.append((event, name))
        if event.startswith(("socket.", "subprocess.", "os.system", "os.exec", "os.posix_spawn", "os.fork", "shutil.")):
            seen.append((event, details))
        if event in ("exec", "compile") and "evil" in str(getattr(details[0], "co_filename", details[-1])):
            seen.append((event, details))

    def refused(what: str, attack: Callable[[], Any]) -> None:
        nonlocal tried
        tried += 1
        before, began = len(seen), time.perf_counter()
        try:
            attack()
            print(f"TAKEN: {what}")
        except InputError as error:
            if len(str(error).splitlines()) != 1 or len(str(error)) > 1000 or not str(error).isprintable():
                print(f"SAID: {what}: {str(error)[:1000]!r}")
        except BaseException as error:
            print(f"TRACEBACK: {what}: {type(error).__name__}: {str(error)[:300]}")
        if len(seen) > before:
            print(f"DID: {what}: {seen[before:][:3]}")
        if time.perf_counter() - began > 5:
            print(f"SLOW: {what}: {time.perf_counter() - began:.1f} s")

    files = list(odd_files(Path("files").absolute()))
    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with open("/proc/self/statm") as file:
        used = int(file.read().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (used + 2**31, resource.RLIM_INFINITY))
    sys.addaudithook(watch)
    for place in PLACES:
        for value in VALUES:
            value = json.loads(json.dumps(value).replace("{folder}", os.getcwd()))
            recipe = changed(place, value)
            Path("export/config.json").write_text(json.dumps({**CONFIG, "model": recipe, "trust": ["evil_parts"]}))
            refused(f"{place or 'model'} = {str(value)[:100]}", lambda: mmeff.load("export"))
    for place, value in LARGE:
        Path("export/config.json").write_text(json.dumps({**CONFIG, "model": changed(place, value)}))
        refused(f"{place} = {str(value)[:100]}", lambda: mmeff.load("export"))
    for path in files:
        refused(str(path), lambda path=path: mmeff.load(path))
    # The same by the command, of pickles.
    for i, value in enumerate((EVIL, *VALUES[-40:])):
        path = saved(Path("some.ckpt"), {**CONFIG, "model": changed("init_args.pool", value), "trust": ["evil_parts"]}, weights)
        words = ["export", str(path), "--to", f"new-{i}"] if i % 2 else ["predict", "--ckpt", str(path), "-t", "a text"]
        tried += 1
        before = len(seen)
        if main(words) != 2 or len(seen) > before or Path(f"new-{i}").exists():
            print(f"COMMAND: {words[0]} {str(value)[:100]}: {seen[before:]}")
    if Path("ran").exists():
        print("RAN")
    grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - most) / 1024
    print(f"{tried} tried, {grown:.0f} MiB more")


if __name__ == "__main__":
    walk(Path(sys.argv[1]))
