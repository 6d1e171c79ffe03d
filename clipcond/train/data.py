"""Image-caption pairs of a table or of WebDataset tars: an index from which any one can be read."""

from __future__ import annotations

import hashlib
import os
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from clipcond.errors import DataError
from clipcond.images.image_source import ImageSource
from clipcond.images.tars import ENDINGS, find_shards
from clipcond.train.rows import BadRows, PairRow
from clipcond.train.tables import JSON_LINES, PARQUET, TABLES, table_rows
from clipcond.train.tars import Indexed, index_shard
from clipcond.wording import visible

_METADATA = tuple(f"metadata{ending}" for ending in (TABLES[0], JSON_LINES[0], PARQUET[0]))


@dataclass(frozen=True, slots=True, kw_only=True)
class Relations:
    """The relations of an image to others: captions and pictures that are near and wrong, and its groups.

    seconds: what a pipeline's second text encoder reads beside each caption, or none at all.
    """

    negatives: tuple[str, ...] = ()
    negative_images: tuple[ImageSource, ...] = ()
    groups: tuple[str, ...] = ()
    seconds: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Pairs:
    """N images with one or more captions each, in the order of the source.

    left_out: what is wrong with each row that is not among them. notes: what else of the source is not used.
    relations: one for each image, or none at all where the source has no such columns.
    """

    images: Sequence[ImageSource]
    captions: Sequence[tuple[str, ...]]
    source: str = ""
    left_out: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    relations: Sequence[Relations] = ()

    def __len__(self) -> int:
        return len(self.images)

    def take(self, rows: Iterable[int]) -> Pairs:
        """Return the named rows, in that order."""
        rows = [int(row) for row in rows]
        images, captions = [self.images[row] for row in rows], [self.captions[row] for row in rows]
        relations = [self.relations[row] for row in rows] if self.relations else ()
        return Pairs(images, captions, self.source, self.left_out, self.notes, relations)

    def sample(self, most: int = 500) -> list[int]:
        """Return `most` evenly spread rows, or all."""
        rows: list[int] = np.unique(np.linspace(0, len(self) - 1, most).astype(int)).tolist()
        return rows

    def fingerprint(self) -> str:
        """Return a hash of the index: names, places in tars, captions and relations; nothing of the pictures."""
        digest = hashlib.sha256()
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
    them; a folder of tars, or one with `metadata.csv` or `metadata.jsonl`.

    separator: of a CSV's columns; left out, it is the one that makes the header hold an image and a caption column.
    max_bad_rows: leave out so many rows that will not do before one is an error.
    Rows that name the same image become one image with several captions. Raises DataError in one line that names the
    place: a missing file, an empty caption, no rows, a tar without captions.
    """
    bad = BadRows(max_bad_rows)
    path = _inside(Path(data)) if Path(data).is_dir() else Path(data)
    if path.is_dir():
        pairs = _from_tars(_tars_of(path), path, bad)
    elif path.name.endswith(ENDINGS):
        pairs = _from_tars(find_shards(str(data)), path, bad)
    elif not path.is_file():
        raise DataError(f"{path} does not exist; expected a CSV, TSV, JSONL or Parquet file, or tars")
    else:
        pairs = _from_table(path, separator, bad)
    if not len(pairs):
        raise DataError(f"{path} holds no pairs" + "".join(f"; {why}" for why in (*pairs.left_out, *pairs.notes)[:1]))
    return pairs


def split(pairs: Pairs, count: int, seed: int) -> tuple[Pairs, Pairs]:
    """Hold out `count` images drawn by `seed`: what is left for training, and the held-out ones. Raises DataError."""
    if count >= len(pairs):
        raise DataError(f"val_count is {count}, but {pairs.source} holds {len(pairs)} images")
    order = np.random.default_rng([seed, 1]).permutation(len(pairs))
    return pairs.take(np.sort(order[count:])), pairs.take(np.sort(order[:count]))


def _inside(folder: Path) -> Path:
    """Return the table of metadata that a folder holds, or the folder itself if it holds tars. Raises DataError."""
    tables = [folder / name for name in _METADATA if (folder / name).is_file()]
    tars = _tars_of(folder)
    found = [path.name for path in (*tables, *tars[:1])]
    if not found:
        raise DataError(f"no file matches {folder}/*.tar, and there is no {_METADATA[0]}")
    if len(found) > 1:
        raise DataError(f"{folder} holds {' and '.join(found)}; name one of them")
    return tables[0] if tables else folder


def _tars_of(folder: Path) -> list[Path]:
    return sorted(path for path in folder.iterdir() if path.name.endswith(ENDINGS) and path.name[0] != ".")


def _from_tars(shards: list[Path], source: Path, bad: BadRows) -> Pairs:
    notes: list[str] = []
    found: list[Indexed] = []
    for shard in shards:
        found += index_shard(shard, bad, notes)
    images, captions = [image for image, _ in found], [said for _, said in found]
    return Pairs(images, captions, str(source), tuple(bad.reasons), tuple(notes))


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
    return Pairs(list(sources.values()), said, str(path), tuple(bad.reasons), relations=given)


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
    return DataError(visible(f"{row.where}: {table.parent / name} does not exist{more}"))
