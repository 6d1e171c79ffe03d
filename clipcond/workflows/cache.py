"""The embeddings that are remembered between runs: what they are, fewer of them, none."""

from __future__ import annotations

import json
import re
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal, get_args

from clipcond.errors import OptionsError

if TYPE_CHECKING:
    from clipcond.encode.embedding_tables import CacheInfo

What = Literal["info", "prune", "clear"]
_SIZE = re.compile(r"(?P<number>\d+(?:\.\d+)?)\s*(?P<unit>[kmgt]?)(?:i?b)?", re.IGNORECASE)
_UNITS = {"": 0, "k": 10, "m": 20, "g": 30, "t": 40}


@dataclass(frozen=True, slots=True, kw_only=True)
class CacheOptions:
    """An action on the cache: info, prune or clear. to: the size to prune to, such as `500MB`; by default the cache's own limit.

    Raises OptionsError for an unknown action or a size that is none.
    """

    what: str = "info"
    to: str | None = None

    def __post_init__(self) -> None:
        if self.what not in get_args(What):
            raise OptionsError(f"no action {self.what!r}; expected info, prune or clear")
        if self.to is not None and self.what != "prune":
            raise OptionsError("--to is a size for prune; leave it out")
        if self.to is not None:
            size_of(self.to)


@dataclass(frozen=True, slots=True, kw_only=True)
class IndexInfo:
    """An index of a large collection, kept beside the embeddings: of which pictures, for which model, and its bytes."""

    folder: Path
    model: str
    sources: tuple[str, ...]
    bytes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class CacheReport:
    """The cache as it is now, how many embeddings went, what is wrong with it, and what else there is to say.

    indexes: those that are left.
    """

    info: CacheInfo
    removed: int
    problems: tuple[str, ...]
    notes: tuple[str, ...] = ()
    indexes: tuple[IndexInfo, ...] = ()

    def to_json(self) -> dict[str, object]:
        """The document of `clipcond cache --json`."""
        spaces = [
            {"model": each.name, "fingerprint": each.model, "dtype": each.dtype, "width": each.width,
             "embeddings": each.embeddings, "bytes": each.bytes, "preprocessing": each.preprocess}
            for each in self.info.spaces
        ]  # fmt: skip
        return {
            "path": str(self.info.path),
            "bytes": self.info.bytes,
            "limit": self.info.limit,
            "files": self.info.files,
            "embeddings": self.info.embeddings,
            "spaces": spaces,
            "indexes": [
                {"path": str(each.folder), "model": each.model, "sources": list(each.sources), "bytes": each.bytes}
                for each in self.indexes
            ],
            "removed": self.removed,
            "problems": list(self.problems),
        }


def run(options: CacheOptions) -> CacheReport:
    """Do what is asked and report what is left. A database that cannot be used is a problem in the report."""
    from clipcond.encode.embedding_cache import EmbeddingCache

    cache = EmbeddingCache()
    removed = 0
    if options.what == "prune":
        removed = cache.prune(None if options.to is None else size_of(options.to))
    elif options.what == "clear":
        removed = cache.clear()
        for each in _indexes(cache.path):
            shutil.rmtree(each.folder, ignore_errors=True)
    report = CacheReport(
        info=cache.info(), removed=removed, problems=cache.problems, notes=cache.notes, indexes=_indexes(cache.path)
    )
    cache.close()
    return report


def _indexes(cache: Path) -> tuple[IndexInfo, ...]:
    """The indexes beside a database of embeddings, by the sources that they are of."""
    from clipcond.workflows.search_index import ABOUT, indexes_folder

    found = []
    for about in indexes_folder(cache).glob(f"*/{ABOUT}"):
        try:
            document = json.loads(about.read_text(encoding="utf-8"))
            model, sources = str(document["model"]), tuple(map(str, document["sources"]))
        except (OSError, ValueError, KeyError, TypeError):
            model, sources = "", ()
        size = sum(path.stat().st_size for path in about.parent.iterdir() if path.is_file())
        found.append(IndexInfo(folder=about.parent, model=model, sources=sources, bytes=size))
    return tuple(sorted(found, key=lambda each: each.sources))


def size_of(text: str) -> int:
    """Bytes of a size such as `500MB`, `2G` or `1048576`; units are powers of 1024. Raises OptionsError."""
    match = _SIZE.fullmatch(text.strip())
    if match is None:
        raise OptionsError(f"--to {text!r}: expected a size such as 500MB or 2GB")
    return int(float(match["number"]) * 2 ** _UNITS[match["unit"].lower()])
