"""A search of picture files by words, by pictures, and by sums of both."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING

from clipcond.errors import OptionsError
from clipcond.workflows import gallery
from clipcond.workflows.events import Events, Note, ignore
from clipcond.workflows.gallery import GalleryOptions

if TYPE_CHECKING:
    from clipcond.find.search import Filter
    from clipcond.rerank.rows import Ranking

DEFAULT_TOP = 10


@dataclass(frozen=True, slots=True, kw_only=True)
class SearchOptions:
    """Pictures, a query, and which pictures may be found.

    query: texts and picture files, joined by ` + ` and ` - `, each with a weight before a colon if wanted.
    since, until: dates as 2026-01-31 or times as 2026-01-31T12:00, of this machine's time zone, a date's whole day.
    Raises OptionsError for a query that cannot be read, a date that is none, and numbers out of range.
    """

    gallery: GalleryOptions
    query: str
    top: int = DEFAULT_TOP
    min_score: float | None = None
    since: str | None = None
    until: str | None = None
    min_pixels: int = 0
    within: str | None = None

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
        self.filter()

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


def run(options: SearchOptions, events: Events = ignore) -> Ranking:
    """Find the files, load the model, embed what is new, and order by the query.

    Raises ImageError where no picture can be read, or one of the query cannot; ConfigError where the terms cancel out.
    """
    from clipcond.encode.embedding_cache import EmbeddingCache
    from clipcond.find.search import is_picture, query_vector, search
    from clipcond.score.query import parse_query

    terms = parse_query(options.query)
    paths = gallery.find(options.gallery, events)
    for term in terms:
        if not is_picture(term) and _looks_like_a_picture(term.text):
            events(Note(f"there is no file {term.text}; it is searched for as words"))
    scorer = gallery.load_scorer(
        options.gallery.model, events, tuple(term.text for term in terms if not is_picture(term))
    )
    pictures = gallery.embed(paths, scorer, options.gallery, events)
    cache = EmbeddingCache() if options.gallery.cache else None
    try:
        direction = query_vector(terms, scorer, cache=cache)
    finally:
        if cache is not None:
            cache.close()
    return search(pictures, options.query, direction, top=options.top, by=options.filter())


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
