import inspect

import pytest
import torch

from mmeff import heads
from mmeff.heads import AttentionPool, Head, MaxPool, MeanPool, Pool, TokenPool
from mmeff.tokens import Tokens

POOLS = [c for c in vars(heads).values() if inspect.isclass(c) and issubclass(c, Pool) and not inspect.isabstract(c)]
LENGTHS = torch.tensor([7, 1, 4])


@pytest.fixture
def x() -> torch.Tensor:
    torch.manual_seed(0)
    return torch.randn(3, 7, 8)


def test_all_pools_are_walked() -> None:
    assert set(POOLS) >= {MeanPool, MaxPool, TokenPool, AttentionPool}


@pytest.mark.parametrize("pool", POOLS)
def test_a_row_is_pooled_as_if_it_were_alone(pool: type[Pool], x: torch.Tensor) -> None:
    built = pool(8)  # type: ignore[call-arg]
    padded = x.clone()
    for row, n in zip(padded, LENGTHS, strict=True):
        row[n:] = 1e9
    together = built(Tokens(padded, (7,), LENGTHS))
    assert together.shape == (3, 8)
    for i, n in enumerate(LENGTHS):
        torch.testing.assert_close(together[i], built(Tokens(x[i : i + 1, :n], (int(n),)))[0])


@pytest.mark.parametrize("pool", POOLS)
def test_full_lengths_are_no_lengths(pool: type[Pool], x: torch.Tensor) -> None:
    built = pool(8)  # type: ignore[call-arg]
    torch.testing.assert_close(built(Tokens(x, (7,), torch.tensor([7, 7, 7]))), built(Tokens(x, (7,))))


def test_pools_are_what_they_are_called(x: torch.Tensor) -> None:
    tokens = Tokens(x, (7,), LENGTHS)
    torch.testing.assert_close(MeanPool(8)(tokens)[2], x[2, :4].mean(0))
    assert torch.equal(MaxPool(8)(tokens)[2], x[2, :4].amax(0))
    assert torch.equal(TokenPool(8, "first")(tokens), x[:, 0])
    assert torch.equal(TokenPool(8, "middle")(tokens), x[[0, 1, 2], [3, 0, 2]])
    assert torch.equal(TokenPool(8, "last")(tokens), x[[0, 1, 2], [6, 0, 3]])
    assert torch.equal(TokenPool(8, "last")(Tokens(x, (7,))), x[:, 6])


def test_attention_pooling_is_its_equation(x: torch.Tensor) -> None:
    pool = AttentionPool(8, heads=2)
    row = x[2, :4]
    expected = []
    for h in range(2):
        weights = (row @ pool.query[h] / 8**0.5).softmax(0)
        expected.append(weights @ pool.value(row)[:, 4 * h : 4 * h + 4])
    torch.testing.assert_close(pool(Tokens(x, (7,), LENGTHS))[2], torch.cat(expected))
    with pytest.raises(ValueError, match="3 heads"):
        AttentionPool(8, heads=3)


def test_a_head_pools_and_maps(x: torch.Tensor) -> None:
    head = Head(8, 5, MaxPool, dropout=0.5).eval()
    torch.testing.assert_close(head(Tokens(x, (7,))), head.linear(x.amax(1)))
    torch.manual_seed(0)
    head.train()
    assert not torch.equal(head(Tokens(x, (7,))), head(Tokens(x, (7,))))
