"""The one composition of tokenizer, backbone and head, of a task or of several that share the backbone."""

from typing import Any

from torch import Tensor, nn

from mmeff.backbones import Backbone
from mmeff.init import init_weights
from mmeff.tokenizers import Tokenizer
from mmeff.tokens import Tokens


class Model(nn.Module):
    """Raw signals -> what a head makes of them: y = head(backbone(tokenizer(raw, lengths))).

    Each task (a signal with its labels, by a name) has a tokenizer and a head of its own; all share one backbone. Heads
    are added when the data are known: `model.heads[task] = Head(model.backbone.out_dim, classes)`.

    tokenizers  by task
    backbone    takes tokens of the width that the tokenizers give
    """

    def __init__(self, tokenizers: dict[str, Tokenizer], backbone: Backbone):
        super().__init__()
        self.tokenizers = nn.ModuleDict(tokenizers)
        self.backbone = backbone
        self.heads = nn.ModuleDict()
        init_weights(self, depth=len(backbone.layers()))

    def tokenizer(self, task: str) -> Tokenizer:
        found = self.tokenizers[task]
        assert isinstance(found, Tokenizer)
        return found

    def tokens(self, task: str, raw: Any, lengths: Tensor | None = None) -> Tokens:
        """A raw batch of one task -> Tokens of the backbone's width."""
        return self.tokenizers[task](raw, lengths)

    def features(self, task: str, raw: Any, lengths: Tensor | None = None) -> list[Tokens]:
        """The tokens of each of the backbone's stages, the last of them as the head takes them."""
        return self.backbone.features(self.tokens(task, raw, lengths))

    def forward(self, task: str, raw: Any, lengths: Tensor | None = None) -> Any:
        """A raw batch of one task -> what its head gives: of a classifier logits (B, classes)."""
        return self.heads[task](self.backbone(self.tokens(task, raw, lengths)))

    def layers(self) -> list[list[nn.Module]]:
        """From the input to the output, every parameter in exactly one: what layer-wise decay of the rate counts."""
        inner = [[layer] for layer in self.backbone.layers()]
        return [list(self.tokenizers.values()), *inner, list(self.heads.values())]
