"""A recipe out of a checkpoint builds the model that jsonargparse builds of it, and none that outgrows its weights."""

from copy import deepcopy
from enum import Enum
from pathlib import Path
from typing import Any

import pytest
import torch
from jsonargparse import ArgumentParser
from jsonargparse.typing import PositiveInt

from mmeff.build import build
from mmeff.checkpoint import rebuild
from mmeff.cli.recipe import compose
from mmeff.errors import InputError
from mmeff.signals import DataSpec
from mmeff.tasks import Task
from mmeff.tokenizers import Tokenizer

ROOT = Path(__file__).parents[1]
RECIPES = sorted(
    p for k in ("vision", "audio", "text", "series", "multimodal") for p in (ROOT / "recipes" / k).rglob("*.yaml")
)
BACKBONES = sorted((ROOT / "recipes" / "backbones").rglob("*.yaml"))
SWAPPED = str(ROOT / "recipes/vision/digits.yaml")
TEXTS = ["a text of several words", "another text"]


def example(tokenizer: Tokenizer) -> tuple[DataSpec, object]:
    """Data that the tokenizer reads, and a small batch."""
    classes = ("one", "two", "three")
    if tokenizer.signal == "text":
        tokenizer.fit(TEXTS * 20)
        return DataSpec("text", classes), TEXTS
    if tokenizer.signal == "audio":
        rate = tokenizer.log_mel.sample_rate if hasattr(tokenizer, "log_mel") else 16000
        return DataSpec("audio", classes, False, {"sample_rate": rate, "samples": rate}), torch.randn(1, rate // 4)
    if tokenizer.signal == "series":
        values = {"channels": tokenizer.channels, "steps": 40, "columns": []}
        return DataSpec("series", classes, False, values), torch.randn(1, 30, tokenizer.channels)
    channels = len(tokenizer.norm.mean)
    return DataSpec("image", classes, False, {"size": [16, 16], "channels": channels}), torch.rand(1, channels, 16, 16)


def built_by_jsonargparse(recipe: dict[str, Any]) -> Task:
    parser = ArgumentParser(exit_on_error=False)
    parser.add_subclass_arguments(Task, "part", required=True)
    return parser.instantiate(parser.parse_object({"part": recipe}))["part"]


def settings(model: torch.nn.Module) -> list[object]:
    """Every module with the plain values that it holds."""
    plain = int | float | str | tuple | None
    return [
        (name, type(module), module.extra_repr(), {k: v for k, v in vars(module).items() if isinstance(v, plain)})
        for name, module in model.named_modules()
    ]


@pytest.mark.parametrize(
    "words",
    [
        *(pytest.param(["-c", str(path)], id=path.stem) for path in RECIPES),
        *(pytest.param(["-c", SWAPPED, "--model.backbone", str(path)], id=f"digits-{path.stem}") for path in BACKBONES),
    ],
)
def test_every_recipe_is_the_model_that_jsonargparse_builds(words):
    recipe = compose(words)[0]["model"]  # what checkpoints carried before recipes were stored as parsed
    torch.manual_seed(0)
    own = built_by_jsonargparse(deepcopy(recipe))  # which it changes
    examples = {name: example(tokenizer) for name, tokenizer in own.model.tokenizers.items()}
    specs = {name: spec for name, (spec, _) in examples.items()}
    own.prepare(specs)
    model = rebuild(recipe, specs, own.state_dict())
    assert model.recipe is recipe
    model.recipe = None
    assert list(model.state_dict()) == list(own.state_dict())
    model.load_state_dict(own.state_dict())
    assert settings(model) == settings(own)
    assert (model.optimizer_config, model.mix, model.smoothing) == (own.optimizer_config, own.mix, own.smoothing)
    for name, (_, raw) in examples.items():
        with torch.inference_mode():
            assert torch.equal(model.eval()(name, raw), own.eval()(name, raw))


@pytest.mark.parametrize(("share", "right"), [(1.0, True), (0.001, False)])
def test_a_model_is_built_only_where_its_weights_are(share, right):
    """Budgets are many times what building takes: a thousandth of the weights is still far too little."""
    backbone = {"class_path": "mmeff.backbones.Isotropic", "init_args": {"dim": 256, "depth": 24}}
    recipe = {"class_path": "Classify", "init_args": {"tokenizer": "TextBytes", "backbone": backbone}}
    specs = {"text": DataSpec("text", ("one", "two"))}
    numbers = 24 * 12 * 256**2
    state = {f"{i}": torch.zeros(int(share * numbers / 300)) for i in range(300)}
    if right:
        assert len(rebuild(recipe, specs, state).model.backbone.blocks) == 24
    else:
        with pytest.raises(InputError, match="larger than the checkpoint's weights"):
            rebuild(recipe, specs, state)


class Colour(Enum):
    RED = 1


class Own:
    """A class of the user's, whose hints are those that jsonargparse knows."""

    def __init__(self, path: Path, colour: Colour, count: PositiveInt, names: list[str], pattern: str = ""):
        self.given = path, colour, count, names, pattern


def test_what_the_user_wrote_has_the_types_of_its_hints_and_any_size():
    names = [f"column {i}" for i in range(2000)]
    given = {"path": "a/b", "colour": "RED", "count": 3, "names": names, "pattern": "x" * 5000}
    assert build(Own, given, "own").given == (Path("a/b"), Colour.RED, 3, names, "x" * 5000)
    with pytest.raises(InputError, match=r"own\.names: expected at most 1000 entries"):
        build(Own, given, "own", trust=())
    for wrong, said in (({"colour": ["RED"]}, "one of RED"), ({"count": 0}, r"own\.count: ")):
        with pytest.raises(InputError, match=said):
            build(Own, {**given, **wrong}, "own")
