"""Scores of pictures against a text, cosine and CLIPScore, over all of the text."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cache
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image
from torch import Tensor

from clipcond.encode.content_key import content_key
from clipcond.encode.embedding_space import EmbeddingSpace, preprocessing_id
from clipcond.encode.fingerprint import Fingerprint
from clipcond.encode.precision import Precision, cast_tower, dtype_of
from clipcond.encode.tokenizers import ClipTokenizer
from clipcond.models.load import DualEncoder, load_dual
from clipcond.prompt.tokenizer import batch_ids
from clipcond.runtime.devices import device_of
from clipcond.score.scales import clipscore
from clipcond.score.similarity import DIGITS, cosines

_TEXTS_VERSION = 1  # of the way in which texts become one vector
_LOOK_BACK = 20  # tokens, as the comma backtracking of generators

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from clipcond.images.preprocess import View


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class EncodedText:
    """A text as the scorer sees it.

    vector: (P,) float64, the mean of the unit vectors of its chunks, weighted by their content tokens. Several make it
    shorter than one: its product with a picture's vector is the weighted mean of the chunks' cosines.
    parts: (C, P) float64, the unit vector of each chunk.
    """

    text: str
    vector: NDArray[np.float64]
    parts: NDArray[np.float64]
    content_tokens: int
    chunks: int


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class Scores:
    """Scores of N pictures against one text, both (N,) float64; cosine is rounded to six digits."""

    cosine: NDArray[np.float64]
    clip_score: NDArray[np.float64]
    content_tokens: int
    chunks: int


def _in_chunks(ids: Sequence[int], content: int) -> list[list[int]]:
    """Cut content ids behind the last separator among a full chunk's last `_LOOK_BACK`, else at its end; one chunk for none."""
    separators, chunks, at = _separators(), list[list[int]](), 0
    while len(ids) - at > content:
        ends = range(at + content, at + content - min(_LOOK_BACK, content), -1)
        end = next((end for end in ends if ids[end - 1] in separators), at + content)
        chunks.append(list(ids[at:end]))
        at = end
    return [*chunks, list(ids[at:])]


@cache
def _separators() -> frozenset[int]:
    return frozenset(ids[0] for ids in batch_ids([",", ";", "."], "openai"))


class Scorer:
    """Both encoders of a model, as a measure of how well pictures match texts. Each distinct text is encoded once."""

    def __init__(self, dual: DualEncoder) -> None:
        self.dual = dual
        self._texts: dict[str, EncodedText] = {}

    @classmethod
    def load(
        cls,
        spec: str = "mini",
        *,
        device: str | None = None,
        precision: Precision = "fp32",
        view: View | None = None,
        draft: bool = False,
    ) -> Scorer:
        """Load a model by its name, on `device` or else on the GPU where there is one.

        precision: of the image encoder, see `clipcond.encode.precision`; texts are encoded in float32.
        view: what of a picture it sees, in place of what its own config says.   draft: decode JPEGs at a part of their size.
        Raises ModelError, and ConfigError for a precision that is not to be had on the device.
        """
        where = device_of(device)
        dtype_of(precision, where)  # before a model is read
        dual = load_dual(spec, device=str(where))
        notes = cast_tower(dual.image, precision)
        preprocess = dual.image.preprocess if view is None else dual.image.preprocess.with_view(view)
        dual.image.preprocess = replace(preprocess, draft=draft)
        return cls(replace(dual, notes=(*dual.notes, *notes)))

    def texts(self, prompts: Sequence[str], batch_size: int = 64) -> list[EncodedText]:
        """Encode texts of any length, tokenised as the model's own texts are, in chunks as long as it reads them: 75 for CLIP.

        Of CLIP's tokens a chunk ends at a comma, semicolon or stop where one of its last 20 is one: a phrase that is cut in
        two is whole in neither vector. Every chunk has its own special tokens. Texts that were encoded before are not
        encoded again. Raises ModelError if a vector is not finite.
        """
        new = [prompt for prompt in dict.fromkeys(prompts) if prompt not in self._texts]
        if new:
            self._encode(new, batch_size)
        return [self._texts[prompt] for prompt in prompts]

    def _encode(self, prompts: list[str], batch_size: int) -> None:
        chunks = self._chunks(prompts)
        vectors = self.dual.texts.embed_chunks([row for split in chunks for row in split], batch_size).double().numpy()
        at = 0
        for prompt, split in zip(prompts, chunks, strict=True):
            weights = np.array([max(1, len(row)) for row in split], dtype=np.float64)
            own = vectors[at : at + len(split)]
            at += len(split)
            self._texts[prompt] = EncodedText(
                text=prompt,
                vector=(weights / weights.sum()) @ own,
                parts=own,
                content_tokens=sum(map(len, split)),
                chunks=len(split),
            )

    def _chunks(self, prompts: list[str]) -> list[list[list[int]]]:
        """The content ids of each text, in pieces that one pass reads."""
        texts = self.dual.texts
        if not isinstance(texts.tokenizer, ClipTokenizer):
            return texts.chunks(prompts)
        return [_in_chunks(ids, texts.content) for ids in texts.tokenizer.ids(prompts)]

    def image_width(self) -> int:
        """P, the length of a picture's vector, which is that of a text's."""
        return len(self.texts([""])[0].vector)

    def image_space(self) -> EmbeddingSpace:
        """The space of the model's picture embeddings, as a cache keeps them."""
        return EmbeddingSpace(
            model=Fingerprint(self.dual.image.model)(),
            preprocess=preprocessing_id(self.dual.image.preprocess),
            width=self.image_width(),
            name=self.dual.name,
        )

    def label_space(self) -> EmbeddingSpace:
        """The space of vectors that stand for several texts, as a cache keeps them."""
        return EmbeddingSpace(
            model=Fingerprint(self.dual.image.model)(), preprocess=f"texts;{_TEXTS_VERSION}", width=self.image_width(),
            name=f"{self.dual.name}, labels",
        )  # fmt: skip

    def text_keys(self, groups: Sequence[Sequence[str]]) -> list[bytes]:
        """A key for each group of texts, of what the encoder is given of them: the same for the same tokens in order."""
        chunks = iter(self._chunks([text for group in groups for text in group]))
        layout = self.dual.texts.layout
        return [content_key(repr((layout, [next(chunks) for _ in group])).encode()) for group in groups]

    def score(self, images: Sequence[Image.Image] | Tensor, prompt: str, *, batch_size: int = 32) -> Scores:
        """Score pictures against one text of any length.

        images: N pictures, or their vectors from `dual.image.embed`, (N, P) float32 of unit length.
        Raises ConfigError if there are none; ShapeError if the vectors are another model's.
        """
        vectors = images if isinstance(images, Tensor) else self.dual.image.embed(images, batch_size)
        text = self.texts([prompt])[0]
        cosine = cosines(vectors, text.vector)
        return Scores(
            cosine=cosine,
            clip_score=np.round(clipscore(cosine), DIGITS),
            content_tokens=text.content_tokens,
            chunks=text.chunks,
        )
