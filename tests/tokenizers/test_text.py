import json
from collections.abc import Callable

import pytest
import torch

from mmeff.errors import InputError
from mmeff.tokenizers import NoPositions, TextBPE, TextBytes, Tokenizer
from mmeff.tokenizers.text import LONGEST_WORD

TEXTS = ["The tin drum", "the tin tin", "Ünïcode 狗 drum", ""]


def fitted(**options: object) -> TextBPE:
    torch.manual_seed(0)
    tokenizer = TextBPE(8, vocab=300, positions=NoPositions, **options)  # type: ignore[arg-type]
    tokenizer.fit(TEXTS * 5)
    return tokenizer


def test_bytes_are_looked_up_one_by_one() -> None:
    tokenizer = TextBytes(8, positions=NoPositions)
    x, grid, lengths = tokenizer(["aé", "b"])
    assert grid == (3,) and lengths is not None and lengths.tolist() == [3, 1]
    assert torch.equal(x[0], tokenizer.embed.weight[[0x61, 0xC3, 0xA9]])
    assert torch.equal(x[1, 0], tokenizer.embed.weight[0x62])


def test_pairs_that_occur_often_become_one_token() -> None:
    tokenizer = fitted()
    lengths = tokenizer(["the tin", "qzx"]).lengths
    assert lengths is not None and lengths.tolist() == [2, 4]  # " the", " tin"; a space and three bytes


def test_bpe_loses_nothing_but_capitals() -> None:
    for lowercase in (True, False):
        tokenizer = fitted(lowercase=lowercase)
        assert tokenizer.bpe is not None
        text = "The 狗 saw Ünknown → words\t!"
        decoded = tokenizer.bpe.decode(tokenizer.encode([text])[0])
        assert decoded.strip() == (text.lower() if lowercase else text)


def test_bpe_comes_back_from_its_state() -> None:
    trained = fitted()
    state = trained.state_dict()
    assert state["_extra_state"].dtype == torch.uint8 and len(state["_extra_state"])
    fresh = TextBPE(8, vocab=300, positions=NoPositions)
    fresh.load_state_dict(state)
    assert fresh.encode(TEXTS) == trained.encode(TEXTS)
    assert torch.equal(fresh(TEXTS).x, trained(TEXTS).x)


def test_bpe_without_a_vocabulary_says_so_also_after_its_state_travelled() -> None:
    fresh = TextBPE(8, vocab=300)
    fresh.load_state_dict(TextBPE(8, vocab=300).state_dict())
    with pytest.raises(ValueError, match="no vocabulary yet"):
        fresh(["a"])


def set_part(**parts: object) -> Callable[[dict], dict]:
    return lambda state: {**state, **parts}


def set_model(**parts: object) -> Callable[[dict], dict]:
    return lambda state: {**state, "model": {**state["model"], **parts}}


@pytest.mark.parametrize(
    ("change", "what"),
    [
        (lambda state: b"\xff" * 9, "cannot be read: 'utf-8' codec"),
        (lambda state: b"{" * 9, "cannot be read"),
        (lambda state: b"[" * 10**5, "cannot be read"),
        (lambda state: b"[]", "cannot be read"),
        (set_model(merges=[["zz", "q"]]), "cannot be read: Token `zz` out of vocabulary"),
        (lambda state: torch.zeros(4), "is not a row of bytes"),
        (lambda state: "text", "is not a row of bytes"),
        (lambda state: set_model(vocab={**state["model"]["vocab"], "far": 10**6})(state), "has ids up to 1000000"),
        (
            set_model(vocab={chr(300 + i): i for i in range(400)}, merges=[]),
            "has ids up to 399 for 400 tokens, of vocab",
        ),
        (set_model(vocab={chr(300 + i): i for i in range(30)}, merges=[]), "lacks some bytes"),
        (set_model(dropout=0.5), "a part that training does not make: model"),
        (
            set_part(truncation={"max_length": 1, "stride": 0, "strategy": "LongestFirst", "direction": "Right"}),
            "trunc",
        ),
        (set_part(normalizer={"type": "Replace", "pattern": {"String": "a"}, "content": "b" * 99}), "normalizer"),
        (set_part(pre_tokenizer={"type": "Sequence", "pretokenizers": [{"type": "Whitespace"}]}), "pre_tokenizer"),
    ],
)
def test_a_vocabulary_that_training_does_not_make_is_named(change: Callable, what: str) -> None:
    tokenizer = fitted()
    changed = change(json.loads(bytes(tokenizer.get_extra_state().numpy())))
    if isinstance(changed, dict):
        changed = json.dumps(changed).encode()
    state = torch.frombuffer(bytearray(changed), dtype=torch.uint8) if isinstance(changed, bytes) else changed
    with pytest.raises(InputError, match=f"_extra_state, the vocabulary of its TextBPE, .*{what}"):
        TextBPE(8, vocab=300).set_extra_state(state)


def test_training_twice_gives_the_same_vocabulary() -> None:
    assert torch.equal(fitted().get_extra_state(), fitted().get_extra_state())


def test_a_vocabulary_is_learned_from_words_of_any_length() -> None:
    """Without a limit training takes the square of a word's length: 47 s for the first, 1 s with it."""
    tokenizer = TextBPE(8, vocab=8192)
    tokenizer.fit(["".join(chr(97 + letter) for letter in torch.randint(16, (200_000,)).tolist())])
    tokenizer.fit(["ab" * 1000])
    assert tokenizer.bpe is not None
    assert max(map(len, tokenizer.bpe.get_vocab())) <= LONGEST_WORD  # else 1024, by doubling
    (ids,) = tokenizer.encode(["ab" * 200])  # reading cuts no word
    assert tokenizer.bpe.decode(ids) == " " + "ab" * 200
    assert tokenizer.bpe.pre_tokenizer.pre_tokenize_str("ab" * 200)[1:] == []


@pytest.mark.parametrize("tokenizer", [TextBytes(8, max_length=4), fitted(max_length=2)], ids=["bytes", "bpe"])
def test_long_texts_are_cut_and_counted(tokenizer: TextBytes | TextBPE) -> None:
    assert tokenizer.report() is None
    lengths = tokenizer(["the tin drum tin", "the", "the tin drum"]).lengths
    assert lengths is not None and lengths.max() == tokenizer.max_length
    assert tokenizer(["drum drum drum"]).x.shape[1] == tokenizer.max_length
    report = tokenizer.report()
    assert report is not None and report.startswith("3 of 4 texts") and str(tokenizer.max_length) in report
    assert tokenizer.report() is None  # reported once


@pytest.mark.parametrize("tokenizer", [TextBytes(8), fitted()], ids=["bytes", "bpe"])
@pytest.mark.parametrize("text", ["", " ", "\ud800", "\x00", "😀"])
def test_no_text_is_too_strange(tokenizer: Tokenizer, text: str) -> None:
    x, _, lengths = tokenizer([text, "a longer one"])
    assert lengths is not None and lengths[0] >= 1 and x.isfinite().all()


def test_bpe_learns_from_texts_that_utf8_cannot_spell() -> None:
    TextBPE(8, vocab=300).fit(["\ud800 a", "b"])


def test_a_vocabulary_smaller_than_the_bytes_is_refused() -> None:
    with pytest.raises(ValueError, match="vocab is 100; it must be a whole number of at least 256"):
        TextBPE(8, vocab=100)
