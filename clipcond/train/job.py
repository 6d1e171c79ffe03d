"""A training job: the model, what of it trains, on which pairs and for how many steps."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from clipcond.encode.image import Normalisation
from clipcond.encode.text import TextTower
from clipcond.errors import ConfigError, ModelError
from clipcond.images.preprocess import Preprocess
from clipcond.models.open_clip_folder import pipeline_layers
from clipcond.models.trainable import Trainable
from clipcond.prompt.tokenizer import CONTEXT
from clipcond.runtime.devices import device_of
from clipcond.train.augment import Augmentation, AugmentedPixels
from clipcond.train.average import Average
from clipcond.train.batches import Batches
from clipcond.train.brief_check import brief_check
from clipcond.train.config import TrainConfig
from clipcond.train.contrastive import Contrastive, Distillation
from clipcond.train.data import Pairs, read_pairs, split
from clipcond.train.denoising import Denoiser, Denoising, predicts_of
from clipcond.train.hard_negatives import HardNegatives
from clipcond.train.held_out import HeldOut
from clipcond.train.lora import Adapter
from clipcond.train.loss_scaling import LossScaling, check_precision
from clipcond.train.model import image_features
from clipcond.train.objective import Objective, Term, Towers
from clipcond.train.optimizer import Optimizer
from clipcond.train.parts import Place
from clipcond.train.pixels import Pixels, preflight
from clipcond.train.ranks import ALONE, Ranks
from clipcond.train.retention import Retention
from clipcond.train.risks import risks
from clipcond.train.run_folder import refuse_unfinished
from clipcond.train.schedule import lengths
from clipcond.train.second_captions import for_encoder, second_captions_notes
from clipcond.train.shards import divided_like, whole
from clipcond.train.start import load_towers, target_reader
from clipcond.train.stored import Store, Stored
from clipcond.train.teacher import TeacherEmbeddings


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Job:
    """All that a run works with. The weights and the optimizer's moments change in place, and nothing else does.

    steps, warmup: of the whole run. retention: of general prompts, where the run names a target. stores: to be filled
    before the first step. measure: retrieval on the held-out pairs with the model as it stands, if there are any.
    notes: what the user should know before it trains. adapter: all that trains, in a run of one. scaling: of the loss, in
    float16.
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
    adapter: Adapter | None = None
    scaling: LossScaling | None = None
    fingerprints: dict[str, str] = field(default_factory=dict)

    @property
    def model(self) -> Any:
        """The open_clip `CLIP`, float32."""
        return self.trainable.model

    def state_dict(self) -> dict[str, Tensor]:
        """Return the weights that a checkpoint keeps, whole: all, or an adapter's and the temperature.

        All processes of a run with `fsdp` call this, and the first one gets them.
        """
        state: dict[str, Tensor] = self.model.state_dict() if self.adapter is None else self.adapter.state_dict()
        return whole(state, keep=self.ranks.first) if self.config.fsdp else state

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        """Take over the weights of a checkpoint. Raises ValueError, KeyError or RuntimeError where they do not fit."""
        if self.adapter is not None:
            self.adapter.load_state_dict(state)
            return
        own: dict[str, Tensor] = self.model.state_dict()
        self.model.load_state_dict({name: divided_like(value, own.get(name, value)) for name, value in state.items()})

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
    check_precision(config.precision, device)
    refuse_unfinished(config.model)
    train_pairs, held_out = _read(config)

    start = load_towers(config, device, ranks.count)
    trainable, retention = start.trainable, start.retention
    content = len(trainable.model.positional_embedding) - 2
    if ranks.count > 1:
        torch.manual_seed(config.seed + 1_000_003 * (1 + ranks.rank))
    optimizer = Optimizer(trainable.model, config)
    trains = [parameter for parameter in trainable.model.parameters() if parameter.requires_grad]
    scaling = LossScaling(trains, device) if config.precision == "fp16" else None
    normalise = Normalisation(trainable.preprocess)

    train_pairs = preflight(train_pairs, trainable.preprocess, max_bad_rows=config.max_bad_rows)
    fingerprints = {"data": train_pairs.fingerprint(), "pictures": train_pairs.pictures_fingerprint()}
    place = Place(folder=Path(config.out) / "stored", fingerprints=fingerprints, writes=ranks.first)
    features = _features(config, trainable, normalise, train_pairs, device, place)
    decodes = _compares(config) and not features
    pixels = _pixels(config, train_pairs, trainable.preprocess) if decodes else None
    batches = Batches(
        train_pairs, pixels, batch_size=config.batch_size, seed=config.seed, captions=config.captions,
        hard_negatives=_hard_negatives(config, train_pairs, trainable.preprocess), ranks=ranks, content=content,
    )  # fmt: skip
    steps, warmup = lengths(config, batches.per_epoch)
    towers = Towers(
        model=trainable.model, normalise=normalise, device=device, precision=config.precision, stored=features
    )
    denoising = _denoising(config, trainable, train_pairs, denoiser, place)
    teacher = None
    if config.teacher:
        teacher = TeacherEmbeddings(config.teacher, train_pairs, place, out=Path(config.out), device=str(device))
    measure = None
    if held_out is not None:
        held_out = preflight(held_out, trainable.preprocess, max_bad_rows=config.max_bad_rows)
        measure = HeldOut(trainable, held_out, normalise, device, config.cache_gib)
    return Job(
        config=config, device=device, trainable=trainable, optimizer=optimizer,
        average=None if config.ema is None else Average(trainable.model, config.ema), pairs=train_pairs, batches=batches,
        objective=Objective(
            _terms(config, retention, denoising, teacher, ranks), towers, config.grad_cache, ranks,
            scaled=scaling.scaled if scaling else None,
        ),
        ranks=ranks, retention=retention,
        stores=[each for each in (features, denoising.latents if denoising else None, teacher) if each is not None],
        steps=steps, warmup=warmup, measure=measure,
        notes=_notes(train_pairs, config) + _risks(config, trainable) + start.notes
        + (_left_out(held_out) if held_out and config.val_data else ())
        + brief_check(config, train_pairs, held_out, TextTower.from_open_clip(trainable.model), content),
        adapter=start.adapter, scaling=scaling,
        fingerprints=fingerprints | ({"base": start.adapter.base} if start.adapter else {}),
    )  # fmt: skip


