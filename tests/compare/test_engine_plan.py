"""Plans that cannot be used are refused in one line that says what to do; widths are matched to budgets."""

from pathlib import Path
from typing import Any

import pytest
import yaml

from mmeff.cli import main
from mmeff.cli.compare import contenders_of, overridden
from mmeff.cli.recipe import compose, recipe_folders
from mmeff.compare.budget import at_width, beside_budget, matched, parameters, width_step
from mmeff.compare.contenders import Contender, build_backbone
from mmeff.compare.plan import Budget, Plan, read_plan

PLAN = {"recipes": ["recipes/vision/digits.yaml"], "backbones": ["recipes/backbones/attention.yaml"]}
BACKBONES = sorted(path.stem for folder in recipe_folders() for path in (folder / "backbones").glob("*.yaml"))


def contender(backbone: str) -> Contender:
    words = ["-c", "recipes/vision/digits.yaml", "--model.backbone", f"recipes/backbones/{backbone}.yaml"]
    return Contender("digits", backbone, "mmeff", compose(words)[0])


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"lenghts": {}}, ["unknown key 'lenghts'", "did you mean 'lengths'?"]),
        ({"speed": {"rnus": 3}}, ["unknown key 'rnus'", "did you mean 'runs'?"]),
        ({"lengths": {"image": [-28]}}, ["lengths.image is -28", "must be above 0"]),
        ({"lengths": {"video": [3]}}, ["no signal 'video'", "audio, image, series, text"]),
        ({"train": {"steps": "many"}}, ["plan.train.steps", "expected int"]),
        ({"train": 5}, ["train is 5", "keys and values"]),
        ({"recipes": ["recipes/vision/digit.yaml"]}, ["no recipe at", "did you mean recipes/vision/digits.yaml"]),
        ({"recipes": []}, ["compares nothing"]),
        ({"backbones": []}, ["compares nothing"]),
        ({"backbones": ["recipes/backbones/vin.yaml"]}, ["no recipe at", "did you mean recipes/backbones/vim.yaml"]),
        ({"recipes": ["recipes/multimodal/joint.yaml"]}, ["recipes of one signal"]),
        ({"budget": {"parameters": 10, "dim": 32}}, ["both parameters and dim"]),
    ],
)
def test_a_wrong_plan_is_refused(
    change: dict[str, Any], said: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "plan.yaml").write_text(yaml.safe_dump({**PLAN, **change}))
    assert main(["compare", "-c", str(tmp_path / "plan.yaml"), "--out", str(tmp_path / "out")]) == 2
    error = capsys.readouterr().err
    assert len(error.splitlines()) == 1
    for part in said:
        assert part in error


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ([], "-c"),
        (["-c", "recipes/compare/quikstart.yaml"], "did you mean recipes/compare/quickstart.yaml"),
        (["-c", "recipes/compare/quickstart.yaml", "--train.steps"], "stands alone"),
        (["-c", "recipes/compare/quickstart.yaml", "--trian.steps", "5"], "did you mean 'train'?"),
        (["-c", "recipes/compare/quickstart.yaml", "--device", "tpu"], "invalid choice"),
        (["a.parquet"], "-c"),
    ],
)
def test_wrong_words_are_refused(words: list[str], said: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["compare", *words]) == 2
    assert said in capsys.readouterr().err


@pytest.mark.parametrize("name", ["quickstart", "speed"])
def test_plans_of_the_project_can_be_read(name: str) -> None:
    (path,) = [folder / "compare" / f"{name}.yaml" for folder in recipe_folders()]
    plan = read_plan(yaml.safe_load(path.read_text()))
    found = contenders_of(plan)
    assert {entry.recipe.split("_")[0] for entry in found} == {"digits", "tones", "glosses"}
    if name == "speed":
        assert {entry.backbone for entry in found if entry.kind == "mmeff"} == set(BACKBONES), "speed.yaml takes all"


def test_dotted_options_change_the_plan() -> None:
    values = overridden({**PLAN, "train": {"steps": 5}}, ["--train.seeds", "3", "--lengths.image", "[64]"])
    plan = read_plan(values)
    assert plan.train is not None and (plan.train.steps, plan.train.seeds) == (5, 3)
    assert plan.lengths["image"] == (64,)
    assert read_plan(overridden(values, ["--train", "null"])).train is None


def test_models_of_timm_compete_on_images_alone() -> None:
    plan = Plan(
        recipes=("recipes/vision/digits.yaml", "recipes/text/glosses.yaml"),
        baselines=("transformer", "mambaout_femto"),
    )
    found = [(entry.recipe, entry.backbone, entry.kind, entry.timm) for entry in contenders_of(plan)]
    assert found == [
        ("digits", "transformer", "baseline", False),
        ("digits", "mambaout_femto", "baseline", True),
        ("glosses", "transformer", "baseline", False),
    ]


@pytest.mark.parametrize("backbone", BACKBONES)
def test_parameters_come_nearest_among_the_widths(backbone: str) -> None:
    entry, wanted = contender(backbone), 150_000
    own = build_backbone(matched(entry, Budget(parameters=wanted)))
    for dim in range(width_step(entry), 2 * own.in_dim, width_step(entry)):
        try:
            other = parameters(build_backbone(at_width(entry, dim)))
        except ValueError:
            continue  # no width that this backbone can have
        assert abs(parameters(own) - wanted) <= abs(other - wanted)


def test_a_budget_that_no_width_meets_is_said() -> None:
    entry = contender("attention")
    for wanted, said in ((5_000_000, ""), (150_000, "budget missed: attention on digits has 0.20 M")):
        found = beside_budget(matched(entry, Budget(parameters=wanted)), Budget(parameters=wanted))
        assert found.startswith(said) and bool(found) == bool(said)


def test_a_pyramid_is_widened_as_a_whole() -> None:
    config = matched(contender("pyramid"), Budget(dim=24, depth=9)).config["model"]["init_args"]["backbone"]
    assert config["init_args"]["dims"] == [24, 48, 96]
    assert config["init_args"]["depths"] == [2, 2, 2]


def test_width_and_depth_may_be_given() -> None:
    backbone = build_backbone(matched(contender("vim"), Budget(dim=48, depth=2)))
    assert (backbone.in_dim, len(backbone.layers())) == (48, 3)


def test_a_backbone_that_is_built_twice_shares_nothing_with_the_first() -> None:
    entry = contender("vim")
    first, second = build_backbone(entry), build_backbone(entry)
    assert {p.data_ptr() for p in first.parameters()}.isdisjoint(p.data_ptr() for p in second.parameters())
    assert str(first) == str(second)
