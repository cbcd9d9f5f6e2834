import numpy as np
import pytest
import torch

from mmeff.tasks import Mix


@pytest.fixture(autouse=True)
def seeded() -> None:
    torch.manual_seed(0)
    np.random.seed(0)  # timm draws from the global stream


def images(B: int) -> tuple[torch.Tensor, torch.Tensor]:
    return torch.rand(B, 3, 8, 12), torch.arange(B) % 5


@pytest.mark.parametrize(
    "mix", [Mix(mixup=0.8), Mix(cutmix=1.0), Mix(mixup=0.8, cutmix=1.0), Mix(mixup=1.0, probability=0.5)]
)
@pytest.mark.parametrize("B", [1, 2, 5, 8])
@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_labels_stay_distributions(mix: Mix, B: int, smoothing: float) -> None:
    raw, label = images(B)
    kept = raw.clone()
    for _ in range(5):
        mixed, _, soft = mix(raw, None, label, 5, smoothing)
        rows = len(mixed)
        assert rows in {B, B // 2 * 2}  # an odd batch that is mixed loses its last row
        assert mixed.shape == (rows, 3, 8, 12) and soft.shape == (rows, 5)
        torch.testing.assert_close(soft.sum(1), torch.ones(rows))
        assert soft.min() >= 0
    assert torch.equal(raw, kept)  # the batch itself is not written to


def test_mixup_blends_signal_and_label_by_the_same_share() -> None:
    sounds, label = torch.rand(4, 100), torch.tensor([0, 1, 2, 3])
    lengths = torch.tensor([100, 40, 60, 80])
    mixed, longer, soft = Mix(mixup=1.0)(sounds, lengths, label, 4, 0.0)
    assert longer is not None and longer.tolist() == [100, 60, 60, 100]
    lam = soft[0, 0]
    assert 0.01 < lam < 0.99
    torch.testing.assert_close(mixed, lam * sounds + (1 - lam) * sounds.flip(0))
    torch.testing.assert_close(soft, lam * torch.eye(4) + (1 - lam) * torch.eye(4).flip(0))


def test_cutmix_takes_a_box_and_as_much_of_the_label() -> None:
    raw, label = images(4)
    mixed, _, soft = Mix(cutmix=1.0)(raw, None, label, 5, 0.0)
    own = (mixed == raw).all(1)  # (B, H, W)
    assert ((mixed == raw.flip(0)).all(1) | own).all()
    assert 0 < own[0].float().mean() < 1
    torch.testing.assert_close(soft[0, 0], own[0].float().mean())


def test_sounds_have_no_box_to_cut() -> None:
    sounds, label = torch.rand(4, 100), torch.arange(4)
    lengths = torch.tensor([100, 40, 60, 80])
    mixed, kept, soft = Mix(cutmix=1.0)(sounds, lengths, label, 4, 0.0)
    assert kept is lengths
    assert torch.equal(mixed, sounds) and torch.equal(soft, torch.eye(4))


def test_smoothing_is_in_the_label_of_one_example_too() -> None:
    _, _, soft = Mix(mixup=1.0)(torch.rand(1, 100), None, torch.tensor([1]), 4, 0.2)
    torch.testing.assert_close(soft, torch.tensor([[0.05, 0.85, 0.05, 0.05]]))


def test_the_share_of_mixed_batches() -> None:
    sounds, label = torch.rand(2, 10), torch.tensor([0, 1])
    mix = Mix(mixup=1.0, probability=0.3)
    mixed = sum(not torch.equal(mix(sounds, None, label, 2, 0.0)[0], sounds) for _ in range(400))
    assert 85 < mixed < 155  # 120, and four standard deviations of 9


def test_nothing_to_mix_is_refused() -> None:
    with pytest.raises(ValueError, match="mixup or cutmix above 0"):
        Mix()
