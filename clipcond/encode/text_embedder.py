"""Texts in, unit vectors out: the text half of a dual encoder, whatever its tokenizer and its length."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import normalize

from clipcond.encode.rows import TokenSequence
from clipcond.encode.shapes import check_finite
from clipcond.encode.text import TextTower
from clipcond.encode.text_layout import TextLayout
from clipcond.encode.tokenizers import ClipTokenizer, ContentTokenizer, clip_layout
from clipcond.errors import ConfigError, ModelError

BATCH = 64
Forward = Callable[[Tensor, Tensor], Tensor]


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class TextEmbedder:
    """A text encoder, its tokenizer, and the shape of its passes.

    forward: (N, L) int64 ids and attention mask, on the CPU → (N, P) projected vectors, not yet normalised.   tower: the
    CLIP text tower behind it, where it is one; only that can condition a picture, be trained or exported.
    """

    tokenizer: ContentTokenizer
    layout: TextLayout
    forward: Forward
    pooling: str  # the position or mean that stands for a text, in a word or two
    tower: TextTower | None = None

    @property
    def content(self) -> int:
        """The most content tokens of one pass."""
        return self.layout.content

    def count(self, texts: Sequence[str]) -> list[int]:
        """The number of content tokens of each text, with nothing cut off."""
        return [len(ids) for ids in self.tokenizer.ids(texts)]

    def beyond(self, text: str) -> str:
        """The part of a text that one pass does not reach; empty where all of it fits."""
        return self.tokenizer.beyond(text, self.content)

    def chunks(self, texts: Sequence[str]) -> list[list[list[int]]]:
        """The content ids of each text, cut into pieces of up to `content`; one empty piece for an empty text."""
        return [self.layout.chunks(ids) for ids in self.tokenizer.ids(texts)]

    def embed(self, texts: Sequence[str], batch_size: int = BATCH) -> Tensor:
        """Encode the first `content` tokens of each text, as the model's own library cuts them.

        Returns (N, P) float32 on the CPU, rows of unit length. Raises ConfigError for no texts and for a batch size below 1,
        ModelError if a vector is not finite.
        """
        return self.embed_chunks([pieces[0] for pieces in self.chunks(texts)], batch_size)

    @torch.inference_mode()
    def embed_chunks(self, chunks: Sequence[Sequence[int]], batch_size: int = BATCH) -> Tensor:
        """Encode rows of content ids, each at most `content` long. Returns and raises what `embed` does."""
        if batch_size < 1:
            raise ConfigError(f"batch_size is {batch_size}; expected 1 or more")
        if not chunks:
            raise ConfigError("no texts to encode; expected one or more")
        order = list(range(len(chunks)))
        if self.tower is None and self.layout.padded == "longest":  # short texts are not padded to long ones
            order.sort(key=lambda number: len(chunks[number]))
        parts = [
            self._batch([chunks[n] for n in order[at : at + batch_size]]) for at in range(0, len(order), batch_size)
        ]
        found = torch.cat(parts)
        return found if order == sorted(order) else found[torch.argsort(torch.tensor(order))]

    def _batch(self, chunks: Sequence[Sequence[int]]) -> Tensor:
        ids, mask = self.layout.rows(chunks)
        features = self.forward(torch.tensor(ids), torch.tensor(mask)).float().cpu()
        check_finite("text", features)
        return normalize(features, dim=-1)


def clip_embedder(tower: TextTower, tokenizer: ClipTokenizer) -> TextEmbedder:
    """The embedder of a causal CLIP text tower, whose rows need no padding."""

    def forward(ids: Tensor, mask: Tensor) -> Tensor:
        projected = tower.pool_rows([TokenSequence(tuple(row)) for row in ids.tolist()]).projected
        if projected is None:
            raise ModelError("the text encoder has no projection; expected a dual encoder's")
        return projected

    return TextEmbedder(
        tokenizer=tokenizer,
        layout=clip_layout(tower.context),
        forward=forward,
        pooling="end of text",
        tower=tower,
    )
