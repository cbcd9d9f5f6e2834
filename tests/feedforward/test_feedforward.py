"""Channel mixers: what all owe, and each against its equation in float64."""

import math

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import mmeff.feedforward
from mmeff.feedforward import MLP, ChannelMixer, MoE, SwiGLU
from mmeff.feedforward.mlp import hidden_width

DIM = 8
CLASSES = [getattr(mmeff.feedforward, name) for name in mmeff.feedforward.__all__ if name != "ChannelMixer"]


def tokens(rows: int = 3, L: int = 10) -> Tensor:
    return torch.randn(rows, L, DIM, dtype=torch.float64, generator=torch.Generator().manual_seed(0))


@pytest.fixture(params=CLASSES)
def channel(request: pytest.FixtureRequest) -> ChannelMixer:
    torch.manual_seed(0)
    return request.param(DIM).double()


def test_each_token_is_transformed_by_itself(channel: ChannelMixer) -> None:
    x = tokens()
    y = channel(x)
    assert y.shape == x.shape
    alone = torch.stack([channel(x[:, t : t + 1]) for t in range(x.shape[1])], 1).squeeze(2)
    torch.testing.assert_close(y, alone, rtol=1e-10, atol=1e-12)


def test_every_parameter_receives_a_gradient(channel: ChannelMixer) -> None:
    channel(tokens()).square().sum().backward()
    for name, parameter in channel.named_parameters():
        assert parameter.grad is not None and parameter.grad.abs().max() > 0, name


def test_padding_changes_no_real_token_and_no_statistic(channel: ChannelMixer) -> None:
    lengths = torch.tensor([10, 4, 0])
    real = torch.arange(10) < lengths[:, None]
    x = tokens()
    y = channel(x, lengths)
    torch.testing.assert_close(y[real], channel(x)[real], rtol=1e-10, atol=1e-12)
    channel(x, lengths)
    loss = channel.aux_loss
    other = channel(torch.where(real[..., None], x, 1e6), lengths)
    assert other.isfinite().all()
    assert torch.equal(other[real], y[real])
    assert channel.aux_loss is loss is None or torch.equal(channel.aux_loss, loss)


def test_mlp_and_swiglu_are_their_equations() -> None:
    x = tokens()
    mlp, glu = MLP(DIM, ratio=2.0).double(), SwiGLU(DIM, ratio=2.0).double()
    torch.testing.assert_close(
        mlp(x), F.gelu(x @ mlp.expand.weight.T + mlp.expand.bias) @ mlp.out.weight.T + mlp.out.bias
    )
    gate, value = glu.expand.weight.split(16)
    torch.testing.assert_close(glu(x), (F.silu(x @ gate.T) * (x @ value.T)) @ glu.out.weight.T)


def test_dropout_acts_in_training_alone() -> None:
    torch.manual_seed(0)
    for channel in (MLP(DIM, dropout=0.5).double(), SwiGLU(DIM, dropout=0.5).double()):
        assert not torch.equal(channel(tokens()), channel(tokens()))
        channel.eval()
        assert torch.equal(channel(tokens()), channel(tokens()))


@pytest.mark.parametrize("top_k", [1, 2, 4])
def test_moe_sums_the_chosen_experts(top_k: int) -> None:
    torch.manual_seed(0)
    moe = MoE(DIM, experts=4, top_k=top_k).double()
    x = tokens()
    p = (x @ moe.router.weight.T).softmax(-1)
    expected = torch.zeros_like(x)
    for b in range(3):
        for t in range(10):
            chosen = p[b, t].argsort(descending=True)[:top_k].tolist()
            total = p[b, t, chosen].sum() if top_k > 1 else 1.0
            for e in chosen:
                expected[b, t] += p[b, t, e] / total * moe.experts[e](x[b, t])
    torch.testing.assert_close(moe(x), expected, rtol=1e-10, atol=1e-12)


def test_balancing_loss_counts_real_tokens_in_training_alone() -> None:
    torch.manual_seed(0)
    moe = MoE(DIM, experts=4, top_k=2, balance=0.5).double()
    x, lengths = tokens(), torch.tensor([10, 4, 0])
    moe(x, lengths)
    p = (torch.cat([x[0], x[1, :4]]) @ moe.router.weight.T).softmax(-1)
    chosen = F.one_hot(p.topk(2).indices, 4).sum((0, 1)) / 28
    torch.testing.assert_close(moe.aux_loss, 0.5 * 4 * (chosen * p.mean(0)).sum())
    moe.eval()
    moe(x, lengths)
    assert moe.aux_loss is None


def test_balancing_loss_is_balance_when_uniform_and_experts_times_it_when_collapsed() -> None:
    moe = MoE(4, experts=4, top_k=1, balance=0.01).double()
    with torch.no_grad():
        moe.router.weight.copy_(100 * torch.eye(4))
    moe(torch.eye(4, dtype=torch.float64)[None])
    assert math.isclose(moe.aux_loss.item(), 0.01, rel_tol=1e-9)
    moe(torch.eye(4, dtype=torch.float64)[:1].expand(1, 8, 4))
    assert math.isclose(moe.aux_loss.item(), 0.04, rel_tol=1e-9)


def test_idle_experts_have_gradients_and_an_empty_batch_passes() -> None:
    torch.manual_seed(0)
    moe = MoE(DIM, experts=8, top_k=1).double()
    moe(tokens(1, 1)).sum().backward()
    assert all(parameter.grad is not None for parameter in moe.parameters())
    y = moe(tokens(), torch.zeros(3, dtype=torch.int64))
    assert torch.equal(y, torch.zeros_like(y))
    assert moe.aux_loss.item() == 0


def test_moe_under_autocast() -> None:
    torch.manual_seed(0)
    moe = MoE(DIM)
    with torch.autocast("cpu", torch.bfloat16):
        y = moe(tokens().float())
    assert y.isfinite().all()
    assert moe.aux_loss.dtype == torch.float32


def test_hidden_widths_are_rounded_up() -> None:
    assert [hidden_width(dim, 8 / 3) for dim in (96, 192, 320)] == [256, 512, 856]
    with pytest.raises(ValueError, match=r"ratio 0\.1 of dim 8 leaves no hidden channel"):
        hidden_width(8, 0.1)


@pytest.mark.parametrize("cls", CLASSES)
def test_every_wide_layer_is_a_multiple_of_8(cls: type[nn.Module]) -> None:
    linear = [module for module in cls(320).modules() if isinstance(module, nn.Linear)]
    assert linear
    for layer in linear:
        assert all(size % 8 == 0 for size in layer.weight.shape if size > 64), layer


def test_what_cannot_be_built_says_which_numbers() -> None:
    with pytest.raises(ValueError, match="top_k 5 must lie between 1 and the number of experts 4"):
        MoE(DIM, experts=4, top_k=5)
    for cls in (MLP, SwiGLU, MoE):
        with pytest.raises(ValueError, match=r"ratio 0\.1 of dim 8"):
            cls(DIM, ratio=0.1)
