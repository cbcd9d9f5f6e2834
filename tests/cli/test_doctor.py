"""`mmeff doctor` finds kernels right, and says so when they are not."""

import pytest
import torch

from mmeff.cli import main
from mmeff_kernels.selective_scan import check


def test_all_is_right_here(capsys):
    assert main(["doctor", "--device", "cpu"]) == 0
    out = capsys.readouterr().out
    assert f"torch {torch.__version__.partition('+')[0]}" in out and "cpu: " in out
    assert out.count("  right  selective_scan") == 6 and out.count("  right  short_conv") == 2 and "WRONG" not in out


def scaled(y, state):
    return y * 1.001, state


def broken(y, state):
    return y.where(y < 2, torch.nan), state


def failing(y, state):
    raise RuntimeError("no such\ninstruction")


@pytest.mark.parametrize(
    ("plant", "said"),
    [(scaled, "1.0e-03 of 1e-05 allowed"), (broken, "nan of 1e-05"), (failing, "inf of 1e-05 allowed (no such instr")],
)
def test_a_planted_fault_is_found(plant, said, monkeypatch, capsys):
    right = check.selective_scan

    def wrong(**options):
        y, state = right(**options)
        return plant(y, state) if options["reverse"] and options["x"].dtype == torch.float32 else (y, state)

    monkeypatch.setattr(check, "selective_scan", wrong)
    assert main(["doctor", "--device", "cpu"]) == 1
    found = capsys.readouterr()
    lines = [line for line in found.out.splitlines() if "WRONG" in line]
    assert len(lines) == 1 and "selective_scan reverse, torch, float32" in lines[0] and said in lines[0]
    assert found.err == "mmeff: 1 checks failed on cpu: do not trust results there, and report these lines\n"


def test_a_device_that_is_not_there(monkeypatch, capsys):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert main(["doctor", "--device", "cuda"]) == 2
    assert "there is no CUDA device here" in capsys.readouterr().err
