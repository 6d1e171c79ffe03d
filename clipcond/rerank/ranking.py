"""Pictures in order: scored against a prompt or each against its own, filtered, varied, errors kept as rows."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch

from clipcond.errors import ConfigError, ImageError
from clipcond.images.decode import open_image, workers
from clipcond.images.metadata.reading import plain_prompt, read_metadata
from clipcond.rerank.scorer import Scorer
from clipcond.score.selection import mmr, stretched
from clipcond.score.similarity import clip_scores, cosines

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from clipcond.encode.image import ImageTower


@dataclass(frozen=True, slots=True, kw_only=True)
class RankedImage:
    """One picture. Either it has a rank and scores, or an error that says what kept it from having them."""

    path: Path
    rank: int | None = None  # from 1, in the order of the ranking
    cosine: float | None = None
    clip_score: float | None = None
    prompt: str | None = None
    content_tokens: int | None = None
    chunks: int | None = None
    kept: bool = False
    error: str | None = None

    def to_json(self) -> dict[str, object]:
        """The row as JSON values, in a fixed order."""
        return {
            "path": str(self.path),
            "rank": self.rank,
            "cosine": self.cosine,
            "clip_score": self.clip_score,
            "prompt": self.prompt,
            "content_tokens": self.content_tokens,
            "chunks": self.chunks,
            "kept": self.kept,
            "error": self.error,
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class Ranking:
    """Rows in order: what was scored by rank, then what could not be, by path."""

    rows: tuple[RankedImage, ...]
    model: str
    prompt: str | None  # None: each picture's own

    @property
    def scored(self) -> tuple[RankedImage, ...]:
        """The rows that have scores, by rank."""
        return tuple(row for row in self.rows if row.error is None)

    @property
    def kept(self) -> tuple[RankedImage, ...]:
        """The rows that passed the threshold and are among the first `top`, by rank."""
        return tuple(row for row in self.rows if row.kept)

    @property
    def errors(self) -> tuple[RankedImage, ...]:
        """The rows without scores."""
        return tuple(row for row in self.rows if row.error is not None)


def rerank(
    paths: Iterable[str | Path],
    prompt: str | None = None,
    *,
    scorer: Scorer,
    top: int | None = None,
    threshold: float | None = None,
    diversity: float = 0.0,
    batch_size: int = 32,
    on_progress: Callable[[int], object] | None = None,
) -> Ranking:
    """Score picture files and put them in order: score descending, then path; a file given twice counts once.

    prompt: the text to match; None takes each file's own from its metadata, without the marks of its syntax (weights,
    LoRA tags). Longer than 75 tokens is scored in full.
    top: how many to keep; threshold: the least cosine to keep; what is not kept stays in the ranking.
    diversity: from 0 (by score alone) to 1 (each unlike those before it): maximal marginal relevance with the weight
    1 - diversity on the score, which is stretched to 0..1 within its prompt, as one prompt's scores lie close together.
    on_progress: called in this thread with the number of files that were read since the last call.
    A file that cannot be read, or has no prompt of its own where one is needed, becomes a row with an error.
    Raises ConfigError for an empty prompt and for settings out of range.
    """
    _check(prompt, top, threshold, diversity, batch_size)
    unique = list({os.path.abspath(path): Path(path) for path in reversed(list(paths))}.values())[::-1]  # noqa: PTH100
    rows, vectors = _embed(unique, prompt, scorer.dual.image, batch_size, on_progress or (lambda _: None))
    good = [row for row in rows if row.error is None]
    bad = sorted((row for row in rows if row.error is not None), key=lambda row: str(row.path))
    ranked = _rank(_scored(good, vectors, scorer), vectors, top, threshold, diversity) if good else []
    return Ranking(rows=(*ranked, *bad), model=scorer.dual.name, prompt=prompt)


def _check(prompt: str | None, top: int | None, threshold: float | None, diversity: float, batch_size: int) -> None:
    if prompt is not None and not prompt.strip():
        raise ConfigError("the prompt is empty; pass a text, or none to use each picture's own")
    if top is not None and top < 1:
        raise ConfigError(f"top is {top}; expected 1 or more")
    if threshold is not None and not -1 <= threshold <= 1:
        raise ConfigError(f"threshold is {threshold}; expected a cosine from -1 to 1")
    if not 0 <= diversity <= 1:
        raise ConfigError(f"diversity is {diversity}; expected 0 to 1")
    if batch_size < 1:
        raise ConfigError(f"batch_size is {batch_size}; expected 1 or more")


@dataclass(frozen=True, slots=True, eq=False)
class _Prepared:
    row: RankedImage
    pixels: NDArray[np.uint8] | None


def _prepare(path: Path, prompt: str | None, tower: ImageTower) -> _Prepared:
    """Decode one file and shrink it to what the tower takes, or say what is wrong with it."""
    try:
        image = open_image(path)
        found = None if prompt is not None else read_metadata(image)
        if found is not None:
            prompt = plain_prompt(found.infotext) if found.infotext else ""
            if not prompt:
                return _Prepared(
                    RankedImage(path=path, error=found.reason or "its own prompt is empty; pass a prompt"), None
                )
        return _Prepared(RankedImage(path=path, prompt=prompt), tower.preprocess.pixels(image))
    except ImageError as error:
        return _Prepared(RankedImage(path=path, error=str(error).removeprefix(f"{path}: ")), None)


def _embed(
    paths: Sequence[Path], prompt: str | None, tower: ImageTower, batch_size: int, on_progress: Callable[[int], object]
) -> tuple[list[RankedImage], torch.Tensor]:
    """A row per path, and (N, P) vectors of the rows without error; threads decode two batches ahead of the tower."""
    rows: list[RankedImage] = []
    vectors: list[torch.Tensor] = []
    waiting: list[NDArray[np.uint8]] = []
    with ThreadPoolExecutor(workers()) as pool:
        for item in _ahead(pool, paths, prompt, tower, 2 * batch_size + workers()):
            rows.append(item.row)
            if item.pixels is not None:
                waiting.append(item.pixels)
            if len(waiting) == batch_size:
                vectors.append(tower.embed_pixels(np.stack(waiting)))
                waiting = []
            on_progress(1)
    if waiting:
        vectors.append(tower.embed_pixels(np.stack(waiting)))
    return rows, torch.cat(vectors) if vectors else torch.empty(0, 0)


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


def _scored(rows: list[RankedImage], vectors: torch.Tensor, scorer: Scorer) -> list[RankedImage]:
    """Rows with their scores; row n belongs to vector n, and each distinct prompt is encoded once."""
    members: dict[str, list[int]] = {}
    for number, row in enumerate(rows):
        members.setdefault(row.prompt or "", []).append(number)
    done = list(rows)
    for text in scorer.texts(list(members)):
        numbers = members[text.text]
        cosine = cosines(vectors[numbers], text.vector)
        for number, cos, clip in zip(numbers, cosine, clip_scores(cosine), strict=True):
            done[number] = replace(
                rows[number],
                cosine=float(cos),
                clip_score=float(clip),
                content_tokens=text.content_tokens,
                chunks=text.chunks,
            )
    return done


def _rank(
    rows: list[RankedImage], vectors: torch.Tensor, top: int | None, threshold: float | None, diversity: float
) -> list[RankedImage]:
    """Rows in their final order with ranks and marks; row n belongs to vector n."""
    score = [row.cosine or 0.0 for row in rows]
    order = sorted(range(len(rows)), key=lambda n: (-score[n], str(rows[n].path)))
    passed = [n for n in order if threshold is None or score[n] >= threshold]
    below = order[len(passed) :]
    if diversity > 0 and passed:
        relevance = stretched([score[n] for n in passed], [rows[n].prompt for n in passed])
        picks = mmr(relevance, vectors[passed].double().numpy(), diversity, top)
        chosen = set(picks)
        passed = [passed[n] for n in (*picks, *(n for n in range(len(passed)) if n not in chosen))]
    keep = len(passed) if top is None else top
    return [
        replace(rows[n], rank=place + 1, kept=place < min(keep, len(passed)))
        for place, n in enumerate((*passed, *below))
    ]
