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


#: One mixer of each kernel.
EXPORTED = ["GLA", "LinearAttention", "MLSTM", "SSD", "Mamba", "SS2D-gate", "SeparableScan", "WavefrontScan-one"]


@pytest.mark.parametrize("name", EXPORTED)
@torch.no_grad()
def test_exported_for_batches_of_any_size(name: str) -> None:
    torch.manual_seed(0)
    mixer: Mixer = BUILDERS[name](DIM).eval()
    sizes = {0: torch.export.Dim("batch", min=1, max=64)}
    exported = torch.export.export(mixer, (torch.randn(3, 15, DIM), GRID), dynamic_shapes=(sizes, (None, None)))
    for batch in (1, 2, 5):
        x = torch.randn(batch, 15, DIM)
        torch.testing.assert_close(exported.module()(x, GRID), mixer(x, GRID), rtol=0, atol=1e-4)
