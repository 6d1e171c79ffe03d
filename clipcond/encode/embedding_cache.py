"""Embeddings of pictures that were encoded before, on disk, shared by all runs of a user.

An SQLite database in WAL mode: a run that is killed leaves what it had committed, and several runs read and write at
once. A key says everything that an embedding depends on: the picture's bytes, the model's fingerprint, the
preprocessing and the dtype it is kept in. Path, times and size of a file stand in for its bytes where they are unchanged.
Each row is sealed to its key: one that is damaged, or stands where another belongs, is not there.
Nothing that is wrong with the database is fatal: it costs embeddings, which are computed again, and a line in `problems`.
"""

from __future__ import annotations

import os
import sqlite3
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import RLock
from typing import TypeVar

import numpy as np

from clipcond.encode.content_key import FileState, file_key, file_state
from clipcond.encode.embedding_space import EmbeddingSpace, packed, unpacked
from clipcond.encode.embedding_tables import (
    LOCKED,
    MINUTE,
    WAIT,
    CacheInfo,
    cache_info,
    clear,
    known_files,
    look_up,
    prepare,
    prune,
    remember_files,
    write,
)
from clipcond.errors import ConfigError
from clipcond.files import move_file
from clipcond.wording import first_line, visible

GIB = 2**30
_Result = TypeVar("_Result")
_INHERITED: list[sqlite3.Connection] = []  # by a fork: closing one would free the parent's locks


def default_path() -> Path:
    """Return `embeddings.sqlite` in the folder CLIPCOND_CACHE, else in `clipcond` of the user's cache folder (XDG)."""
    named = os.environ.get("CLIPCOND_CACHE")
    if named:
        return Path(named).expanduser() / "embeddings.sqlite"
    home = os.environ.get("XDG_CACHE_HOME", "")
    base = Path(home) if home and Path(home).is_absolute() else Path("~/.cache").expanduser()
    return base / "clipcond" / "embeddings.sqlite"


