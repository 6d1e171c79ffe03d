"""From cosines to logits and probabilities, as a dual encoder was trained."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np

from clipcond.errors import ShapeError

if TYPE_CHECKING:
    from numpy.typing import NDArray

Activation = Literal["softmax", "sigmoid"]


@dataclass(frozen=True, slots=True, kw_only=True)
class LogitHead:
    """scale: exp of the learned temperature, 100 for OpenAI's models.   bias: added behind it, −10 or so for SigLIP.

    activation: `softmax` where texts compete for a picture, `sigmoid` where each pair is judged by itself.
    """

    scale: float
    bias: float = 0.0
    activation: Activation = "softmax"

    def logits(self, cosine: NDArray[np.float64]) -> NDArray[np.float64]:
        """scale · cosine + bias. cosine: any axes."""
        return self.scale * cosine + self.bias

    def probabilities(self, cosine: NDArray[np.float64]) -> NDArray[np.float64]:
        """(N, M) cosines of N pictures with M texts → (N, M) probabilities; of softmax each row sums to 1."""
        if cosine.ndim != 2:
            raise ShapeError(f"cosine has the shape {cosine.shape}; expected (N, M), pictures and texts")
        logits = self.logits(cosine)
        if self.activation == "sigmoid":
            sigmoid: NDArray[np.float64] = 0.5 * (1 + np.tanh(0.5 * logits))  # no overflow on either side
            return sigmoid
        return softmax(logits)


def softmax(logits: NDArray[np.float64]) -> NDArray[np.float64]:
    """exp(x) / Σ exp(x) over the last axis, without overflow."""
    powers = np.exp(logits - logits.max(axis=-1, keepdims=True))
    shares: NDArray[np.float64] = powers / powers.sum(axis=-1, keepdims=True)
    return shares
