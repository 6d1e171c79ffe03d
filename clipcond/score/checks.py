"""Numbers and vectors from outside, checked once: float64 arrays of the expected axes, without NaN or infinity."""

from __future__ import annotations

import sys
from collections.abc import Hashable, Sequence
from typing import TYPE_CHECKING, TypeAlias

import numpy as np

from clipcond.errors import ConfigError, ShapeError

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray
    from torch import Tensor

    Numbers: TypeAlias = ArrayLike | Tensor


def finite(name: str, values: Numbers) -> NDArray[np.float64]:
    """Numbers as a float64 array of any axes; a tensor of any device and dtype is taken too.

    Raises ConfigError for NaN, infinity and what is no number; `name` begins the message.
    """
    array = _float64(name, values)
    bad = np.flatnonzero(~np.isfinite(array))
    if len(bad):
        raise ConfigError(
            f"{name}: number {bad[0] + 1} of {array.size} is {array.flat[bad[0]]}; expected finite numbers"
        )
    return array


def vector(name: str, values: Numbers, length: int | None = None) -> NDArray[np.float64]:
    """(N,) finite float64. Raises ShapeError for other axes, and for another N than `length` where it is given."""
    array = finite(name, values)
    if array.ndim != 1 or (length is not None and len(array) != length):
        raise ShapeError(f"{name}: the shape is {array.shape}; expected ({'N' if length is None else length},)")
    return array


def matrix(name: str, values: Numbers, width: int | None = None) -> NDArray[np.float64]:
    """(N, P) finite float64. Raises ShapeError for other axes, and for another P than `width` where it is given."""
    array = finite(name, values)
    if array.ndim != 2 or (width is not None and array.shape[1] != width):
        raise ShapeError(f"{name}: the shape is {array.shape}; expected (N, {'P' if width is None else width})")
    return array


def unit_rows(name: str, values: Numbers, width: int | None = None) -> NDArray[np.float64]:
    """(N, P) float64 rows of length 1, whatever their length was (half-precision storage loses some of it).

    Raises ShapeError as `matrix` does, and ConfigError for a row of zeros, which has no direction.
    """
    rows = matrix(name, values, width)
    largest = np.abs(rows).max(axis=1, initial=0.0, keepdims=True)
    if not largest.all():
        raise ConfigError(f"{name}: row {int(largest.argmin()) + 1} is all zeros; a vector needs a direction")
    unit: NDArray[np.float64] = rows / largest  # so that no square overflows or vanishes
    unit /= np.sqrt(np.einsum("np,np->n", unit, unit))[:, None]
    return unit


def positive(name: str, value: float) -> float:
    """A finite number above 0. Raises ConfigError."""
    if not 0 < value < float("inf"):
        raise ConfigError(f"{name} is {value}; expected a finite number above 0")
    return float(value)


def not_negative(name: str, value: float) -> float:
    """A finite number of 0 or more. Raises ConfigError."""
    if not 0 <= value < float("inf"):
        raise ConfigError(f"{name} is {value}; expected a finite number of 0 or more")
    return float(value)


def at_least_one(name: str, value: int) -> int:
    """A whole number of 1 or more. Raises ConfigError."""
    if value < 1:
        raise ConfigError(f"{name} is {value}; expected 1 or more")
    return value


def groups_of(keys: Sequence[Hashable], length: int, name: str = "prompts") -> tuple[NDArray[np.intp], ...]:
    """Row numbers that share a key, ascending; the groups in the order of their first rows.

    Raises ShapeError unless there are `length` keys.
    """
    if len(keys) != length:
        raise ShapeError(f"{name}: there are {len(keys)}; expected {length}, one for each row")
    rows: dict[Hashable, list[int]] = {}
    for row, key in enumerate(keys):
        rows.setdefault(key, []).append(row)
    return tuple(np.array(group, dtype=np.intp) for group in rows.values())


def _float64(name: str, values: Numbers) -> NDArray[np.float64]:
    torch = sys.modules.get("torch")
    if torch is not None and isinstance(values, torch.Tensor):
        array: NDArray[np.float64] = values.detach().cpu().double().numpy()
        return array
    try:
        return np.asarray(values, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise ConfigError(f"{name}: not an array of numbers ({error})") from error
