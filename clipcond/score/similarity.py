"""Cosines of pictures' vectors against a text's."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from torch import Tensor

from clipcond.errors import ModelError, ShapeError

if TYPE_CHECKING:
    from numpy.typing import NDArray

DIGITS = 6  # of a cosine: what two batches of the same float32 model agree on, so that equal pictures tie


def cosines(vectors: Tensor, text: NDArray[np.float64]) -> NDArray[np.float64]:
    """(N, P) unit rows against the (P,) float64 vector of a text: (N,) float64, rounded to six digits.

    Raises ShapeError if P differs, ModelError if a value is not finite.
    """
    if vectors.ndim != 2 or vectors.shape[1] != len(text):
        raise ShapeError(f"vectors are {tuple(vectors.shape)}; expected (N, {len(text)}) of the same model")
    found = np.round(vectors.double().cpu().numpy() @ text, DIGITS) + 0.0  # + 0.0: no negative zero
    if not np.isfinite(found).all():
        raise ModelError(
            "vectors hold values that are not finite, so they have no cosine; the model that made them is damaged"
        )
    return found
