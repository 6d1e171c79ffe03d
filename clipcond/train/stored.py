"""Outputs of a frozen module for every picture of a run, computed once: features of a locked image tower, latents."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from clipcond.errors import ConfigError
from clipcond.images.preprocess import Preprocess
from clipcond.train.data import Pairs
from clipcond.train.parts import Parts, Place
from clipcond.train.pixels import prepare_all

_GROUP = 32  # pictures at once


class Store(Protocol):
    """Something of the pairs that is computed once, before the first step."""

    @property
    def what(self) -> str:
        """It, in words."""

    @property
    def kept(self) -> int:
        """The rows that are in files, for a run that is interrupted to find again."""

    def fill(self) -> int:
        """Compute it; return the bytes it takes."""

    def forget(self) -> None:
        """Delete the files that only a run that goes on would read."""


class Stored:
    """One tensor for each picture of `pairs`, in memory, and in files until the run is done.

    Pictures go through in the same groups in every run: what a resumed run computes again is the same, bit for bit.
    """

    def __init__(
        self,
        pairs: Pairs,
        preprocess: Preprocess,
        compute: Callable[[np.ndarray], Tensor],
        *,
        what: str,
        most_gib: float,
        place: Place,
    ) -> None:
        """compute: (G, H, W, 3) uint8 to (G, …) float32, without a graph.   what: in words, for messages and files."""
        self._pairs, self._preprocess, self._compute = pairs, preprocess, compute
        self.what, self._most = what, most_gib
        self._parts = Parts(place, what)
        self._values: Tensor | None = None

    @property
    def kept(self) -> int:
        return self._parts.kept

    def fill(self) -> int:
        """Compute all; return the bytes they take. Raises ConfigError before they would take too many, DataError."""
        self._values = self._parts.fill(len(self._pairs), _GROUP, self._group)
        return self._values.nbytes

    def forget(self) -> None:
        self._parts.remove()

    def _group(self, rows: slice) -> Tensor:
        with torch.no_grad():
            values = self._compute(prepare_all(self._pairs.images[rows], self._preprocess)).cpu()
        if rows.start == 0:
            self._check_room(values[0].nbytes * len(self._pairs))
        return values

    def _check_room(self, needed: int) -> None:
        if needed > self._most * 2**30:
            raise ConfigError(
                f"{self.what} of {len(self._pairs)} pictures take {needed / 2**30:.1f} GiB, cache_gib allows {self._most:g}; "
                "raise it, or give fewer pictures"
            )

    def __getitem__(self, rows: np.ndarray) -> Tensor:
        """(B,) row numbers to (B, …) float32 on the CPU, after `fill`."""
        assert self._values is not None, "fill comes first"
        return self._values[torch.from_numpy(rows)]
