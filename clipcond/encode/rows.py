"""Rows: what one pass of an encoder reads, as plain values that can be compared, hashed and cached."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from itertools import chain
from threading import get_ident
from typing import Any

import torch
from torch import Tensor, nn

from clipcond.errors import ConfigError, ShapeError
from clipcond.prompt.tokenizer import EOS

MAX_TOKENS = 8192


@dataclass(frozen=True, slots=True)
class TokenSequence:
    """One sequence for an encoder. Equal rows have equal states, whatever batch they are encoded in.

    ids: all L of them, special tokens and padding included.
    masked: the positions that nothing attends to, ascending; never BOS.
    vectors: (position, digest) of each place that takes a vector of a textual inversion and not the row of the token
    table that its id names, ascending; the vectors themselves go beside the rows, by digest.
    """

    ids: tuple[int, ...]
    masked: tuple[int, ...] = ()
    vectors: tuple[tuple[int, str], ...] = ()


def check_rows(rows: Sequence[TokenSequence], vectors: Mapping[str, Tensor], *, width: int, context: int | None) -> int:
    """L, the length that all rows have.

    Raises ShapeError for no rows, rows of different or impossible lengths, positions outside a row and vectors of
    another width than the tower's; ConfigError for a digest without its vector.
    """
    if not rows:
        raise ShapeError("rows: none, expected one or more")
    length = len(rows[0].ids)
    if length < 1 or (context is not None and length > context):
        most = "more" if context is None else f"to {context}"
        raise ShapeError(f"rows: {length} positions, expected 1 {'or ' if context is None else ''}{most}")
    for number, row in enumerate(rows):
        if len(row.ids) != length:
            raise ShapeError(f"rows: row {number} has {len(row.ids)} positions, expected {length} as in row 0")
        first = int(context is not None)  # T5 has no BOS in front
        if row.masked and not first <= row.masked[0] <= row.masked[-1] < length:
            raise ShapeError(f"rows: row {number} masks {row.masked}, expected positions {first} to {length - 1}")
        if row.vectors and not 0 <= row.vectors[0][0] <= row.vectors[-1][0] < length:
            raise ShapeError(f"rows: row {number} has a vector outside its positions 0 to {length - 1}")
    _check_vectors(rows, vectors, width)
    return length


def _check_vectors(rows: Sequence[TokenSequence], vectors: Mapping[str, Tensor], width: int) -> None:
    for digest in dict.fromkeys(digest for row in rows for _, digest in row.vectors):
        if digest not in vectors:
            raise ConfigError(f"rows: they name the vector {digest}, which was not given; pass it in `vectors`")
        if vectors[digest].shape != (width,):
            shape = tuple(vectors[digest].shape)
            raise ShapeError(f"vectors: {digest} is of shape {shape}, expected ({width},) for this text encoder")


def ids_of(rows: Sequence[TokenSequence], device: torch.device | None = None) -> Tensor:
    """(N, L) int64 ids; 0 where a vector takes the place, since its id may lie beyond the token table."""
    ids = torch.tensor([row.ids for row in rows])
    if any(row.vectors for row in rows):
        at = [(number, position) for number, row in enumerate(rows) for position, _ in row.vectors]
        ids[tuple(torch.tensor(at).T)] = 0
    return ids.to(device)


def attention_mask(rows: Sequence[TokenSequence], device: torch.device | None = None) -> Tensor | None:
    """(N, L) bool, False at the positions that nothing attends to; None where no row has any."""
    if not any(row.masked for row in rows):
        return None
    mask = torch.ones(len(rows), len(rows[0].ids), dtype=torch.bool)
    at = [(number, position) for number, row in enumerate(rows) for position in row.masked]
    mask[tuple(torch.tensor(at).T)] = False
    return mask.to(device)


def first_eos(rows: Sequence[TokenSequence]) -> tuple[int, ...]:
    """The position of the first EOS of each row. Raises ShapeError for a row without one."""
    places = []
    for number, row in enumerate(rows):
        replaced = {position for position, _ in row.vectors}
        found = next((at for at, token in enumerate(row.ids) if token == EOS and at not in replaced), None)
        if found is None:
            raise ShapeError(f"rows: row {number} holds no EOS ({EOS}), where its text would be pooled")
        places.append(found)
    return tuple(places)


@contextmanager
def override_embeddings(
    table: nn.Module, rows: Sequence[TokenSequence], vectors: Mapping[str, Tensor]
) -> Iterator[None]:
    """While open, what `table` looks up for a batch of these rows has the vectors in their places.

    table: the module that turns (N, L) ids into (N, L, D) token embeddings; it is left as it was. Other threads that
    use the module at the same time are not touched. What is compiled runs uncompiled, since compiled code does not notice
    the hook that puts them there.
    """
    at = [(number, position) for number, row in enumerate(rows) for position, _ in row.vectors]
    if not at:
        yield
        return
    index = tuple(torch.tensor(at).T)
    values = torch.stack([vectors[digest] for _, digest in chain.from_iterable(row.vectors for row in rows)])
    owner = get_ident()

    def put(module: nn.Module, args: Any, output: Tensor) -> Tensor | None:
        if get_ident() != owner:
            return None
        output = output.clone()
        output[tuple(part.to(output.device) for part in index)] = values.to(output)
        return output

    handle = table.register_forward_hook(put)
    try:
        with _uncompiled():
            yield
    finally:
        handle.remove()


def _uncompiled() -> AbstractContextManager[Any]:
    if "torch._dynamo" not in sys.modules:  # nothing is compiled; the import alone takes seconds
        return nullcontext()
    eager: AbstractContextManager[Any] = torch.compiler.set_stance("force_eager")
    return eager
