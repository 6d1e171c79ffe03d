"""A folder of embeddings in place of pictures: read, and scored by the model that made it."""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from clipcond.errors import DataError, OptionsError
from clipcond.wording import visible
from clipcond.workflows.events import Events, Note, task

if TYPE_CHECKING:
    from clipcond.rerank.collection import CollectionSettings
    from clipcond.rerank.embedding import Embedded
    from clipcond.rerank.ranking import Ranking
    from clipcond.rerank.scorer import Scorer


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class StoredEmbeddings:
    """All pictures of a folder of embeddings, and what their vectors are."""

    folder: Path
    embedded: Embedded
    settings: CollectionSettings

    @property
    def model(self) -> str:
        """The spec of the model that made them."""
        return self.settings.model

    @property
    def paths(self) -> tuple[Path, ...]:
        """The pictures, those that cannot be used last."""
        return tuple(picture.path for picture in self.embedded.pictures)


def find_stored(sources: Iterable[str]) -> StoredEmbeddings | None:
    """Read the folder of embeddings that a command names in place of pictures; None where it names pictures.

    Raises OptionsError where it names both, and what `read_stored` does.
    """
    folder = stored_folder(sources)
    return None if folder is None else read_stored(folder)


def stored_folder(sources: Iterable[str]) -> Path | None:
    """Return the folder of embeddings that a command names in place of pictures. Raises OptionsError where it names both."""
    sources = list(sources)
    folder = next((Path(each).expanduser() for each in sources if _holds_embeddings(each)), None)
    if folder is not None and len(sources) > 1:
        raise OptionsError(f"{folder} holds embeddings of pictures; name it alone")
    return folder


def _holds_embeddings(source: str) -> bool:
    from clipcond.rerank.collection import ABOUT

    return os.path.isfile(os.path.join(os.path.expanduser(source), ABOUT))  # noqa: PTH111, PTH113, PTH118 - any text will do


def read_stored(folder: Path) -> StoredEmbeddings:
    """Read a folder that `clipcond embed` made, without its model. Raises DataError, and ConfigError without pyarrow."""
    from clipcond.encode.embedding_shards import check_pyarrow
    from clipcond.rerank.collection import check_complete

    check_pyarrow()
    check_complete(folder)  # before torch is imported
    from clipcond.rerank.stored import read_embeddings

    embedded, settings = read_embeddings(folder)
    return StoredEmbeddings(folder=folder, embedded=embedded, settings=settings)


def stored_scorer(stored: StoredEmbeddings, model: str, events: Events) -> Scorer:
    """Load the model whose texts are to be matched. Raises DataError where other weights made the embeddings."""
    from clipcond.rerank.scorer import Scorer

    with task(events, f"loading {model}"):
        scorer = Scorer.load(model, view=stored.settings.view, draft=stored.settings.draft)  # type: ignore[arg-type]
    check_made_by(stored.folder, stored.settings, scorer)
    for note in scorer.dual.notes:
        events(Note(note))
    return scorer


def check_made_by(folder: Path, settings: CollectionSettings, scorer: Scorer) -> None:
    """Raise DataError where other weights than the scorer's, in float32, made the embeddings of a folder."""
    from clipcond.encode.fingerprint import Fingerprint

    if Fingerprint(scorer.dual.image.model)() != settings.fingerprint:
        made, given = visible(settings.model), visible(scorer.dual.name)
        raise DataError(f"{folder} was made by {made}, with other weights than {given}; name its model")


def with_stored_dtype(ranking: Ranking, stored: StoredEmbeddings) -> Ranking:
    """The ranking with the dtypes in which its pictures were encoded and kept in its header."""
    if ranking.header is None:
        return ranking
    computed, kept = stored.settings.precision, stored.settings.stored
    return replace(ranking, header=replace(ranking.header, dtype=f"{computed}, kept as {kept}"))