def _read(config: TrainConfig) -> tuple[Pairs, Pairs | None]:
    pairs = for_encoder(config.target, read_pairs(config.data, max_bad_rows=config.max_bad_rows))
    if config.val_data:
        return pairs, for_encoder(config.target, read_pairs(config.val_data, max_bad_rows=config.max_bad_rows))
    return split(pairs, config.val_count, config.seed) if config.val_count else (pairs, None)


def _risks(config: TrainConfig, trainable: Trainable) -> tuple[str, ...]:
    return risks(config, len(trainable.model.transformer.resblocks), pipeline_layers(trainable.config))


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
    if (positions := len(trainable.model.positional_embedding)) > CONTEXT:
        raise ModelError(
            f"{config.pipeline} reads {CONTEXT} positions, the text tower has {positions}; leave one of them out"
        )
    width = trainable.model.token_embedding.embedding_dim
    if width != denoiser.width:
        raise ModelError(f"{config.pipeline} reads states of width {denoiser.width}, {config.model} gives {width}")
    latents = Stored(
        pairs, denoiser.preprocess, denoiser.latents, what="latents", most_gib=config.cache_gib, place=place
    )
    reader = target_reader(config, trainable, denoiser.target)
    return Denoising(predicts_of(denoiser, pairs), reader, latents, batch=config.denoise_batch, seed=config.seed)


def _pixels(config: TrainConfig, pairs: Pairs, preprocess: Preprocess) -> Pixels | AugmentedPixels:
    """Return the pictures of the steps: kept as they are, or augmented anew each time."""
    augmentation = Augmentation(
        crop=config.random_crop, jitter=config.colour_jitter, turn=config.random_turn, grey=config.random_grey
    )
    if not augmentation:
        return Pixels(pairs, preprocess, config.cache_gib)
    return AugmentedPixels(pairs, preprocess, augmentation, seed=config.seed)


def _hard_negatives(config: TrainConfig, pairs: Pairs, preprocess: Preprocess) -> HardNegatives | None:
    """Return the hard negatives that the data name, None where the contrastive loss is left out or there are none."""
    if not config.contrastive or not any(each.negatives or each.negative_images for each in pairs.relations):
        return None
    if config.fsdp:
        raise ConfigError(
            f"{pairs.source} brings hard negatives, of which each process would have another number, and fsdp needs all "
            "processes to compute alike; leave the columns out, or fsdp"
        )
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
    notes += second_captions_notes(pairs, config)
    if config.grad_cache is not None and config.grad_cache >= config.batch_size:
        notes.append(f"grad_cache is {config.grad_cache}, batch_size {config.batch_size}: batches are encoded whole")
    return (*_left_out(pairs), *pairs.notes, *notes)


def _left_out(pairs: Pairs) -> tuple[str, ...]:
    if not pairs.left_out:
        return ()
    rows = f"{len(pairs.left_out)} rows are" if len(pairs.left_out) > 1 else "1 row is"
    return (f"{rows} left out of {pairs.source}: {pairs.left_out[0]}" + (", …" if len(pairs.left_out) > 1 else ""),)
