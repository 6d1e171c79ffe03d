"""A run's objective: a sum of named, weighted terms, each of the batch and of what the towers make of it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from clipcond.encode.image import Normalisation
from clipcond.train.batches import Batch
from clipcond.train.grad_cache import CachedFeatures
from clipcond.train.losses.matches import Matches
from clipcond.train.model import image_features, text_features
from clipcond.train.ranks import ALONE, Ranks
from clipcond.train.stored import Stored

_AUTOCAST = {"bf16": torch.bfloat16, "fp16": torch.float16}


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Towers:
    """Both towers as a run encodes with them.

    precision: `float32`, or `bf16` or `fp16` for products in these.   stored: the features of all pictures, of a locked
    image tower.
    """

    model: Any
    normalise: Normalisation
    device: torch.device
    precision: str
    stored: Stored | None = None

    def images(self, batch: Batch) -> Tensor:
        """Return the (B, P) unit rows of a batch's pictures, float32."""
        if self.stored is not None:
            return self.stored[batch.rows].to(self.device)
        assert batch.pixels is not None, "a run without stored features decodes its pictures"
        return self.embed_pixels(batch.pixels)

    def texts(self, batch: Batch) -> Tensor:
        """Return the (B, P) unit rows of a batch's captions, float32."""
        return self.embed_ids(batch.ids)

    def embed_pixels(self, pixels: np.ndarray) -> Tensor:
        """(N, H, W, 3) uint8 to (N, P) unit rows, float32."""
        with self.autocast():
            return image_features(self.model, self.normalise(pixels, self.device))

    def embed_ids(self, ids: np.ndarray) -> Tensor:
        """(N, L) int64 to (N, P) unit rows, float32."""
        with self.autocast():
            return text_features(self.model, torch.from_numpy(ids).to(self.device))

    def autocast(self) -> AbstractContextManager[Any]:
        """Return the context in which a tower computes; a loss computes outside it, in float32."""
        dtype = _AUTOCAST.get(self.precision)
        return nullcontext() if dtype is None else torch.autocast(self.device.type, dtype)


class Outputs:
    """Of one batch, what the towers make of it: computed when a term first asks, and once for all.

    With a graph; with a `micro_batch` without one, and then `backward` is due after that of all terms.
    """

    def __init__(self, batch: Batch, towers: Towers, micro_batch: int | None = None) -> None:
        self.batch, self.towers, self._micro_batch = batch, towers, micro_batch
        self._cached: list[CachedFeatures] = []

    @cached_property
    def images(self) -> Tensor:
        """(B, P) unit rows, float32."""
        return self._features(lambda part: self.towers.images(self.batch.part(part)), len(self.batch.rows))

    @cached_property
    def texts(self) -> Tensor:
        """(B, P) unit rows, float32."""
        return self._features(lambda part: self.towers.texts(self.batch.part(part)), len(self.batch.rows))

    @cached_property
    def negative_images(self) -> Tensor | None:
        """(F, P) unit rows of hard negative pictures, float32; None without any."""
        pixels = self.batch.negative_pixels
        return None if pixels is None else self._features(lambda p: self.towers.embed_pixels(pixels[p]), len(pixels))

    @cached_property
    def negative_texts(self) -> Tensor | None:
        """(E, P) unit rows of hard negative captions, float32; None without any."""
        ids = self.batch.negative_ids
        return None if ids is None else self._features(lambda part: self.towers.embed_ids(ids[part]), len(ids))

    def backward(self) -> None:
        """Send the gradients of cached features through the towers."""
        for features in self._cached:
            features.backward()

    def _features(self, encode: Callable[[slice], Tensor], count: int) -> Tensor:
        if self._micro_batch is None or self._micro_batch >= count:
            return encode(slice(0, count))
        features = CachedFeatures(encode, count, micro_batch=self._micro_batch, device=self.towers.device)
        self._cached.append(features)
        return features.values

    @property
    def logit_scale(self) -> Tensor:
        """The log of 1/temperature, a scalar parameter."""
        scale: Tensor = self.towers.model.logit_scale
        return scale

    @property
    def logit_bias(self) -> Tensor:
        """The number that a sigmoid loss adds to every logit, a scalar parameter."""
        bias: Tensor = self.towers.model.logit_bias
        return bias

    @property
    def matches(self) -> Matches | None:
        """Ids of images and texts that belong together although they are not one pair; None without any."""
        if self.batch.matches is None:
            return None
        images, texts = (torch.from_numpy(ids).to(self.towers.device) for ids in self.batch.matches)
        return Matches(images=images, texts=texts)


class Term(Protocol):
    """One part of an objective.

    A term draws nothing from torch's global generator, but from one that the batch's step seeds, so that a resumed run
    repeats it.
    """

    @property
    def name(self) -> str:
        """The name under which its value is logged."""

    @property
    def shared(self) -> bool:
        """True if its value is this rank's share of what all ranks sum up to; otherwise the mean over ranks is taken."""

    @property
    def apart(self) -> bool:
        """True if its graph is its own: it is back-propagated at once, and the memory is free before the next term."""

    def __call__(self, outputs: Outputs) -> Tensor:
        """Return a float32 scalar, before its weight."""


@dataclass(frozen=True, slots=True)
class Losses:
    """The values of one step. total: weighted; terms: by name, before their weights."""

    total: float
    terms: Mapping[str, float]


class Objective:
    """Terms with their weights, in the order in which they are computed."""

    def __init__(
        self, terms: Sequence[tuple[float, Term]], towers: Towers, micro_batch: int | None = None, ranks: Ranks = ALONE,
        scaled: Callable[[Tensor], Tensor] | None = None,
    ) -> None:  # fmt: skip
        """micro_batch: pairs that are encoded at once, by gradient caching; None for the whole batch.

        scaled: of a loss what is sent back in its place, where its gradients are to be of another size.
        """
        self.terms, self._towers, self._micro_batch, self._ranks = tuple(terms), towers, micro_batch, ranks
        self._scaled = scaled or (lambda loss: loss)

    def backward(self, batch: Batch) -> Losses:
        """Add the gradient of the weighted sum to the parameters' gradients, and return what the terms came to.

        With several ranks the gradients are this one's part, and the values those of all ranks.
        """
        outputs = Outputs(batch, self._towers, self._micro_batch)
        values: list[float] = []
        joint: list[Tensor] = []
        for weight, term in self.terms:
            value = term(outputs) / (1 if term.shared else self._ranks.count)
            values.append(float(value.detach()))
            if term.apart:
                self._scaled(weight * value).backward()  # type: ignore[no-untyped-call]
            else:
                joint.append(weight * value)
        if joint:
            self._scaled(torch.stack(joint).sum()).backward()  # type: ignore[no-untyped-call]
        outputs.backward()
        named = {term.name: value for (_, term), value in zip(self.terms, self._summed(values), strict=True)}
        return Losses(sum(weight * named[term.name] for weight, term in self.terms), named)

    def _summed(self, values: list[float]) -> list[float]:
        found: list[float] = self._ranks.sum(torch.tensor(values, dtype=torch.float64)).tolist()
        return found
