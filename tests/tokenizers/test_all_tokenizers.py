"""What holds for every name in `mmeff.tokenizers`: a new one is tested here without a new test."""

import inspect
import math
from typing import Any

import pytest
import torch
from safetensors.torch import load, save
from torch import Tensor

from mmeff import tokenizers
from mmeff.tokenizers import LogMel, Positions, SpecAugment, Tokenizer
from mmeff.tokens import Tokens, valid_mask

DIM = 32
PUBLIC = [getattr(tokenizers, name) for name in tokenizers.__all__]
TOKENIZERS = [c for c in PUBLIC if issubclass(c, Tokenizer) and not inspect.isabstract(c)]
POSITIONS = [c for c in PUBLIC if issubclass(c, Positions) and not inspect.isabstract(c)]


def raw_batch(signal: str) -> tuple[Any, Tensor | None]:
    """Three examples, of different lengths where the signal has lengths."""
    generator = torch.Generator().manual_seed(0)
    if signal == "image":
        return torch.rand(3, 3, 40, 56, generator=generator), None
    if signal == "audio":
        lengths = torch.tensor([16000, 5000, 12345])
        wave = torch.rand(3, 16000, generator=generator) - 0.5
        return wave * valid_mask(lengths, 16000), lengths
    if signal == "series":
        lengths = torch.tensor([100, 7, 61])
        return torch.randn(3, 100, 1, generator=generator) * valid_mask(lengths, 100)[..., None], lengths
    return ["a longer text, in Ünicode: 狗", "x", "two words"], None


def single(raw: Any, lengths: Tensor | None, i: int) -> tuple[Any, Tensor | None]:
    """Example i as a batch of its own, without any padding."""
    if lengths is None:
        return raw[i : i + 1], None
    return raw[i : i + 1, : lengths[i]], lengths[i : i + 1]


def built(cls: type[Tokenizer], seed: int = 0) -> Tokenizer:
    """A tokenizer with its defaults, fitted, in eval mode."""
    torch.manual_seed(seed)
    tokenizer = cls(DIM)  # type: ignore[call-arg]
    raw, lengths = raw_batch(tokenizer.signal)
    tokenizer.fit([single(raw, lengths, i)[0][0] for i in range(3)])
    return tokenizer.eval()


def test_every_public_class_is_walked() -> None:
    known = {*TOKENIZERS, *POSITIONS, Tokenizer, Positions, LogMel, SpecAugment}
    assert set(PUBLIC) == known and len(TOKENIZERS) >= 7


@pytest.mark.parametrize("cls", TOKENIZERS)
def test_tokens_lie_on_their_grid(cls: type[Tokenizer]) -> None:
    tokenizer = built(cls)
    x, grid, lengths = tokenizer(*raw_batch(tokenizer.signal))
    assert x.shape == (3, math.prod(grid), DIM) and x.isfinite().all()
    if lengths is not None:
        assert lengths.shape == (3,) and lengths.dtype == torch.int64
        assert lengths.max() == x.shape[1] and lengths.min() >= 1  # the longest row is full, none is empty
        assert (lengths % math.prod(grid[1:]) == 0).all()


@pytest.mark.parametrize("cls", TOKENIZERS)
def test_a_row_does_not_depend_on_its_neighbours(cls: type[Tokenizer]) -> None:
    tokenizer = built(cls)
    raw, true = raw_batch(tokenizer.signal)
    x, _, lengths = tokenizer(raw, true)
    for i in range(3):
        alone, _, _ = tokenizer(*single(raw, true, i))
        n = x.shape[1] if lengths is None else int(lengths[i])
        assert alone.shape[1] == n
        torch.testing.assert_close(x[i, :n], alone[0], atol=1e-5, rtol=0)


@pytest.mark.parametrize("cls", TOKENIZERS)
def test_all_that_it_learned_travels_in_a_safetensors_file(cls: type[Tokenizer]) -> None:
    trained, fresh = built(cls), cls(DIM).eval()  # type: ignore[call-arg]
    state = trained.state_dict()
    assert all(isinstance(value, Tensor) for value in state.values())
    fresh.load_state_dict(load(save({key: value.contiguous() for key, value in state.items()})))
    batch = raw_batch(trained.signal)
    assert torch.equal(fresh(*batch).x, trained(*batch).x)


@pytest.mark.parametrize("cls", TOKENIZERS)
def test_every_parameter_is_trained_also_in_bfloat16(cls: type[Tokenizer]) -> None:
    tokenizer = built(cls).train()
    with torch.autocast("cpu", torch.bfloat16):
        x = tokenizer(*raw_batch(tokenizer.signal)).x
    (x.float() * torch.randn(x.shape)).sum().backward()
    for name, parameter in tokenizer.named_parameters():
        assert parameter.grad is not None and parameter.grad.isfinite().all() and parameter.grad.any(), name


@pytest.mark.parametrize("cls", TOKENIZERS)
def test_token_dropout_hides_tokens_in_training_alone(cls: type[Tokenizer]) -> None:
    torch.manual_seed(0)
    tokenizer = cls(DIM, token_dropout=0.5, positions=tokenizers.NoPositions)  # type: ignore[call-arg]
    raw, lengths = raw_batch(tokenizer.signal)
    tokenizer.fit([single(raw, lengths, i)[0][0] for i in range(3)])
    hidden = [0.0, 0.0]
    for training in (False, True):
        tokens = tokenizer.train(training)(raw, lengths)
        real = torch.ones(tokens.x.shape[:2], dtype=torch.bool)
        if tokens.lengths is not None:
            real = valid_mask(tokens.lengths, tokens.x.shape[1])
        hidden[training] = float((tokens.x[real] == 0).all(-1).float().mean())
    assert hidden[0] == 0 and 0 < hidden[1] < 1


@pytest.mark.parametrize("cls", POSITIONS)
@pytest.mark.parametrize("lengths", [None, torch.tensor([70, 196])])
def test_positions_are_added_alike_to_every_row(cls: type[Positions], lengths: Tensor | None) -> None:
    positions = cls(DIM)  # type: ignore[call-arg]
    x = torch.randn(2, 196, DIM)
    out = positions(Tokens(x, (14, 14), lengths))
    assert out.grid == (14, 14) and out.lengths is lengths
    torch.testing.assert_close(out.x[0] - x[0], out.x[1] - x[1], atol=1e-6, rtol=0)
