"""Image-caption pairs of a CSV, TSV or JSONL file, or of WebDataset tars: an index from which any one can be read."""

from __future__ import annotations

import csv
import glob
import io
import json
import math
import tarfile
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, UnidentifiedImageError

from clipcond.errors import DataError
from clipcond.images.preprocess import Preprocess

IMAGE_COLUMNS = ("image", "path", "filepath")
CAPTION_COLUMNS = ("caption", "captions", "title", "text")
IMAGE_ENDINGS = (".jpg", ".jpeg", ".png", ".webp")
_SEPARATORS = (",", "\t", ";", "|")


@dataclass(frozen=True, slots=True)
class ImageSource:
    """Where an image's bytes are: a whole file, or a stretch of a tar."""

    path: Path
    start: int = 0
    size: int | None = None
    name: str = ""

    def __str__(self) -> str:
        return f"{self.path}:{self.name}" if self.name else str(self.path)

    def read(self) -> bytes:
        """The image's bytes. Raises DataError."""
        try:
            with self.path.open("rb") as file:
                file.seek(self.start)
                return file.read() if self.size is None else file.read(self.size)
        except OSError as error:
            raise DataError(f"cannot read {self}: {error.strerror or error}") from error


@dataclass(frozen=True, slots=True)
class Pairs:
    """N images with one or more captions each, in the order of the source."""

    places: Sequence[ImageSource]
    captions: Sequence[tuple[str, ...]]
    source: str = field(default="")

    def __len__(self) -> int:
        return len(self.places)

    def take(self, rows: Iterable[int]) -> Pairs:
        """The named rows, in that order."""
        rows = [int(row) for row in rows]
        return Pairs([self.places[row] for row in rows], [self.captions[row] for row in rows], self.source)

    def fingerprint(self) -> str:
        """A hash of what is in the index: places by name and size, and captions; not the pixels."""
        import hashlib

        digest = hashlib.sha256()
        for place, captions in zip(self.places, self.captions, strict=True):
            digest.update(f"{place.path.name}\0{place.start}\0{place.size}\0{captions}\n".encode())
        return digest.hexdigest()[:16]


def read_pairs(data: str | Path, *, separator: str | None = None) -> Pairs:
    """Index a data source: `.csv`, `.tsv`, `.jsonl`, a `.tar`, a glob of tars, or a folder of tars.

    separator: of a CSV's columns; left out, it is the one that makes the header hold an image and a caption column.
    Rows that name the same image become one image with several captions. Raises DataError in one line that names the
    place: a missing file, an empty caption, no rows, a tar without captions.
    """
    text = str(data)
    path = Path(text)
    if path.is_dir():
        text, path = str(path / "*.tar"), path / "*.tar"
    if path.suffix == ".tar":
        shards = sorted(glob.glob(text))  # noqa: PTH207  (a pattern may be absolute)
        if not shards:
            raise DataError(f"no file matches {text}")
        pairs = _from_tars([Path(shard) for shard in shards], text)
    elif not path.is_file():
        raise DataError(f"{path} does not exist; expected a CSV, TSV or JSONL file, or tars")
    elif path.suffix in (".jsonl", ".ndjson"):
        pairs = _from_rows(_jsonl_rows(path), path)
    elif path.suffix in (".csv", ".tsv", ".txt"):
        pairs = _from_rows(_table_rows(path, separator), path)
    else:
        raise DataError(f"{path} ends in {path.suffix or 'nothing'!r}, expected .csv, .tsv, .jsonl or .tar")
    if not len(pairs):
        raise DataError(f"{text} holds no pairs")
    return pairs


def split(pairs: Pairs, count: int, seed: int) -> tuple[Pairs, Pairs]:
    """Hold out `count` images drawn by `seed`: what is left for training, and the held-out ones. Raises DataError."""
    if count >= len(pairs):
        raise DataError(f"val_count is {count}, but {pairs.source} holds {len(pairs)} images")
    order = np.random.default_rng([seed, 1]).permutation(len(pairs))
    return pairs.take(np.sort(order[count:])), pairs.take(np.sort(order[:count]))


