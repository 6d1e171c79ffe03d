"""A search of very many pictures through an index on disk, which is brought up to date first."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from fnmatch import fnmatch
from hashlib import blake2b
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from clipcond.workflows.events import Events, Note, task

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from clipcond.encode.embedding_cache import EmbeddingCache
    from clipcond.find.bit_index import BitIndex
    from clipcond.find.gallery import Unread
    from clipcond.find.picture_index import PictureIndex, Recall
    from clipcond.find.search import Filter
    from clipcond.rerank.collection import CollectionSettings
    from clipcond.rerank.embedding import Picture
    from clipcond.rerank.rows import Ranking
    from clipcond.rerank.scorer import Scorer

ABOUT = "index.json"
_PHRASES = ("subjects", "composition", "light", "mediums")
_WORDS = 50  # phrases that serve as queries to measure recall


@dataclass(frozen=True, slots=True, kw_only=True)
class IndexUse:
    """The index of a search. pictures: that were compared.   by: what compared codes.   recall: None where every vector was."""

    folder: Path
    pictures: int
    by: str
    recall: Recall | None

    def line(self) -> str:
        """One line for people."""
        if self.recall is None:
            return f"index of {self.pictures:,} pictures, every vector compared (half precision)"
        found = self.recall
        return (
            f"index of {self.pictures:,} pictures, codes compared by {self.by}, {found.rescored:,} pictures compared again: of "
            f"the 10 nearest it finds {found.pictures:.1%} for pictures and {found.words:.1%} for words "
            f"(exact search of {found.queries} queries); --exact compares all"
        )

    def to_json(self) -> dict[str, object]:
        """The same, JSON-able."""
        recall = None if self.recall is None else asdict(self.recall)
        return {"folder": str(self.folder), "pictures": self.pictures, "by": self.by, "recall": recall}


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class Current:
    """An index that is up to date. live: (N,) rows that may be found.   unread, computed: as of a gallery.

    paths: each row's number among `names`, the paths as the user spells them; None where the index's own names are meant.
    """

    index: PictureIndex
    live: NDArray[np.bool_]
    paths: NDArray[np.int64] | None = None
    names: Sequence[Path] = ()
    unread: Sequence[Unread] = ()
    computed: int = 0


def indexes_folder(cache: Path) -> Path:
    """Return the folder of all indexes, beside the database of embeddings."""
    return cache.parent / "indexes"


def open_index(scorer: Scorer, sources: Sequence[str], recursive: bool, events: Events) -> PictureIndex:
    """Open the index of some sources and this model, or begin one; damaged segments are removed, with a note."""
    from clipcond.encode.embedding_cache import default_path
    from clipcond.files import write_file
    from clipcond.find.picture_index import PictureIndex

    space = scorer.image_space()
    named = sorted(os.path.abspath(os.path.expanduser(source)) for source in sources)  # noqa: PTH100, PTH111 - patterns too
    key = repr((space.model, space.preprocess, space.width, named, recursive))
    folder = indexes_folder(default_path()) / blake2b(os.fsencode(key), digest_size=10).hexdigest()
    index = PictureIndex(folder)
    for line in index.damaged:
        events(Note(line))
    folder.mkdir(parents=True, exist_ok=True)
    document = {"model": scorer.dual.name, "sources": named, "recursive": recursive}
    write_file(folder / ABOUT, json.dumps(document) + "\n", overwrite=True)
    return index


def of_pictures(
    index: PictureIndex, paths: Sequence[Path], scorer: Scorer, cache: EmbeddingCache, events: Events, batch_size: int
) -> Current:
    """Bring an index of picture files up to date: new and changed ones are embedded and added, others are not found."""
    keys = _keys(paths, events)
    new = np.flatnonzero(index.places(keys) < 0)
    unread, computed = _add_pictures(index, paths, keys, new, scorer, cache, events, batch_size)
    while True:
        rows = index.places(keys)
        of = np.full(len(index), -1, dtype=np.int64)
        of[rows[rows >= 0]] = np.flatnonzero(rows >= 0)
        if not index.tidy(of >= 0):
            return Current(index=index, live=of >= 0, paths=of, names=paths, unread=unread, computed=computed)


def _keys(paths: Sequence[Path], events: Events) -> NDArray[np.uint64]:
    """(F,) a number for each file as it is now."""
    from clipcond.encode.content_key import file_state
    from clipcond.find.picture_index import seen_key

    keys, now = np.zeros(len(paths), dtype=np.uint64), time.time()
    with task(events, "looking for changes", len(paths), "pictures") as advance:
        for number, path in enumerate(paths):
            keys[number] = seen_key(path, file_state(path), now)
            advance(1)
    return keys


def _add_pictures(
    index: PictureIndex,
    paths: Sequence[Path],
    keys: NDArray[np.uint64],
    new: NDArray[np.intp],
    scorer: Scorer,
    cache: EmbeddingCache,
    events: Events,
    batch_size: int,
) -> tuple[list[Unread], int]:
    """Embed files by number and add them. Returns those that cannot be read, and how many vectors were computed.

    Every segment gets some of every folder, so that the first gives a mean that is everyone's.
    """
    from clipcond.find.gallery import gallery
    from clipcond.find.picture_index import ROWS, records_of

    unread, computed, blocks = list["Unread"](), 0, -(-len(new) // ROWS)
    with task(events, "looking", len(new), "pictures") as advance:
        for block in range(blocks):
            key = {paths[number]: int(keys[number]) for number in new[block::blocks]}
            found = gallery(list(key), scorer, batch_size=batch_size, cache=cache, on_progress=advance)
            if found.paths:
                names = [os.path.abspath(path) for path in found.paths]  # noqa: PTH100 - links kept
                records = records_of(found.pictures, [key[path] for path in found.paths])
                index.add(found.vectors.numpy(), names, records)
            unread += found.unread
            computed += found.computed
    return unread, computed


def of_shards(index: PictureIndex, folder: Path, settings: CollectionSettings, events: Events) -> Current:
    """Bring an index of a folder of embeddings up to date: new and changed shards are read and added, others are not found."""
    from clipcond.find.picture_index import ROWS
    from clipcond.rerank.collection import Collection

    collection = Collection(folder)
    files = {
        (path.name, (at := path.stat()).st_size, at.st_mtime_ns): path
        for path in collection.shard_files(settings.shard_size)
    }
    _, known = index.live_sources(files)
    new = [path for mark, path in files.items() if mark not in known]
    blocks = -(-len(new) * settings.shard_size // ROWS)
    with task(events, "adding to the index", len(new), "shards") as advance:
        for block in range(blocks):
            _add_shards(index, new[block::blocks], settings)
            advance(len(new[block::blocks]))
    while index.tidy(index.live_sources(files)[0]):
        pass
    lost = collection.error_count(settings.shard_size)
    if lost:
        events(Note(f"{lost:,} pictures of {folder} could not be embedded"))
    return Current(index=index, live=index.live_sources(files)[0])


def _add_shards(index: PictureIndex, files: Sequence[Path], settings: CollectionSettings) -> None:
    """Read shards and add their rows as one segment."""
    from clipcond.find.picture_index import records_of
    from clipcond.find.segments import Source
    from clipcond.rerank.stored import read_stored_shard

    pictures, vectors, sources = list["Picture"](), list["NDArray[np.float32]"](), list[Source]()
    for path in files:
        state = path.stat()
        found, own = read_stored_shard(path, settings)
        pictures += found
        vectors.append(own)
        sources.append(Source(path.name, state.st_size, state.st_mtime_ns, len(found)))
    if pictures:
        names = [str(picture.path) for picture in pictures]
        index.add(np.concatenate(vectors), names, records_of(pictures, [0] * len(pictures)), sources)


def search(
    current: Current,
    direction: NDArray[np.float64],
    query: str,
    scorer: Scorer,
    events: Events,
    *,
    top: int,
    by: Filter,
    exact: bool,
) -> tuple[Ranking, IndexUse]:
    """Find the pictures of an index that are nearest a direction, (P,), and say how good the index is on its own pictures.

    exact: compare every vector. Raises ImageError where the index has no picture.
    """
    from clipcond.errors import ImageError
    from clipcond.find.search import ranking_of

    if not current.live.any():
        first = f"; the first: {current.unread[0].error}" if current.unread else ""
        raise ImageError(f"none of the pictures could be read{first}")
    index = current.index.index()
    recall = None if exact else _recall(current.index, scorer, events)
    among = current.live & _allowed(index, current, by)
    with task(events, "searching"):
        if recall is None:
            hits = index.search_exact(direction, top + 1, among=among)
        else:
            hits = index.search(direction, top + 1, rescored=recall.rescored, among=among)
    hits = [hit for hit in hits if by.min_score is None or hit.cosine >= by.min_score]
    rows = np.array([hit.row for hit in hits], dtype=np.intp)
    order = np.argsort(rows)
    vectors = np.empty((len(rows), index.width), dtype=np.float32)
    vectors[order] = index.vectors(rows[order])
    ranking = ranking_of(
        [_picture(index, current, hit.row) for hit in hits], [hit.cosine for hit in hits], vectors, scorer, query,
        top=top, unread=current.unread, computed=current.computed,
    )  # fmt: skip
    use = IndexUse(folder=current.index.folder, pictures=int(among.sum()), by=index.by.name, recall=recall)
    return ranking, use


def _recall(index: PictureIndex, scorer: Scorer, events: Events) -> Recall:
    """The recall of the index, measured now unless that was done before."""
    from clipcond.rerank.tables import read_lines
    from clipcond.resources import bundled

    if (known := index.measured()) is not None:
        return known
    phrases = [each for name in _PHRASES for each in read_lines(bundled("prompts", f"phrases/{name}.txt"), "phrases")]
    some = phrases[:: max(1, len(phrases) // _WORDS)][:_WORDS]
    with task(events, "measuring the index"):
        return index.measure(np.array([text.vector for text in scorer.texts(some)]))


def _allowed(index: BitIndex, current: Current, by: Filter) -> NDArray[np.bool_]:
    """(N,) rows that the filter lets through, whatever their score."""
    allowed = np.ones(len(index), dtype=bool)
    if by.since is not None:
        allowed &= index.records("modified") >= by.since
    if by.until is not None:
        allowed &= index.records("modified") <= by.until
    if by.min_pixels:
        allowed &= index.records("width").astype(np.int64) * index.records("height") >= by.min_pixels
    if by.within is not None:
        rows = np.flatnonzero(allowed & current.live)
        allowed[rows] = [fnmatch(str(_path(index, current, int(row))), by.within) for row in rows]
    return allowed


def _path(index: BitIndex, current: Current, row: int) -> Path:
    if current.paths is not None:
        return current.names[int(current.paths[row])]
    segment, own = index.place(row)
    return Path(segment.name(own))


def _picture(index: BitIndex, current: Current, row: int) -> Picture:
    from clipcond.rerank.embedding import Picture

    segment, own = index.place(row)
    record = segment.records[own]
    return Picture(
        path=_path(index, current, row), width=int(record["width"]), height=int(record["height"]),
        share_seen=float(record["share_seen"]), modified=float(record["modified"]),
    )  # fmt: skip
