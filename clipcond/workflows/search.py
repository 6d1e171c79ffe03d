"""A search of picture files by words, by pictures, and by sums of both."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING

from clipcond.errors import OptionsError
from clipcond.wording import first_line
from clipcond.workflows import gallery
from clipcond.workflows.events import Events, Note, ignore
from clipcond.workflows.gallery import GalleryOptions

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from clipcond.find.search import Filter
    from clipcond.rerank.rows import Ranking
    from clipcond.rerank.scorer import Scorer
    from clipcond.score.query import QueryTerm
    from clipcond.workflows.search_index import IndexUse

DEFAULT_TOP = 10
EXACT_UP_TO = 200_000  # pictures; of more, an index is made


@dataclass(frozen=True, slots=True, kw_only=True)
class SearchOptions:
    """Pictures, a query, and which pictures may be found.

    query: texts and picture files, joined by ` + ` and ` - `, each with a weight before a colon if wanted.
    since, until: dates as 2026-01-31 or times as 2026-01-31T12:00, of this machine's time zone, a date's whole day.
    exact: compare every vector, however many there are.   index: use an index, however few.
    Raises OptionsError for a query that cannot be read, a date that is none, numbers out of range, and an index that may
    not be kept.
    """

    gallery: GalleryOptions
    query: str
    top: int = DEFAULT_TOP
    min_score: float | None = None
    since: str | None = None
    until: str | None = None
    min_pixels: int = 0
    within: str | None = None
    exact: bool = False
    index: bool = False

    def __post_init__(self) -> None:
        from clipcond.score.query import parse_query

        if not self.query.strip():
            raise OptionsError(
                'the query is empty; expected words, a picture, or a sum such as "2:cat + scarf - night"'
            )
        parse_query(self.query)
        if self.top < 1:
            raise OptionsError(f"--top is {self.top}; expected 1 or more")
        if self.min_score is not None and not -1 <= self.min_score <= 1:
            raise OptionsError(f"--min-score is {self.min_score:g}; expected a cosine from -1 to 1")
        if self.index and not self.gallery.cache:
            raise OptionsError("--index keeps an index beside the remembered embeddings; leave --no-cache out")
        self.filter()

    def indexed(self, count: int) -> bool:
        """True if that many pictures are searched through an index."""
        return self.gallery.cache and (self.index or count > EXACT_UP_TO)

    def filter(self) -> Filter:
        """The filter that these options describe."""
        from clipcond.find.search import Filter

        return Filter(
            since=None if self.since is None else _time("--since", self.since),
            until=None if self.until is None else _time("--until", self.until, end=True),
            min_pixels=self.min_pixels,
            within=self.within,
            min_score=self.min_score,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class SearchResult:
    """The ranking of a search. searched: pictures that were compared.   index: the one that was used, which ranks no others."""

    ranking: Ranking
    searched: int
    index: IndexUse | None = None


def run(options: SearchOptions, events: Events = ignore) -> SearchResult:
    """Find the files, load the model, embed what is new, and order by the query.

    Raises ImageError where no picture can be read, or one of the query cannot; ConfigError where the terms cancel out.
    """
    from clipcond.find.search import is_picture
    from clipcond.score.query import parse_query
    from clipcond.workflows.model_names import check_model
    from clipcond.workflows.stored_embeddings import stored_folder

    terms = parse_query(options.query)
    for term in terms:
        if not is_picture(term) and _looks_like_a_picture(term.text):
            events(Note(f"there is no file {term.text}; it is searched for as words"))
    check_model(options.gallery.model)
    folder = stored_folder(options.gallery.images)
    if folder is not None:
        return _of_embeddings(options, folder, terms, events)
    paths = gallery.find(options.gallery, events)
    scorer = _scorer(options, terms, events)
    if options.indexed(len(paths)):
        return _of_many(options, paths, scorer, terms, events)
    return _exactly(options, paths, scorer, terms, events)


def _exactly(
    options: SearchOptions, paths: tuple[Path, ...], scorer: Scorer, terms: Sequence[QueryTerm], events: Events
) -> SearchResult:
    from clipcond.find.search import search

    direction = _direction(options, scorer, terms)
    pictures = gallery.embed(paths, scorer, options.gallery, events)
    ranking = search(pictures, options.query, direction, top=options.top, by=options.filter())
    return SearchResult(ranking=ranking, searched=len(ranking.scored))


def _of_many(
    options: SearchOptions, paths: tuple[Path, ...], scorer: Scorer, terms: Sequence[QueryTerm], events: Events
) -> SearchResult:
    """Search picture files through an index."""
    from clipcond.encode.embedding_cache import EmbeddingCache
    from clipcond.workflows.search_index import of_pictures, open_index, search

    try:
        index = open_index(scorer, options.gallery.images, options.gallery.recursive, events)
    except OSError as error:
        events(Note(f"no index can be kept ({first_line(error)}); every picture is compared"))
        return _exactly(options, paths, scorer, terms, events)
    direction = _direction(options, scorer, terms)
    cache = EmbeddingCache()
    try:
        current = of_pictures(index, paths, scorer, cache, events, options.gallery.batch_size)
    finally:
        cache.close()
    ranking, use = search(
        current, direction, options.query, scorer, events, top=options.top, by=options.filter(), exact=options.exact
    )
    return SearchResult(ranking=ranking, searched=use.pictures, index=use)


def _of_embeddings(options: SearchOptions, folder: Path, terms: Sequence[QueryTerm], events: Events) -> SearchResult:
    """Search a folder that `clipcond embed` made. Raises DataError where another model made it, or shards are missing."""
    from clipcond.encode.embedding_shards import check_pyarrow
    from clipcond.rerank.collection import Collection, check_complete
    from clipcond.workflows.search_index import of_shards, open_index, search
    from clipcond.workflows.stored_embeddings import check_made_by

    check_pyarrow()
    settings = check_complete(folder)
    scorer = _scorer(options, terms, events)
    check_made_by(folder, settings, scorer)
    if not options.indexed(Collection(folder).count()):
        return _exactly(options, (), scorer, terms, events)
    direction = _direction(options, scorer, terms)
    current = of_shards(open_index(scorer, options.gallery.images, False, events), folder, settings, events)
    ranking, use = search(
        current, direction, options.query, scorer, events, top=options.top, by=options.filter(), exact=options.exact
    )
    return SearchResult(ranking=ranking, searched=use.pictures, index=use)


def _scorer(options: SearchOptions, terms: Sequence[QueryTerm], events: Events) -> Scorer:
    from clipcond.find.search import is_picture

    return gallery.load_scorer(
        options.gallery.model, events, tuple(term.text for term in terms if not is_picture(term))
    )


def _direction(options: SearchOptions, scorer: Scorer, terms: Sequence[QueryTerm]) -> NDArray[np.float64]:
    from clipcond.encode.embedding_cache import EmbeddingCache
    from clipcond.find.search import query_vector

    cache = EmbeddingCache() if options.gallery.cache else None
    try:
        return query_vector(terms, scorer, cache=cache)
    finally:
        if cache is not None:
            cache.close()


def _looks_like_a_picture(text: str) -> bool:
    from clipcond.images.suffixes import PICTURES

    return Path(text).suffix.lower() in PICTURES


def _time(flag: str, text: str, *, end: bool = False) -> float:
    """Seconds since 1970 of a date or time in this machine's zone; end: of a date's last moment."""
    try:
        found = datetime.fromisoformat(text)
    except ValueError:
        raise OptionsError(f"{flag} {text}: expected a date such as 2026-01-31") from None
    if end and len(text) <= len("2026-01-31"):
        found = found.replace(hour=23, minute=59, second=59, microsecond=999999)
    return found.timestamp()
