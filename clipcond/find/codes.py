"""One-bit codes of vectors, and how a query that keeps three bits of each number is compared with them.

A row's code says for each number whether it is above the common mean. The query gives up its part along the mean, which
hardly tells rows apart, and keeps eight levels of the rest: −7, −5, … 7. Its product with the signs of a row is then a
weighted count of bits that differ, of three codes (as RaBitQ does, Gao and Long 2024). A query of one bit would do for a
picture among pictures, but words lie elsewhere than pictures, and of them it finds too little.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from importlib import import_module
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

PLANES = 3
_LEVELS = 2**PLANES
_STEP = 0.586  # of 8 levels, in standard deviations, where the error is least (Max 1960)


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """A way to compare codes: its name to show, and (N, W) codes with (3, W) of a query → (N,) uint16 distances."""

    name: str
    distances: Callable[[NDArray[np.uint64], NDArray[np.uint64]], NDArray[np.uint16]]


def words_of(width: int) -> int:
    """Words of 64 bits in the code of a vector."""
    return -(-width // 64)


def codes_of(rows: NDArray[np.floating[Any]], mean: NDArray[np.floating[Any]]) -> NDArray[np.uint64]:
    """(N, P) rows as (N, W) uint64: a bit for each number, set where it is above the mean's; the last word is filled with 0."""
    return _packed(rows > mean)


def query_codes(query: NDArray[np.float64], mean: NDArray[np.floating[Any]]) -> NDArray[np.uint64]:
    """(P,) as (3, W) uint64: the bits of each number's level, the lowest first. mean: (P,), of the rows."""
    centre = np.asarray(mean, dtype=np.float64)
    length = centre @ centre
    own = query - (query @ centre / length) * centre if length else query
    step = _STEP * np.sqrt(np.mean(own**2)) or 1.0
    levels = np.clip(np.floor(own / step) + _LEVELS // 2, 0, _LEVELS - 1).astype(np.uint8)
    return _packed(np.array([levels >> plane & 1 for plane in range(PLANES)], dtype=bool))


def comparison() -> Comparison:
    """FAISS where it is installed, else NumPy. Both give the same numbers."""
    faiss = _faiss()
    if faiss is None:
        return Comparison(name="NumPy", distances=by_numpy)
    return Comparison(name=f"FAISS {faiss.__version__}", distances=by_faiss)


def by_numpy(codes: NDArray[np.uint64], query: NDArray[np.uint64]) -> NDArray[np.uint16]:
    """Σ over planes of 2^plane · the bits that differ."""
    words = np.ascontiguousarray(codes.T)
    total = np.zeros(len(codes), dtype=np.uint16)
    for plane, code in enumerate(query):
        total += np.bitwise_count(words ^ code[:, None]).sum(axis=0, dtype=np.uint16) << plane
    return total


def by_faiss(codes: NDArray[np.uint64], query: NDArray[np.uint64]) -> NDArray[np.uint16]:
    """The same sum as `by_numpy`, counted by FAISS."""
    faiss: Any = _faiss()
    mine, theirs = np.ascontiguousarray(query).view(np.uint8), np.ascontiguousarray(codes).view(np.uint8)
    bits = np.empty((len(query), len(codes)), dtype=np.int32)
    pointers = (faiss.swig_ptr(mine), faiss.swig_ptr(theirs))
    faiss.hammings(*pointers, len(query), len(codes), mine.shape[1], faiss.swig_ptr(bits))
    total: NDArray[np.uint16] = (bits << np.arange(len(query), dtype=np.int32)[:, None]).sum(axis=0).astype(np.uint16)
    return total


def _packed(bits: NDArray[np.bool_]) -> NDArray[np.uint64]:
    """(N, P) bits as (N, W) words."""
    packed = np.packbits(bits, axis=1, bitorder="little")
    padded = np.zeros((len(bits), 8 * words_of(bits.shape[1])), dtype=np.uint8)
    padded[:, : packed.shape[1]] = packed
    return padded.view("<u8")


@cache
def _faiss() -> Any | None:
    try:
        return import_module("faiss")
    except ImportError:
        return None
