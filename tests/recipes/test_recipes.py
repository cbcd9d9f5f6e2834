"""Every recipe takes a real step with every backbone; a recipe or backbone that is added is tested with no new test."""

from pathlib import Path

import pytest
import torch
import yaml
from torch.optim.optimizer import register_optimizer_step_post_hook, register_optimizer_step_pre_hook

from mmeff.cli import main
from mmeff.cli.recipe import compose

ROOT = Path(__file__).parents[2]
RECIPES = sorted(
    path.relative_to(ROOT).as_posix()
    for kind in ("vision", "audio", "text", "series", "multimodal")
    for path in (ROOT / "recipes" / kind).rglob("*.yaml")
)
BACKBONES = sorted(path.relative_to(ROOT).as_posix() for path in (ROOT / "recipes" / "backbones").rglob("*.yaml"))
#: Backbones for grids of two axes alone, and tokenizers whose tokens lie on one.
TWO_AXES = ("separable", "ss2d", "time_frequency", "wavefront")
ONE_AXIS = ("AudioFrames", "AudioWave", "SeriesPatches", "TextBPE", "TextBytes")
every_recipe = pytest.mark.parametrize("recipe", RECIPES)
every_backbone = pytest.mark.parametrize("backbone", BACKBONES, ids=lambda path: Path(path).stem)


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


@every_recipe
@every_backbone
def test_every_recipe_takes_a_step_with_every_backbone(
    recipe, backbone, user_data, small_batches, steps, one_thread, tmp_path, capsys
):
    words = ["fit", "-c", str(ROOT / recipe), "--model.backbone", str(ROOT / backbone), *small_batches(ROOT / recipe)]
    words += user_data.get(recipe, [])
    words += ["--trainer.fast_dev_run", "1", "--trainer.accelerator", "cpu"]
    code = main([*words, "--trainer.default_root_dir", str(tmp_path)])
    output = capsys.readouterr()
    if Path(backbone).stem in TWO_AXES and any(kind in (ROOT / recipe).read_text() for kind in ONE_AXIS):
        assert code != 0 and "a grid with two axes" in output.err and "Traceback" not in output.err
        return
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
    assert {Path(path).parts[1] for path in RECIPES} == {"vision", "audio", "text", "series", "multimodal"}
    assert len(BACKBONES) > 1
