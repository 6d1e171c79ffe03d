"""The pictures of a question: found, checked before a model loads, and embedded with one."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from clipcond.errors import ImageError, OptionsError
from clipcond.workflows.events import Events, Note, task
from clipcond.workflows.model_names import check_model
from clipcond.workflows.stored_embeddings import StoredEmbeddings, check_made_by, find_stored

if TYPE_CHECKING:
    from clipcond.find.classify import Classifier
    from clipcond.find.gallery import Gallery
    from clipcond.find.labels import Label
    from clipcond.models.detection import Detector
    from clipcond.rerank.scorer import Scorer


@dataclass(frozen=True, slots=True, kw_only=True)
class GalleryOptions:
    """Pictures and the model to look at them with.

    images: files, folders, patterns, or a folder that `embed` made.   recursive: the folders below too.
    cache: remember embeddings.
    Raises OptionsError where no picture is named, and for a batch of less than one.
    """

    images: tuple[str, ...]
    model: str = "mini"
    recursive: bool = False
    batch_size: int = 32
    cache: bool = True

    def __post_init__(self) -> None:
        if not self.images:
            raise OptionsError("no pictures are named; give files, folders or quoted patterns")
        if self.batch_size < 1:
            raise OptionsError(f"batch_size is {self.batch_size}; expected 1 or more")


def find(options: GalleryOptions, events: Events) -> tuple[Path, ...]:
    """Return the files, with a note for a source without pictures. Raises ImageError where none has any, or all are gone."""
    from clipcond.images.find import find_pictures
    from clipcond.images.tar_paths import tar_of

    check_model(options.model)
    if (stored := find_stored(options.images)) is not None:
        return stored.paths
    found = find_pictures(options.images, recursive=options.recursive)
    more = "" if options.recursive else "; --recursive looks into the folders below"
    if not found.paths:
        raise ImageError(f"no pictures in {', '.join(found.empty)}{more}")
    if all(not os.path.lexists(path) and tar_of(path) is None for path in found.paths):
        raise ImageError(f"there is no {found.paths[0]}; expected a picture, a folder of pictures, or a quoted pattern")
    for source in found.empty:
        events(Note(f"no pictures in {source}{more}"))
    return found.paths


def load_scorer(model: str, events: Events, texts: tuple[str, ...] = ()) -> Scorer:
    """Load the model. Notes of its loading, and words of `texts` that it has never seen, become notes."""
    from clipcond.rerank.scorer import Scorer

    with task(events, f"loading {model}"):
        scorer = Scorer.load(model)
    for note in scorer.dual.notes:
        events(Note(note))
    from clipcond.rerank.unseen import unseen_in, unseen_line

    if line := unseen_line(unseen_in(texts, scorer), model):
        events(Note(line))
    return scorer


def load_detection_model(model: str, events: Events) -> Detector:
    """Load a model of boxes or captions. Notes of its loading become notes. Raises ModelError."""
    from clipcond.models.detection import load_detector
    from clipcond.runtime.devices import device_of

    with task(events, f"loading {model}"):
        detector = load_detector(model, device=str(device_of(None)))
    for note in detector.notes:
        events(Note(note))
    return detector


def embed(paths: tuple[Path, ...], scorer: Scorer, options: GalleryOptions, events: Events) -> Gallery:
    """Embed the files, or read their embeddings where those were named. Raises ImageError where none can be read."""
    if (stored := find_stored(options.images)) is not None:
        return _stored(stored, scorer)
    from clipcond.encode.embedding_cache import EmbeddingCache
    from clipcond.find.gallery import gallery

    cache = EmbeddingCache() if options.cache else None
    try:
        with task(events, "looking", len(paths), "pictures") as advance:
            found = gallery(paths, scorer, batch_size=options.batch_size, cache=cache, on_progress=advance)
    finally:
        if cache is not None:
            cache.close()
    if not found.paths:
        raise ImageError(f"none of {len(paths)} pictures could be read; the first: {found.unread[0].error}")
    return found


def text_classifier(scorer: Scorer, labels: Sequence[Label], *, cache: bool) -> Classifier:
    """Build the classifier of some labels; with a cache, of those that are new."""
    from clipcond.encode.embedding_cache import EmbeddingCache
    from clipcond.find.classify import build_classifier

    if not cache:
        return build_classifier(scorer, labels)
    remembered = EmbeddingCache()
    try:
        return build_classifier(scorer, labels, cache=remembered)
    finally:
        remembered.close()


def _stored(stored: StoredEmbeddings, scorer: Scorer) -> Gallery:
    """The pictures of a folder of embeddings. Raises DataError where another model made them, ImageError where there are none."""
    from clipcond.find.gallery import embedded_gallery

    check_made_by(stored.folder, stored.settings, scorer)
    found = embedded_gallery(stored.embedded, scorer)
    if not found.paths:
        raise ImageError(f"{stored.folder} holds no picture; the first could not be read: {found.unread[0].error}")
    return found
