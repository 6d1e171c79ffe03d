"""Picture files to vectors: remembered ones looked up, others decoded in threads ahead of the encoder.

What cannot be used becomes a picture with an error.
"""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from PIL import Image

from clipcond.encode.content_key import file_key
from clipcond.errors import ImageError
from clipcond.images.decode import decoded, open_header, quiet_pillow, workers
from clipcond.images.tar_paths import tar_of
from clipcond.rerank.picture_prompt import PicturePrompt, picture_prompt

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from clipcond.encode.embedding_cache import EmbeddingCache
    from clipcond.encode.embedding_space import EmbeddingSpace
    from clipcond.encode.image import ImageTower

_LOOKED_UP = 256  # pictures at a time
_AHEAD = 2  # batches that are decoded before the tower asks for them


@dataclass(frozen=True, slots=True, kw_only=True)
class Picture:
    """A picture file as ranking knows it. prompt: its own, where it was asked for.   modified: seconds since 1970.

    content: the key of its bytes, where it was asked for.
    """

    path: Path
    width: int = 0
    height: int = 0
    share_seen: float = 0.0
    modified: float = 0.0
    prompt: PicturePrompt | None = None
    content: bytes | None = None
    error: str | None = None


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class Embedded:
    """A picture per path, and (N, P) float32 unit rows of the N without error, in order. computed: how many are new."""

    pictures: tuple[Picture, ...]
    vectors: torch.Tensor
    computed: int


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class Remembered:
    """The cache and the space in which a run's embeddings are kept."""

    cache: EmbeddingCache
    space: EmbeddingSpace


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class _Job:
    path: Path
    key: bytes | None = None
    vector: NDArray[np.float32] | None = None


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class _Prepared:
    picture: Picture
    job: _Job
    crops: NDArray[np.uint8] | None = None


def embed_files(
    paths: Sequence[Path],
    tower: ImageTower,
    *,
    read_prompts: bool,
    batch_size: int,
    on_progress: Callable[[int], object],
    remembered: Remembered | None = None,
    content_keys: bool = False,
) -> Embedded:
    """Embed files, or look up what is remembered of them. Threads decode two batches ahead of the tower.

    read_prompts: find each picture's own prompt.   content_keys: and the key of its bytes.
    Raises ModelError if the tower gives vectors that are not finite.
    """
    pictures: list[Picture] = []
    vectors = _Vectors(len(paths))
    batch = _Batch(tower, batch_size, vectors, remembered)
    with quiet_pillow(), ThreadPoolExecutor(workers()) as pool:
        prepare = partial(_prepare, tower=tower, read_prompts=read_prompts, content_keys=content_keys)
        ahead = _ahead(pool, _jobs(paths, remembered), prepare, _AHEAD * batch_size + workers())
        for item in ahead:
            pictures.append(item.picture)
            if item.job.vector is not None and item.picture.error is None:
                vectors.put(vectors.reserve(1), item.job.vector[None])
            elif item.crops is not None:
                batch.add(item.crops, item.job.key)
            on_progress(1)
    batch.flush()
    return Embedded(pictures=tuple(pictures), vectors=vectors.tensor(), computed=batch.computed)


class _Vectors:
    """Vectors of up to `most` pictures in one block.

    A small tensor kept from each batch would lie between the large ones that its forward frees, and keep the allocator
    from giving their memory back: 20 MB for each 500 pictures.
    """

    def __init__(self, most: int) -> None:
        self._most, self._count = most, 0
        self._block: NDArray[np.float32] = np.empty((0, 0), dtype=np.float32)

    def reserve(self, count: int) -> int:
        """The first of `count` places that come next."""
        self._count += count
        return self._count - count

    def put(self, place: int, rows: NDArray[np.float32]) -> None:
        if not self._block.size:
            self._block = np.empty((self._most, rows.shape[1]), dtype=np.float32)
        self._block[place : place + len(rows)] = rows

    def tensor(self) -> torch.Tensor:
        return torch.from_numpy(self._block[: self._count])


