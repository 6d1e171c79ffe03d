"""A collection's embeddings in a folder: which pictures are in which shard, what is done, and what is in it.

The folder holds `embeddings.json` (what the vectors are), `sources-0000.jsonl` (the pictures of the first run; of each later
one those that were new), and for each shard `00000.parquet` and, where pictures of it cannot be used, `00000.errors.jsonl`.
Every file appears whole or not at all. A shard's pictures are fixed before anything is embedded: neither the number of
workers nor an interruption changes a row.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from clipcond.errors import ConfigError, DataError, OutputExists
from clipcond.files import write_file
from clipcond.wording import first_line

if TYPE_CHECKING:
    from clipcond.encode.precision import Precision
    from clipcond.images.preprocess import View

ABOUT = "embeddings.json"
VERSION = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class EmbedJob:
    """The settings of a worker that embeds a collection. precision: of the encoder.   stored: the dtype of vectors in the shards.

    device: None is CUDA where there is one.
    """

    folder: Path
    model: str = "mini"
    precision: Precision = "fp32"
    view: View | None = None
    draft: bool = False
    stored: str = "float32"
    shard_size: int = 1024
    batch_size: int = 32
    device: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class CollectionSettings:
    """Settings that every run over a folder of embeddings has to agree on. view: None is the model's own."""

    model: str
    fingerprint: str
    preprocessing: str
    precision: str
    view: str | None
    draft: bool
    stored: str
    width: int
    shard_size: int
    version: int = VERSION


@dataclass(frozen=True, slots=True, kw_only=True)
class Shard:
    """Some pictures of a collection, in order."""

    number: int
    sources: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class PictureError:
    """A picture that is in no shard, and why."""

    path: str
    error: str


class Collection:
    """A folder of embeddings."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def settings(self) -> CollectionSettings | None:
        """Return what the folder's vectors are; None where nothing is in it. Raises DataError, and OutputExists for another's."""
        try:
            text = (self.folder / ABOUT).read_text(encoding="utf-8")
        except FileNotFoundError:
            if self.folder.is_dir() and any(not each.name.startswith(".") for each in self.folder.iterdir()):
                raise OutputExists(f"{self.folder} holds other files and no {ABOUT}; name an empty folder") from None
            return None
        try:
            found = json.loads(text)
            settings = CollectionSettings(**{name: found[name] for name in CollectionSettings.__dataclass_fields__})
        except (ValueError, TypeError, KeyError) as error:
            raise DataError(
                f"{self.folder / ABOUT} cannot be read: {first_line(error)}; name another folder"
            ) from error
        if settings.version != VERSION:
            raise DataError(
                f"{self.folder} was made by another clipcond (version {settings.version}, expected {VERSION})"
            )
        return settings

    def begin(self, settings: CollectionSettings) -> None:
        """Make the folder, and write down what its vectors are."""
        self.folder.mkdir(parents=True, exist_ok=True)
        document = {"clipcond": "embeddings", **asdict(settings)}
        write_file(self.folder / ABOUT, json.dumps(document, indent=1, ensure_ascii=True) + "\n")

    def lacks(self, sources: Iterable[str]) -> bool:
        """True if some of the pictures are not in the collection yet."""
        known = {source for part in self._parts() for source in part}
        return any(source not in known for source in sources)

    def add(self, sources: Iterable[str]) -> int:
        """Write down the pictures that are not in the collection yet, for shards of their own. Returns their number."""
        parts = self._parts()
        known = {source for part in parts for source in part}
        new = [source for source in dict.fromkeys(sources) if source not in known]
        if new:
            lines = "".join(json.dumps(source) + "\n" for source in new)
            write_file(self._sources(len(parts)), lines)
        return len(new)

    def shards(self, size: int) -> list[Shard]:
        """Return all shards, done or not."""
        stretches = [part[at : at + size] for part in self._parts() for at in range(0, len(part), size)]
        return [Shard(number=number, sources=tuple(sources)) for number, sources in enumerate(stretches)]

    def count(self) -> int:
        """Return the number of pictures, usable or not; nothing of them is kept in memory."""
        return sum(self._counts())

    def shard_files(self, size: int) -> list[Path]:
        """Return the paths of all shards, written or not."""
        return [self.file(number) for number in range(sum(-(-count // size) for count in self._counts()))]

    def error_count(self, size: int) -> int:
        """Return the number of pictures of finished shards that cannot be used."""
        return sum(len(_lines(self._errors(number))) for number in range(len(self.shard_files(size))))

    def _counts(self) -> list[int]:
        """The number of pictures of each run that brought new ones."""
        found: list[int] = []
        while (path := self._sources(len(found))).is_file():
            with open(path, "rb") as lines:
                found.append(sum(1 for _ in lines))
        return found

    def is_done(self, number: int) -> bool:
        """True if a shard is in the folder."""
        return self.file(number).is_file()

    def write(self, number: int, content: bytes, errors: Sequence[PictureError]) -> None:
        """Put a shard in its place, its errors first: a shard that is there is complete."""
        beside = self._errors(number)
        if errors or beside.is_file():
            lines = "".join(json.dumps(asdict(error)) + "\n" for error in errors)
            write_file(beside, lines, overwrite=True)
        write_file(self.file(number), content, overwrite=True)

    def errors(self, shards: Iterable[Shard]) -> list[PictureError]:
        """Return the pictures of finished shards that cannot be used, in order."""
        files = [self._errors(shard.number) for shard in shards if self.is_done(shard.number)]
        return [PictureError(**json.loads(line)) for path in files for line in _lines(path)]

    def _parts(self) -> list[list[str]]:
        """The pictures of each run that brought new ones."""
        found: list[list[str]] = []
        while lines := _lines(self._sources(len(found))):
            found.append([str(json.loads(line)) for line in lines])
        return found

    def file(self, number: int) -> Path:
        """Return the path of a shard."""
        return self.folder / f"{number:05}.parquet"

    def _sources(self, part: int) -> Path:
        return self.folder / f"sources-{part:04}.jsonl"

    def _errors(self, number: int) -> Path:
        return self.folder / f"{number:05}.errors.jsonl"


def _lines(path: Path) -> list[str]:
    try:
        return path.read_text(encoding="utf-8").splitlines()
    except FileNotFoundError:
        return []


def check_complete(folder: Path) -> CollectionSettings:
    """Return what a folder's vectors are; nothing large is read. Raises DataError for one without embeddings or not complete."""
    settings = Collection(folder).settings() if (folder / ABOUT).is_file() else None
    if settings is None:
        raise DataError(f"{folder} holds no embeddings; expected a folder that clipcond embed made")
    shards = Collection(folder).shard_files(settings.shard_size)
    missing = sum(not path.is_file() for path in shards)
    if missing or not shards:
        raise DataError(
            f"{folder} lacks {missing:,} of {len(shards):,} shards; run the same clipcond embed again, it goes on"
        )
    return settings


def check_agreement(old: CollectionSettings, now: Mapping[str, object], folder: Path) -> None:
    """Raise ConfigError where a run would put other vectors into a folder than those that are in it.

    now: the settings that are known of the run, by their names.
    """
    for name, value in now.items():
        if (before := getattr(old, name)) != value and name != "model":
            what = "other weights or preprocessing" if name in ("fingerprint", "preprocessing") else f"{name} {before}"
            raise ConfigError(f"{folder} was made with {what}; name another folder, or pass the same options")
