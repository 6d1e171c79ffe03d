"""Pictures in order: scored against a prompt or each against its own, filtered, varied, errors kept as rows."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from clipcond.errors import ImageError, OptionsError
from clipcond.rerank.choosing import Scored, choose
from clipcond.rerank.columns import ToScore, column_noise, formulas, noise_of, ordering_score, score_columns
from clipcond.rerank.embedding import Embedded, Picture, Remembered, embed_files
from clipcond.rerank.pairing import Pairing as Pairing
from clipcond.rerank.phrases import with_phrases
from clipcond.rerank.rows import Header
from clipcond.rerank.rows import RankedImage as RankedImage
from clipcond.rerank.rows import Ranking as Ranking
from clipcond.rerank.scorer import Scorer
from clipcond.rerank.settings import MISSING_NATS, Scoring, Selection, parse_threshold
from clipcond.rerank.unseen import unseen_in, unseen_line
from clipcond.score.normalise import percentiles, z_scores

if TYPE_CHECKING:
    import torch
    from numpy.typing import NDArray

    from clipcond.encode.embedding_cache import EmbeddingCache


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
    cache: EmbeddingCache | None = None,
) -> Ranking:
    """Score picture files and put them in order: cosine descending, then path; a file given twice counts once.

    prompt: the text to match; None takes each file's own from its metadata or the file beside it, without the marks of
    its syntax (weights, LoRA tags). Longer than 75 tokens is scored in full.
    top: how many to keep; threshold: the least cosine to keep; what is not kept stays in the ranking.
    diversity: from 0 (by score alone) to 1 (each unlike those before it): maximal marginal relevance with the weight
    1 - diversity on the score, which is stretched to 0..1 within its prompt, as one prompt's scores lie close together.
    on_progress: called in this thread with the number of files that were read since the last call.
    cache: embeddings of earlier runs, by the files' content.
    A file that cannot be read, or has no prompt of its own where one is needed, becomes a row with an error.
    Raises ConfigError for an empty prompt and for settings out of range, ModelError for a model whose vectors are not finite.
    For other scores, near-duplicates or a prompt for each picture see `rank_pictures`.
    """
    thresholds = () if threshold is None else (parse_threshold(str(threshold)),)
    return rank_pictures(
        [Pairing(path=Path(path), prompt=prompt) for path in paths],
        scorer=scorer,
        selection=Selection(top=top, thresholds=thresholds, diversity=diversity),
        batch_size=batch_size,
        on_progress=on_progress,
        cache=cache,
        prompt=prompt,
    )


def rank_pictures(
    pairings: Sequence[Pairing],
    *,
    scorer: Scorer,
    scoring: Scoring | None = None,
    selection: Selection | None = None,
    batch_size: int = 32,
    on_progress: Callable[[int], object] | None = None,
    cache: EmbeddingCache | None = None,
    prompt: str | None = None,
    embedded: Embedded | None = None,
) -> Ranking:
    """Score pictures, each against its prompt, and put them in order; each file is embedded once.

    scoring: the numbers, by default cosine and CLIPScore.   selection: what to keep, by default all.   prompt: the one
    of all of them, for the ranking to name.   embedded: all of the pictures, by this model; no file is read then.
    Errors are as for `rerank`.
    """
    scoring, selection = scoring or Scoring(), selection or Selection()
    _check(prompt, pairings, batch_size)
    selection.check(scoring.columns)
    if scoring.aesthetic is not None:  # before any picture is read
        scoring.aesthetic.check_tower(scorer.dual.name, scorer.image_width())
    pairings = _distinct(pairings)
    paths = list({_absolute(pairing.path): pairing.path for pairing in reversed(pairings)}.values())[::-1]
    remembered = None if cache is None or not paths else Remembered(cache=cache, space=scorer.image_space())
    read_prompts = any(_reads(pairing, scoring) for pairing in pairings)
    if embedded is not None and not read_prompts:
        embedded = replace(embedded, pictures=tuple(replace(each, prompt=None) for each in embedded.pictures))
    embedded = embedded or embed_files(
        paths,
        scorer.dual.image,
        read_prompts=read_prompts,
        batch_size=batch_size,
        on_progress=on_progress or (lambda _: None),
        remembered=remembered,
    )
    references = _references(scoring, scorer, remembered, batch_size)
    found = _rows(pairings, embedded, scoring)
    done, header, notes = _scored(found, embedded, references, scorer, scoring, selection)
    notes += (*cache.notes, *cache.problems) if cache is not None else ()
    bad = sorted((row for row in found.rows if row.error is not None), key=lambda row: str(row.path))
    good = [picture.path for picture in embedded.pictures if picture.error is None]
    unseen = unseen_in([row.prompt or "" for row in found.good], scorer) if scoring.needs_prompt else ()
    return Ranking(
        rows=(*done, *bad),
        model=scorer.dual.name,
        prompt=prompt,
        header=header,
        notes=notes,
        embedded=embedded.computed,
        unseen=unseen,
        warning=unseen_line(unseen, scorer.dual.name),
        vectors=dict(zip(good, embedded.vectors.numpy(), strict=True)),
    )


def _references(
    scoring: Scoring, scorer: Scorer, remembered: Remembered | None, batch_size: int
) -> torch.Tensor | None:
    """The vectors of the pictures to be like; None where there are none. Raises ImageError for one that cannot be read."""
    if not scoring.references:
        return None
    found = embed_files(
        scoring.references,
        scorer.dual.image,
        read_prompts=False,
        batch_size=batch_size,
        on_progress=lambda _: None,
        remembered=remembered,
    )
    for picture in found.pictures:
        if picture.error is not None:
            raise ImageError(f"the reference {picture.path} cannot be used: {picture.error}")
    return found.vectors


def _check(prompt: str | None, pairings: Sequence[Pairing], batch_size: int) -> None:
    if prompt is not None and not prompt.strip():
        raise OptionsError("the prompt is empty; pass a text, or none to use each picture's own")
    for pairing in pairings:
        if pairing.prompt is not None and not pairing.prompt.strip():
            raise OptionsError(f"the prompt of {pairing.path} is empty; pass a text, or none to use its own")
    if batch_size < 1:
        raise OptionsError(f"batch_size is {batch_size}; expected 1 or more")


def _distinct(pairings: Sequence[Pairing]) -> list[Pairing]:
    """Each picture and prompt once, under the first of its names."""
    return list({(_absolute(each.path), each.prompt): each for each in reversed(pairings)}.values())[::-1]


def _absolute(path: Path) -> str:
    return os.path.abspath(path)  # noqa: PTH100 - normalised, links kept


def _reads(pairing: Pairing, scoring: Scoring) -> bool:
    """True if the picture's own prompt or negative prompt is asked for."""
    if pairing.prompt is None:
        return scoring.needs_prompt
    return pairing.negative_prompt is None and "margin" in scoring.columns


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class _Found:
    """A row for each pairing, and for the R good ones the number of its vector, its picture, and columns of others."""

    rows: tuple[RankedImage, ...]
    vector: tuple[int, ...]
    pictures: tuple[Picture, ...]
    external: dict[str, NDArray[np.float64]]

    @property
    def good(self) -> tuple[RankedImage, ...]:
        return tuple(row for row in self.rows if row.error is None)


