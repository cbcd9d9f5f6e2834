"""Files from anybody: whatever a checkpoint or an export says, nothing is run, imported or opened, and little is made.

`python tests/test_untrusted.py FOLDER` walks the attacks in a process of its own, whose audit hook sees what it does.
"""

import json
import os
import pickle
import resource
import subprocess
import sys
import time
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

import mmeff
from mmeff.checkpoint import rebuild
from mmeff.cli import main
from mmeff.errors import InputError
from mmeff.signals import DataSpec

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
#: Where every value is tried, a place of each kind.
WHOLE = ("", "init_args.tokenizer", "init_args.backbone.init_args.mixer", "init_args.dropout", "init_args.optimizer")
EVIL = "evil_parts.Evil"
NAMES = (
    EVIL, "evil.yaml", "./evil.yaml", "{folder}/evil.yaml", "evil.json", "~/evil.yaml", "file://{folder}/evil.yaml",
    "os.system", "builtins.eval", "subprocess.Popen", "torch.load", "torch.hub.load", "timm.create_model",
    "mmeff.load", "mmeff.checkpoint.load", "mmeff.checkpoint.export", "mmeff.build.build",
    "mmeff.checkpoint.rebuild", "mmeff.cli.main",
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
    10**400,
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
    enough = {"": torch.zeros(10**5)}
    return rebuild(CONFIG["model"], DataSpec.from_dicts(CONFIG["specs"]), enough).state_dict()


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


def tuples(levels: int, wide: int) -> Callable[[str, bytes], bytes]:
    """A pickle that begins with a tuple of itself many times, deeper and deeper, as the key of a mapping."""
    key = b"})q\xf0" + levels * (b"(" + wide * b"h\xf0" + b"tq\xf0") + b"Ns0"
    return lambda record, content: content[:2] + key + content[2:] if record.endswith("data.pkl") else content


def asks_for(name: str, argument: bytes) -> Callable[[str, bytes], bytes]:
    """A pickle that begins with a call of an allowed name."""
    call = b"c" + name.encode() + b"\n(" + argument + b"tR0"
    return lambda record, content: content[:2] + call + content[2:] if record.endswith("data.pkl") else content


def odd_files(folder: Path) -> Iterator[Path]:
    """Files that are no data, or more than they seem."""
    places: dict[str, Callable[[Path], Any]] = {
        "pipe": os.mkfifo,
        "device": lambda path: path.symlink_to("/dev/zero"),
        "folder": Path.mkdir,
        "foreign": lambda path: path.symlink_to("/etc/passwd"),
        "loop": lambda path: path.symlink_to(path),
    }
    for kind, put in places.items():
        for name in ("config.json", "model.safetensors"):
            odd = exported(folder / f"{kind}-{name}")
            (odd / name).unlink()
            put(odd / name)
            yield odd
    os.mkfifo(folder / "pipe.ckpt")
    yield folder / "pipe.ckpt"
    yield Path("/dev/zero")
    sparse = exported(folder / "sparse")
    with open(sparse / "config.json", "r+b") as file:
        file.truncate(2**30)
    yield sparse
    yield exported(folder / "long", '{"model": {"class_path": "' + "a" * 10**8 + '"}, "specs": {}}')
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
    yield rewritten(saved(folder / "bomb.ckpt"), lambda _, content: content, zipfile.ZIP_DEFLATED)
    yield rewritten(saved(folder / "tuples.ckpt"), tuples(60, 2))
    yield rewritten(saved(folder / "wide-tuples.ckpt"), tuples(9, 1000))
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
    many = {"text": {"modality": "text", "classes": ["a"] * 10**6}}
    yield saved(folder / "many.ckpt", {**CONFIG, "specs": many})


def walk(folder: Path) -> None:
    """Try every attack; print each that was not refused in a line, and whatever it did."""
    os.chdir(folder / "evil")
    sys.path.append(os.getcwd())  # as far as `python -m` goes
    weights, seen, tried = state(), [], 0
    assert mmeff.load(exported(Path("export"), weights=weights))  # what is imported late is imported now
    assert main(["predict", "--ckpt", "export", "-t", "a text"]) == 0

    def watch(event: str, details: tuple[Any, ...]) -> None:
        told = str(details[0]) if details else ""
        if event == "import" and told.split(".")[0] in ("evil_parts", "evil", "sitecustomize", "__main__"):
            seen.append((event, told))
        if event == "open" and isinstance(details[0], str | bytes | os.PathLike):
            path = os.path.abspath(os.fsdecode(details[0]))
            own = path.endswith((".ckpt", ".json", ".safetensors")) and not os.path.basename(path).startswith("evil")
            if path.startswith(str(folder)) and not own:
                seen.append((event, path))
        if event.startswith(("socket.", "subprocess.", "os.system", "os.exec", "os.posix_spawn", "os.fork")):
            seen.append((event, details))
        if event in ("exec", "compile") and "evil" in str(getattr(details[0], "co_filename", details[-1])):
            seen.append((event, details))

    def refused(what: str, attack: Callable[[], Any]) -> None:
        nonlocal tried
        tried += 1
        before, began = len(seen), time.process_time()
        try:
            attack()
            print(f"TAKEN: {what}")
        except InputError as error:
            if len(str(error)) > 1000 or not str(error).isprintable():
                print(f"SAID: {what}: {str(error)[:1000]!r}")
        except BaseException as error:
            print(f"RAISED: {what}: {type(error).__name__}: {str(error)[:300]}")
        if len(seen) > before:
            print(f"DID: {what}: {seen[before:][:3]}")
        if time.process_time() - began > 5:
            print(f"SLOW: {what}: {time.process_time() - began:.1f} s")

    def load(recipe: Any) -> Callable[[], Any]:
        Path("export/config.json").write_text(json.dumps({**CONFIG, "model": recipe, "trust": ["evil_parts"]}))
        return lambda: mmeff.load("export")

    with open("/proc/self/statm") as file:
        used = int(file.read().split()[0]) * resource.getpagesize()
    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    resource.setrlimit(resource.RLIMIT_AS, (used + 2**30, resource.RLIM_INFINITY))
    sys.addaudithook(watch)
    for i, place in enumerate(PLACES):
        for value in VALUES if place in WHOLE else VALUES[i::7]:
            value = json.loads(json.dumps(value).replace("{folder}", os.getcwd()))
            refused(f"{place or 'model'} = {str(value)[:100]}", load(changed(place, value)))
    for place, value in LARGE:
        refused(f"{place} = {str(value)[:100]}", load(changed(place, value)))
    for path in json.loads((folder / "files.json").read_text()):
        refused(path, lambda path=path: mmeff.load(path))
    # The same out of pickles, by the commands.
    for i, value in enumerate((EVIL, *VALUES[-30:])):
        recipe = changed(f"{ARGUMENTS}.mixer", value)
        path = saved(Path("some.ckpt"), {**CONFIG, "model": recipe, "trust": ["evil_parts"]}, weights)
        words = ["export", str(path), "--to", f"new-{i}"] if i % 2 else ["predict", "--ckpt", str(path), "-t", "a text"]
        before = len(seen)
        if main(words) != 2 or len(seen) > before or Path(f"new-{i}").exists():
            print(f"COMMAND: {words[0]} {str(value)[:100]}: {seen[before:]}")
        tried += 1
    grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - most) // 1024
    if grown > 300:
        print(f"MEMORY: {grown} MiB")
    print("RAN" if Path("ran").exists() else f"{tried} tried")


