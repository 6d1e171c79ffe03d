"""Captions for pictures: given ones in order of fit, new ones put together of phrases, and those that a model writes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from clipcond.encode.tokenizers import ClipTokenizer
from clipcond.find.gallery import Gallery, Unread, plain_pictures
from clipcond.models.detection import Detector
from clipcond.models.florence import CAPTIONS, Answer, caption, check_command
from clipcond.prompt.tokenizer import CONTENT
from clipcond.score.similarity import DIGITS
from clipcond.score.zero_shot import top_k

if TYPE_CHECKING:
    from numpy.typing import NDArray

JOINED = ", "
_LEAST_GAIN = 2 * 10.0**-DIGITS  # what rounding alone can add


@dataclass(frozen=True, slots=True, kw_only=True)
class RankedCaption:
    """A caption with its cosine, its probability among the captions given, and its length in content tokens."""

    caption: str
    cosine: float
    probability: float
    content_tokens: int

    def to_json(self) -> dict[str, object]:
        return {
            "caption": self.caption, "cosine": round(self.cosine, 6), "probability": round(self.probability, 6),
            "content_tokens": self.content_tokens,
        }  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class CaptionedPicture:
    """The captions of a picture, best first."""

    path: Path
    captions: tuple[RankedCaption, ...]

    def to_json(self) -> dict[str, object]:
        """The row of this picture."""
        return {"path": str(self.path), "captions": [each.to_json() for each in self.captions]}


@dataclass(frozen=True, slots=True, kw_only=True)
class AddedPhrase:
    """A phrase of a caption, what the caption's cosine was with it, and how much it added."""

    phrase: str
    cosine: float
    gain: float

    def to_json(self) -> dict[str, object]:
        return {"phrase": self.phrase, "cosine": round(self.cosine, 6), "gain": round(self.gain, 6)}


@dataclass(frozen=True, slots=True, kw_only=True)
class Interrogated:
    """A caption put together for a picture, with its phrases in the order in which they were added."""

    path: Path
    caption: str
    cosine: float
    content_tokens: int
    phrases: tuple[AddedPhrase, ...]

    def to_json(self) -> dict[str, object]:
        """The row of this picture."""
        return {
            "path": str(self.path), "caption": self.caption, "cosine": round(self.cosine, 6),
            "content_tokens": self.content_tokens, "phrases": [each.to_json() for each in self.phrases],
        }  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class WrittenCaption:
    """A caption that a model wrote. probability: of its words, `clipcond.models.florence.Answer` says how.

    content_tokens: in CLIP's tokens, for it is going to be a prompt.   beyond: the part behind the first 75 of them.
    whole: the model came to an end before its last position.
    """

    path: Path
    caption: str
    probability: float
    content_tokens: int
    beyond: str
    whole: bool

    def to_json(self) -> dict[str, object]:
        """The row of this picture."""
        return {
            "path": str(self.path), "caption": self.caption, "probability": round(self.probability, 6),
            "content_tokens": self.content_tokens, "beyond": self.beyond, "whole": self.whole,
        }  # fmt: skip


def write_captions(
    paths: Sequence[Path],
    detector: Detector,
    style: str,
    *,
    on_progress: Callable[[int], object] = lambda count: None,
) -> tuple[tuple[WrittenCaption, ...], tuple[Unread, ...]]:
    """Have Florence-2 write a caption for each picture. style: `short`, `detailed` or `more-detailed`.

    Returns the captions and the pictures that could not be read. Raises ModelError where the model gives no answer.
    """
    check_command(detector, CAPTIONS[style])
    written, unread = list[WrittenCaption](), list[Unread]()
    for path, image in plain_pictures(paths):
        if isinstance(image, Unread):
            unread.append(image)
        else:
            written.append(_written(path, caption(detector, image, style)))
        on_progress(1)
    return tuple(written), tuple(unread)


def _written(path: Path, answer: Answer) -> WrittenCaption:
    clip = ClipTokenizer("transformers")
    return WrittenCaption(
        path=path, caption=answer.text, probability=answer.probability, content_tokens=len(clip.ids([answer.text])[0]),
        beyond=clip.beyond(answer.text, CONTENT), whole=answer.whole,
    )  # fmt: skip


def rank_captions(
    pictures: Gallery, captions: Sequence[str], *, top: int | None = None
) -> tuple[CaptionedPicture, ...]:
    """Order captions by their fit to each picture. Long ones count in full, as in a ranking; of equals the first counts."""
    encoded = pictures.scorer.texts(captions)
    vectors = np.array([each.vector for each in encoded])
    images = pictures.vectors.double().cpu().numpy()
    cosines = np.round(images @ vectors.T, DIGITS)
    shares = pictures.scorer.dual.head.probabilities(cosines)
    best = top_k(cosines, top or len(captions))
    return tuple(
        CaptionedPicture(
            path=path,
            captions=tuple(
                RankedCaption(caption=captions[c], cosine=float(cosines[row, c]), probability=float(shares[row, c]),
                              content_tokens=encoded[c].content_tokens)
                for c in columns
            ),
        )
        for row, (path, columns) in enumerate(zip(pictures.paths, best.columns, strict=True))
    )  # fmt: skip


def interrogate(
    pictures: Gallery,
    phrases: Sequence[str],
    *,
    candidates: int = 32,
    most: int = 8,
    on_progress: Callable[[int], object] = lambda count: None,
) -> tuple[Interrogated, ...]:
    """Put a caption together for each picture: always the phrase with which the whole caption scores best, while it gains.

    candidates: of the phrases, how many that fit best alone are tried.   most: phrases of a caption.   A caption keeps
    within 75 content tokens, so it is one chunk for every encoder.
    """  # fmt: skip
    alone = np.array([each.vector for each in pictures.scorer.texts(phrases)])
    images = pictures.vectors.double().cpu().numpy()
    best = top_k(images @ alone.T, candidates)
    found = []
    for path, image, columns in zip(pictures.paths, images, best.columns, strict=True):
        found.append(_put_together(pictures, path, image, [phrases[column] for column in columns], most))
        on_progress(1)
    return tuple(found)


def _put_together(
    pictures: Gallery, path: Path, image: NDArray[np.float64], phrases: Sequence[str], most: int
) -> Interrogated:
    left, added, cosine = list(phrases), list[AddedPhrase](), 0.0
    while left and len(added) < most:
        before = [each.phrase for each in added]
        texts = [JOINED.join([*before, phrase]) for phrase in left]
        encoded = pictures.scorer.texts(texts)
        scores = [float(image @ text.vector) if text.chunks == 1 else -np.inf for text in encoded]
        number = int(np.argmax(scores))
        if (scores[number] - cosine <= _LEAST_GAIN and added) or not np.isfinite(scores[number]):
            break
        added.append(AddedPhrase(phrase=left.pop(number), cosine=scores[number], gain=scores[number] - cosine))
        cosine = scores[number]
    caption = JOINED.join(each.phrase for each in added)
    tokens = pictures.scorer.texts([caption])[0].content_tokens
    return Interrogated(path=path, caption=caption, cosine=cosine, content_tokens=tokens, phrases=tuple(added))
