"""SQL of the embedding cache: its tables, and the questions to them. Nothing here handles an error."""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from clipcond.encode.content_key import FileState, state_seal
from clipcond.encode.embedding_space import SEAL_BYTES, EmbeddingSpace
from clipcond.errors import ConfigError
from clipcond.wording import visible

LOCKED = "database is locked"  # SQLite's words; a code comes with Python 3.11 only
WAIT = 30.0  # seconds for another run's write to end
_APPLICATION, _VERSION = 0x434C4950, 2  # "CLIP", and the version of the tables
_TABLES = (
    "CREATE TABLE IF NOT EXISTS spaces (id INTEGER PRIMARY KEY, model TEXT NOT NULL, preprocess TEXT NOT NULL,"
    " dtype TEXT NOT NULL, width INTEGER NOT NULL, name TEXT NOT NULL, UNIQUE (model, preprocess, dtype, width))",
    "CREATE TABLE IF NOT EXISTS vectors (id INTEGER PRIMARY KEY, space INTEGER NOT NULL, content BLOB NOT NULL,"
    " used INTEGER NOT NULL, vector BLOB NOT NULL, UNIQUE (space, content))",
    "CREATE INDEX IF NOT EXISTS vectors_used ON vectors (used)",
    "CREATE TABLE IF NOT EXISTS files (path BLOB PRIMARY KEY, modified INTEGER NOT NULL, changed INTEGER NOT NULL,"
    " size INTEGER NOT NULL, content BLOB NOT NULL, seal BLOB) WITHOUT ROWID",
)
_AT_ONCE = 500  # keys in one statement: SQLite's oldest limit is 999
MINUTE = 60  # seconds: how exactly the last use is kept, so that look-ups seldom write
_LEAST_LEFT = 0.9  # of the limit, so that not every new embedding has to prune


@dataclass(frozen=True, slots=True, kw_only=True)
class SpaceUse:
    """Embeddings of one model, preprocessing and dtype in the cache, and the bytes of their numbers."""

    name: str
    model: str
    preprocess: str
    dtype: Literal["float16", "float32"]
    width: int
    embeddings: int
    bytes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class CacheInfo:
    """Contents of an embedding cache. bytes: of the whole database on disk, by its pages."""

    path: Path
    bytes: int
    limit: int
    files: int
    embeddings: int
    spaces: tuple[SpaceUse, ...]


@contextmanager
def transaction(connection: sqlite3.Connection) -> Iterator[None]:
    """A transaction that takes the write lock at once, so that two runs never wait for each other."""
    connection.execute("BEGIN IMMEDIATE")
    try:
        yield
        connection.execute("COMMIT")
    except BaseException:
        if connection.in_transaction:
            with suppress(sqlite3.Error):
                connection.execute("ROLLBACK")
        raise


def prepare(connection: sqlite3.Connection, path: Path) -> int:
    """Make the tables of a new database; refuse one of another program or of a later version.

    Version 1 did not say of an embedding which picture it is of: what it holds goes. Returns how many embeddings went.
    """
    application, version = (_number(connection, f"PRAGMA {name}") for name in ("application_id", "user_version"))
    if application != _APPLICATION and _number(connection, "SELECT COUNT(*) FROM sqlite_master"):
        raise ConfigError(
            f"{visible(str(path))} is a database of another program; name another file for the embedding cache"
        )
    if version > _VERSION:
        raise sqlite3.OperationalError(f"a newer clipcond wrote it (version {version}, expected {_VERSION})")
    connection.text_factory = _text
    _use_wal(connection)
    if application != _APPLICATION or version != _VERSION:
        return _make_tables(connection)
    return 0


def _make_tables(connection: sqlite3.Connection) -> int:
    """Make the tables of this version in place of those of an earlier one; returns the embeddings that these held."""
    gone = 0
    with transaction(connection):
        if 0 < _number(connection, "PRAGMA user_version") < _VERSION:  # another run may have been faster
            gone = _number(connection, "SELECT COUNT(*) FROM vectors")
            for table in ("vectors", "files", "spaces"):
                connection.execute(f"DROP TABLE {table}")
        for statement in _TABLES:
            connection.execute(statement)
        connection.execute(f"PRAGMA application_id = {_APPLICATION}")
        connection.execute(f"PRAGMA user_version = {_VERSION}")
    return gone


def _text(value: bytes) -> str:
    """Text of a damaged row too: it costs that row alone."""
    return value.decode(errors="replace")


def _use_wal(connection: sqlite3.Connection) -> None:
    """Switch to WAL, for which SQLite does not wait for other runs by itself."""
    end = time.monotonic() + WAIT
    while True:
        try:
            connection.execute("PRAGMA auto_vacuum = INCREMENTAL")  # has no effect on a database with tables
            connection.execute("PRAGMA journal_mode = WAL").fetchall()
            connection.execute("PRAGMA synchronous = NORMAL")
            return
        except sqlite3.OperationalError as error:
            if LOCKED not in str(error) or time.monotonic() > end:
                raise
            time.sleep(0.02)


def known_files(connection: sqlite3.Connection, names: Sequence[bytes]) -> dict[tuple[bytes, FileState], bytes]:
    """The content keys of files by name and the state they were read in; without rows that are not as they were written."""
    question = "SELECT path, modified, changed, size, content, seal FROM files WHERE path IN ({})"
    rows = [(name, FileState(*state), key, seal) for name, *state, key, seal in _select(connection, question, names)]
    return {(name, state): key for name, state, key, seal in rows if seal == state_seal(name, state, key)}


