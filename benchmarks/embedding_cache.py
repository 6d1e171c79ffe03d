"""Milliseconds for the embedding cache to know pictures again: content keys of unchanged files, look-ups, writes.

The files are small on purpose: what is measured is the cache, not the disk. A first run reads every file whole.

    python benchmarks/embedding_cache.py [--pictures 10000] [--width 768] [--batch 32]
"""

from __future__ import annotations

import argparse
import os
import platform
import sqlite3
import time
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np

from clipcond.encode.embedding_cache import EmbeddingCache
from clipcond.encode.embedding_space import EmbeddingSpace


def timed(what: str, call: Callable[[], object]) -> None:
    """Print what a call takes."""
    began = time.perf_counter()
    call()
    print(f"{what:48} {1000 * (time.perf_counter() - began):9.1f} ms")


def main() -> None:
    """Make files, put embeddings in batches, and look all of them up as a second run does."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pictures", type=int, default=10_000)
    parser.add_argument("--width", type=int, default=768)
    parser.add_argument("--batch", type=int, default=32)
    options = parser.parse_args()
    print(f"Python {platform.python_version()}, SQLite {sqlite3.sqlite_version}, {os.cpu_count()} cores")
    print(f"{options.pictures} pictures, {options.width} wide, float32, written {options.batch} at a time")
    space = EmbeddingSpace(model="benchmark", preprocess="none", width=options.width)
    vectors = np.random.default_rng(0).normal(size=(options.pictures, options.width)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    with TemporaryDirectory() as folder:
        paths = [Path(folder, f"{index}.png") for index in range(options.pictures)]
        for index, path in enumerate(paths):
            path.write_bytes(index.to_bytes(8, "little") * 64)
        database = Path(folder, "embeddings.sqlite")
        cache = EmbeddingCache(database, clock=lambda: time.time() + 60)  # the files count as older
        timed("first run: content keys of new files", lambda: cache.keys(paths))
        rows = list(zip(cache.keys(paths), vectors, strict=True))
        batches = [
            {key: row for key, row in rows[at : at + options.batch] if key is not None}
            for at in range(0, len(rows), options.batch)
        ]
        timed("first run: write", lambda: [cache.put(batch, space) for batch in batches])
        second = EmbeddingCache(database)
        timed("second run: content keys of unchanged files", lambda: second.keys(paths))
        timed("second run: look up all at once", lambda: second.get([key for key, _ in rows], space))
        third = EmbeddingCache(database)
        keys = [list(batch) for batch in batches]
        timed("third run: look up a batch at a time", lambda: [third.get(some, space) for some in keys])


if __name__ == "__main__":
    main()
