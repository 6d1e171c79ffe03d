"""A training job: the model, what of it trains, on which pairs and for how many steps."""

from __future__ import annotations

import math
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from clipcond.encode.image import Normalisation
from clipcond.errors import ConfigError, ModelError
from clipcond.images.preprocess import Preprocess
from clipcond.models.open_clip_folder import pipeline_layers
from clipcond.models.trainable import Trainable, load_trainable
from clipcond.prompt.general import read_prompts
from clipcond.runtime.devices import device_of
from clipcond.train.augment import Augmentation, AugmentedPixels
from clipcond.train.average import Average
from clipcond.train.batches import Batches
from clipcond.train.config import TrainConfig
from clipcond.train.contrastive import Contrastive, Distillation
from clipcond.train.data import Pairs, read_pairs, split
from clipcond.train.denoising import Denoiser, Denoising
from clipcond.train.hard_negatives import HardNegatives
from clipcond.train.held_out import HeldOut
from clipcond.train.model import (
    begin_sigmoid,
    check_model,
    freeze,
    has_batch_norm,
    image_features,
    not_finite,
    train_mode,
    use_plain_attention,
)  # fmt: skip
from clipcond.train.objective import Objective, Term, Towers
from clipcond.train.optimizer import Optimizer
from clipcond.train.parts import Place
from clipcond.train.pixels import Pixels, preflight
from clipcond.train.ranks import ALONE, Ranks
from clipcond.train.retention import Retention, TargetReader
from clipcond.train.retention_weights import parse_weights
from clipcond.train.risks import risks
from clipcond.train.run_folder import refuse_unfinished
from clipcond.train.stored import Store, Stored
from clipcond.train.teacher import TeacherEmbeddings


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Job:
    """All that a run works with. The weights and the optimizer's moments change in place, and nothing else does.

    steps, warmup: of the whole run. retention: of general prompts, where the run names a target. stores: to be filled
    before the first step. measure: retrieval on
    the held-out pairs with the model as it stands, if there are any. notes: what the user should know about the data
    before it trains.
    """

    config: TrainConfig
    device: torch.device
    trainable: Trainable
    optimizer: Optimizer
    average: Average | None
    objective: Objective
    retention: Retention | None
    stores: list[Store]
    pairs: Pairs
    batches: Batches
    steps: int
    warmup: int
    measure: HeldOut | None
    notes: tuple[str, ...]
    ranks: Ranks = ALONE
    fingerprints: dict[str, str] = field(default_factory=dict)

    @property
    def model(self) -> Any:
        """The open_clip `CLIP`, float32."""
        return self.trainable.model

    def averaged(self) -> AbstractContextManager[None]:
        """Return the context in which the model's weights are their averages, where the run keeps any."""
        return nullcontext() if self.average is None else self.average.in_place()


def prepare(config: TrainConfig, denoiser: Denoiser | None = None, ranks: Ranks = ALONE) -> Job:
    """Load the model and the data, and try both. denoiser: for a run with a denoising loss.

    ranks: those that share the batches; each draws other random numbers once the same model is loaded in all.
    Raises ConfigError, DataError and ModelError; writes nothing.
    """
    if config.batch_size % ranks.count:
        raise ConfigError(f"batch_size is {config.batch_size}, expected a multiple of the {ranks.count} processes")
    if config.threads is not None:
        torch.set_num_threads(config.threads)
    torch.manual_seed(config.seed)
    device = device_of(config.device)
    refuse_unfinished(config.model)
    train_pairs, held_out = _read(config)

    trainable = _load(config, device)
    if ranks.count > 1:
        torch.manual_seed(config.seed + 1_000_003 * (1 + ranks.rank))
    optimizer = Optimizer(trainable.model, config)
    normalise = Normalisation(trainable.preprocess)

    train_pairs = preflight(train_pairs, trainable.preprocess, max_bad_rows=config.max_bad_rows)
    fingerprints = {"data": train_pairs.fingerprint(), "pictures": train_pairs.pictures_fingerprint()}
    place = Place(folder=Path(config.out) / "stored", fingerprints=fingerprints, writes=ranks.first)
    features = _features(config, trainable, normalise, train_pairs, device, place)
    decodes = _compares(config) and not features
    pixels = _pixels(config, train_pairs, trainable.preprocess) if decodes else None
    batches = Batches(
        train_pairs, pixels, batch_size=config.batch_size, seed=config.seed, captions=config.captions,
        hard_negatives=_hard_negatives(config, train_pairs, trainable.preprocess), ranks=ranks,
    )  # fmt: skip
    steps, warmup = _lengths(config, batches.per_epoch)
    towers = Towers(
        model=trainable.model, normalise=normalise, device=device, precision=config.precision, stored=features
    )
    retention = _retention(config, trainable)
    denoising = _denoising(config, trainable, train_pairs, denoiser, place)
    teacher = TeacherEmbeddings(config.teacher, train_pairs, place, out=Path(config.out)) if config.teacher else None
    measure = None
    if held_out is not None:
        held_out = preflight(held_out, trainable.preprocess, max_bad_rows=config.max_bad_rows)
        measure = HeldOut(trainable, held_out, normalise, device, config.cache_gib)
    return Job(
        config=config, device=device, trainable=trainable, optimizer=optimizer,
        average=None if config.ema is None else Average(trainable.model, config.ema), pairs=train_pairs, batches=batches,
        objective=Objective(_terms(config, retention, denoising, teacher, ranks), towers, config.grad_cache, ranks),
        ranks=ranks, retention=retention,
        stores=[each for each in (features, denoising.latents if denoising else None, teacher) if each is not None],
        steps=steps, warmup=warmup, measure=measure,
        notes=_notes(train_pairs, config) + _risks(config, trainable)
        + (_left_out(held_out) if held_out and config.val_data else ()),
        fingerprints=fingerprints,
    )  # fmt: skip


