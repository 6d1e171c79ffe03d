"""The terms of an objective that hold a batch's images and texts against one another."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from torch import Tensor

from clipcond.train.config import TrainConfig
from clipcond.train.losses.distillation import Teacher, distillation
from clipcond.train.losses.info_nce import info_nce
from clipcond.train.losses.siglip import siglip
from clipcond.train.objective import Outputs
from clipcond.train.ranks import ALONE, Ranks
from clipcond.train.teacher import TeacherEmbeddings


@dataclass(frozen=True, slots=True, kw_only=True)
class Contrastive:
    """InfoNCE or the sigmoid loss of the batch's pairs, with the learned temperature and the batch's hard negatives.

    ranks: those whose batches are one; the value is this rank's share.
    """

    loss: str = "infonce"
    positives: str = "mask"
    label_smoothing: float = 0.0
    chunk_size: int | None = None
    ranks: Ranks = ALONE
    name: str = "contrastive"
    apart: bool = False
    shared: bool = True

    @classmethod
    def of(cls, config: TrainConfig, ranks: Ranks = ALONE) -> Contrastive:
        """Return the term as the settings describe it."""
        return cls(
            loss=config.loss, positives=config.positives, label_smoothing=config.label_smoothing,
            chunk_size=config.chunk_size, ranks=ranks,
        )  # fmt: skip

    def __call__(self, outputs: Outputs) -> Tensor:
        features = outputs.images, outputs.texts, outputs.logit_scale
        extra_images, extra_texts = outputs.negative_images, outputs.negative_texts
        if self.loss == "siglip":
            return siglip(
                *features, outputs.logit_bias, extra_images=extra_images, extra_texts=extra_texts,
                matches=outputs.matches, positives=self.positives, chunk_size=self.chunk_size, ranks=self.ranks,
            )  # fmt: skip
        return info_nce(
            *features, extra_images=extra_images, extra_texts=extra_texts, matches=outputs.matches,
            positives=self.positives, label_smoothing=self.label_smoothing, chunk_size=self.chunk_size,
            ranks=self.ranks,
        )  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class Distillation:
    """The divergence of the batch's similarities from those of a teacher's stored embeddings."""

    teacher: TeacherEmbeddings
    chunk_size: int | None = None
    ranks: Ranks = ALONE
    name: str = "distillation"
    apart: bool = False
    shared: bool = True

    def __call__(self, outputs: Outputs) -> Tensor:
        batch, device = outputs.batch, outputs.towers.device
        drawn = np.zeros(len(batch.rows), np.int64) if batch.drawn is None else batch.drawn
        images, texts = self.teacher.of(batch.rows, drawn)
        known = Teacher(images.to(device), texts.to(device), self.teacher.scale)
        return distillation(
            outputs.images, outputs.texts, outputs.logit_scale, [known], chunk_size=self.chunk_size, ranks=self.ranks
        )
