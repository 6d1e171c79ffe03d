"""Pictures by words, by other pictures, and by sums of both; what is asked becomes one direction."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from clipcond.errors import ImageError
from clipcond.find.gallery import Gallery, Unread, gallery
from clipcond.rerank.rows import Header, RankedImage, Ranking
from clipcond.rerank.scorer import Scorer
from clipcond.score.query import QueryTerm
from clipcond.score.scales import clipscore
from clipcond.score.similarity import DIGITS
from clipcond.score.ties import tied_ranks
from clipcond.score.zero_shot import combined

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from clipcond.encode.embedding_cache import EmbeddingCache
    from clipcond.rerank.embedding import Picture

NOISE = 2 * 10.0**-DIGITS
_FORMULA = "cosine(image, Σ weight · term, made unit length)"


@dataclass(frozen=True, slots=True, kw_only=True)
class Filter:
    """Pictures that may be found. since, until: seconds since 1970 of a file's last change.   min_pixels: of width × height.

    within: a pattern for the path, such as `*/holiday/*`.   min_score: the least cosine.
    """

    since: float | None = None
    until: float | None = None
    min_pixels: int = 0
    within: str | None = None
    min_score: float | None = None

    def lets(self, picture: Picture) -> bool:
        """True for a picture that may be found, whatever its score."""
        return (
            (self.since is None or picture.modified >= self.since)
            and (self.until is None or picture.modified <= self.until)
            and picture.width * picture.height >= self.min_pixels
            and (self.within is None or fnmatch(str(picture.path), self.within))
        )


def query_vector(
    terms: Sequence[QueryTerm], scorer: Scorer, *, cache: EmbeddingCache | None = None
) -> NDArray[np.float64]:
    """The direction of a query, (P,) float64 of unit length: Σ weight · term.

    A term that is the path of a file is that picture, all others are texts.
    Raises ImageError for a picture that cannot be read, ConfigError where the terms cancel out.
    """
    files = {term.text: Path(term.text) for term in terms if is_picture(term)}
    found = gallery(list(files.values()), scorer, cache=cache) if files else None
    if found is not None and found.unread:
        raise ImageError(f"the picture {found.unread[0].path} of the query cannot be used: {found.unread[0].error}")
    pictures = {} if found is None else dict(zip(found.paths, found.vectors.double().cpu().numpy(), strict=True))
    texts = iter(scorer.texts([term.text for term in terms if not is_picture(term)]))
    vectors = [pictures[files[term.text]] if is_picture(term) else next(texts).vector for term in terms]
    return combined(np.array(vectors), [term.weight for term in terms])


def is_picture(term: QueryTerm) -> bool:
    """True for a term that names a file."""
    try:
        return Path(term.text).is_file()
    except (OSError, ValueError):  # a name that no system takes
        return False


def search(
    pictures: Gallery, query: str, direction: NDArray[np.float64], *, top: int | None = None, by: Filter | None = None
) -> Ranking:
    """Order pictures by their cosine with a direction, (P,), and keep the first `top` that the filter lets through.

    The result is a ranking, so that all that takes rankings (sheets, tables, moves) takes it. Of equals the first path.
    """
    by = by or Filter()
    chosen = [row for row, picture in enumerate(pictures.pictures) if by.lets(picture)]
    cosines = np.round(pictures.vectors[chosen].double().cpu().numpy() @ direction, DIGITS) + 0.0
    found = [pictures.pictures[row] for row in chosen]
    ranks = tied_ranks(cosines, [str(picture.path) for picture in found], noise=NOISE)
    kept = [row for row in ranks.order if by.min_score is None or cosines[row] >= by.min_score]
    best = set(kept[:top])
    rows = tuple(
        _row(found[row], rank, ranks.tied[row], float(cosines[row]), query, kept=row in best)
        for rank, row in enumerate(ranks.order, 1)
    )
    bad = tuple(RankedImage(path=each.path, stage="read", error=each.error) for each in pictures.unread)
    return Ranking(
        rows=(*rows, *bad), model=pictures.scorer.dual.name, prompt=query, header=_header(pictures.scorer),
        embedded=pictures.computed, vectors=dict(zip(pictures.paths, pictures.vectors.numpy(), strict=True)),
    )  # fmt: skip


def ranking_of(
    found: Sequence[Picture],
    cosines: Sequence[float],
    vectors: NDArray[np.float32],
    scorer: Scorer,
    query: str,
    *,
    top: int,
    unread: Sequence[Unread] = (),
    computed: int = 0,
) -> Ranking:
    """The ranking of pictures that an index found, all kept but those beyond the first `top`, which say whether its last is tied.

    vectors: (N, P), of them.   unread, computed: as of a gallery.
    """
    scores = np.round(np.asarray(cosines, dtype=np.float64), DIGITS) + 0.0
    ranks = tied_ranks(scores, [str(picture.path) for picture in found], noise=NOISE)
    rows = [
        _row(found[row], rank, ranks.tied[row], float(scores[row]), query, kept=True)
        for rank, row in enumerate(ranks.order[:top], 1)
    ]
    bad = [RankedImage(path=each.path, stage="read", error=each.error) for each in unread]
    return Ranking(
        rows=(*rows, *bad), model=scorer.dual.name, prompt=query, header=_header(scorer), embedded=computed,
        vectors={picture.path: own for picture, own in zip(found, vectors, strict=True)},
    )  # fmt: skip


def _row(picture: Picture, rank: int, tied: bool, score: float, query: str, *, kept: bool) -> RankedImage:
    return RankedImage(
        path=picture.path, rank=rank, tied=tied, score=score,
        scores={"cosine": score, "clipscore": float(np.round(clipscore(score), DIGITS))},
        prompt=query, prompt_source="given", width=picture.width, height=picture.height,
        share_seen=picture.share_seen, kept=kept,
    )  # fmt: skip


def _header(scorer: Scorer) -> Header:
    image = scorer.dual.image
    return Header(
        model=scorer.dual.name, score="cosine", scales=(("cosine", _FORMULA),),
        preprocessing=image.preprocess.described(), dtype=str(image.dtype).removeprefix("torch."), noise=NOISE,
    )  # fmt: skip