def _read(config: TrainConfig) -> tuple[Pairs, Pairs | None]:
    pairs = read_pairs(config.data, max_bad_rows=config.max_bad_rows)
    if config.val_data:
        return pairs, read_pairs(config.val_data, max_bad_rows=config.max_bad_rows)
    return split(pairs, config.val_count, config.seed) if config.val_count else (pairs, None)


def _load(config: TrainConfig, device: torch.device) -> Trainable:
    """Load the model to its device, with its frozen parts out of training."""
    trainable = load_trainable(config.model, random_weights=config.init == "random")
    model = trainable.model
    check_model(model)
    if name := not_finite(model.state_dict()):
        raise ModelError(f"{config.model} holds weights that are not finite ({name}); training would spread them")
    if config.loss == "siglip":
        begin_sigmoid(model, trainable.config)
    if config.grad_cache is not None and has_batch_norm(model.visual) and "image" not in config.frozen:
        raise ConfigError(
            f"grad_cache does not work with {config.model}: its batch normalisation would see parts of a batch; "
            "leave grad_cache out, or freeze the image tower"
        )
    freeze(model, config.frozen, text_blocks=config.train_blocks, but_unseen=config.unseen_rate is not None)
    use_plain_attention(model)
    train_mode(model.to(device))
    return trainable


def _retention(config: TrainConfig, trainable: Trainable) -> Retention | None:
    """Return the retention of the model as it stands, before its first step; None where the run names no target."""
    if config.target is None:
        return None
    weights = parse_weights(config.retention_weights)
    prompts = read_prompts(Path(config.retention_prompts) if config.retention_prompts else None)
    return Retention(
        _reader(config, trainable, config.target), prompts,
        weights=weights, batch=config.retention_batch, seed=config.seed,
    )  # fmt: skip


def _risks(config: TrainConfig, trainable: Trainable) -> tuple[str, ...]:
    return risks(config, len(trainable.model.transformer.resblocks), pipeline_layers(trainable.config))


def _reader(config: TrainConfig, trainable: Trainable, target: str) -> TargetReader:
    """Return the text tower as a target reads it."""
    return TargetReader(trainable.model, target, config.model, pipeline_layers=pipeline_layers(trainable.config))


def _compares(config: TrainConfig) -> bool:
    """True if a loss reads the features of pictures."""
    return bool(config.contrastive or config.teacher)


def _features(
    config: TrainConfig, trainable: Trainable, normalise: Normalisation, pairs: Pairs, device: torch.device, place: Place
) -> Stored | None:  # fmt: skip
    """Return the place of the features of all pictures, where the image tower is locked and the loss compares with them."""
    if "image" not in config.frozen or not _compares(config):
        return None

    def compute(pixels: np.ndarray) -> Tensor:
        return image_features(trainable.model, normalise(pixels, device))

    return Stored(pairs, trainable.preprocess, compute, what="features", most_gib=config.cache_gib, place=place)


