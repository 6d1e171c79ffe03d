"""Drift of a text encoder: the distance between what it gave before and after, by kind of position.

Contrastive training supervises one vector; a diffusion model reads all positions of a layer, padding and the empty prompt
included. Each measure is 0 for equal encoders and grows with the change, so that each can have a limit.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from clipcond.errors import ShapeError

KINDS = ("bos", "words", "eos", "padding")
_TINY = 1e-12


@dataclass(frozen=True, slots=True, kw_only=True)
class KindDrift:
    """Positions of one kind. cosine, norm_ratio: means over them; least_cosine: of the one that turned most."""

    positions: int
    cosine: float
    least_cosine: float
    norm_ratio: float

    def to_json(self) -> dict[str, float]:
        return {
            "positions": self.positions, "cosine": self.cosine, "least_cosine": self.least_cosine,
            "norm_ratio": self.norm_ratio,
        }  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class Drift:
    """Drift of one encoder.

    kinds: `bos`, `words`, `eos`, `padding`, `empty` (all positions of the empty prompt) and `pooled`, those that the
    target reads.   spread_ratio: of the prompts' mean distances from their centre, after to before; below 1 they contract.
    gram: mean absolute change of the cosines between prompts.
    """

    kinds: Mapping[str, KindDrift]
    spread_ratio: float
    gram: float

    def measures(self) -> dict[str, float]:
        """Return every measure that can have a limit: 0 for equal encoders, larger for more drift."""
        found = {}
        for name, kind in self.kinds.items():
            found[name] = 1 - kind.cosine
            found[f"{name}_norm"] = abs(kind.norm_ratio - 1)
        return found | {"spread": abs(self.spread_ratio - 1), "gram": self.gram}


def kinds_of_positions(ends: Tensor, length: int) -> Tensor:
    """Return (N, L) int64 numbers of `KINDS`, for rows whose EOS stand at `ends` (N)."""
    at = torch.arange(length)[None, :]
    end = ends[:, None]
    return torch.where(at == 0, 0, torch.where(at < end, 1, torch.where(at == end, 2, 3)))


def measure_drift(
    before: Tensor | None, after: Tensor | None, ends: Tensor, *, pooled: tuple[Tensor, Tensor] | None = None
) -> Drift:
    """Measure the drift between two encoders on the same rows, of which the first is the empty prompt.

    before, after: (N, L, D) states of the layer that the target reads, None where it reads none.   ends: (N) int64, the
    places of EOS.   pooled: (N, P) vectors of both, where the target reads them.
    Raises ShapeError for states of different shapes, for nothing at all, and for fewer than three rows.
    """
    if before is None or after is None:
        if pooled is None:
            raise ShapeError("drift: neither states nor pooled vectors were given, expected at least one")
        before = after = None
    elif before.shape != after.shape or before.ndim != 3:
        raise ShapeError(f"drift: states are {tuple(before.shape)} and {tuple(after.shape)}, expected equal (N, L, D)")
    if len(ends) < 3:
        raise ShapeError(f"drift: {len(ends)} rows, expected the empty prompt and two more")
    kinds: dict[str, KindDrift] = {}
    if before is not None and after is not None:
        kinds |= _by_kind(before.double(), after.double(), ends)
        vectors = _means(before.double(), ends), _means(after.double(), ends)
    if pooled is not None:
        kinds["pooled"] = _kind(pooled[0].double(), pooled[1].double())
        if before is None:
            kinds["empty"] = _kind(pooled[0][:1].double(), pooled[1][:1].double())
            vectors = pooled[0].double(), pooled[1].double()
    return Drift(
        kinds=kinds, spread_ratio=_spread(vectors[1][1:]) / max(_spread(vectors[0][1:]), _TINY), gram=_gram(*vectors)
    )


def _by_kind(before: Tensor, after: Tensor, ends: Tensor) -> dict[str, KindDrift]:
    kinds = kinds_of_positions(ends, before.shape[1])
    found = {
        name: _kind(before[kinds == number], after[kinds == number])
        for number, name in enumerate(KINDS)
        if bool((kinds == number).any())
    }
    return found | {"empty": _kind(before[0], after[0])}


def _kind(before: Tensor, after: Tensor) -> KindDrift:
    """Compare (M, D) vectors one by one."""
    lengths = before.norm(dim=-1), after.norm(dim=-1)
    cosine = (before * after).sum(dim=-1) / (lengths[0] * lengths[1]).clamp_min(_TINY)
    cosine = torch.where((before == after).all(dim=-1), 1.0, cosine)  # zeros too
    return KindDrift(
        positions=len(before),
        cosine=float(cosine.mean().clamp(-1, 1)),
        least_cosine=float(cosine.min().clamp(-1, 1)),
        norm_ratio=float((lengths[1].clamp_min(_TINY) / lengths[0].clamp_min(_TINY)).mean()),
    )


def _means(states: Tensor, ends: Tensor) -> Tensor:
    """(N, D) means over each row's words and EOS."""
    inside = (torch.arange(states.shape[1])[None, :] <= ends[:, None]).double()
    inside[:, 0] = 0  # BOS is the same in every row
    return (states * inside[..., None]).sum(dim=1) / inside.sum(dim=1, keepdim=True)


def _spread(vectors: Tensor) -> float:
    return float((vectors - vectors.mean(dim=0)).norm(dim=-1).mean())


def _gram(before: Tensor, after: Tensor) -> float:
    """Mean absolute difference of the cosines between different rows."""
    unit = [each / each.norm(dim=-1, keepdim=True).clamp_min(_TINY) for each in (before, after)]
    change = (unit[0] @ unit[0].T - unit[1] @ unit[1].T).abs()
    off = ~torch.eye(len(before), dtype=torch.bool)
    return float(change[off].mean())
