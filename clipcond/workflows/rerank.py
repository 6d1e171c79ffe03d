"""A ranking of picture files against a prompt, or each against its own."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from clipcond.errors import ImageError, OptionsError
from clipcond.workflows.events import Events, Note, ignore, task
from clipcond.workflows.model_names import check_model

if TYPE_CHECKING:
    from clipcond.rerank.ranking import Ranking
    from clipcond.rerank.scorer import Scorer


@dataclass(frozen=True, slots=True, kw_only=True)
class RerankOptions:
    """Pictures (files, folders, patterns), the text to match (None: each picture's own), and what to keep.

    The numbers are checked by `clipcond.rerank`, which says what each may be. Raises OptionsError for an empty prompt.
    """

    images: tuple[str, ...]
    prompt: str | None = None
    model: str = "mini"
    top: int | None = None
    threshold: float | None = None
    diversity: float = 0.0
    recursive: bool = False
    batch_size: int = 32

    def __post_init__(self) -> None:
        if self.prompt is not None and not self.prompt.strip():
            raise OptionsError("--prompt is empty; give a text, or leave it out to use each picture's own")


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
    check_model(options.model)
    from clipcond.rerank.ranking import rerank
    from clipcond.rerank.scorer import Scorer

    with task(events, f"loading {options.model}"):
        scorer = Scorer.load(options.model)
    for note in scorer.dual.notes:
        events(Note(note))
    if options.prompt is not None:
        _note_unseen(scorer, options.prompt, options.model, events)
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


def _note_unseen(scorer: Scorer, prompt: str, model: str, events: Events) -> None:
    """Note the words of the prompt that the model has never seen."""
    from clipcond.encode.unseen_words import tell_unseen, unseen_words
    from clipcond.prompt.plan import plan

    tokens = [token for chunk in plan(prompt).encoders["clip_l"].chunks for token in chunk.tokens]
    if text := tell_unseen(unseen_words(scorer.dual.text, tokens), model):
        events(Note(text))
