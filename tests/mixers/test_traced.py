"""Every mixer is pickled, and traced before its first eager call, without a trace left behind."""

import pickle

import pytest
import torch
from test_all_mixers import BUILDERS, DIM
from torch._subclasses.fake_tensor import FakeTensorMode

from mmeff.mixers import Mixer

GRID = (3, 5)


@pytest.mark.parametrize("name", BUILDERS)
def test_pickled_and_first_called_with_fake_tensors(name: str) -> None:
    torch.manual_seed(0)
    mixer: Mixer = BUILDERS[name](DIM).eval()
    x = torch.randn(2, 15, DIM)
    with FakeTensorMode(allow_non_fake_inputs=True) as fake:
        mixer(fake.from_tensor(x), GRID)
    y = mixer(x, GRID)
    assert type(y) is torch.Tensor and y.isfinite().all()
    assert torch.equal(pickle.loads(pickle.dumps(mixer))(x, GRID), y)
