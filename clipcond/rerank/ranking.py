"""Pictures in order: scored against a prompt or each against its own, filtered, varied, errors kept as rows."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from dataclasses import replace
from pathlib import Path

import torch

from clipcond.errors import ConfigError
from clipcond.rerank.embedding import embed_files
from clipcond.rerank.rows import RankedImage as RankedImage
from clipcond.rerank.rows import Ranking as Ranking
from clipcond.rerank.scorer import Scorer
from clipcond.score.selection import mmr, stretched
from clipcond.score.similarity import clip_scores, cosines


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
    Raises ConfigError for an empty prompt and for settings out of range, ModelError for a model whose vectors are not finite.
    """
    _check(prompt, top, threshold, diversity, batch_size)
    unique = list({os.path.abspath(path): Path(path) for path in reversed(list(paths))}.values())[::-1]  # noqa: PTH100
    rows, vectors = embed_files(unique, prompt, scorer.dual.image, batch_size, on_progress or (lambda _: None))
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
