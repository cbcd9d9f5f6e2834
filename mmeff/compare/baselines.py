"""What others built, in the place of a backbone: torch's Transformer, and whole image models of timm."""

from typing import Any

import torch
from torch import Tensor, nn

from mmeff.backbones import Backbone
from mmeff.errors import InputError
from mmeff.tokenizers import Tokenizer
from mmeff.tokenizers.image import PixelNorm
from mmeff.tokens import Tokens, valid_mask


class Transformer(Backbone):
    """torch.nn.TransformerEncoder: pre-norm, GELU, a feed-forward of 4 times the width, no dropout."""

    def __init__(self, dim: int = 96, depth: int = 4, head_dim: int = 32):
        """
        Args:
            dim: width.
            depth: number of layers.
            head_dim: width of a head; must divide dim.
        """
        super().__init__()
        self.in_dim = self.out_dim = dim
        layer = nn.TransformerEncoderLayer(
            dim, dim // head_dim, 4 * dim, dropout=0.0, activation="gelu", batch_first=True, norm_first=True
        )
        self.encoder = nn.TransformerEncoder(layer, depth, nn.LayerNorm(dim), enable_nested_tensor=False)

    def forward(self, tokens: Tokens) -> Tokens:
        x, _, lengths = tokens
        padding = None if lengths is None else ~valid_mask(lengths, x.shape[1])
        return tokens._replace(x=self.encoder(x, src_key_padding_mask=padding))

    def layers(self) -> list[nn.Module]:
        assert self.encoder.norm is not None
        return [*self.encoder.layers, self.encoder.norm]


class Pixels(Tokenizer):
    """Images as they are, a token a pixel: for models that cut patches themselves."""

    signal = "image"

    def __init__(self, dim: int):
        super().__init__()
        self.norm = PixelNorm(dim)

    def fit(self, raw: Any) -> None:
        self.norm.fit(raw)

    def forward(self, raw: Tensor, lengths: Tensor | None = None) -> Tokens:
        return Tokens(self.norm(raw).flatten(2).mT, (raw.shape[2], raw.shape[3]))


class TimmModel(Backbone):
    """A whole model of timm, untrained, without its last linear map: pixels -> one token, the pooled features."""

    def __init__(self, name: str, channels: int = 3, pixels: int = 224):
        """
        Args:
            name: as `timm.create_model` takes it.
            channels: colours of the images.
            pixels: side of the images.
        """
        super().__init__()
        from timm.models import create_model

        if not name.replace(".", "_").isidentifier():  # as hf-hub:name and local-dir:path
            raise InputError(f"{name!r} is no model of timm: a comparison takes none from a hub or a folder")
        sized: dict[str, Any] = {"img_size": pixels} if name.startswith(("deit", "vit", "swin", "beit", "eva")) else {}
        self.model: Any = create_model(name, num_classes=0, in_chans=channels, **sized)
        # Some keep a map and an activation of their head before the last map.
        self.in_dim, self.out_dim = channels, getattr(self.model, "head_hidden_size", self.model.num_features)

    def forward(self, tokens: Tokens) -> Tokens:
        images = tokens.x.mT.unflatten(2, tokens.grid)
        # Channels last, as they come, would take other kernels in torch than timm's models meet elsewhere.
        features = self.model(images.contiguous(memory_format=torch.contiguous_format))
        return Tokens(features[:, None], (1,))

    def layers(self) -> list[nn.Module]:
        return [self.model]
