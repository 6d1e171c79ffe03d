"""Image-caption pairs of a table, of WebDataset tars or of a folder: an index from which any one can be read."""

from __future__ import annotations

import hashlib
import os
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from clipcond.errors import DataError, ImageError
from clipcond.images.image_source import ImageSource
from clipcond.images.remote import fetched_tars, is_remote
from clipcond.images.tars import ENDINGS, find_shards
from clipcond.train.folders import holds_pictures, index_folder
from clipcond.train.indexed import Indexed, Relations
from clipcond.train.rows import MISSING, BadRows, PairRow, RowError
from clipcond.train.tables import JSON_LINES, PARQUET, TABLES, table_rows
from clipcond.train.tars import index_shard
from clipcond.wording import visible

_METADATA = tuple(f"metadata{ending}" for ending in (TABLES[0], JSON_LINES[0], PARQUET[0]))


@dataclass(frozen=True, slots=True)
class Pairs:
    """N images with one or more captions each, in the order of the source.

    left_out: what is wrong with each row that is not among them, and the kind of each fault in `faults`.
    notes: what else of the source is not used. relations: one for each image, or none at all where the source has no
    such columns. repeats: how often each image is shown in an epoch, or none at all for once each.
    """

    images: Sequence[ImageSource]
    captions: Sequence[tuple[str, ...]]
    source: str = ""
    left_out: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    relations: Sequence[Relations] = ()
    repeats: Sequence[int] = ()
    faults: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.images)

    def take(self, rows: Iterable[int]) -> Pairs:
        """Return the named rows, in that order."""
        rows = [int(row) for row in rows]
        images, captions = [self.images[row] for row in rows], [self.captions[row] for row in rows]
        relations = [self.relations[row] for row in rows] if self.relations else ()
        repeats = [self.repeats[row] for row in rows] if self.repeats else ()
        return replace(self, images=images, captions=captions, relations=relations, repeats=repeats)

    def shown(self) -> np.ndarray:
        """Return the rows of an epoch before they are shuffled, (E,) int64: each as often as it is repeated."""
        rows = np.arange(len(self))
        return np.repeat(rows, np.asarray(self.repeats)) if self.repeats else rows

    def sample(self, most: int = 500) -> list[int]:
        """Return `most` evenly spread rows, or all."""
        rows: list[int] = np.unique(np.linspace(0, len(self) - 1, most).astype(int)).tolist()
        return rows

    def fingerprint(self) -> str:
        """Return a hash of the index: names, places in tars, captions and relations; nothing of the pictures."""
        digest = hashlib.sha256()
        if self.repeats:
            digest.update(f"{list(self.repeats)}\n".encode())
        for each in self.relations:
            names = [image.path.name for image in each.negative_images]
            seconds = f"\0{each.seconds}" if each.seconds else ""
            digest.update(f"{each.negatives}\0{names}\0{each.groups}{seconds}\n".encode("utf-8", "surrogateescape"))
        for image, captions in zip(self.images, self.captions, strict=True):
            line = f"{image.path.name}\0{image.start}\0{image.size}\0{captions}\n"
            digest.update(line.encode("utf-8", "surrogateescape"))
        return digest.hexdigest()[:16]

    def pictures_fingerprint(self) -> str:
        """Return a hash of the pictures: the size of every file, the bytes of up to 500. Raises DataError."""
        digest = hashlib.sha256()
        for image in self.images:
            digest.update(b"%d\n" % image.length())
        for row in self.sample():
            digest.update(self.images[row].digest())
        return digest.hexdigest()[:16]

    def sharing_captions(self) -> int:
        """Return how many images have a caption that another image has too."""
        keys = [{same_caption(caption) for caption in captions} for captions in self.captions]
        counts = Counter(key for own in keys for key in own)
        return sum(any(counts[key] > 1 for key in own) for own in keys)


def same_caption(caption: str) -> str:
    """Return what captions have in common that CLIP reads alike: small letters, single spaces."""
    return " ".join(caption.lower().split())


def read_pairs(data: str | Path, *, separator: str | None = None, max_bad_rows: int = 0) -> Pairs:
    """Index a data source: `.csv`, `.tsv`, `.jsonl`, `.parquet`; a `.tar` or `.tar.gz`, a glob or a brace pattern of
    them, also behind an address that fsspec knows; a folder of tars, one with `metadata.csv` or `metadata.jsonl`, or one
    of pictures with texts beside them.

    separator: of a CSV's columns; left out, it is the one that makes the header hold an image and a caption column.
    max_bad_rows: leave out so many rows that will not do before one is an error.
    Rows that name the same image become one image with several captions. Raises DataError in one line that names the
    place: a missing file, an empty caption, no rows, a tar without captions.
    """
    bad = BadRows(max_bad_rows)
    if is_remote(str(data)):
        return _checked(_from_tars(_fetched(str(data)), data, bad))
    path = _inside(Path(data)) if Path(data).is_dir() else Path(data)
    if path.is_dir():
        shards = _tars_of(path)
        pairs = _from_tars(shards, path, bad) if shards else _from_folder(path, bad)
    elif path.name.endswith(ENDINGS):
        pairs = _from_tars(find_shards(str(data)), path, bad)
    elif not path.is_file():
        raise DataError(f"{path} does not exist; expected a CSV, TSV, JSONL or Parquet file, tars, or a folder")
    else:
        pairs = _from_table(path, separator, bad)
    return _checked(pairs)


