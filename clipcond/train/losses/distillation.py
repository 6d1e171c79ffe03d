"""Distillation from stored embeddings: the student's similarities of a batch follow the teacher's."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from clipcond.train.losses.strips import Features, Strip, features_of
from clipcond.train.ranks import ALONE, Ranks


class Teacher(NamedTuple):
    """Unit embeddings of the batch's pairs by a model that does not train: (b, Q) each, and 1/temperature."""

    images: Tensor
    texts: Tensor
    scale: float = 100.0


def distillation(
    images: Tensor, texts: Tensor, logit_scale: Tensor, teachers: Sequence[Teacher], *,
    chunk_size: int | None = None, ranks: Ranks = ALONE,
) -> Tensor:  # fmt: skip
    """Return the divergence of the student's softmax over the batch from the mean of the teachers', both ways halved.

    This is the loss of MobileCLIP: the cross entropy, less the teachers' own entropy, so that 0 means no difference.
    images, texts: (b, P) unit rows of the student.   logit_scale: the student's.   chunk_size, ranks: as of `info_nce`.
    Returns a float32 scalar (float64 for float64 input), with exact gradients of the student's three inputs.
    """
    student = features_of(images, texts, chunk_size=chunk_size, ranks=ranks)
    settled = [
        (features_of(t.images.to(student.rows.dtype), t.texts.to(student.rows.dtype), chunk_size=student.chunk_size,
                     ranks=ranks), t.scale)
        for t in teachers
    ]  # fmt: skip
    value: Tensor = _Distillation.apply(student.rows, student.columns, logit_scale, student, settled)  # type: ignore[no-untyped-call]
    return value


class _Distillation(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, rows: Tensor, columns: Tensor, logit_scale: Tensor, student: Features,
        teachers: list[tuple[Features, float]],
    ) -> Tensor:  # fmt: skip
        scale = logit_scale.to(rows.dtype).exp()
        of_student = _column_normaliser(student, scale)
        of_teachers = [_column_normaliser(teacher, teacher_scale) for teacher, teacher_scale in teachers]
        to_rows, to_columns, total = torch.zeros_like(rows), torch.zeros_like(columns), rows.new_zeros(())
        for strip in student.strips():
            logits = _logits(student, strip, scale)
            known = [
                (_logits(teacher, strip, teacher_scale), normaliser)
                for (teacher, teacher_scale), normaliser in zip(teachers, of_teachers, strict=True)
            ]
            gradient = torch.zeros_like(logits)
            for way in (_over_rows, _over_columns):
                wanted = torch.stack([way(values, normaliser).exp_() for values, normaliser in known]).mean(dim=0)
                logs = way(logits, of_student)
                total += (torch.special.xlogy(wanted, wanted) - wanted * logs).sum()
                gradient += logs.exp_() - wanted
            torch.mm(gradient, columns, out=to_rows[strip.rows])
            to_columns.addmm_(gradient.T, rows[strip.rows])
        weight = 0.5 / student.texts
        for each in (to_rows, to_columns):
            each.mul_(scale * weight)
        ctx.save_for_backward(
            to_rows, to_columns, (rows * to_rows).sum().to(logit_scale.dtype).reshape(logit_scale.shape)
        )
        return total * weight

    @staticmethod
    def backward(ctx: Any, upstream: Tensor) -> tuple[Tensor | None, ...]:
        return (*(upstream * each for each in ctx.saved_tensors), None, None)


def _logits(of: Features, strip: Strip, scale: Tensor | float) -> Tensor:
    return (scale * of.rows[strip.rows]) @ of.columns.T


def _column_normaliser(of: Features, scale: Tensor | float) -> Tensor:
    """Return (n,) log Σ exp of the columns over all ranks."""
    found = of.rows.new_full((of.texts,), -torch.inf)
    for strip in of.strips():
        found = torch.logaddexp(found, torch.logsumexp(_logits(of, strip, scale), dim=0))
    return of.ranks.log_sum_exp(found)


def _over_rows(logits: Tensor, _: Tensor) -> Tensor:
    return torch.log_softmax(logits, dim=1)


def _over_columns(logits: Tensor, normaliser: Tensor) -> Tensor:
    return logits - normaliser
