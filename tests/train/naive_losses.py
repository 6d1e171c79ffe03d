"""The losses as their formulas stand, over the whole matrix in float64, with autograd's gradients."""

from __future__ import annotations

import torch
from torch import Tensor


def whole_matrix(images, texts, extra_images=None, extra_texts=None):
    rows = images if extra_images is None else torch.cat([images, extra_images])
    columns = texts if extra_texts is None else torch.cat([texts, extra_texts])
    return rows @ columns.T


def belonging(matches, shape, pairs):
    """(R, C) bool: which rows and columns belong together beside the pairs."""
    found = torch.zeros(shape, dtype=torch.bool)
    if matches is not None:
        for i in range(shape[0]):
            for j in range(shape[1]):
                found[i, j] = bool((matches.images[i] == matches.texts[j]).any())
    found[range(pairs), range(pairs)] = False
    return found


def cross_entropy(logits: Tensor, own: int, same: Tensor, counted: bool, smoothing: float) -> Tensor:
    """Of one query: its logits, its own candidate, and which others belong to it."""
    positives = {own} | ({int(n) for n in same.nonzero()} if counted else set())
    candidates = [n for n in range(len(logits)) if counted or not same[n]]
    total = torch.log(sum(torch.exp(logits[n]) for n in candidates))
    loss = torch.zeros((), dtype=logits.dtype)
    for n in candidates:
        share = smoothing / len(candidates) + ((1 - smoothing) / len(positives) if n in positives else 0.0)
        loss = loss - share * (logits[n] - total)
    return loss


def info_nce(
    images, texts, logit_scale, extra_images=None, extra_texts=None, matches=None, positives="mask", label_smoothing=0.0
):
    logits = logit_scale.exp() * whole_matrix(images, texts, extra_images, extra_texts)
    pairs = len(images)
    same = belonging(matches, logits.shape, pairs)
    total = torch.zeros((), dtype=logits.dtype)
    for n in range(pairs):
        total = total + cross_entropy(logits[n], n, same[n], positives == "count", label_smoothing)
        asked, known = logits[:, n], same[:, n]
        total = total + cross_entropy(asked, n, known, positives == "count", label_smoothing)
    return total / (2 * pairs)


def siglip(images, texts, logit_scale, logit_bias, extra_images=None, extra_texts=None, matches=None, positives="mask"):
    logits = logit_scale.exp() * whole_matrix(images, texts, extra_images, extra_texts) + logit_bias
    pairs = len(images)
    same = belonging(matches, logits.shape, pairs)
    total = torch.zeros((), dtype=logits.dtype)
    for i in range(len(logits)):
        for j in range(logits.shape[1]):
            if (i >= pairs and j >= pairs) or (same[i, j] and positives == "mask"):
                continue
            sign = 1.0 if i == j or same[i, j] else -1.0
            total = total - torch.log(torch.sigmoid(sign * logits[i, j]))
    return total / pairs


def distillation(images, texts, logit_scale, teachers):
    logits = logit_scale.exp() * images @ texts.T
    total = torch.zeros((), dtype=logits.dtype)
    for dim in (0, 1):
        wanted = sum(torch.softmax(t.scale * t.images @ t.texts.T, dim) for t in teachers) / len(teachers)
        total = total + (wanted * (torch.log(wanted) - torch.log_softmax(logits, dim))).sum()
    return total / (2 * len(images))
