"""Ids by which a loss knows what of a batch belongs together although it is not one pair."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from clipcond.train.data import same_caption

_Key = tuple[str, str]  # a kind of id, and the id


@dataclass(frozen=True, slots=True, kw_only=True)
class PairKeys:
    """The names of one row of a batch: all captions of its image and the drawn one, its groups, its picture."""

    captions: Sequence[str]
    drawn: str
    groups: Sequence[str] = ()
    picture: str = ""

    def of_image(self) -> list[_Key]:
        """Return the keys under which a text belongs to the image."""
        return [("caption", same_caption(caption)) for caption in self.captions] + self._of_groups()

    def of_text(self) -> list[_Key]:
        """Return the keys under which an image belongs to the drawn caption."""
        picture = [("picture", self.picture)] if self.picture else []
        return [("caption", same_caption(self.drawn)), *self._of_groups(), *picture]

    def _of_groups(self) -> list[_Key]:
        return [("group", group) for group in self.groups]


def match_ids(
    pairs: Sequence[PairKeys], negatives: Sequence[str] = (), negative_pictures: Sequence[str] = ()
) -> tuple[np.ndarray, np.ndarray] | None:
    """Return ids of a batch's images and texts, hard negatives behind the pairs; None where nothing more matches.

    An image matches every caption of the batch that is also one of its own, and every caption of an image of its group;
    a hard negative picture matches the captions of the pair whose picture it is.
    Returns (B + F, K) and (B + E, K) int64: an image and a text match where they are equal in any of K columns.
    """
    images = [pair.of_image() for pair in pairs] + [[("picture", name)] for name in negative_pictures]
    texts = [pair.of_text() for pair in pairs] + [[("caption", same_caption(text))] for text in negatives]
    holders: dict[_Key, list[int]] = {}
    for column, keys in enumerate(texts):
        for key in keys:
            holders.setdefault(key, []).append(column)
    shared = [
        list(dict.fromkeys(key for key in keys if any(column != row for column in holders.get(key, ()))))
        for row, keys in enumerate(images)
    ]
    numbers = {key: number for number, key in enumerate(dict.fromkeys(key for keys in shared for key in keys))}
    if not numbers:
        return None
    return _laid_out(
        [[numbers[key] for key in keys] for keys in shared],
        [[numbers[key] for key in dict.fromkeys(keys) if key in numbers] for keys in texts],
    )


def _laid_out(images: list[list[int]], texts: list[list[int]]) -> tuple[np.ndarray, np.ndarray]:
    """Put every id of an image against every id of a text: of `wide` and `deep` of them, K is the product."""
    wide, deep = max(map(len, images)), max(map(len, texts))
    of_images = np.full((len(images), wide, deep), -1, np.int64)
    of_texts = np.full((len(texts), wide, deep), -2, np.int64)
    for row, ids in enumerate(images):
        of_images[row, : len(ids)] = np.array(ids, np.int64)[:, None]
    for row, ids in enumerate(texts):
        of_texts[row, :, : len(ids)] = ids
    return of_images.reshape(len(images), -1), of_texts.reshape(len(texts), -1)
