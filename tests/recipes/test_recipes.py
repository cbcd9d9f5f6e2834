"""Every recipe takes a real step with every backbone; a recipe or backbone that is added is tested with no new test."""

from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from torch.optim.optimizer import register_optimizer_step_post_hook, register_optimizer_step_pre_hook

from mmeff.cli import main
from mmeff.cli.recipe import compose

ROOT = Path(__file__).parents[2]
RECIPES = sorted(
    path.relative_to(ROOT).as_posix()
    for kind in ("vision", "audio", "text", "multimodal")
    for path in (ROOT / "recipes" / kind).rglob("*.yaml")
)
BACKBONES = sorted(path.relative_to(ROOT).as_posix() for path in (ROOT / "recipes" / "backbones").rglob("*.yaml"))
every_recipe = pytest.mark.parametrize("recipe", RECIPES)
every_backbone = pytest.mark.parametrize("backbone", BACKBONES, ids=lambda path: Path(path).stem)


def write_images(folder: Path, count: int, rng: np.random.Generator) -> None:
    from PIL import Image

    folder.mkdir(parents=True)
    for i in range(count):
        Image.fromarray(rng.integers(0, 256, (40, 36, 3), dtype=np.uint8)).save(folder / f"{i}.jpg")


def write_sound(file: Path, rate: int, rng: np.random.Generator) -> None:
    import soundfile

    file.parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(file, 0.1 * rng.standard_normal(int(rate * rng.uniform(0.3, 0.6))), rate)


@pytest.fixture(scope="session")
def user_data(tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[str]]:
    """For each recipe on data that do not come with the project: options that name a tiny set of the same layout."""
    base = tmp_path_factory.mktemp("user_data")
    rng = np.random.default_rng(0)
    for name in ("cat", "dog"):
        write_images(base / "photos" / name, 5, rng)
        write_images(base / "cifar10" / "train" / name, 4, rng)
        write_images(base / "cifar10" / "test" / name, 2, rng)
        for i in range(5):
            write_sound(base / "sounds" / name / f"{i}.wav", 22050, rng)
            write_sound(base / "speech_commands" / name / f"{i:08x}_nohash_0.wav", 16000, rng)
    (base / "speech_commands/validation_list.txt").write_text("cat/00000000_nohash_0.wav\ndog/00000000_nohash_0.wav\n")
    (base / "speech_commands/testing_list.txt").write_text("cat/00000001_nohash_0.wav\ndog/00000001_nohash_0.wav\n")
    for digit in range(2):
        for take in range(8):
            write_sound(base / "fsdd" / f"{digit}_ann_{take}.flac", 8000, rng)
    rows = [(f"a {word} of number {i}", word) for word in ("good", "bad") for i in range(8)]
    (base / "table.csv").write_text("text,label\n" + "".join(f"{text},{label}\n" for text, label in rows))
    (base / "agnews.csv").write_text(
        "split,label,title,description\n"
        + "".join(f"{'train' if i % 4 else 'test'},{label},News,{text}\n" for i, (text, label) in enumerate(rows))
    )
    return {
        "recipes/vision/folder.yaml": ["--data.source.root", str(base / "photos")],
        "recipes/vision/cifar10.yaml": ["--data.source.root", str(base / "cifar10")],
        "recipes/audio/folder.yaml": ["--data.source.root", str(base / "sounds")],
        "recipes/audio/fsdd.yaml": ["--data.source.root", str(base / "fsdd")],
        "recipes/audio/speech_commands.yaml": ["--data.source.root", str(base / "speech_commands")],
        "recipes/text/table.yaml": ["--data.source.path", str(base / "table.csv")],
        "recipes/text/agnews.yaml": ["--data.source.path", str(base / "agnews.csv")],
    }


@pytest.fixture
def steps():
    """For each step of an optimizer: whether it moved a parameter, and left all of them finite."""
    seen: list[tuple[bool, bool]] = []
    before: list[torch.Tensor] = []

    def parameters(optimizer: torch.optim.Optimizer) -> list[torch.Tensor]:
        return [p for group in optimizer.param_groups for p in group["params"]]

    def remember(optimizer: torch.optim.Optimizer, *_: object) -> None:
        before[:] = [p.detach().clone() for p in parameters(optimizer)]

    def compare(optimizer: torch.optim.Optimizer, *_: object) -> None:
        after = parameters(optimizer)
        moved = any(not torch.equal(old, new) for old, new in zip(before, after, strict=True))
        seen.append((moved, all(bool(p.isfinite().all()) for p in after)))

    hooks = [register_optimizer_step_pre_hook(remember), register_optimizer_step_post_hook(compare)]
    yield seen
    for hook in hooks:
        hook.remove()


@pytest.fixture
def one_thread():
    """The models are too small to share out; threads that wait for each other cost more than they bring."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def small_batches(recipe: str) -> list[str]:
    """Batches of four, read in this process; in a joint recipe each part has its own."""
    data = compose(["-c", str(ROOT / recipe)])[0]["data"]["init_args"]
    parts = [f"--data.parts.{name}" for name in data["parts"]] if "parts" in data else ["--data"]
    return [word for part in parts for word in (f"{part}.batch_size=4", f"{part}.num_workers=0")]


@every_recipe
@every_backbone
def test_every_recipe_takes_a_step_with_every_backbone(
    recipe, backbone, user_data, steps, one_thread, tmp_path, capsys
):
    words = ["fit", "-c", str(ROOT / recipe), "--model.backbone", str(ROOT / backbone), *small_batches(recipe)]
    words += user_data.get(recipe, [])
    words += ["--trainer.fast_dev_run", "1", "--trainer.accelerator", "cpu"]
    code = main([*words, "--trainer.default_root_dir", str(tmp_path)])
    output = capsys.readouterr()
    assert code == 0, output.out + output.err
    assert steps == [(True, True)], f"steps (moved, finite): {steps}\n{output.out}{output.err}"


@every_recipe
@every_backbone
def test_a_swapped_backbone_is_its_file_and_nothing_else_changes(recipe, backbone):
    plain, _, _ = compose(["-c", str(ROOT / recipe)])
    swapped, names, _ = compose(["-c", str(ROOT / recipe), "--model.backbone", str(ROOT / backbone)])
    assert swapped["model"]["init_args"].pop("backbone") == yaml.safe_load((ROOT / backbone).read_text())
    del plain["model"]["init_args"]["backbone"]
    assert swapped == plain
    assert names == [Path(recipe).stem, Path(backbone).stem]


@pytest.mark.parametrize("recipe", RECIPES)
def test_the_header_says_how_to_run_the_recipe(recipe):
    lines = (ROOT / recipe).read_text().splitlines()
    header = lines[: next(i for i, line in enumerate(lines) if not line.startswith("#"))]
    assert any(f"mmeff fit -c {recipe}" in f"{line} " for line in header), f"no command in the header of {recipe}"


@pytest.mark.parametrize("path", [*RECIPES, *BACKBONES])
def test_the_first_line_says_what_the_file_is(path):
    first = (ROOT / path).read_text().partition("\n")[0]
    assert first.startswith("# ") and first.endswith("."), f"{path} begins with {first!r}"


def test_there_are_recipes_and_backbones_to_test():
    assert {Path(path).parts[1] for path in RECIPES} == {"vision", "audio", "text", "multimodal"}
    assert len(BACKBONES) > 1
