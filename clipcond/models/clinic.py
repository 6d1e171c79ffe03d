"""The clinic of text encoders: names of what differs between two of them, each with its evidence.

The weights are compared one by one, the rows that the tokenizers make, and the outputs on the same rows. The first
difference in the answer explains most.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from clipcond.models.clinic_weights import WeightChange, name_weight_changes
from clipcond.models.export_layouts import layer_count
from clipcond.prompt.tokenizer import BOS, EOS

POSITIONS = "text_model.embeddings.position_embedding.weight"
_CLOSE = 1e-4
_KEPT = 20  # positions that a context extension keeps (Long-CLIP, arXiv 2403.15378)
_STRETCHED = 0.8  # cosine of the others with the first of those that each became; training moves them
_TEXTS = ("", "a red fox in the snow", "a photo of a small blue bird, soft light, detailed")


@dataclass(frozen=True, slots=True)
class Difference:
    """A difference by name, with its evidence in one line."""

    name: str
    evidence: str


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class ClinicEncoder:
    """An encoder as the clinic sees it.

    state: weights in nested names.   rows: (N, L) int64 ids of texts, as its own tokenizer makes and pads them.
    forward: (N, L) ids → its own last states (N, L, D) and pooled vectors (N, D).
    """

    state: Mapping[str, Tensor]
    config: Mapping[str, Any]
    rows: Callable[[Sequence[str]], Tensor]
    forward: Callable[[Tensor], tuple[Tensor, Tensor]]


@torch.no_grad()
def differences(before: ClinicEncoder, after: ClinicEncoder) -> tuple[Difference, ...]:
    """Return the differences between two encoders, none for equal ones.

    Names: `shape`, `layers`, `length`, `activation`, `heads`, `end token`, `padding`, `start token`, `pooling`,
    `final norm`, `positions`, `swapped weights`, `half loaded`, `quantised`, `low-rank change`, `retrained`,
    `another encoder`, `attention mask`, `outputs`.
    """
    found = [*_shapes(before, after)]
    if any(each.name == "shape" for each in found):
        return tuple(found)
    found += _config(before, after)
    found += _tokens(before, after)
    changes = name_weight_changes(before.state, after.state)
    found += [_weights(change) for change in changes]
    structural = {each.name for each in found} & {"layers", "length", "heads", "activation"}
    found += _behaviour(before, after, weights_differ=bool(changes) or bool(structural))
    return tuple(found)


def _weights(change: WeightChange) -> Difference:
    return Difference(change.name, change.evidence)


def _shapes(before: ClinicEncoder, after: ClinicEncoder) -> list[Difference]:
    tables = [each.state["text_model.embeddings.token_embedding.weight"] for each in (before, after)]
    if tables[0].shape[1] != tables[1].shape[1]:
        return [Difference("shape", f"the width is {tables[0].shape[1]} before and {tables[1].shape[1]} after")]
    found, counts = [], [layer_count(each.state) for each in (before, after)]
    if counts[0] != counts[1]:
        found.append(Difference("layers", f"{counts[0]} layers before, {counts[1]} after"))
    lengths = [each.state[POSITIONS].shape[0] for each in (before, after)]
    if lengths[0] != lengths[1]:
        told = _of_tables(*(each.state[POSITIONS].float() for each in (before, after)))
        found.append(Difference("length", f"{lengths[0]} positions before, {lengths[1]} after; {told}"))
    return found


def _of_tables(before: Tensor, after: Tensor) -> str:
    """The relation of two position tables of different lengths, in words."""
    short, long = sorted((before, after), key=len)
    factor, rest = divmod(len(long) - _KEPT, max(1, len(short) - _KEPT))
    if len(short) > _KEPT and factor > 1 and not rest and _same_rows(short, long) >= _KEPT:
        likeness = torch.cosine_similarity(short[_KEPT:], long[_KEPT::factor]).mean()
        if float(likeness) >= _STRETCHED:
            which = "after" if len(after) > len(before) else "before"
            return f"the table {which} is stretched: the first {_KEPT} rows kept, {factor} for each other one"
    return f"of the table the first {_same_rows(before, after)} rows are the same"


def _same_rows(before: Tensor, after: Tensor) -> int:
    """The number of rows at the beginning of two tables that are equal."""
    common = min(len(before), len(after))
    equal = (before[:common] == after[:common]).all(dim=1).int()
    return int(equal.cumprod(dim=0).sum())


def _config(before: ClinicEncoder, after: ClinicEncoder) -> list[Difference]:
    found = []
    for name, key in (("activation", "hidden_act"), ("heads", "num_attention_heads")):
        values = [each.config.get(key) for each in (before, after)]
        if values[0] != values[1]:
            found.append(Difference(name, f"{key} is {values[0]} before and {values[1]} after"))
    return found


def _tokens(before: ClinicEncoder, after: ClinicEncoder) -> list[Difference]:
    """Differences of the rows that the two tokenizers make of the same texts."""
    rows = [each.rows(_TEXTS) for each in (before, after)]
    found = []
    if rows[0].shape[1] != rows[1].shape[1]:
        lengths = f"rows have {rows[0].shape[1]} positions before and {rows[1].shape[1]} after"
        if before.state[POSITIONS].shape == after.state[POSITIONS].shape:
            found.append(Difference("length", lengths))
    ends = (rows[0] == EOS).int().argmax(dim=1).tolist()
    common = min(rows[0].shape[1], rows[1].shape[1])
    for name, places in (("start token", [0] * len(ends)), ("end token", ends)):
        ids = [[int(each[row, at]) for row, at in enumerate(places) if at < common] for each in rows]
        if ids[0] != ids[1]:
            found.append(Difference(name, f'id {ids[0][0]} before, {ids[1][0]} after, at position {places[0]} of ""'))
    last = [int(each[0, common - 1]) for each in rows]
    if last[0] != last[1]:
        found.append(Difference("padding", f"rows are filled with id {last[0]} before and {last[1]} after"))
    return found


def _behaviour(before: ClinicEncoder, after: ClinicEncoder, *, weights_differ: bool) -> list[Difference]:
    """Differences of outputs on the same rows that weights do not explain."""
    rows = before.rows(_TEXTS)[:, : after.state[POSITIONS].shape[0]]
    outputs = [each.forward(rows) for each in (before, after)]
    found = []
    pooled = [_pooled_from(rows, *each) for each in outputs]
    if pooled[0] != pooled[1]:
        found.append(Difference("pooling", f"the pooled vector is {pooled[0]} before and {pooled[1]} after"))
    causal = [_is_causal(each, rows) for each in (before, after)]
    if causal[0] != causal[1]:
        found.append(
            Difference("attention mask", "later tokens change earlier states " + ("after" if causal[0] else "before"))
        )
    if weights_differ or found:
        return found
    if _near(outputs[0][0], outputs[1][0]):
        return []
    norm = [before.state[f"text_model.final_layer_norm.{kind}"] for kind in ("weight", "bias")]
    normed = torch.nn.functional.layer_norm(outputs[1][0], norm[0].shape, norm[0].float(), norm[1].float())
    if _near(normed, outputs[0][0]):
        return [Difference("final norm", "the states after are those before without their final norm")]
    return [
        Difference("outputs", f"equal weights give states that differ by {_gap(*(each[0] for each in outputs)):.2g}")
    ]


def _pooled_from(rows: Tensor, states: Tensor, pooled: Tensor) -> str:
    """The place of the pooled vector in the states, in words."""
    at = torch.arange(len(rows))
    end = (rows == EOS).int().argmax(dim=1)
    inside = (torch.arange(rows.shape[1])[None, :] <= end[:, None]).float()[..., None]
    places = {
        "that of the first end token": states[at, end],
        "that of the last position": states[:, -1],
        "that of the start token": states[:, 0],
        "that before the end token": states[at, (end - 1).clamp_min(0)],
        "the mean of all positions": states.mean(dim=1),
        "the mean up to the end token": (states * inside).sum(dim=1) / inside.sum(dim=1),
        "the largest of each number": states.amax(dim=1),
    }
    gaps = {name: _gap(pooled, each) for name, each in places.items() if each.shape == pooled.shape}
    nearest = min(gaps, key=lambda name: gaps[name], default="of another width")
    return nearest if gaps and gaps[nearest] <= 1e-3 else "of no place that is known"


def _is_causal(encoder: ClinicEncoder, rows: Tensor) -> bool:
    """True if another word late in a row leaves the states before it as they are."""
    other = rows.clone()
    other[:, 4] = torch.where(other[:, 4] == EOS, EOS, 320)
    other[1:, 5] = 539
    states = [encoder.forward(each)[0][:, :4] for each in (rows, other)]
    return _near(*states)


def _gap(found: Tensor, wanted: Tensor) -> float:
    return float((found - wanted).abs().max() / max(float(wanted.abs().max()), 1e-6))


def _near(found: Tensor, wanted: Tensor) -> bool:
    return found.shape == wanted.shape and _gap(found, wanted) <= _CLOSE


def rows_of(texts: Sequence[str], *, pad_id: int, eos_id: int = EOS, length: int = 77) -> Tensor:
    """Return (N, L) int64 rows of texts, as CLIP's tokenizer with these ids makes them."""
    from clipcond.prompt.tokenizer import batch_ids

    rows = torch.full((len(texts), length), pad_id)
    for number, ids in enumerate(batch_ids(texts)):
        row = [BOS, *ids[: length - 2], eos_id]
        rows[number, : len(row)] = torch.tensor(row)
    return rows
