"""Every mixer and channel mixer can be named in a recipe: jsonargparse builds it from its import path."""

from collections.abc import Callable

import pytest
from jsonargparse import ArgumentParser

import mmeff.feedforward
import mmeff.mixers
from mmeff.feedforward import ChannelMixer
from mmeff.mixers import Mixer, Parallel

MIXERS = [f"mmeff.mixers.{name}" for name in mmeff.mixers.__all__ if name not in ("Mixer", "Parallel")]
CHANNELS = [f"mmeff.feedforward.{name}" for name in mmeff.feedforward.__all__ if name != "ChannelMixer"]


def build(interface: type, value: object) -> object:
    parser = ArgumentParser(exit_on_error=False)
    parser.add_argument("--part", type=Callable[[int], interface])
    config = parser.parse_object({"part": value})
    return parser.instantiate(config).part(16)


@pytest.mark.parametrize(("interface", "path"), [(Mixer, p) for p in MIXERS] + [(ChannelMixer, p) for p in CHANNELS])
def test_built_by_its_path(interface: type, path: str) -> None:
    part = build(interface, {"class_path": path})
    assert isinstance(part, interface)
    assert type(part).__name__ == path.rpartition(".")[2]


def test_arguments_reach_nested_mixers() -> None:
    scan = {"class_path": "mmeff.mixers.BiMamba", "init_args": {"state": 3}}
    attention = {"class_path": "mmeff.mixers.Attention", "init_args": {"head_dim": 8, "causal": True}}
    part = build(Mixer, {"class_path": "mmeff.mixers.Parallel", "init_args": {"mixers": [scan, attention]}})
    assert isinstance(part, Parallel)
    assert part.mixers[0].A_log.shape == (2, 32, 3)
    assert part.mixers[1].heads == 2
    assert part.mixers[1].causal
