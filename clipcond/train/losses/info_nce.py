"""Symmetric InfoNCE by an online softmax, strip by strip."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor

from clipcond.train.losses.matches import Matches
from clipcond.train.losses.strips import Features, Strip, features_of
from clipcond.train.ranks import ALONE, Ranks


def info_nce(
    images: Tensor, texts: Tensor, logit_scale: Tensor, *,
    extra_images: Tensor | None = None, extra_texts: Tensor | None = None,
    matches: Matches | None = None, positives: str = "mask", label_smoothing: float = 0.0,
    chunk_size: int | None = None, ranks: Ranks = ALONE,
) -> Tensor:  # fmt: skip
    """Every image must find its text among all texts, and every text its image: half of both mean cross entropies.

    images, texts: (b, P) unit rows of matching pairs, any float dtype.   logit_scale: scalar, log of 1/temperature.
    extra_texts, extra_images: (E, P) and (F, P) hard negatives, which are candidates only (the NegCLIP form).
    matches: ids of what belongs together beside the pairs. positives: with `mask` such candidates count for nothing;
    with `count` the target is spread evenly over all that belong together.
    label_smoothing: the share of the target that goes evenly to all candidates that count.
    chunk_size: rows of a strip; memory beside the features and their gradients is a few strips, and the result is the
    same for any. ranks: the loss is over the pairs of all ranks; each returns its share, and the shares sum to it.
    Returns a float32 scalar (float64 for float64 input), with exact gradients of all inputs, computed at once.
    """
    laid_out = features_of(
        images, texts, extra_images=extra_images, extra_texts=extra_texts, matches=matches, chunk_size=chunk_size,
        ranks=ranks,
    )  # fmt: skip
    target = _Target(positives == "count", label_smoothing)
    value: Tensor = _InfoNce.apply(laid_out.rows, laid_out.columns, logit_scale, laid_out, target)  # type: ignore[no-untyped-call]
    return value


class _Target(NamedTuple):
    """The distribution that a softmax is held against. counted: all that belong together are positives."""

    counted: bool
    smoothing: float


class _Normalisers(NamedTuple):
    """One pass over the matrix: log Σ exp of own rows and of all columns, and how many positives and
    candidates each column has over all ranks."""

    rows: Tensor
    columns: Tensor
    positives: Tensor
    candidates: Tensor


class _InfoNce(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, rows: Tensor, columns: Tensor, logit_scale: Tensor, laid_out: Features, target: _Target
    ) -> Tensor:
        scale = logit_scale.to(rows.dtype).exp()
        found = _normalisers(laid_out, scale, target)
        own = slice(laid_out.first, laid_out.first + laid_out.pairs)
        total = found.rows.sum() + found.columns[own].sum()
        to_rows, to_columns = torch.zeros_like(rows), torch.zeros_like(columns)
        for strip in laid_out.strips():
            gradient, aimed = _gradient(laid_out, strip, scale, found, target)
            total = total - aimed
            torch.mm(gradient, columns[: strip.width], out=to_rows[strip.rows])
            to_columns[: strip.width].addmm_(gradient.T, rows[strip.rows])
        weight = 0.5 / laid_out.texts
        for each in (to_rows, to_columns):
            each.mul_(scale * weight)
        ctx.save_for_backward(
            to_rows, to_columns, (rows * to_rows).sum().to(logit_scale.dtype).reshape(logit_scale.shape)
        )
        return total * weight

    @staticmethod
    def backward(ctx: Any, upstream: Tensor) -> tuple[Tensor | None, ...]:
        rows, columns, logit_scale = ctx.saved_tensors
        return upstream * rows, upstream * columns, upstream * logit_scale, None, None


def _logits(laid_out: Features, strip: Strip, scale: Tensor, target: _Target) -> tuple[Tensor, Tensor | None]:
    """Return a strip of logits, -∞ at candidates that do not count, and which belong together."""
    logits = (scale * laid_out.rows[strip.rows]) @ laid_out.columns[: strip.width].T
    matching = laid_out.matching(strip)
    if matching is not None and not target.counted:
        logits.masked_fill_(matching, -torch.inf)
    return logits, matching


def _normalisers(laid_out: Features, scale: Tensor, target: _Target) -> _Normalisers:
    """Go through the matrix once; columns are merged strip by strip under their running maximum, then over ranks."""
    of_rows = laid_out.rows.new_empty(laid_out.pairs)
    of_columns = laid_out.rows.new_full((laid_out.texts,), -torch.inf)
    positives, candidates = torch.zeros_like(of_columns), torch.zeros_like(of_columns)
    for strip in laid_out.strips():
        logits, matching = _logits(laid_out, strip, scale, target)
        if strip.own is not None:
            of_rows[strip.rows] = torch.logsumexp(logits, dim=1)
            positives[strip.own : strip.own + len(logits)] += 1
        of_columns = torch.logaddexp(of_columns, torch.logsumexp(logits[:, : laid_out.texts], dim=0))
        candidates += len(logits)
        if matching is not None:
            count = matching[:, : laid_out.texts].sum(dim=0)
            if target.counted:
                positives += count
            else:
                candidates -= count
    ranks = laid_out.ranks
    return _Normalisers(of_rows, ranks.log_sum_exp(of_columns), ranks.sum(positives), ranks.sum(candidates))


def _gradient(
    laid_out: Features, strip: Strip, scale: Tensor, found: _Normalisers, target: _Target
) -> tuple[Tensor, Tensor]:
    """Return softmax less target of a strip, both directions summed, and the sum of target times logit."""
    logits, matching = _logits(laid_out, strip, scale, target)
    both = slice(0, laid_out.texts)
    if target.smoothing or (matching is not None and target.counted):
        aims = _aims(laid_out, strip, matching, found, target)
        aimed = (aims * logits.masked_fill(aims == 0, 0)).sum()
    else:
        aims = None
        aimed = 2 * strip.diagonal(logits).sum() if strip.own is not None else logits.new_zeros(())
    if strip.own is None:
        gradient = logits.sub_(found.columns).exp_()
    else:
        gradient = (logits - found.rows[strip.rows, None]).exp_()
        gradient[:, both] += logits[:, both].sub_(found.columns).exp_()
    if aims is not None:
        gradient -= aims
    elif strip.own is not None:
        strip.diagonal(gradient).sub_(2)
    return gradient, aimed


def _aims(
    laid_out: Features, strip: Strip, matching: Tensor | None, found: _Normalisers, target: _Target
) -> Tensor:  # fmt: skip
    """Return the targets of a strip, both directions summed, in the logits' dtype."""
    shape, dtype = (strip.rows.stop - strip.rows.start, strip.width), laid_out.rows.dtype
    positive = torch.zeros(shape, dtype=dtype, device=laid_out.rows.device)
    candidate = torch.ones_like(positive)
    if matching is not None:
        if target.counted:
            positive += matching
        else:
            candidate -= matching.to(dtype)
    if strip.own is not None:
        strip.diagonal(positive).fill_(1)
    sharp, smooth = 1 - target.smoothing, target.smoothing
    both = slice(0, laid_out.texts)
    aims = torch.zeros_like(positive)
    if strip.own is not None:
        aims += sharp * positive / positive.sum(dim=1, keepdim=True)
        aims += smooth * candidate / candidate.sum(dim=1, keepdim=True)
    aims[:, both] += sharp * positive[:, both] / found.positives + smooth * candidate[:, both] / found.candidates
    return aims
