"""Retention: the states that a diffusion model reads of general prompts stay what they were.

Contrastive training supervises one vector of a caption. The terms here hold all that the target reads, on prompts that need no
picture, to what the tower gave before its first step.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import cosine_similarity, normalize

from clipcond.condition.targets import TARGETS, Reading, reading
from clipcond.encode.text import TextTower
from clipcond.errors import ModelError
from clipcond.models.clinic import rows_of
from clipcond.prompt.tokenizer import CONTEXT, EOS
from clipcond.score.drift import KINDS, Drift, kinds_of_positions, measure_drift
from clipcond.train.objective import Outputs

EMPTY = len(KINDS)  # of positions of the empty prompt, which are weighted apart
_TINY = 1e-12
_MEASURED = 64  # prompts of a measurement


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Read:
    """All that a target reads of N rows. states: (N, L, D), pooled: (N, P); None where it reads none."""

    states: Tensor | None
    pooled: Tensor | None

    def rows(self, numbers: Tensor) -> Read:
        return Read(
            states=None if self.states is None else self.states[numbers],
            pooled=None if self.pooled is None else self.pooled[numbers],
        )


def retention_parts(now: Read, then: Read, kinds: Tensor) -> dict[str, Tensor]:
    """Return by the names of PARTS how far N rows moved, float32 scalars, 0 for equal ones; parts without a place are left out.

    kinds: (N, L) int64, numbers of KINDS and EMPTY.   Of each kind of position, the mean of ‖now - then‖² / ‖then‖²;
    gram: ‖G - G₀‖²_F / N² of the cosines between rows, of states the means over words and EOS; pooled: the mean of 1 - cosine.
    """
    parts: dict[str, Tensor] = {}
    vectors: tuple[Tensor, Tensor] | None = None
    if now.states is not None and then.states is not None:
        was, is_now = then.states.float(), now.states.float()
        moved = (is_now - was).square().sum(dim=-1) / was.square().sum(dim=-1).clamp_min(_TINY)
        for number, name in enumerate((*KINDS, "empty")):
            if bool((kinds == number).any()):
                parts[name] = moved[kinds == number].mean()
        vectors = _means(is_now, kinds), _means(was, kinds)
    if now.pooled is not None and then.pooled is not None:
        pooled = now.pooled.float(), then.pooled.float()
        parts["pooled"] = (1 - cosine_similarity(*pooled, dim=-1)).mean()
        vectors = vectors or pooled
    assert vectors is not None, "a target reads states or a pooled vector"
    grams = [unit @ unit.T for unit in (normalize(each, dim=-1) for each in vectors)]
    parts["gram"] = (grams[0] - grams[1]).square().mean()
    return parts


def _means(states: Tensor, kinds: Tensor) -> Tensor:
    """(N, D) means over each row's words and EOS; of the empty prompt over all places."""
    inside = ((kinds == 1) | (kinds == 2) | (kinds == EMPTY)).to(states.dtype)
    return (states * inside[..., None]).sum(dim=1) / inside.sum(dim=1, keepdim=True)


class TargetReader:
    """The text tower of a model in training, read as a target reads it."""

    def __init__(self, model: Any, target: str, name: str) -> None:
        """name: of the model, for messages. Raises ModelError for a tower that lacks what the target reads."""
        self._tower = TextTower.from_open_clip(model)
        self.reading: Reading = reading(*TARGETS[target], layers=self._tower.layers)
        if self.reading.pooled == "projected" and model.text_projection is None:
            raise ModelError(f"{name} has no text_projection, whose vector {target} reads")
        if self._tower.context < CONTEXT:
            raise ModelError(f"{name} reads {self._tower.context} positions, {target} {CONTEXT}")

    def ids(self, prompts: Sequence[str]) -> Tensor:
        """Return (N, 77) int64 rows as the target's tokenizer pads them."""
        return rows_of(prompts, pad_id=self.reading.pad_id)

    def __call__(self, ids: Tensor) -> Read:
        """Encode (N, 77) rows; with a graph where torch builds one."""
        read = self.reading
        out = self._tower.encode(ids, clip_skip=read.skip, final_norm=read.final_norm, grad=True)
        return Read(
            states=out.hidden if read.states else None, pooled=getattr(out, read.pooled) if read.pooled else None
        )


class Retention:
    """The term: what the target reads of some general prompts, and always of the empty one, against the start tower's."""

    name, apart, shared = "retention", True, False

    def __init__(
        self, reader: TargetReader, prompts: Sequence[str], *, weights: Mapping[str, float], batch: int, seed: int
    ) -> None:
        """reader: of the model as it stands, whose output is kept.   weights: of PARTS.   batch: prompts a step."""
        self._reader, self._weights, self._seed = reader, weights, seed
        self._ids = reader.ids(["", *(prompt for prompt in prompts if prompt)])
        self._batch = min(batch, len(self._ids) - 1)
        self._ends = (self._ids == EOS).int().argmax(dim=1)
        self._kinds = kinds_of_positions(self._ends, self._ids.shape[1])
        self._kinds[0] = EMPTY
        with torch.no_grad():
            self._then = reader(self._ids)

    def __call__(self, outputs: Outputs) -> Tensor:
        draw = np.random.default_rng([self._seed, 5, outputs.batch.step])
        chosen = draw.choice(len(self._ids) - 1, self._batch, replace=False) + 1
        rows = torch.from_numpy(np.concatenate([[0], chosen]))
        with outputs.towers.autocast():
            now = self._reader(self._ids[rows])
        device = outputs.towers.device
        parts = retention_parts(now, self._then.rows(rows.to(device)), self._kinds[rows].to(device))
        return torch.stack([self._weights[name] * value for name, value in parts.items()]).sum()

    @torch.no_grad()
    def measure(self) -> Drift:
        """Measure the drift since the first step, on the first prompts."""
        rows = torch.arange(min(_MEASURED, len(self._ids)))
        now, then = self._reader(self._ids[rows]), self._then.rows(rows)
        pooled = None if now.pooled is None or then.pooled is None else (then.pooled.cpu(), now.pooled.cpu())
        states = [None if each.states is None else each.states.cpu() for each in (then, now)]
        return measure_drift(states[0], states[1], self._ends[rows], pooled=pooled)
