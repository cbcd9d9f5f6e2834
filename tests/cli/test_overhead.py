"""A step of `mmeff fit` is the step of a plain loop: the benchmark fails where the two train different weights."""

import json
from pathlib import Path

from mmeff.cli import main

ROOT = Path(__file__).parents[2]


def test_fit_trains_the_same_bits_as_a_bare_loop(tmp_path, capsys):
    words = ["fit", "-c", str(ROOT / "recipes/vision/digits.yaml"), "--trainer.accelerator=cpu"]
    words += [f"--trainer.limit_{split}_batches=1" for split in ("val", "test")]
    words += ["--trainer.limit_train_batches=4", "--trainer.max_epochs=2", f"--trainer.default_root_dir={tmp_path}"]
    timed = [{"class_path": "benchmarks.trainer_overhead.AgainstBareLoop"}]
    assert main([*words, "--data.batch_size=8", "--trainer.callbacks", json.dumps(timed)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line for line in lines if line.startswith("bare") and line.endswith("6 steps")]
    assert [line for line in lines if line.startswith("overhead") and "%" in line]
