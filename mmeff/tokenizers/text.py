"""A list of B strings -> Tokens on an (L,) grid."""

import json
from abc import abstractmethod
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn

from mmeff.errors import InputError, whole
from mmeff.signals import DataSpec
from mmeff.tokenizers.base import Tokenizer
from mmeff.tokenizers.dropout import TokenDropout
from mmeff.tokenizers.positions import Positions, SinusoidalPositions
from mmeff.tokens import Tokens

if TYPE_CHECKING:
    from tokenizers import Tokenizer as Bpe

DAMAGED = "the checkpoint is damaged: _extra_state, the vocabulary of its TextBPE,"
#: Kinds of the parts that `TextBPE.fit` gives a tokenizer, by their names in its JSON.
FITTED = {"normalizer": {"Sequence", "NFC", "Lowercase"}, "pre_tokenizer": {"ByteLevel"}, "decoder": {"ByteLevel"}}


def encodable(text: str) -> str:
    """The text with "?" for lone surrogates, which JSON can spell and UTF-8 cannot."""
    return text.encode(errors="replace").decode()


class TextTokenizer(Tokenizer):
    """Strings -> ids -> embeddings; a subclass says what an id is. Texts past `max_length` ids are cut and counted.

    A batch may be ids already, int64 (B, L) with lengths (B,) or none where every row is full: those are not cut.
    """

    signal = "text"

    def __init__(
        self, dim: int, vocab: int, max_length: int, positions: Callable[[int], Positions], token_dropout: float
    ):
        super().__init__()
        whole(1, dim=dim, max_length=max_length)
        whole(256, vocab=vocab)  # as many as there are bytes
        self.max_length = max_length
        self.embed = nn.Embedding(vocab, dim)
        self.dropout = TokenDropout(token_dropout)
        self.positions = positions(dim)
        self.seen = self.cut = 0

    @abstractmethod
    def encode(self, text: list[str]) -> list[list[int]]:
        """Ids of each text, none of them empty."""

    def forward(self, raw: list[str] | Tensor, lengths: Tensor | None = None) -> Tokens:
        if isinstance(raw, Tensor):
            return self._embedded(raw, lengths)
        if not isinstance(raw, list | tuple) or not raw or not all(isinstance(text, str) for text in raw):
            found = type(raw).__name__
            if isinstance(raw, list | tuple):
                found += f" of {sorted({type(text).__name__ for text in raw})}"
            raise InputError(f"the raw batch is a {found}; it must be a list of strings, one or more")
        rows = self.encode([encodable(text) for text in raw])
        self.seen += len(rows)
        self.cut += sum(len(row) > self.max_length for row in rows)
        rows = [row[: self.max_length] for row in rows]
        L = max(map(len, rows))
        ids = torch.zeros(len(rows), L, dtype=torch.long)
        for i, row in enumerate(rows):
            ids[i, : len(row)] = torch.tensor(row)
        true = torch.tensor([len(row) for row in rows], device=self.embed.weight.device)
        return self._embedded(ids, true)

    def _embedded(self, ids: Tensor, lengths: Tensor | None) -> Tokens:
        if ids.ndim != 2 or ids.dtype != torch.long:
            raise InputError(f"the ids of a batch are {ids.dtype} {tuple(ids.shape)}; they must be int64 (B, L)")
        x = self.embed(ids.to(self.embed.weight.device, non_blocking=True))
        return self.positions(Tokens(self.dropout(x), (ids.shape[1],), lengths))

    def length(self, spec: DataSpec) -> float:
        return self.max_length

    def random(self, spec: DataSpec, length: float, batch: int) -> Tensor:
        """Ids: strings are cut into them on the host, which is none of a backbone's time."""
        return torch.randint(self.embed.num_embeddings, (batch, int(length)))

    def report(self) -> str | None:
        """What to tell the user about texts that were cut since the last report."""
        seen, cut, self.seen, self.cut = self.seen, self.cut, 0, 0
        if not cut:
            return None
        return f"{cut} of {seen} texts were longer than max_length = {self.max_length} tokens and were cut there"


class TextBytes(TextTokenizer):
    """One token a UTF-8 byte: no vocabulary to learn, no text it cannot read."""

    def __init__(
        self,
        dim: int,
        max_length: int = 1024,
        positions: Callable[[int], Positions] = SinusoidalPositions,
        token_dropout: float = 0.0,
    ):
        """
        Args:
            dim: width of the tokens, given by the backbone.
            max_length: longest text in bytes; the rest is cut.
            positions: what is added to the tokens to say where they are.
            token_dropout: share of tokens zeroed in training.
        """
        super().__init__(dim, 256, max_length, positions, token_dropout)

    def encode(self, text: list[str]) -> list[list[int]]:
        return [list(t.encode()) or [0] for t in text]


#: Bytes of a word that the training of a vocabulary sees in one piece.
LONGEST_WORD = 256


