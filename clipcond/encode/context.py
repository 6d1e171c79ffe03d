"""Learned context: classes as rows of tokens whose first words are vectors (CoOp, Zhou et al. 2022, section 3.2)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor
from torch.nn.functional import normalize

from clipcond.encode.rows import TokenSequence
from clipcond.encode.text import TextTower
from clipcond.encode.text_embedder import TextEmbedder
from clipcond.errors import ConfigError, ModelError
from clipcond.wording import visible

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class ContextRows:
    """The sentence of each of C classes as ids of one length, the words before the name being places for n vectors.

    places: n; they are positions 1 to n, behind the start of text.   start: (n, D) float32, the token embeddings of the
    words themselves, with which a class is what the sentence in words is.
    """

    tower: TextTower
    ids: tuple[tuple[int, ...], ...]
    start: Tensor

    @property
    def places(self) -> int:
        return len(self.start)

    def scale(self) -> float:
        """The root mean square of the numbers of the classes' token embeddings, by which a step of learning is measured."""
        used = sorted({number for row in self.ids for number in row})
        return float(self.tower.token_embeddings(used).square().mean().sqrt())

    def encode(self, context: Tensor) -> Tensor:
        """(C, P) float32 unit rows on the CPU, with the graph back to the context where that is learned.

        context: (n, D), the same for all classes, or (C, n, D).
        """
        own = context.ndim == 3
        numbered = range(1, self.places + 1)
        rows = [
            TokenSequence(ids, vectors=tuple((at, f"{number if own else 'all'}.{at}") for at in numbered))
            for number, ids in enumerate(self.ids)
        ]
        sets = {str(number): each for number, each in enumerate(context)} if own else {"all": context}
        vectors = {f"{name}.{at}": each[at - 1] for name, each in sets.items() for at in numbered}
        projected = self.tower.pool_rows(rows, vectors=vectors, grad=True).projected
        if projected is None:
            raise ModelError("the text encoder has no projection; expected a dual encoder's")
        return normalize(projected.float().cpu(), dim=-1)

    def vectors(self, context: NDArray[np.float32]) -> NDArray[np.float64]:
        """(C, P) float64 unit rows. context: as for `encode`."""
        with torch.no_grad():
            found: NDArray[np.float64] = self.encode(torch.from_numpy(context)).double().numpy()
        return found


def context_rows(texts: TextEmbedder, sentence: str, names: Sequence[str]) -> ContextRows:
    """Return the rows of classes in a sentence with `{}`, such as `a photo of a {}.`

    Raises ConfigError for a sentence without words before `{}`, or one that they run into, and for a class that is too long;
    ModelError for a text encoder that does not read prompts as CLIP does.
    """
    if texts.tower is None:
        raise ModelError(
            f"a text encoder with {texts.tokenizer.name} tokens takes no vectors in place of words; a CLIP does"
        )
    before, mark, _ = sentence.partition("{}")
    words, *rows = texts.tokenizer.ids([before, *(sentence.replace("{}", name) for name in names)])
    if not mark or not words:
        raise ConfigError(
            f"{visible(sentence)!r} has no words before {{}} to learn from; expected 'a photo of a {{}}.'"
        )
    for name, row in zip(names, rows, strict=True):
        if row[: len(words)] != words:
            raise ConfigError(f"{visible(sentence)!r}: the words run into {visible(name)!r}; put a blank before {{}}")
        if len(row) > texts.content:
            raise ConfigError(f"the class {visible(name)!r} has {len(row)} tokens; expected at most {texts.content}")
    ids, _ = texts.layout.rows(rows)
    return ContextRows(tower=texts.tower, ids=tuple(map(tuple, ids)), start=texts.tower.token_embeddings(words))
