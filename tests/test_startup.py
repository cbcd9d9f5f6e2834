"""The command is quick to answer, and what it prints of a run is a recipe for the same run."""

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml

from mmeff.cli import main

ROOT = Path(__file__).parents[1]
COMMAND = "import sys; from mmeff.cli import main; sys.exit(main())"


def seconds(code: str, *words: str, runs: int = 3) -> float:
    """Wall time of Python running `code`, the best of several runs."""
    env = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "kernels")])}
    took = []
    for _ in range(runs):
        start = time.perf_counter()
        subprocess.run([sys.executable, "-c", code, *words], env=env, check=True, stdout=subprocess.DEVNULL)
        took.append(time.perf_counter() - start)
    return min(took)


def test_the_parts_cost_little_more_to_import_than_torch():
    parts = "import mmeff, mmeff.mixers, mmeff.feedforward, mmeff.backbones"
    code = f"import time, torch; start = time.perf_counter(); {parts}; print(time.perf_counter() - start)"
    env = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "kernels")])}
    took = min(float(subprocess.check_output([sys.executable, "-c", code], env=env)) for _ in range(3))
    assert took < 0.3, f"{took:.2f} s beyond torch"


def test_help_is_there_at_once():
    took = seconds(COMMAND, "--help")
    assert took < 1, f"{took:.2f} s"  # a tenth of it where nothing else runs: nothing heavy is imported


def test_help_of_fit_names_the_options(capsys):
    with pytest.raises(SystemExit) as done:
        main(["fit", "--help"])
    assert done.value.code == 0
    assert {"--trainer.max_epochs", "--model", "--data", "--ckpt_path"} <= set(capsys.readouterr().out.split())


@pytest.mark.parametrize("recipe", ["vision/digits", "text/glosses", "multimodal/joint"])
def test_a_printed_recipe_is_a_recipe(recipe, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as done:
        main(["fit", "-c", str(ROOT / f"recipes/{recipe}.yaml"), "--print_config"])
    assert done.value.code == 0
    text = capsys.readouterr().out
    assert set(yaml.safe_load(text)) >= {"trainer", "model", "data", "seed_everything"}
    (tmp_path / "printed.yaml").write_text(text)
    assert main(["fit", "-c", "printed.yaml", "--trainer.fast_dev_run", "1", "--trainer.accelerator", "cpu"]) == 0