class EmbeddingCache:
    """Embeddings by content key and space; usable from several threads, processes and after a fork."""

    def __init__(
        self, path: str | Path | None = None, *, limit: int = 4 * GIB, clock: Callable[[], float] = time.time
    ) -> None:
        """path: the database, made where it is not there; by default that of `default_path`.

        limit: bytes on disk beyond which the embeddings unused for longest go. Raises ConfigError for a limit below 0 and
        for a database of another program.
        """
        if limit < 0:
            raise ConfigError(f"an embedding cache of {limit} bytes makes no sense; expected 0 or more")
        self.path = default_path() if path is None else Path(path)
        self.limit = limit
        self._clock = clock
        self._lock = RLock()
        self._connection: sqlite3.Connection | None = None
        self._opened: tuple[int, int, int] | None = None  # process, device and inode of what was opened
        self._problems: dict[str, None] = {}
        self._notes: dict[str, None] = {}
        self._off = False
        self._run(lambda connection: None, None)

    @property
    def problems(self) -> tuple[str, ...]:
        """One line for each thing that went wrong with the database, in the order in which it did."""
        return tuple(self._problems)

    @property
    def notes(self) -> tuple[str, ...]:
        """One line for embeddings that are made again though nothing is wrong with the database."""
        return tuple(self._notes)

    def keys(self, paths: Sequence[str | Path]) -> tuple[bytes | None, ...]:
        """Return the content key of each file, read only where its times or size are new; None where it cannot be read."""
        names = [os.fsencode(os.path.abspath(path)) for path in paths]  # noqa: PTH100 - normalised, links kept
        states = [file_state(path) for path in paths]
        nothing: dict[tuple[bytes, FileState], bytes] = {}
        known = self._run(lambda connection: known_files(connection, names), nothing)
        found = [None if state is None else known.get((name, state)) for name, state in zip(names, states, strict=True)]
        missing = [index for index, key in enumerate(found) if key is None and states[index] is not None]
        with ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as pool:
            read = dict(zip(missing, pool.map(file_key, [paths[index] for index in missing]), strict=True))
        now = self._clock()
        rows = [(names[index], *each) for index, each in read.items() if each is not None and each[1].settled(now)]
        if rows:
            self._run(lambda connection: remember_files(connection, rows), None)
        for index, each in read.items():
            found[index] = None if each is None else each[0]
        return tuple(found)

    def get(self, keys: Sequence[bytes | None], space: EmbeddingSpace) -> dict[bytes, np.ndarray]:
        """Return the embeddings that are there, by key: (P,) float32, of unit length. A damaged one is not there."""
        wanted = list(dict.fromkeys(key for key in keys if key is not None))
        now = int(self._clock()) // MINUTE
        nothing: list[tuple[bytes, object]] = []
        rows = self._run(lambda connection: look_up(connection, wanted, space, now), nothing)
        vectors = {key: unpacked(blob, space, key) for key, blob in rows}
        found = {key: vector for key, vector in vectors.items() if vector is not None}
        if len(found) < len(rows):
            self._note(
                f"the embedding cache {_shown(self.path)} holds embeddings that are damaged or of another picture;"
                " they are made again"
            )
        return found

    def put(self, vectors: Mapping[bytes, np.ndarray], space: EmbeddingSpace) -> dict[bytes, np.ndarray]:
        """Keep embeddings, all or none of them. Returns them as a later look-up does, rounded to the space's dtype.

        vectors: (P,) each, of unit length; one with numbers that are not finite is returned as it is and not kept.
        Raises ShapeError for another width.
        """
        stored = {key: packed(vector, space, key) for key, vector in vectors.items()}
        read = {key: unpacked(each, space, key) for key, each in stored.items()}
        rows = [(key, each) for key, each in stored.items() if read[key] is not None]
        if rows and self.limit:
            now = int(self._clock()) // MINUTE
            self._run(lambda connection: write(connection, rows, space, now, self.limit), None)
        return {key: vector if (kept := read[key]) is None else kept for key, vector in vectors.items()}

    def carry_over(self, keys: Mapping[bytes, bytes]) -> None:
        """Keep embeddings of all spaces under further keys: those of files whose bytes have changed and pixels have not.

        keys: new by old.
        """
        for use in self.info().spaces if keys else ():
            space = EmbeddingSpace(
                model=use.model, preprocess=use.preprocess, width=use.width, dtype=use.dtype, name=use.name
            )
            found = self.get(list(keys), space)
            self.put({keys[old]: vector for old, vector in found.items()}, space)

    def info(self) -> CacheInfo:
        """Return what the cache holds."""
        nothing = CacheInfo(path=self.path, bytes=0, limit=self.limit, files=0, embeddings=0, spaces=())
        return self._run(lambda connection: cache_info(connection, self.path, self.limit), nothing)

    def prune(self, limit: int | None = None) -> int:
        """Remove the embeddings unused for longest until the database has at most `limit` bytes. Returns their number.

        limit: by default the cache's own. Files that no embedding is left of are forgotten too.
        """
        target = self.limit if limit is None else limit
        if target < 0:
            raise ConfigError(f"an embedding cache of {target} bytes makes no sense; expected 0 or more")
        return self._run(lambda connection: prune(connection, target), 0)

    def clear(self) -> int:
        """Remove everything. Returns the number of embeddings that were there."""
        return self._run(clear, 0)

    def close(self) -> None:
        """Close the database; the next use opens it again."""
        with self._lock:
            if self._connection is not None and self._opened is not None:
                if self._opened[0] == os.getpid():
                    self._connection.close()
                else:
                    _INHERITED.append(self._connection)
            self._connection = None

    def _run(self, operation: Callable[[sqlite3.Connection], _Result], otherwise: _Result) -> _Result:
        """Return what an operation on the database returns; `otherwise` where the database does not let it.

        A damaged database is moved aside, and the operation gets a new one.
        """
        with self._lock:
            for _ in range(2):
                if self._off:
                    break
                try:
                    return operation(self._connect())
                except sqlite3.OperationalError as error:  # locked, full, for reading only
                    self._off = LOCKED in str(error)  # another run is stuck: not 30 seconds for each batch
                    self._note(f"the embedding cache {_shown(self.path)} cannot be used: {first_line(error)}")
                    break
                except sqlite3.ProgrammingError:  # a fault of ours, not of the database
                    raise
                except sqlite3.DatabaseError as error:
                    self._set_aside(first_line(error))
                except (OSError, RuntimeError) as error:
                    self._off = True
                    self._note(f"the embedding cache {_shown(self.path)} cannot be used: {first_line(error)}")
            return otherwise

    def _connect(self) -> sqlite3.Connection:
        if self._connection is not None and self._opened is not None and self._opened[0] == os.getpid():
            return self._connection
        self.close()
        self.path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        connection = sqlite3.connect(self.path, timeout=WAIT, isolation_level=None, check_same_thread=False)
        self._opened = (os.getpid(), *_identity(self.path))
        self._connection = connection
        try:
            gone = prepare(connection, self.path)
        except BaseException:
            self.close()
            raise
        if gone:
            own = f"the embedding cache {_shown(self.path)}"
            self._notes.setdefault(f"{own} was of an earlier version; its {gone:,} embeddings are made again")
        return connection

    def _set_aside(self, reason: str) -> None:
        """Move a damaged database and its journals to names of their own; one that another run has renewed stays."""
        opened = self._opened
        self.close()
        if opened is None or _identity(self.path) != opened[1:]:
            return
        number = next(n for n in range(1, 1 << 20) if not os.path.lexists(_aside(self.path, n)))
        try:
            for ending in ("-wal", "-shm", ""):  # the database last: a new one must not meet an old journal
                part = Path(f"{self.path}{ending}")
                if part.exists():
                    move_file(part, Path(f"{_aside(self.path, number)}{ending}"))
        except OSError as error:
            self._off = True
            self._note(f"the embedding cache {_shown(self.path)} is damaged and cannot be moved: {first_line(error)}")
            return
        self._note(f"the embedding cache was damaged ({reason}); it is now {_shown(_aside(self.path, number))}")

    def _note(self, problem: str) -> None:
        self._problems.setdefault(problem)


def _identity(path: Path) -> tuple[int, int]:
    """Device and inode of a file; zeros where it is not there."""
    try:
        found = path.stat()
    except OSError:
        return 0, 0
    return found.st_dev, found.st_ino


def _aside(path: Path, number: int) -> Path:
    return path.with_name(f"{path.name}.damaged-{number}")


def _shown(path: Path) -> str:
    return visible(str(path))
