"""The sigmoid loss of SigLIP, strip by strip."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import logsigmoid

from clipcond.train.losses.matches import Matches
from clipcond.train.losses.strips import Features, features_of
from clipcond.train.ranks import ALONE, Ranks


def siglip(
    images: Tensor, texts: Tensor, logit_scale: Tensor, logit_bias: Tensor, *,
    extra_images: Tensor | None = None, extra_texts: Tensor | None = None,
    matches: Matches | None = None, positives: str = "mask", chunk_size: int | None = None, ranks: Ranks = ALONE,
) -> Tensor:  # fmt: skip
    """Every image and every text are asked by themselves whether they belong together; the sum over b, not over b².

    images, texts: (b, P) unit rows of matching pairs, any float dtype.   logit_scale, logit_bias: scalars.
    extra_texts, extra_images: (E, P) and (F, P) hard negatives, held against the pairs and not against one another.
    matches: ids of what belongs together beside the pairs; with `positives="mask"` it is not asked, with `count` it is
    positive. chunk_size, ranks: as of `info_nce`.
    Returns a float32 scalar (float64 for float64 input), with exact gradients of all inputs, computed at once.
    """
    laid_out = features_of(
        images, texts, extra_images=extra_images, extra_texts=extra_texts, matches=matches, chunk_size=chunk_size,
        ranks=ranks,
    )  # fmt: skip
    value: Tensor = _SigLip.apply(  # type: ignore[no-untyped-call]
        laid_out.rows, laid_out.columns, logit_scale, logit_bias, laid_out, positives == "count"
    )
    return value


class _SigLip(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, rows: Tensor, columns: Tensor, logit_scale: Tensor, logit_bias: Tensor, laid_out: Features,
        counted: bool,
    ) -> Tensor:  # fmt: skip
        scale, bias = logit_scale.to(rows.dtype).exp(), logit_bias.to(rows.dtype)
        to_rows, to_columns = torch.zeros_like(rows), torch.zeros_like(columns)
        total, to_bias = rows.new_zeros(()), rows.new_zeros(())
        for strip in laid_out.strips():
            logits = torch.addmm(bias, scale * rows[strip.rows], columns[: strip.width].T)
            matching = laid_out.matching(strip)
            if matching is not None and not counted:
                logits.masked_fill_(matching, -torch.inf)  # the loss of a negative that is none: 0
            if strip.own is not None:
                total -= strip.diagonal(logits).sum()
            if matching is not None and counted:
                total -= (logits * matching).sum()
            total -= logsigmoid(-logits).sum()
            gradient = logits.sigmoid_()
            if strip.own is not None:
                strip.diagonal(gradient).sub_(1)
            if matching is not None and counted:
                gradient -= matching.to(gradient.dtype)
            to_bias += gradient.sum()
            torch.mm(gradient, columns[: strip.width], out=to_rows[strip.rows])
            to_columns[: strip.width].addmm_(gradient.T, rows[strip.rows])
        weight = 1 / laid_out.texts
        for each in (to_rows, to_columns):
            each.mul_(scale * weight)
        to_scale = (rows * to_rows).sum()
        ctx.save_for_backward(
            to_rows,
            to_columns,
            to_scale.to(logit_scale.dtype).reshape(logit_scale.shape),
            (to_bias * weight).to(logit_bias.dtype).reshape(logit_bias.shape),
        )
        return total * weight

    @staticmethod
    def backward(ctx: Any, upstream: Tensor) -> tuple[Tensor | None, ...]:
        return (*(upstream * each for each in ctx.saved_tensors), None, None)