# ── tables ───────────────────────────────────────────────────────────────────────────────────────────────────────────


def _from_rows(rows: Iterable[tuple[int, str, list[str]]], path: Path) -> Pairs:
    """Merge rows of the same image; each must name a file that is there and a caption that says something."""
    captions: dict[str, list[str]] = {}
    for number, image, said in rows:
        if not image:
            raise DataError(f"{path}, line {number}: the image path is empty")
        if not said or not all(caption.strip() for caption in said):
            raise DataError(f"{path}, line {number}: the caption of {image} is empty")
        captions.setdefault(image, []).extend(said)
    places = [ImageSource(path.parent / image) for image in captions]
    lacking = [place for place in places if not place.path.is_file()]
    if lacking:
        raise DataError(f"{lacking[0]} does not exist ({len(lacking)} of the {len(places)} images that {path} names)")
    return Pairs(places, [tuple(said) for said in captions.values()], str(path))


def _table_rows(path: Path, separator: str | None) -> Iterable[tuple[int, str, list[str]]]:
    with path.open(encoding="utf-8-sig", newline="") as file:
        header = file.readline()
        found = None
        for candidate in (separator,) if separator else _SEPARATORS:
            names = [name.strip().lower() for name in next(csv.reader([header], delimiter=candidate), [])]
            image = next((names.index(name) for name in IMAGE_COLUMNS if name in names), None)
            caption = next((names.index(name) for name in CAPTION_COLUMNS if name in names), None)
            if image is not None and caption is not None:
                found = (candidate, image, caption)
                break
        if found is None:
            raise DataError(
                f"{path} has the header {header.strip()!r}; expected a column of {', '.join(IMAGE_COLUMNS)} "
                f"and one of {', '.join(CAPTION_COLUMNS)}"
            )
        candidate, image, caption = found
        reader = csv.reader(file, delimiter=candidate)
        for row in reader:
            if row:
                if len(row) <= max(image, caption):
                    raise DataError(f"{path}, line {reader.line_num + 1}: {len(row)} columns, the header has more")
                yield reader.line_num + 1, row[image].strip(), [row[caption]]


def _jsonl_rows(path: Path) -> Iterable[tuple[int, str, list[str]]]:
    with path.open(encoding="utf-8") as file:
        for number, line in enumerate(file, 1):
            if not line.strip():
                continue
            try:
                record = json.loads(line)
            except ValueError as error:
                raise DataError(f"{path}, line {number}: not JSON ({error})") from error
            where = f"{path}, line {number}"
            image = (
                next((record[name] for name in IMAGE_COLUMNS if name in record), None)
                if isinstance(record, dict)
                else None
            )
            if not isinstance(image, str):
                raise DataError(f"{where}: no image; expected one of {', '.join(IMAGE_COLUMNS)}")
            yield number, image, _captions_of(record, where)


def _captions_of(record: Any, where: str) -> list[str]:
    value = (
        next((record[name] for name in CAPTION_COLUMNS if name in record), None) if isinstance(record, dict) else None
    )
    said = [value] if isinstance(value, str) else value
    if not isinstance(said, list) or not said or not all(isinstance(caption, str) for caption in said):
        raise DataError(
            f"{where}: no caption; expected a text or a list of texts in one of {', '.join(CAPTION_COLUMNS)}"
        )
    return said


# ── tars ─────────────────────────────────────────────────────────────────────────────────────────────────────────────


