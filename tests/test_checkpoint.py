"""A model comes back out of its file as it was, or not at all: with classes of a package that is trusted, too."""

import json
import sys

import pytest
import torch
from safetensors.torch import load_file, save_file

import mmeff
from mmeff.build import parts
from mmeff.checkpoint import rebuild
from mmeff.cli import main
from mmeff.errors import InputError
from mmeff.signals import DataSpec

RECIPE = {
    "class_path": "mmeff.tasks.Classify",
    "init_args": {
        "tokenizer": {"class_path": "mmeff.tokenizers.TextBytes"},
        "backbone": {"class_path": "mmeff.backbones.Isotropic", "init_args": {"dim": 8, "depth": 1}},
    },
}
SPECS = {"text": DataSpec("text", ("good", "bad"))}
#: Weights enough for any model here.
ENOUGH = {"all": torch.zeros(2**20)}
FOREIGN = """\
from collections.abc import Callable

import torch
from torch import Tensor, nn

from mmeff.heads import MaxPool
from mmeff.heads import MeanPool
from mmeff.mixers import Attention, Mixer

class Mine(MeanPool): ...

class Wide(Attention):
    def __init__(self, dim: int, extra: int = 3, **kwargs):
        super().__init__(dim, **kwargs)

class Own(Mixer):
    def __init__(self, dim: int, ratio: float = 2, act: Callable[[Tensor], Tensor] = torch.tanh, norm=nn.LayerNorm):
        super().__init__()
        self.act, self.norm = act, norm(int(ratio * dim))

    def forward(self, x, grid, lengths=None):
        return self.act(x)

def made(dim: int) -> Own:
    return Own(dim)

def unsaid(dim):
    return Own(dim)

instance = Mine(8)
"""


def with_part(name: str, part: object) -> dict:
    return {**RECIPE, "init_args": {**RECIPE["init_args"], name: part}}


def with_mixer(mixer: object) -> dict:
    part = {"class_path": "mmeff.backbones.Isotropic", "init_args": {"dim": 8, "depth": 1, "mixer": mixer}}
    return with_part("backbone", part)


def built(recipe: dict, trust: tuple[str, ...] = ()):
    return rebuild(recipe, SPECS, ENOUGH, trust)


@pytest.fixture
def foreign(tmp_path, monkeypatch) -> str:
    """The name of a module outside mmeff that holds parts of models."""
    (tmp_path / "foreign_parts.py").write_text(FOREIGN)
    monkeypatch.syspath_prepend(tmp_path)
    yield "foreign_parts"
    sys.modules.pop("foreign_parts", None)


@pytest.mark.parametrize("part", [lambda path: path, lambda path: {"class_path": path}])
def test_a_class_of_another_package_is_not_even_imported(part, foreign):
    with pytest.raises(InputError, match=rf"asks to build {foreign}\.Mine.*trust=\['{foreign}'\]"):
        built(with_part("pool", part(f"{foreign}.Mine")))
    assert foreign not in sys.modules


def test_classes_and_functions_of_a_trusted_package_are_built(foreign):
    model = built(with_part("pool", f"{foreign}.Mine"), trust=[foreign])
    assert type(model.new_head(2).pool).__module__ == foreign
    wide = {"class_path": f"{foreign}.Wide", "init_args": {"extra": 4, "head_dim": "4"}}
    assert built(with_mixer(wide), (foreign,)).model.backbone.blocks[0].mixer.heads == 2
    # What `mmeff fit` writes of defaults that are functions.
    own = {"ratio": 3, "act": "torch._C._VariableFunctions.tanh", "norm": "torch.nn.LayerNorm"}
    mixer = (
        built(with_mixer({"class_path": f"{foreign}.Own", "init_args": own}), (foreign,)).model.backbone.blocks[0].mixer
    )
    assert mixer.act is torch.tanh and mixer.norm.normalized_shape == (24,)
    assert type(built(with_mixer(f"{foreign}.made"), (foreign,)).model.backbone.blocks[0].mixer).__name__ == "Own"
    assert type(built(with_part("pool", f"{foreign}.MaxPool"), (foreign,)).new_head(2).pool).__name__ == "MaxPool"


