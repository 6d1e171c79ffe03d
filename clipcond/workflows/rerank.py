"""A ranking of picture files against a prompt, or each against its own."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from clipcond.errors import ImageError
from clipcond.workflows.events import Events, Note, ignore, task

if TYPE_CHECKING:
    from clipcond.rerank.ranking import Ranking


@dataclass(frozen=True, slots=True, kw_only=True)
class RerankOptions:
    """Pictures (files, folders, patterns), the text to match (None: each picture's own), and what to keep.

    The numbers are checked by `clipcond.rerank`, which says what each may be.
    """

    images: tuple[str, ...]
    prompt: str | None = None
    model: str = "mini"
    top: int | None = None
    threshold: float | None = None
    diversity: float = 0.0
    recursive: bool = False
    batch_size: int = 32


def run(options: RerankOptions, events: Events = ignore) -> Ranking:
    """Find the pictures, load the model and rank. A source without pictures becomes a note.

    Raises ImageError where no source has any, ModelError, and ConfigError as `clipcond.rerank` does.
    """
    from clipcond.images.find import find_pictures

    found = find_pictures(options.images, recursive=options.recursive)
    more = "" if options.recursive else "; --recursive looks into the folders below"
    if not found.paths:
        raise ImageError(f"no pictures in {', '.join(found.empty)}{more}")
    for source in found.empty:
        events(Note(f"no pictures in {source}{more}"))
    from clipcond.rerank.ranking import rerank
    from clipcond.rerank.scorer import Scorer

    with task(events, f"loading {options.model}"):
        scorer = Scorer.load(options.model)
    for note in scorer.dual.notes:
        events(Note(note))
    with task(events, "scoring", len(found.paths), "pictures") as advance:
        return rerank(
            found.paths,
            options.prompt,
            scorer=scorer,
            top=options.top,
            threshold=options.threshold,
            diversity=options.diversity,
            batch_size=options.batch_size,
            on_progress=advance,
        )