def _denoising(
    config: TrainConfig, trainable: Trainable, pairs: Pairs, denoiser: Denoiser | None, place: Place
) -> Denoising | None:
    """Return the denoising loss, None for a run without one. Raises ConfigError, ModelError where it does not fit."""
    if not config.denoise_weight:
        return None
    if denoiser is None:
        raise ConfigError(
            "a denoising loss needs the denoiser itself: pass denoiser=clipcond.diffusion.denoising_loss."
            f"load_denoising_loss({config.pipeline!r}), as the command does"
        )
    if config.target not in (None, denoiser.target):
        raise ConfigError(f"{config.pipeline} is a pipeline of {denoiser.target}, target is {config.target}")
    width = trainable.model.token_embedding.embedding_dim
    if width != denoiser.width:
        raise ModelError(f"{config.pipeline} reads states of width {denoiser.width}, {config.model} gives {width}")
    latents = Stored(
        pairs, denoiser.preprocess, denoiser.latents, what="latents", most_gib=config.cache_gib, place=place
    )
    reader = _reader(config, trainable, denoiser.target)
    return Denoising(denoiser, reader, latents, batch=config.denoise_batch, seed=config.seed)


def _pixels(config: TrainConfig, pairs: Pairs, preprocess: Preprocess) -> Pixels | AugmentedPixels:
    """Return the pictures of the steps: kept as they are, or augmented anew each time."""
    if config.random_crop == 1 and not config.colour_jitter:
        return Pixels(pairs, preprocess, config.cache_gib)
    augmentation = Augmentation(crop=config.random_crop, jitter=config.colour_jitter)
    return AugmentedPixels(pairs, preprocess, augmentation, seed=config.seed)


def _hard_negatives(config: TrainConfig, pairs: Pairs, preprocess: Preprocess) -> HardNegatives | None:
    """Return the hard negatives that the data name, None where the contrastive loss is left out or there are none."""
    if not config.contrastive or not any(each.negatives or each.negative_images for each in pairs.relations):
        return None
    return HardNegatives(pairs, preprocess, cache_gib=config.cache_gib, seed=config.seed)


def _terms(
    config: TrainConfig, retention: Retention | None, denoising: Denoising | None, teacher: TeacherEmbeddings | None,
    ranks: Ranks,
) -> list[tuple[float, Term]]:  # fmt: skip
    """Return the terms that the settings ask for, with their weights."""
    terms: list[tuple[float, Term]] = [(config.contrastive, Contrastive.of(config, ranks))]
    if teacher is not None:
        terms.append((config.teacher_weight, Distillation(teacher=teacher, chunk_size=config.chunk_size, ranks=ranks)))
    if retention is not None:
        terms.append((config.retention, retention))
    if denoising is not None:
        terms.append((config.denoise_weight, denoising))
    if not (found := [(weight, term) for weight, term in terms if weight]):
        raise ConfigError("contrastive is 0 and there is no other loss; nothing would be trained")
    return found


def _lengths(config: TrainConfig, per_epoch: int) -> tuple[int, int]:
    """Return the steps of the whole run and of its warm-up."""
    steps = config.steps or max(1, round((config.epochs or 5) * per_epoch))
    warmup = config.warmup if config.warmup is not None else min(500, math.ceil(steps / 10), steps - 1)
    if warmup >= steps:
        raise ConfigError(f"warmup is {warmup} steps, the whole run {steps}; expected fewer")
    return steps, warmup


def _notes(pairs: Pairs, config: TrainConfig) -> tuple[str, ...]:
    """Say what of the data counts in the losses beside the pairs themselves."""
    notes = []
    meaning = "is no negative" if config.positives == "mask" else "counts as positive"
    if sharing := pairs.sharing_captions():
        notes.append(
            f"{sharing} of {len(pairs)} images share a caption with another; within a batch such a pair {meaning}"
        )
    counts = {
        "name a group": sum(bool(each.groups) for each in pairs.relations),
        "bring hard negative captions": sum(bool(each.negatives) for each in pairs.relations),
        "bring hard negative pictures": sum(bool(each.negative_images) for each in pairs.relations),
    }
    if told := [f"{count} {what}" for what, count in counts.items() if count]:
        groups = f"; within a batch a pair of one group {meaning}" if counts["name a group"] else ""
        notes.append(f"of {len(pairs)} images {', '.join(told)}{groups}")
    if config.grad_cache is not None and config.grad_cache >= config.batch_size:
        notes.append(f"grad_cache is {config.grad_cache}, batch_size {config.batch_size}: batches are encoded whole")
    return (*_left_out(pairs), *pairs.notes, *notes)


def _left_out(pairs: Pairs) -> tuple[str, ...]:
    if not pairs.left_out:
        return ()
    rows = f"{len(pairs.left_out)} rows are" if len(pairs.left_out) > 1 else "1 row is"
    return (f"{rows} left out of {pairs.source}: {pairs.left_out[0]}" + (", …" if len(pairs.left_out) > 1 else ""),)