def _rows(pairings: Sequence[Pairing], embedded: Embedded, scoring: Scoring) -> _Found:
    """Put prompts and numbers of others to the pictures; what lacks one becomes an error."""
    by_path = {_absolute(picture.path): picture for picture in embedded.pictures}
    places = {path: n for n, path in enumerate(path for path, each in by_path.items() if each.error is None)}
    numbers = scoring.external.of([picture.path for picture in embedded.pictures]) if scoring.external else {}
    rows, vector, pictures, external = [], [], [], []
    for pairing in pairings:
        picture = by_path[_absolute(pairing.path)]
        row = _row(pairing, picture, scoring)
        if row.error is None and scoring.external is not None and picture.path not in numbers:
            row = replace(row, error=f"{scoring.external.source} has no numbers for it", stage="scores")
        rows.append(row)
        if row.error is None:
            vector.append(places[_absolute(pairing.path)])
            pictures.append(picture)
            external.append(numbers.get(picture.path, ()))
    names = scoring.external.columns if scoring.external else ()
    columns = {name: np.array([each[n] for each in external], dtype=np.float64) for n, name in enumerate(names)}
    return _Found(rows=tuple(rows), vector=tuple(vector), pictures=tuple(pictures), external=columns)


def _row(pairing: Pairing, picture: Picture, scoring: Scoring) -> RankedImage:
    """A picture with the prompt it is scored against, or the reason why it cannot be."""
    row = RankedImage(path=pairing.path)
    if picture.error is not None:
        return replace(row, error=picture.error, stage="read")
    row = replace(row, width=picture.width, height=picture.height, share_seen=round(picture.share_seen, 4))
    own = picture.prompt
    row = replace(row, seed=(own.seed or None) if own else None)
    if pairing.prompt is not None:
        negative = pairing.negative_prompt if pairing.negative_prompt is not None else own.negative if own else ""
        return replace(row, prompt=pairing.prompt, negative_prompt=negative or None, prompt_source=pairing.source)
    if own is None or not own.text:
        if not scoring.needs_prompt:
            return row
        return replace(row, error=own.reason if own else "it has no prompt", stage="prompt")
    negative = own.negative if pairing.negative_prompt is None else pairing.negative_prompt
    return replace(row, prompt=own.text, negative_prompt=negative or None, prompt_source=own.source)


