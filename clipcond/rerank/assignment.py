"""Prompts × pictures: the best picture for each prompt, the best prompt for each picture, and one for one."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from clipcond.errors import DataError
from clipcond.rerank.rows import Ranking
from clipcond.score.assign import best_pairs, one_to_one


@dataclass(frozen=True, slots=True, kw_only=True)
class Match:
    """A prompt and a picture. score: the one that orders.   z: that within the prompt, comparable between prompts."""

    prompt: str
    path: Path
    score: float
    z: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Assignment:
    """The best picture of each prompt by score; the best prompt of each picture by z; each at most once, by z."""

    pictures: tuple[Match, ...]
    prompts: tuple[Match, ...]
    one_to_one: tuple[Match, ...]

    def to_json(self) -> dict[str, object]:
        """Three lists of matches."""
        return {
            name: [
                {"prompt": each.prompt, "path": str(each.path), "score": each.score, "z": each.z}
                for each in getattr(self, name)
            ]
            for name in ("pictures", "prompts", "one_to_one")
        }


def assign(ranking: Ranking) -> Assignment:
    """Match prompts and pictures of a ranking of every prompt against every picture. Raises DataError where none is scored."""
    if not ranking.scored:
        raise DataError("no picture could be scored, so no prompt has one")
    rows = {(row.prompt or "", row.path): row for row in ranking.scored}
    prompts = sorted({prompt for prompt, _ in rows})
    paths = sorted({path for _, path in rows})
    scores = np.array([[rows[prompt, path].score or 0.0 for path in paths] for prompt in prompts])
    z = np.array([[rows[prompt, path].scores["z"] for path in paths] for prompt in prompts])

    def match(prompt: int, picture: int) -> Match:
        return Match(
            prompt=prompts[prompt],
            path=paths[picture],
            score=float(scores[prompt, picture]),
            z=float(z[prompt, picture]),
        )

    return Assignment(
        pictures=tuple(match(n, picture) for n, picture in enumerate(best_pairs(scores).picture_of)),
        prompts=tuple(match(prompt, n) for n, prompt in enumerate(best_pairs(z).prompt_of)),
        one_to_one=tuple(match(prompt, picture) for prompt, picture in one_to_one(z)),
    )