class _Batch:
    """Pictures that wait for the tower: encoded together, kept in the cache, put in their places."""

    def __init__(self, tower: ImageTower, size: int, vectors: _Vectors, remembered: Remembered | None) -> None:
        self._tower, self._vectors, self._remembered = tower, vectors, remembered
        self._size = tower.rows_at_once(size)
        self._waiting: list[tuple[int, NDArray[np.uint8], bytes | None]] = []
        self.computed = 0

    def add(self, crops: NDArray[np.uint8], key: bytes | None) -> None:
        self._waiting.append((self._vectors.reserve(1), crops, key))
        if sum(len(each) for _, each, _ in self._waiting) >= self._size:
            self.flush()

    def flush(self) -> None:
        if not self._waiting:
            return
        rows = self._tower.embed_crops([crops for _, crops, _ in self._waiting], self._size).numpy()
        for (place, _, _), row in zip(self._waiting, rows, strict=True):
            self._vectors.put(place, row[None])
        if self._remembered is not None:
            keyed = zip(self._waiting, rows, strict=True)
            new = {key: row for (_, _, key), row in keyed if key is not None}
            self._remembered.cache.put(new, self._remembered.space)
        self.computed += len(rows)
        self._waiting = []


def _jobs(paths: Sequence[Path], remembered: Remembered | None) -> Iterator[_Job]:
    """A job for each path; what is remembered is looked up for many of them at a time."""
    if remembered is None:
        yield from (_Job(path=path) for path in paths)
        return
    left = iter(paths)
    while some := list(islice(left, _LOOKED_UP)):
        keys = remembered.cache.keys(some)
        known = remembered.cache.get(keys, remembered.space)
        for path, key in zip(some, keys, strict=True):
            yield _Job(path=path, key=key, vector=None if key is None else known.get(key))


def _prepare(job: _Job, *, tower: ImageTower, read_prompts: bool, content_keys: bool) -> _Prepared:
    """Read one file and shrink it to the tower's input, or say what is wrong with it; of a known one the header will do."""
    path = job.path
    try:
        content = _content_key(job) if content_keys else None
        if job.vector is not None:
            with open_header(path) as image:
                prompt = picture_prompt(path, image, decoded=False) if read_prompts else None
                if prompt is not None or not read_prompts:
                    picture = replace(_picture(path, image, tower, prompt), content=content)
                    return _Prepared(picture=picture, job=job)
        size = _full_size(path) if tower.preprocess.draft else None
        with decoded(path, shrink_to=tower.preprocess.shrink_to) as image:
            prompt = picture_prompt(path, image, decoded=True) if read_prompts else None
            picture = _picture(path, image, tower, prompt, size)
            crops = tower.preprocess.crops(image) if job.vector is None else None
            return _Prepared(picture=replace(picture, content=content), job=job, crops=crops)
    except ImageError as error:
        return _Prepared(picture=Picture(path=path, error=str(error).removeprefix(f"{path}: ")), job=job)


def _content_key(job: _Job) -> bytes | None:
    """The key of a picture's bytes. None for a file that changes meanwhile or cannot be read, which decoding tells."""
    if job.key is not None:
        return job.key
    found = file_key(job.path)
    return None if found is None else found[0]


def _full_size(path: Path) -> tuple[int, int]:
    with open_header(path) as image:
        return image.size


def _picture(
    path: Path,
    image: Image.Image,
    tower: ImageTower,
    prompt: PicturePrompt | None,
    size: tuple[int, int] | None = None,
) -> Picture:
    """size: width and height where the picture was decoded at a part of them."""
    width, height = size or image.size
    try:
        modified = os.stat(tar_of(path) or path).st_mtime  # noqa: PTH116 - beside os.path everywhere here
    except OSError:
        modified = 0.0
    return Picture(
        path=path,
        width=width,
        height=height,
        share_seen=tower.preprocess.share_seen(width, height),
        modified=modified,
        prompt=prompt,
    )


def _ahead(
    pool: ThreadPoolExecutor, jobs: Iterable[_Job], prepare: Callable[[_Job], _Prepared], most: int
) -> Iterator[_Prepared]:
    """Prepared files in order, never more than `most` of them in memory."""
    left = iter(jobs)
    running: deque[Future[_Prepared]] = deque()
    try:
        while True:
            for job in islice(left, most - len(running)):
                running.append(pool.submit(prepare, job))
            if not running:
                return
            yield running.popleft().result()
    finally:  # interrupted: do not decode what nobody will look at
        for future in running:
            future.cancel()
