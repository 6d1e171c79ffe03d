"""Drift place by place and prompt by prompt: where in a row an encoder has moved, and which prompts it has moved most."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

_TINY = 1e-12


@dataclass(frozen=True, slots=True, kw_only=True)
class PlaceDrift:
    """All rows at one position, or of them those whose words, or whose padding, stand there.

    at: counted from BOS, 0.   rows: how many.   cosine, norm_ratio: means over them.   least_cosine: of the row that turned most.
    """

    at: int
    rows: int
    cosine: float
    least_cosine: float
    norm_ratio: float


@dataclass(frozen=True, slots=True, kw_only=True)
class PromptDrift:
    """Mean cosines of one row; None for what it or the target has none of.

    worst: the position of the word, or of EOS where there is none, that turned most; None where no states are read.
    """

    words: float | None
    eos: float | None
    padding: float | None
    pooled: float | None
    worst: int | None
    worst_cosine: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class DriftDetail:
    """text: positions up to EOS, padding: those behind it, each in order and without those that no row has."""

    text: tuple[PlaceDrift, ...]
    padding: tuple[PlaceDrift, ...]
    prompts: tuple[PromptDrift, ...]


def drift_detail(
    before: Tensor | None, after: Tensor | None, ends: Tensor, *, pooled: tuple[Tensor, Tensor] | None = None
) -> DriftDetail:
    """Return the drift of N rows; arguments as for `clipcond.score.drift.measure_drift`, which checks them."""
    vectors = None if pooled is None else _cosines(pooled[0], pooled[1])[0].tolist()
    if before is None or after is None:
        rows = [_prompt(None, int(end), None if vectors is None else vectors[n]) for n, end in enumerate(ends)]
        return DriftDetail(text=(), padding=(), prompts=tuple(rows))
    cosine, ratio = _cosines(before, after)
    at = torch.arange(cosine.shape[1])[None, :]
    in_text = at <= ends[:, None]
    rows = [
        _prompt(cosine[n], int(end), None if vectors is None else vectors[n]) for n, end in enumerate(ends.tolist())
    ]
    return DriftDetail(
        text=_places(cosine, ratio, in_text), padding=_places(cosine, ratio, ~in_text), prompts=tuple(rows)
    )


def _cosines(before: Tensor, after: Tensor) -> tuple[Tensor, Tensor]:
    """Cosines and ratios of norms of (…, D) vectors, float64."""
    was, now = before.double(), after.double()
    lengths = was.norm(dim=-1), now.norm(dim=-1)
    cosine = (was * now).sum(dim=-1) / (lengths[0] * lengths[1]).clamp_min(_TINY)
    cosine = torch.where((was == now).all(dim=-1), 1.0, cosine.clamp(-1, 1))  # zeros too
    return cosine, lengths[1].clamp_min(_TINY) / lengths[0].clamp_min(_TINY)


def _places(cosine: Tensor, ratio: Tensor, chosen: Tensor) -> tuple[PlaceDrift, ...]:
    found = []
    for at in chosen.any(dim=0).nonzero().flatten().tolist():
        rows = chosen[:, at]
        own = cosine[rows, at]
        found.append(
            PlaceDrift(
                at=at, rows=len(own), cosine=float(own.mean()), least_cosine=float(own.min()),
                norm_ratio=float(ratio[rows, at].mean()),
            )
        )  # fmt: skip
    return tuple(found)


def _prompt(cosine: Tensor | None, end: int, pooled: float | None) -> PromptDrift:
    if cosine is None:
        return PromptDrift(words=None, eos=None, padding=None, pooled=pooled, worst=None, worst_cosine=None)
    worst = 1 + int(cosine[1 : max(end, 2)].argmin())  # EOS stands at 1 in the empty prompt
    behind = cosine[end + 1 :]
    return PromptDrift(
        words=float(cosine[1:end].mean()) if end > 1 else None,
        eos=float(cosine[end]),
        padding=float(behind.mean()) if len(behind) else None,
        pooled=pooled,
        worst=worst,
        worst_cosine=float(cosine[worst]),
    )
