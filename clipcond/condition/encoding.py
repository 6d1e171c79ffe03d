"""Rows to states: each different row once, those that are known from the cache, the rest in one pass."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from types import MappingProxyType

import torch
from torch import Tensor

from clipcond.condition.cache import Cache, States
from clipcond.encode.rows import TokenSequence
from clipcond.encode.tower import TextStates, Tower

_NONE: Mapping[str, Tensor] = MappingProxyType({})


def encode(
    tower: Tower,
    rows: Iterable[TokenSequence],
    *,
    vectors: Mapping[str, Tensor] = _NONE,
    clip_skip: int = 0,
    final_norm: bool = True,
    cache: Cache | None = None,
) -> dict[TokenSequence, States]:
    """The states of every different row, in the order of first appearance.

    rows: of any lengths.   vectors: (D,) each, by the digests that rows name.   clip_skip, final_norm: as for
    `Tower.encode_rows`.   cache: looked up and filled.
    Returns states on the device where the tower computes. Raises what `Tower.encode_rows` raises.
    """
    wanted = list(dict.fromkeys(rows))
    prefix = _prefix(tower, clip_skip, final_norm) if cache is not None else ""
    known: dict[TokenSequence, States] = {}
    if cache is not None:
        for row in wanted:
            states = cache.get(_key(prefix, row))
            if states is not None:
                known[row] = _on(states, tower.device)
    for alike in _by_length([row for row in wanted if row not in known]):
        out = tower.encode_rows(alike, vectors=vectors, clip_skip=clip_skip, final_norm=final_norm)
        for row, states in zip(alike, _each(out), strict=True):
            known[row] = states
            if cache is not None:
                cache.put(_key(prefix, row), states)
    return {row: known[row] for row in wanted}


def _prefix(tower: Tower, clip_skip: int, final_norm: bool) -> str:
    return f"{tower.fingerprint()} {clip_skip} {final_norm} {tower.dtype}"


def _key(prefix: str, row: TokenSequence) -> str:
    """Everything that a row's states depend on, as a name for a file."""
    return hashlib.sha256(f"{prefix}\n{row.ids}\n{row.masked}\n{row.vectors}".encode()).hexdigest()


def _on(states: States, device: torch.device) -> States:
    """Those from a file are on the CPU, and those of a tower that has moved since are where it was."""
    if states.hidden.device == device:
        return states
    moved = {name: tensor.to(device) for name, tensor in states.tensors.items()}
    return States(hidden=moved["hidden"], pooled=moved.get("pooled"), projected=moved.get("projected"))


def _by_length(rows: Sequence[TokenSequence]) -> list[list[TokenSequence]]:
    groups: dict[int, list[TokenSequence]] = {}
    for row in rows:
        groups.setdefault(len(row.ids), []).append(row)
    return list(groups.values())


def _each(out: TextStates) -> list[States]:
    return [
        States(
            hidden=hidden,
            pooled=None if out.pooled is None else out.pooled[number],
            projected=None if out.projected is None else out.projected[number],
        )
        for number, hidden in enumerate(out.hidden)
    ]