def test_nothing_that_a_file_says_is_run_imported_or_opened(tmp_path):
    (tmp_path / "evil").mkdir()
    for name in ("evil_parts", "sitecustomize", "usercustomize", "torch", "mmeff", "tokenizers", "timm"):
        (tmp_path / "evil" / f"{name}.py").write_text("open('ran', 'w')\nclass Evil: ...\n")
    for name in ("evil.yaml", "evil.json", "evil.ckpt"):
        (tmp_path / "evil" / name).write_text(json.dumps({"class_path": EVIL}))
    (tmp_path / "files").mkdir()
    files = [str(path) for path in odd_files(tmp_path / "files")]
    (tmp_path / "files.json").write_text(json.dumps(files))
    words = [sys.executable, __file__, str(tmp_path)]
    path = os.pathsep.join([str(ROOT), str(ROOT / "kernels")])
    done = subprocess.run(
        words,
        cwd=tmp_path / "evil",
        env={**os.environ, "PYTHONPATH": path},
        capture_output=True,
        text=True,
        timeout=300,
    )
    *said, count = done.stdout.splitlines()[1:]
    assert done.returncode == 0 and not said, "\n".join(said) + done.stderr[-2000:]
    assert int(count.split()[0]) > 700, count
    assert all(line.startswith("mmeff: error: some.ckpt: the checkpoint") for line in done.stderr.splitlines())


def test_the_attacks_are_seen_where_they_succeed(tmp_path, monkeypatch):
    """The evil pickle runs, and the evil module is imported, where they are trusted."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    torch.load(saved(tmp_path / "code.ckpt", callbacks=Evil()), weights_only=False)
    assert (tmp_path / "ran").exists()
    (tmp_path / "evil_parts.py").write_text("open('imported', 'w')\nfrom mmeff.heads import MaxPool as Evil\n")
    trusted = exported(tmp_path / "export", {**CONFIG, "model": changed("init_args.pool", EVIL)})
    with pytest.raises(InputError, match=r"asks to build evil_parts\.Evil.*trust=\['evil_parts'\]"):
        mmeff.load(trusted)
    assert not (tmp_path / "imported").exists()
    mmeff.load(trusted, trust=["evil_parts"])
    assert (tmp_path / "imported").exists()


if __name__ == "__main__":
    walk(Path(sys.argv[1]))