def _checked(pairs: Pairs) -> Pairs:
    if not len(pairs):
        why = (*pairs.left_out, *pairs.notes)[:1]
        raise DataError(f"{pairs.source} holds no pairs" + "".join(f"; {each}" for each in why))
    return pairs


def _fetched(address: str) -> list[Path]:
    try:
        return list(fetched_tars(address))
    except ImageError as error:
        raise DataError(str(error)) from error


def split(pairs: Pairs, count: int, seed: int) -> tuple[Pairs, Pairs]:
    """Hold out `count` images drawn by `seed`: what is left for training, and the held-out ones. Raises DataError."""
    if count >= len(pairs):
        raise DataError(f"val_count is {count}, but {pairs.source} holds {len(pairs)} images")
    order = np.random.default_rng([seed, 1]).permutation(len(pairs))
    return pairs.take(np.sort(order[count:])), pairs.take(np.sort(order[:count]))


def _inside(folder: Path) -> Path:
    """Return the table of metadata that a folder holds, or the folder itself for tars or pictures. Raises DataError."""
    tables = [folder / name for name in _METADATA if (folder / name).is_file()]
    tars = _tars_of(folder)
    found = [path.name for path in (*tables, *tars[:1])]
    if not found and not holds_pictures(folder):
        raise DataError(f"no file matches {folder}/*.tar, and there is no {_METADATA[0]} and no picture in it")
    if len(found) > 1:
        raise DataError(f"{folder} holds {' and '.join(found)}; name one of them")
    return tables[0] if tables else folder


def _tars_of(folder: Path) -> list[Path]:
    return sorted(path for path in folder.iterdir() if path.name.endswith(ENDINGS) and path.name[0] != ".")


def _from_tars(shards: list[Path], source: Path | str, bad: BadRows) -> Pairs:
    notes: list[str] = []
    found: list[Indexed] = []
    for shard in shards:
        found += index_shard(shard, bad, notes)
    return _pairs(found, source, bad, notes)


def _from_folder(folder: Path, bad: BadRows) -> Pairs:
    notes: list[str] = []
    return _pairs(index_folder(folder, bad, notes), folder, bad, notes)


def _pairs(found: list[Indexed], source: Path | str, bad: BadRows, notes: list[str]) -> Pairs:
    relations, repeats = [each.relations for each in found], [each.repeats for each in found]
    return Pairs(
        [each.image for each in found], [each.captions for each in found], str(source), tuple(bad.reasons), tuple(notes),
        relations=relations if any(each != Relations() for each in relations) else (),
        repeats=repeats if any(each != 1 for each in repeats) else (), faults=tuple(bad.kinds),
    )  # fmt: skip


def _from_table(path: Path, separator: str | None, bad: BadRows) -> Pairs:
    """Merge rows of the same image; each must name files that are there."""
    sources: dict[str, ImageSource] = {}
    rows: dict[str, list[PairRow]] = {}
    absent: list[tuple[PairRow, str]] = []
    for row in table_rows(path, separator):
        if isinstance(row, DataError):
            bad.leave_out(row)
            continue
        source = ImageSource(path.parent / row.image)
        key = os.path.abspath(source.path)  # noqa: PTH100  (./0.jpg is 0.jpg; links are kept)
        named = [*(() if key in sources else (row.image,)), *row.negative_images]
        missing = next((name for name in named if not os.path.isfile(path.parent / name)), None)  # noqa: PTH113  (False too for a name too long)
        if missing is not None:
            absent.append((row, missing))
            continue
        sources.setdefault(key, source)
        rows.setdefault(key, []).append(row)
    for row, name in absent:
        bad.leave_out(_absent(row, name, len({name for _, name in absent}), path))
    said = [tuple(caption for row in own for caption in row.captions) for own in rows.values()]
    relations = [_relations(own, path) for own in rows.values()]
    given = relations if any(each != Relations() for each in relations) else ()
    return Pairs(list(sources.values()), said, str(path), tuple(bad.reasons), relations=given, faults=tuple(bad.kinds))


def _relations(rows: list[PairRow], table: Path) -> Relations:
    images = dict.fromkeys(name for row in rows for name in row.negative_images)
    seconds = tuple(text for row in rows for text in row.seconds or row.captions)
    return Relations(
        negatives=tuple(dict.fromkeys(text for row in rows for text in row.negatives)),
        negative_images=tuple(ImageSource(table.parent / name) for name in images),
        groups=tuple(dict.fromkeys(name for row in rows for name in row.groups)),
        seconds=seconds if any(row.seconds for row in rows) else (),
    )


def _absent(row: PairRow, name: str, count: int, table: Path) -> DataError:
    more = f" ({count} such images in {table})" if count > 1 else ""
    return RowError(visible(f"{row.where}: {table.parent / name} does not exist{more}"), MISSING)