def _from_tars(shards: list[Path], source: str) -> Pairs:
    places: list[ImageSource] = []
    captions: list[tuple[str, ...]] = []
    for shard in shards:
        images: dict[str, ImageSource] = {}
        said: dict[str, tuple[str, ...]] = {}
        try:
            with tarfile.open(shard, "r:") as tar:
                for member in tar:
                    key, ending = _key(member.name)
                    if ending in IMAGE_ENDINGS:
                        images[key] = ImageSource(shard, member.offset_data, member.size, member.name)
                    elif ending in (".txt", ".json") and member.isfile():
                        file = tar.extractfile(member)
                        assert file is not None
                        said[key] = _tar_captions(file.read(), ending, f"{shard}:{member.name}")
        except (tarfile.TarError, OSError) as error:
            raise DataError(f"{shard} is not a readable, uncompressed tar: {error}") from error
        for key, place in images.items():
            if key not in said:
                raise DataError(f"{place} has no caption: there is no {key}.txt or {key}.json beside it")
            places.append(place)
            captions.append(said[key])
    return Pairs(places, captions, source)


def _key(name: str) -> tuple[str, str]:
    """A member's name up to the first dot of its last part, and its last ending in lower case: WebDataset's rule."""
    folder, _, last = name.rpartition("/")
    stem = last.partition(".")[0]
    return (f"{folder}/{stem}" if folder else stem), Path(last).suffix.lower()


def _tar_captions(content: bytes, ending: str, where: str) -> tuple[str, ...]:
    try:
        text = content.decode("utf-8")
        said = [text.strip()] if ending == ".txt" else _captions_of(json.loads(text), where)
    except (UnicodeDecodeError, json.JSONDecodeError) as error:
        raise DataError(f"{where}: not readable as {ending}: {error}") from error
    if not all(caption.strip() for caption in said):
        raise DataError(f"{where}: the caption is empty")
    return tuple(said)


# ── pixels ───────────────────────────────────────────────────────────────────────────────────────────────────────────


def open_image(place: ImageSource) -> Image.Image:
    """The decoded image. Raises DataError."""
    content = place.read()
    try:
        with Image.open(io.BytesIO(content)) as opened:
            opened.load()
            return opened
    except UnidentifiedImageError:  # its own text names a buffer in memory
        reason = "it is not a picture in a format that can be read" if content else "it is empty"
        raise DataError(f"cannot decode {place}: {reason}") from None
    except Exception as error:  # Pillow raises many kinds, struct.error among them
        raise DataError(f"cannot decode {place}: {' '.join(str(error).split())}") from error


def decode(place: ImageSource, preprocess: Preprocess) -> np.ndarray:
    """The image's pixels as the model takes them, (3, H, W) uint8. Raises DataError."""
    return np.ascontiguousarray(preprocess.pixels(open_image(place)).transpose(2, 0, 1))


class Pixels:
    """The pixels of all images of `pairs`, decoded when first asked for and kept where they fit.

    Keeping takes N·3·H·W bytes; above `cache_gib` nothing is kept. Memory is only touched as images come in.
    """

    def __init__(self, pairs: Pairs, preprocess: Preprocess, cache_gib: float) -> None:
        self.pairs, self.preprocess = pairs, preprocess
        shape = (len(pairs), 3, preprocess.height, preprocess.width)
        self._kept = np.empty(shape, np.uint8) if math.prod(shape) <= cache_gib * 2**30 else None
        self._known = np.zeros(len(pairs), bool)

    def __getitem__(self, rows: np.ndarray) -> np.ndarray:
        """(B,) row numbers to (B, 3, H, W) uint8. Raises DataError for an image that cannot be decoded."""
        if self._kept is None:
            return np.stack([decode(self.pairs.places[row], self.preprocess) for row in rows])
        for row in rows[~self._known[rows]]:
            self._kept[row] = decode(self.pairs.places[row], self.preprocess)
            self._known[row] = True
        pixels: np.ndarray = self._kept[rows]
        return pixels


def preflight(pairs: Pairs, preprocess: Preprocess, *, most: int = 500) -> None:
    """Decode `most` evenly spread images, or all, so that bad data fails before the first step. Raises DataError."""
    for row in np.unique(np.linspace(0, len(pairs) - 1, most).astype(int)):
        decode(pairs.places[row], preprocess)