def _scored(
    found: _Found,
    embedded: Embedded,
    references: torch.Tensor | None,
    scorer: Scorer,
    scoring: Scoring,
    selection: Selection,
) -> tuple[list[RankedImage], Header, tuple[str, ...]]:
    """The good rows scored and in order, what their numbers are, and notes on them."""
    rows, vectors = found.good, embedded.vectors[list(found.vector)]
    notes = _notes(rows, scoring, scorer)
    if not rows:
        return [], _header(scorer, scoring, 0.0), notes
    prompts = [row.prompt or "" for row in rows]
    negatives = [row.negative_prompt or "" for row in rows]
    given = ToScore(
        vectors=vectors, prompts=prompts, negatives=negatives, external=found.external, references=references
    )
    columns = score_columns(given, scoring, scorer)
    score = ordering_score(scoring.order, columns, prompts)
    noise = noise_of(scoring.order, columns, scoring, scorer.dual.logit_scale)
    columns |= {"z": np.round(z_scores(score, prompts), 4), "percentile": np.round(percentiles(score, prompts), 2)}
    done = [
        replace(row, score=float(score[n]), scores={name: float(values[n]) for name, values in columns.items()})
        for n, row in enumerate(rows)
    ]
    if scoring.needs_prompt:
        texts = {text.text: text for text in scorer.texts(prompts)}
        sizes = [(texts[prompt].content_tokens, texts[prompt].chunks) for prompt in prompts]
        done = [replace(row, content_tokens=size[0], chunks=size[1]) for row, size in zip(done, sizes, strict=True)]
    if scoring.phrases:
        margin = scoring.missing_margin or MISSING_NATS / scorer.dual.logit_scale
        done, found_short = with_phrases(done, vectors, scorer, margin)
        notes += found_short
    several = len({id(picture) for picture in found.pictures}) < len(rows)
    modified = [picture.modified for picture in found.pictures]
    ordered = choose(
        Scored(rows=done, vectors=vectors.numpy(), modified=modified, noise=noise, several=several), selection
    )
    return ordered, _header(scorer, scoring, noise), notes


def _notes(rows: Sequence[RankedImage], scoring: Scoring, scorer: Scorer) -> tuple[str, ...]:
    notes = []
    if scoring.aesthetic is not None and (note := scoring.aesthetic.tower_note(scorer.dual.name)):
        notes.append(note)
    if "probability" in scoring.columns and scorer.dual.head.activation == "sigmoid":
        notes.append(
            f"{scorer.dual.name} judges each text by itself (sigmoid of its logit): the other prompts change no probability"
        )
    without = sum(not row.negative_prompt for row in rows)
    if "margin" in scoring.columns and without:
        notes.append(f"{without} of {len(rows)} rows have no negative prompt: their margin is the cosine")
    return tuple(notes)


def _header(scorer: Scorer, scoring: Scoring, noise: float) -> Header:
    image = scorer.dual.image
    return Header(
        model=scorer.dual.name,
        score=scoring.order.source.strip(),
        scales=formulas(scoring),
        preprocessing=image.preprocess.described(),
        dtype=str(image.dtype).removeprefix("torch."),
        noise=noise,
        column_noise=column_noise(scoring.columns, scoring, scorer.dual.logit_scale),
    )
