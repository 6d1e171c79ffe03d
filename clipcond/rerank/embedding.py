"""Picture files to vectors: decoded in threads ahead of the encoder, what cannot be used kept as rows."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch

from clipcond.errors import ImageError
from clipcond.images.decode import decoded, quiet_pillow, workers
from clipcond.images.metadata.reading import plain_prompt, read_metadata
from clipcond.rerank.rows import RankedImage

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from clipcond.encode.image import ImageTower


@dataclass(frozen=True, slots=True, eq=False)
class _Prepared:
    row: RankedImage
    pixels: NDArray[np.uint8] | None


def embed_files(
    paths: Sequence[Path], prompt: str | None, tower: ImageTower, batch_size: int, on_progress: Callable[[int], object]
) -> tuple[list[RankedImage], torch.Tensor]:
    """Return a row per path, and (N, P) float32 vectors of the N rows without error, in order.

    prompt: what each row is to be scored against; None for each picture's own. Threads decode two batches ahead of the
    tower. Raises ModelError if the tower gives vectors that are not finite.
    """
    rows: list[RankedImage] = []
    vectors = _Vectors(len(paths))
    waiting: list[NDArray[np.uint8]] = []
    with quiet_pillow(), ThreadPoolExecutor(workers()) as pool:
        for item in _ahead(pool, paths, prompt, tower, 2 * batch_size + workers()):
            rows.append(item.row)
            if item.pixels is not None:
                waiting.append(item.pixels)
            if len(waiting) == batch_size:
                vectors.add(tower.embed_pixels(np.stack(waiting)))
                waiting = []
            on_progress(1)
    if waiting:
        vectors.add(tower.embed_pixels(np.stack(waiting)))
    return rows, vectors.tensor()


class _Vectors:
    """Vectors of up to `most` pictures in one block.

    A small tensor kept from each batch would lie between the large ones that its forward frees, and keep the allocator
    from giving their memory back: 20 MB for each 500 pictures.
    """

    def __init__(self, most: int) -> None:
        self._most, self._count = most, 0
        self._block: NDArray[np.float32] = np.empty((0, 0), dtype=np.float32)

    def add(self, batch: torch.Tensor) -> None:
        if not self._count:
            self._block = np.empty((self._most, batch.shape[1]), dtype=np.float32)
        self._block[self._count : self._count + len(batch)] = batch.numpy()
        self._count += len(batch)

    def tensor(self) -> torch.Tensor:
        return torch.from_numpy(self._block[: self._count])


def _prepare(path: Path, prompt: str | None, tower: ImageTower) -> _Prepared:
    """Decode one file and shrink it to the tower's input, or say what is wrong with it."""
    try:
        with decoded(path) as image:
            if prompt is None:
                found = read_metadata(image)
                prompt = plain_prompt(found.infotext) if found.infotext else ""
                if not prompt:
                    reason = found.reason or "its own prompt is empty; pass a prompt"
                    return _Prepared(RankedImage(path=path, error=reason), None)
            return _Prepared(RankedImage(path=path, prompt=prompt), tower.preprocess.pixels(image))
    except ImageError as error:
        return _Prepared(RankedImage(path=path, error=str(error).removeprefix(f"{path}: ")), None)


def _ahead(
    pool: ThreadPoolExecutor, paths: Sequence[Path], prompt: str | None, tower: ImageTower, most: int
) -> Iterator[_Prepared]:
    """Prepared files in order, never more than `most` of them in memory."""
    left = iter(paths)
    running: deque[Future[_Prepared]] = deque()
    try:
        while True:
            for path in islice(left, most - len(running)):
                running.append(pool.submit(_prepare, path, prompt, tower))
            if not running:
                return
            yield running.popleft().result()
    finally:  # interrupted: do not decode what nobody will look at
        for future in running:
            future.cancel()