@pytest.mark.parametrize(
    ("name", "what"),
    [
        ("unsaid", "is no Mixer that can be built"),
        ("instance", "is no Mixer that can be built|is not defined in"),
        ("Mine", "is no Mixer that can be built"),
        ("torch", "is not defined in foreign_parts"),
        ("Callable", "is not defined in foreign_parts"),
        ("nothing", "has no nothing"),
        ("torch.load", "cannot be imported"),
        ("__builtins__.eval", "cannot be imported"),
    ],
)
def test_trust_in_a_package_is_trust_in_its_parts_alone(name, what, foreign):
    with pytest.raises(InputError, match=what):
        built(with_mixer(f"{foreign}.{name}"), trust=[foreign])


def test_a_name_that_mmeff_does_not_have_is_said_plainly():
    with pytest.raises(InputError, match=r"does not fit this version of mmeff.*NoSuchPool"):
        built(with_part("pool", "mmeff.heads.NoSuchPool"))


def test_a_part_that_is_exported_can_be_named_and_nothing_else():
    names = parts()
    assert {"mmeff.mixers.Mamba", "mmeff.mixers.selective_scan.Mamba", "Mamba", "mmeff.heads.MaxPool"} <= names.keys()
    assert all(part.__module__.startswith("mmeff.") for part in names.values())


@pytest.mark.parametrize(
    ("part", "value", "kind"),
    [
        ("dropout", "1e-1", float),  # as YAML 1.1 reads a number without a point
        ("dropout", 0, float),
        ("optimizer", {"lr": 1e30}, None),
        ("pool", "MaxPool", None),
        ("pool", {"class_path": "mmeff.heads.TokenPool", "init_args": {"at": "first"}}, None),
        ("pool", {"class_path": "mmeff.heads.AttentionPool", "init_args": None}, None),
        ("mix", None, None),
        ("mix", {"mixup": 0.5}, None),
        ("mix", {"class_path": "mmeff.tasks.Mix", "init_args": {"cutmix": 1}}, None),
        ("optimizer", {"lr": "3e-4", "betas": (0.9, 0.95)}, None),
        ("tokenizer", "mmeff.tokenizers.TextBytes", None),
        ("backbone", "mmeff.backbones.Isotropic", None),
    ],
)
def test_every_way_in_which_recipes_say_a_part_is_read(part, value, kind):
    model = built(with_part(part, value))
    assert kind is None or type(model.model.heads["text"].dropout.p) is kind


def test_a_recipe_may_come_as_it_was_written():
    """Values of checkpoints are tuples, strings and numbers as the user gave them; they travel on unchanged."""
    recipe = with_part("optimizer", {"lr": "3e-4", "betas": (0.9, 0.95)})
    model = built(recipe)
    assert model.recipe == recipe and model.optimizer_config.lr == 3e-4 and model.optimizer_config.betas == (0.9, 0.95)


def saved(folder, change=lambda state: None, config=None):
    state = built(RECIPE).state_dict()
    change(state)
    specs = {"text": SPECS["text"].to_dict()}
    folder.mkdir(exist_ok=True)
    (folder / "config.json").write_text(json.dumps(config or {"model": RECIPE, "specs": specs}))
    save_file(state, folder / "model.safetensors")
    return folder


def test_an_export_is_read_by_all_that_reads_models(tmp_path, capsys):
    folder = saved(tmp_path / "model")
    assert main(["predict", "--ckpt", str(folder), "-t", "a text"]) == 0
    assert main(["export", str(folder), "--to", str(tmp_path / "again")]) == 0
    again = load_file(tmp_path / "again" / "model.safetensors")
    assert all(torch.equal(value, again[key]) for key, value in load_file(folder / "model.safetensors").items())


def test_a_link_to_a_file_is_followed(tmp_path):
    """As hubs lay out what they download."""
    folder, links = saved(tmp_path / "blobs"), tmp_path / "snapshot"
    links.mkdir()
    for path in folder.iterdir():
        (links / path.name).symlink_to(path)
    assert mmeff.load(links).specs == SPECS


@pytest.mark.parametrize(
    ("change", "what"),
    [
        (lambda state: state.update(more=torch.zeros(1)), "of another model: it also has more"),
        (lambda state: state.pop("backbone.norm.weight"), "of another model: it has no backbone.norm.weight"),
    ],
)
def test_a_model_comes_back_whole_or_not_at_all(change, what, tmp_path):
    with pytest.raises(InputError, match=what):
        mmeff.load(saved(tmp_path / "model", change))