def remember_files(connection: sqlite3.Connection, rows: Sequence[tuple[bytes, bytes, FileState]]) -> None:
    with transaction(connection):
        connection.executemany(
            "INSERT OR REPLACE INTO files (path, modified, changed, size, content, seal) VALUES (?, ?, ?, ?, ?, ?)",
            [(name, *state, key, state_seal(name, state, key)) for name, key, state in rows],
        )


def look_up(
    connection: sqlite3.Connection, keys: Sequence[bytes], space: EmbeddingSpace, now: int
) -> list[tuple[bytes, object]]:
    """Keys and stored vectors; those not used for a minute are noted as used now."""
    number = _space_number(connection, space)
    if number is None:
        return []
    question = f"SELECT id, used, content, vector FROM vectors WHERE space = {number} AND content IN ({{}})"
    rows = _select(connection, question, keys)
    stale = [(now, number) for number, used, _, _ in rows if used < now]
    if stale:
        with suppress(sqlite3.OperationalError), transaction(connection):  # it may be for reading only
            connection.executemany("UPDATE vectors SET used = ? WHERE id = ?", stale)
    return [(key, vector) for _, _, key, vector in rows]


def write(
    connection: sqlite3.Connection, rows: Sequence[tuple[bytes, bytes]], space: EmbeddingSpace, now: int, limit: int
) -> None:
    """Keep stored vectors by key; beyond `limit` bytes, prune to some room below it."""
    with transaction(connection):
        number = _space_number(connection, space, make=True)
        connection.executemany(
            "INSERT INTO vectors (space, content, used, vector) VALUES (?, ?, ?, ?)"
            " ON CONFLICT (space, content) DO UPDATE SET used = excluded.used, vector = excluded.vector",
            [(number, key, now, vector) for key, vector in rows],
        )
    if bytes_used(connection) > limit:
        prune(connection, int(limit * _LEAST_LEFT))


def _select(connection: sqlite3.Connection, question: str, values: Sequence[bytes]) -> list[tuple[Any, ...]]:
    """The rows of a question about many values, some hundreds at a time."""
    rows: list[tuple[Any, ...]] = []
    for start in range(0, len(values), _AT_ONCE):
        some = values[start : start + _AT_ONCE]
        rows += connection.execute(question.format(",".join("?" * len(some))), some).fetchall()
    return rows


def _space_number(connection: sqlite3.Connection, space: EmbeddingSpace, *, make: bool = False) -> int | None:
    parts = (space.model, space.preprocess, space.dtype, space.width)
    if make:
        connection.execute(
            "INSERT OR IGNORE INTO spaces (model, preprocess, dtype, width, name) VALUES (?, ?, ?, ?, ?)",
            (*parts, space.name),
        )
    question = "SELECT id FROM spaces WHERE model = ? AND preprocess = ? AND dtype = ? AND width = ?"
    row = connection.execute(question, parts).fetchone()
    return None if row is None else int(row[0])


def cache_info(connection: sqlite3.Connection, path: Path, limit: int) -> CacheInfo:
    rows = connection.execute(
        "SELECT name, model, preprocess, dtype, width, COUNT(*),"
        f" SUM(LENGTH(vector) - {SEAL_BYTES}) FROM spaces"
        " JOIN vectors ON vectors.space = spaces.id GROUP BY spaces.id ORDER BY name, model, preprocess, dtype"
    ).fetchall()
    names = ("name", "model", "preprocess", "dtype", "width", "embeddings", "bytes")
    spaces = tuple(SpaceUse(**dict(zip(names, row, strict=True))) for row in rows)
    return CacheInfo(
        path=path,
        bytes=bytes_used(connection),
        limit=limit,
        files=_number(connection, "SELECT COUNT(*) FROM files"),
        embeddings=sum(space.embeddings for space in spaces),
        spaces=spaces,
    )


def prune(connection: sqlite3.Connection, target: int) -> int:
    """Remove what was unused for longest until the pages in use have at most `target` bytes. Returns how many went."""
    removed = 0
    with transaction(connection):
        _forget_unused(connection)
        while (size := bytes_used(connection)) > target:
            count = _number(connection, "SELECT COUNT(*) FROM vectors")
            if not count:
                break
            share = max(1, count * (size - target) // size)
            oldest = "SELECT id FROM vectors ORDER BY used, id LIMIT ?"
            connection.execute(f"DELETE FROM vectors WHERE id IN ({oldest})", (share,))
            removed += share
            _forget_unused(connection)
    _give_back_space(connection)
    return removed


def _forget_unused(connection: sqlite3.Connection) -> None:
    connection.execute("DELETE FROM files WHERE content NOT IN (SELECT content FROM vectors)")
    connection.execute("DELETE FROM spaces WHERE id NOT IN (SELECT space FROM vectors)")


def clear(connection: sqlite3.Connection) -> int:
    with transaction(connection):
        count = _number(connection, "SELECT COUNT(*) FROM vectors")
        for table in ("vectors", "files", "spaces"):
            connection.execute(f"DELETE FROM {table}")
    _give_back_space(connection)
    return count


def _give_back_space(connection: sqlite3.Connection) -> None:
    connection.executescript("PRAGMA incremental_vacuum")  # `execute` takes one step of it, a page
    connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()


def bytes_used(connection: sqlite3.Connection) -> int:
    """Bytes of the pages in use."""
    size, pages, free = (
        _number(connection, f"PRAGMA {name}") for name in ("page_size", "page_count", "freelist_count")
    )
    return size * (pages - free)


def _number(connection: sqlite3.Connection, question: str) -> int:
    return int(connection.execute(question).fetchone()[0])
