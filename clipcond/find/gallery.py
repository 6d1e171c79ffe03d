"""The pictures that a question is asked about: their vectors, and a row for each that could not be read."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

from clipcond.encode.embedding_cache import EmbeddingCache
from clipcond.errors import ImageError
from clipcond.images.colour import to_rgb
from clipcond.images.decode import decoded, quiet_pillow
from clipcond.rerank.embedding import Embedded, Picture, Remembered, embed_files
from clipcond.rerank.scorer import Scorer

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True, slots=True, kw_only=True)
class Unread:
    """A picture that could not be used, and why, in one line."""

    path: Path
    error: str

    def to_json(self) -> dict[str, object]:
        """The row of a picture without an answer."""
        return {"path": str(self.path), "error": self.error}


def plain_pictures(paths: Sequence[Path]) -> Iterator[tuple[Path, Image.Image | Unread]]:
    """Yield each file's picture upright in RGB, and nothing but its pixels; of what cannot be read, why."""
    with quiet_pillow():
        for path in paths:
            try:
                with decoded(path) as image:
                    plain = Image.fromarray(np.asarray(to_rgb(image)))
            except ImageError as error:
                yield path, Unread(path=path, error=str(error).removeprefix(f"{path}: "))
            else:
                yield path, plain


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class Gallery:
    """N pictures and their vectors, (N, P) float32 unit rows, in the order of the files.

    unread: those that are not among them.   computed: how many vectors are new, not remembered.
    """

    scorer: Scorer
    pictures: tuple[Picture, ...]
    vectors: Tensor
    unread: tuple[Unread, ...]
    computed: int

    def __len__(self) -> int:
        return len(self.pictures)

    @property
    def paths(self) -> tuple[Path, ...]:
        """The pictures' files."""
        return tuple(picture.path for picture in self.pictures)

    def only(self, rows: Sequence[int]) -> Gallery:
        """The pictures of these rows."""
        return replace(self, pictures=tuple(self.pictures[row] for row in rows), vectors=self.vectors[list(rows)])


def gallery(
    paths: Sequence[Path],
    scorer: Scorer,
    *,
    batch_size: int = 32,
    cache: EmbeddingCache | None = None,
    on_progress: Callable[[int], object] = lambda count: None,
) -> Gallery:
    """Embed picture files, or look up what the cache remembers of them. Raises ModelError for vectors that are not finite."""
    remembered = None if cache is None else Remembered(cache=cache, space=scorer.image_space())
    found = embed_files(
        paths, scorer.dual.image, read_prompts=False, batch_size=batch_size, on_progress=on_progress,
        remembered=remembered,
    )  # fmt: skip
    return embedded_gallery(found, scorer)


def embedded_gallery(found: Embedded, scorer: Scorer) -> Gallery:
    """The gallery of pictures that are embedded already, by the scorer's model."""
    read = tuple(picture for picture in found.pictures if picture.error is None)
    unread = tuple(Unread(path=each.path, error=each.error) for each in found.pictures if each.error is not None)
    return Gallery(scorer=scorer, pictures=read, vectors=found.vectors, unread=unread, computed=found.computed)
