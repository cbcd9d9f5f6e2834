"""Reading a checkpoint runs no code that came with it."""

import json
import sys

import pytest
import torch

import mmeff
from mmeff.checkpoint import build
from mmeff.errors import InputError

RECIPE = {
    "class_path": "mmeff.tasks.Classify",
    "init_args": {
        "tokenizer": {"class_path": "mmeff.tokenizers.TextBytes"},
        "backbone": {"class_path": "mmeff.backbones.Isotropic", "init_args": {"dim": 8, "depth": 1}},
    },
}


def with_part(name: str, part: object) -> dict:
    return {**RECIPE, "init_args": {**RECIPE["init_args"], name: part}}


@pytest.fixture
def foreign(tmp_path, monkeypatch) -> str:
    """The name of a module outside mmeff that holds a pool."""
    (tmp_path / "foreign_parts.py").write_text("from mmeff.heads import MeanPool\n\nclass Mine(MeanPool): ...\n")
    monkeypatch.syspath_prepend(tmp_path)
    yield "foreign_parts"
    sys.modules.pop("foreign_parts", None)


class RunsCode:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return open, (str(self.path), "w")


def test_a_pickle_is_not_run(tmp_path):
    ran = tmp_path / "ran"
    torch.save({"mmeff": {"model": RECIPE, "specs": {}}, "state_dict": RunsCode(ran)}, tmp_path / "best.ckpt")
    with pytest.raises(InputError, match="cannot be read as a checkpoint"):
        mmeff.load(tmp_path)
    assert not ran.exists()
    torch.load(tmp_path / "best.ckpt", weights_only=False)
    assert ran.exists(), "this file runs no code in any case: it tests nothing"


@pytest.mark.parametrize("part", [lambda path: path, lambda path: {"class_path": path}, lambda path: [path]])
def test_a_class_of_another_package_is_not_even_imported(part, foreign):
    recipe = with_part("pool", part(f"{foreign}.Mine"))
    with pytest.raises(InputError, match=rf"asks to build {foreign}\.Mine.*trust=\['{foreign}'\]"):
        build(recipe)
    assert foreign not in sys.modules


def test_a_package_that_is_trusted_is_built(foreign):
    model = build(with_part("pool", f"{foreign}.Mine"), trust=[foreign])
    assert type(model.make_head(2).pool).__module__ == foreign


@pytest.mark.parametrize("path", ["mmeff.cli.sys.exit", "mmeff.cli.importlib.import_module"])
def test_what_mmeff_imports_is_not_its_own(path):
    with pytest.raises(InputError, match="asks to build"):
        build(with_part("pool", path))


def test_a_name_that_mmeff_does_not_have_is_said_plainly():
    with pytest.raises(InputError, match=r"does not fit this version of mmeff.*NoSuchPool"):
        build(with_part("pool", "mmeff.heads.NoSuchPool"))


def test_an_exported_folder_is_held_to_the_same(tmp_path, foreign):
    config = {"model": with_part("pool", f"{foreign}.Mine"), "specs": {}}
    (tmp_path / "config.json").write_text(json.dumps(config))
    from safetensors.torch import save_file

    save_file({"a": torch.zeros(1)}, tmp_path / "model.safetensors")
    with pytest.raises(InputError, match=f"asks to build {foreign}"):
        mmeff.load(tmp_path)
