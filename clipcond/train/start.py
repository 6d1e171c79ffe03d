"""The towers as a run begins with them: loaded, what does not train frozen, adapters and longer positions in their place."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from clipcond.encode.fingerprint import Fingerprint
from clipcond.errors import ConfigError, ModelError
from clipcond.models.open_clip_folder import pipeline_layers
from clipcond.models.trainable import Trainable, load_trainable
from clipcond.prompt.general import read_prompts
from clipcond.train.blocks import checkpoint_blocks, compile_blocks
from clipcond.train.config import TrainConfig
from clipcond.train.context import hold_first_positions, lengthen
from clipcond.train.lora import Adapter, adapter_of
from clipcond.train.model import (
    begin_sigmoid,
    check_model,
    freeze,
    has_batch_norm,
    lay_out_for_convolutions,
    not_finite,
    train_mode,
    use_plain_attention,
)
from clipcond.train.retention import Retention, TargetReader
from clipcond.train.retention_weights import parse_weights
from clipcond.train.shards import divide_blocks


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Start:
    """A model that is ready to train. retention: of what short prompts gave before anything was changed.

    notes: what of the settings has no effect on it.
    """

    trainable: Trainable
    adapter: Adapter | None
    retention: Retention | None
    notes: tuple[str, ...]


def load_towers(config: TrainConfig, device: torch.device, processes: int = 1) -> Start:
    """Load the model of a run to its device and make of it what the settings ask for. Raises ConfigError, ModelError.

    processes: that share the run, all of which call this.
    """
    trainable, adapter = _load(config, device)
    retention = _retention(config, trainable)  # reads the 77 positions as they were before they are stretched
    lengthen(trainable, config.context_length, config.model)
    hold_first_positions(trainable.model)
    notes = _arrange_blocks(config, trainable.model, device)
    if config.fsdp:
        divide_blocks(trainable.model, device, processes)
    return Start(trainable=trainable, adapter=adapter, retention=retention, notes=notes)


def load_start(config: TrainConfig) -> Trainable:
    """Load the model as a run begins with it, but for its length. Raises ModelError."""
    trainable = load_trainable(config.model, random_weights=config.init == "random")
    check_model(trainable.model)
    if name := not_finite(trainable.model.state_dict()):
        raise ModelError(f"{config.model} holds weights that are not finite ({name}); training would spread them")
    if config.loss == "siglip":
        begin_sigmoid(trainable.model, trainable.config)
    return trainable


def _load(config: TrainConfig, device: torch.device) -> tuple[Trainable, Adapter | None]:
    """Load the model to its device, with its frozen parts out of training and the adapter, if there is one, in its place."""
    trainable = load_start(config)
    model = trainable.model
    if config.grad_cache is not None and has_batch_norm(model.visual) and "image" not in config.frozen:
        raise ConfigError(
            f"grad_cache does not work with {config.model}: its batch normalisation would see parts of a batch; "
            "leave grad_cache out, or freeze the image tower"
        )
    freeze(model, config.frozen, text_blocks=config.train_blocks, but_unseen=config.unseen_rate is not None)
    adapter = adapter_of(config, model, Fingerprint(model)() if config.lora_rank else "")
    use_plain_attention(model)
    lay_out_for_convolutions(model)
    train_mode(model.to(device))
    return trainable, adapter


def _arrange_blocks(config: TrainConfig, model: Any, device: torch.device) -> tuple[str, ...]:
    """Compile the towers' blocks and let them compute again what the backward pass needs, as asked; return a note at most."""
    if config.compile:
        compile_blocks(model, device)
    note = checkpoint_blocks(model) if config.grad_checkpointing else None
    return () if note is None else (note,)


def _retention(config: TrainConfig, trainable: Trainable) -> Retention | None:
    """Return the retention of the model as it stands, before its first step; None where the run names no target."""
    if config.target is None:
        return None
    weights = parse_weights(config.retention_weights)
    prompts = read_prompts(Path(config.retention_prompts) if config.retention_prompts else None)
    return Retention(
        target_reader(config, trainable, config.target), prompts,
        weights=weights, batch=config.retention_batch, seed=config.seed,
    )  # fmt: skip


def target_reader(config: TrainConfig, trainable: Trainable, target: str) -> TargetReader:
    """Return the text tower as a target reads it."""
    return TargetReader(trainable.model, target, config.model, pipeline_layers=pipeline_layers(trainable.config))
