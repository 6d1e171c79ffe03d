"""Everything an embedding depends on beside the picture, and its numbers as bytes with a seal of what they belong to."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from functools import lru_cache
from hashlib import blake2b
from typing import Any, Literal

import numpy as np

from clipcond.errors import ConfigError, ShapeError
from clipcond.images.preprocess import VERSION, Preprocess

_STORED: dict[str, np.dtype[Any]] = {"float16": np.dtype("<f2"), "float32": np.dtype("<f4")}
_TOLERANCE = {"float16": 0.02, "float32": 1e-3}  # of a stored row's norm; beyond that it is damaged
SEAL_BYTES = 16
_EXACT = 1e-6  # a norm this near to 1 is left alone, so that a second run gives the bits of the first


@dataclass(frozen=True, slots=True, kw_only=True)
class EmbeddingSpace:
    """Everything an embedding depends on beside the picture.

    model: the fingerprint of the image encoder, which covers the dtype that it computes in.
    preprocess: from `preprocessing_id`.   width: P.   dtype: the one it is kept in.   name: the model's, to show.
    Raises ConfigError for another dtype and for a width below 1.
    """

    model: str
    preprocess: str
    width: int
    dtype: Literal["float16", "float32"] = "float32"
    name: str = ""

    def __post_init__(self) -> None:
        if self.dtype not in _STORED:
            raise ConfigError(f"embeddings are kept as float16 or float32, not as {self.dtype!r}")
        if self.width < 1:
            raise ConfigError(f"an embedding of width {self.width} makes no sense; expected 1 or more")


def preprocessing_id(
    preprocess: Preprocess, *, view: str = "crop", background: tuple[int, int, int] = (255, 255, 255)
) -> str:
    """Return a text that says how pictures become pixels: size, policy, filter, mean, std, view, background, version."""
    settings = {**asdict(preprocess), "view": view, "background": background, "version": VERSION}
    return ";".join(f"{name}={value}" for name, value in sorted(settings.items())).replace(" ", "")


def packed(vector: np.ndarray, space: EmbeddingSpace, key: bytes) -> bytes:
    """Return the bytes of an embedding, (P,) of any float dtype, in the space's dtype, sealed to its picture's key.

    Raises ShapeError.
    """
    if vector.shape != (space.width,):
        raise ShapeError(f"an embedding has the shape {vector.shape}; expected ({space.width},)")
    with np.errstate(over="ignore"):
        numbers = vector.astype(_STORED[space.dtype]).tobytes()
    return numbers + _seal(numbers, space, key)


def unpacked(stored: object, space: EmbeddingSpace, key: bytes) -> np.ndarray | None:
    """Return the embedding of stored bytes, (P,) float32 of unit length; None where they are not that of this key."""
    dtype = _STORED[space.dtype]
    if not isinstance(stored, bytes) or len(stored) != space.width * dtype.itemsize + SEAL_BYTES:
        return None
    numbers, seal = stored[:-SEAL_BYTES], stored[-SEAL_BYTES:]
    if seal != _seal(numbers, space, key):
        return None
    vector = np.frombuffer(numbers, dtype).astype(np.float32)
    exact = vector.astype(np.float64)  # squares of its numbers cannot overflow
    norm = float(np.dot(exact, exact)) ** 0.5
    if not abs(norm - 1) <= _TOLERANCE[space.dtype]:  # not finite, too
        return None
    return vector if abs(norm - 1) <= _EXACT else (exact / norm).astype(np.float32)


def _seal(numbers: bytes, space: EmbeddingSpace, key: bytes) -> bytes:
    """A checksum of numbers and what they are the embedding of, so that no row passes for another's."""
    hashed = _of_space(space).copy()
    hashed.update(len(key).to_bytes(8, "little") + key + numbers)
    return hashed.digest()


@lru_cache(maxsize=16)
def _of_space(space: EmbeddingSpace) -> blake2b:
    parts = repr((space.model, space.preprocess, space.dtype, space.width))
    return blake2b(parts.encode(), digest_size=SEAL_BYTES)