class TextBPE(TextTokenizer):
    """Byte-level byte-pair encoding, trained on the training split with the `tokenizers` library.

    Its merges are part of the state_dict, so a checkpoint reads new text as the training run did.
    """

    def __init__(
        self,
        dim: int,
        vocab: int = 8192,
        max_length: int = 256,
        lowercase: bool = True,
        positions: Callable[[int], Positions] = SinusoidalPositions,
        token_dropout: float = 0.0,
    ):
        """
        Args:
            dim: width of the tokens, given by the backbone.
            vocab: most ids that training may make; at least 256, for the bytes.
            max_length: longest text in tokens; the rest is cut.
            lowercase: fold capitals before splitting.
            positions: what is added to the tokens to say where they are.
            token_dropout: share of tokens zeroed in training.
        """
        super().__init__(dim, vocab, max_length, positions, token_dropout)
        self.vocab, self.lowercase = vocab, lowercase
        self.bpe = None

    def fit(self, raw: Sequence[str]) -> None:
        """Learn the merges. Words longer than LONGEST_WORD bytes are cut there for training, and for training alone."""
        from tokenizers import Regex, decoders, models, normalizers, pre_tokenizers, trainers
        from tokenizers import Tokenizer as Bpe

        bpe = Bpe(models.BPE())
        bpe.normalizer = normalizers.Sequence(  # type: ignore[assignment]
            [normalizers.NFC(), *([normalizers.Lowercase()] if self.lowercase else [])]
        )
        words = pre_tokenizers.ByteLevel(add_prefix_space=True)
        # The trainer scans a word anew for each of its merges: one of n bytes would cost n^2.
        pieces = pre_tokenizers.Split(Regex(rf"[\s\S]{{1,{LONGEST_WORD}}}"), "isolated")
        bpe.pre_tokenizer = pre_tokenizers.Sequence([words, pieces])  # type: ignore[assignment]
        bpe.decoder = decoders.ByteLevel()  # type: ignore[assignment]
        alphabet = pre_tokenizers.ByteLevel.alphabet()
        trainer = trainers.BpeTrainer(vocab_size=self.vocab, initial_alphabet=alphabet, show_progress=False)
        bpe.train_from_iterator(map(encodable, raw), trainer, length=len(raw))
        bpe.pre_tokenizer = words  # type: ignore[assignment]
        self.bpe = bpe

    def encode(self, text: list[str]) -> list[list[int]]:
        if self.bpe is None:
            raise InputError("this TextBPE has no vocabulary yet: call fit(texts), or load a trained state_dict")
        return [e.ids or [0] for e in self.bpe.encode_batch(text, add_special_tokens=False)]

    # The merges as a byte tensor, not a string: then safetensors files hold them as well.
    def get_extra_state(self) -> Tensor:
        text = self.bpe.to_str() if self.bpe is not None else ""
        return torch.from_numpy(np.frombuffer(text.encode(), dtype=np.uint8).copy())

    def set_extra_state(self, state: Any) -> None:
        """InputError unless it is what `get_extra_state` gives of a tokenizer with these options."""
        if not isinstance(state, Tensor) or state.dtype != torch.uint8 or state.ndim != 1:
            raise InputError(f"{DAMAGED} is not a row of bytes")
        self.bpe = read_bpe(bytes(state.cpu().numpy()), self.vocab) if len(state) else None


def read_bpe(text: bytes, vocab: int) -> "Bpe":
    """A tokenizer of the `tokenizers` library from its JSON. InputError if it has parts that `TextBPE.fit` does not
    make, or more than `vocab` ids."""
    from tokenizers import Tokenizer as Bpe
    from tokenizers import models, pre_tokenizers

    try:
        found = Bpe.from_str(text.decode())
    except Exception as error:  # UnicodeDecodeError, and for all else the library's bare Exception
        raise InputError(f"{DAMAGED} cannot be read: {' '.join(str(error).split())[:200]}") from error
    parts, plain = json.loads(found.to_str()), json.loads(Bpe(models.BPE()).to_str())
    own = [part.pop("model") for part in (parts, plain)]
    learnt = own[0].get("vocab")
    own = [{key: value for key, value in model.items() if key not in ("vocab", "merges")} for model in own]
    for key, value in {**parts, "model": own[0]}.items():
        fitted = kinds(value) <= FITTED[key] if key in FITTED else value == {**plain, "model": own[1]}.get(key)
        if not fitted:
            raise InputError(f"{DAMAGED} has a part that training does not make: {key}")
    ids = sorted(learnt.values())
    if ids != list(range(len(ids))) or len(ids) > vocab:
        raise InputError(f"{DAMAGED} has ids up to {max(ids, default=0)} for {len(ids)} tokens, of vocab = {vocab}")
    if not set(pre_tokenizers.ByteLevel.alphabet()) <= learnt.keys():
        raise InputError(f"{DAMAGED} lacks some bytes")
    return found


def kinds(part: Any) -> set[str]:
    """Every `type` within a part of a tokenizer's JSON."""
    if isinstance(part, list):
        return set().union(*map(kinds, part))
    if not isinstance(part, dict):
        return set()
    return {str(part.get("type"))}.union(*(kinds(value) for value in part.values() if isinstance(value, list)))
