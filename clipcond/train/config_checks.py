"""The values that the settings of a training run may have, alone and together."""

from __future__ import annotations

import math
from typing import Any

from clipcond.errors import ConfigError
from clipcond.train.retention_weights import parse_weights

FREEZABLE = ("text", "image", "temperature")
LORA_TARGETS = ("attn", "mlp")
CONTEXT_LENGTHS = (134, 191, 248)  # of the 77 positions the first 20, and the other 57 two, three or four times
PRECISIONS = ("float32", "bf16", "fp16")
INITS = ("weights", "random")
CAPTIONS = ("random", "first")
LOSSES = ("infonce", "siglip")
DASHBOARDS = ("tensorboard", "wandb")
POSITIVES = ("mask", "count")
TARGET_NAMES = ("sd15", "sd2", "sdxl-l", "sdxl-g", "sd3-l", "sd3-g", "flux")
_ABOVE_ZERO = (
    "steps", "epochs", "learning_rate", "grad_clip", "threads", "log_every", "eval_every", "save_every", "keep",
    "retention_batch", "denoise_batch", "unseen_rate", "train_blocks", "layer_decay", "max_drift", "chunk_size", "grad_cache",
    "patience", "teacher_weight", "lora_rank", "lora_alpha",
)  # fmt: skip
_NOT_BELOW_ZERO = (
    "val_count", "max_bad_rows", "weight_decay", "warmup", "cache_gib", "contrastive", "retention", "denoise_weight",
)  # fmt: skip
_AUGMENTS = ("colour_jitter", "random_turn", "random_grey")


def check_settings(config: Any) -> None:
    """Raise ConfigError for the first setting of a TrainConfig that makes no sense, alone or beside another."""
    _check_choices(config)
    _check_numbers(config)
    _check_losses(config)
    _check_towers(config)
    _check_adapter(config)
    _check_shares(config)
    if config.steps is not None and config.epochs is not None:
        raise ConfigError(f"steps is {config.steps} and epochs is {config.epochs}; give one of the two")
    if config.measures_best and not (config.val_data or config.val_count):
        raise ConfigError("keep_best and patience go by the held-out pairs; name some with val_data or val_count")
    if config.val_data and config.val_count:
        raise ConfigError("val_data and val_count are both given; give one of the two")


def _check_choices(config: Any) -> None:
    for name, choices in (
        ("precision", PRECISIONS), ("init", INITS), ("captions", CAPTIONS), ("loss", LOSSES), ("positives", POSITIVES),
    ):  # fmt: skip
        if getattr(config, name) not in choices:
            raise ConfigError(f"{name} is {getattr(config, name)!r}, expected {' or '.join(map(repr, choices))}")
    for part in config.freeze:
        if part not in FREEZABLE:
            raise ConfigError(f"freeze holds {part!r}, expected {' or '.join(map(repr, FREEZABLE))}")
    for name in config.log_to:
        if name not in DASHBOARDS:
            raise ConfigError(f"log_to holds {name!r}, expected {' or '.join(map(repr, DASHBOARDS))}")
    if config.target is not None and config.target not in TARGET_NAMES:
        raise ConfigError(f"target is {config.target!r}, expected one of {', '.join(TARGET_NAMES)}")


def _check_numbers(config: Any) -> None:
    for name, number in config.to_dict().items():
        if isinstance(number, float) and not math.isfinite(number):
            raise ConfigError(f"{name} is {number}, expected a finite number")
    for name in _ABOVE_ZERO:
        value = getattr(config, name)
        if value is not None and value <= 0:
            raise ConfigError(f"{name} is {value}, expected a number above 0")
    for name in _NOT_BELOW_ZERO:
        value = getattr(config, name)
        if value is not None and value < 0:
            raise ConfigError(f"{name} is {value}, expected 0 or more")
    if config.batch_size < 2:
        raise ConfigError(
            f"batch_size is {config.batch_size}, expected 2 or more: the loss compares pairs with one another"
        )
    if len(config.betas) != 2 or not all(isinstance(beta, (int, float)) and 0 <= beta < 1 for beta in config.betas):
        raise ConfigError(f"betas is {config.betas}, expected two numbers from 0 up to 1")


def _check_losses(config: Any) -> None:
    if not 0 < config.random_crop <= 1:
        raise ConfigError(f"random_crop is {config.random_crop:g}, expected a share above 0, up to 1 for none")
    if config.colour_jitter < 0:
        raise ConfigError(f"colour_jitter is {config.colour_jitter:g}, expected 0 or more")
    if not 0 <= config.random_turn <= 180:
        raise ConfigError(f"random_turn is {config.random_turn:g}, expected degrees from 0 to 180")
    if not 0 <= config.random_grey <= 1:
        raise ConfigError(f"random_grey is {config.random_grey:g}, expected a share from 0 to 1")
    if "image" in config.frozen and (config.random_crop < 1 or any(getattr(config, name) for name in _AUGMENTS)):
        raise ConfigError(
            "random_crop, colour_jitter, random_turn and random_grey need an image tower that trains: a frozen one embeds "
            "every picture once; leave them out, or freeze and lock_image"
        )
    if not 0 <= config.label_smoothing < 1:
        raise ConfigError(f"label_smoothing is {config.label_smoothing}, expected 0 or more and less than 1")
    if config.label_smoothing and config.loss == "siglip":
        raise ConfigError(
            "label_smoothing is of infonce, a softmax; loss is 'siglip', which has none: leave one of them"
        )
    parse_weights(config.retention_weights)
    if config.denoise_weight and not config.pipeline:
        raise ConfigError(
            f"denoise_weight is {config.denoise_weight:g}, but no pipeline is named, whose denoiser it weighs"
        )
    if config.pipeline and not config.denoise_weight:
        raise ConfigError(
            f"pipeline is {config.pipeline!r}, but denoise_weight is 0: its denoiser would not count; give both"
        )
    if config.target is None and (config.retention or config.retention_prompts):
        raise ConfigError(f"retention needs to know what is read; name a target: {', '.join(TARGET_NAMES)}")


def _check_towers(config: Any) -> None:
    if config.ema is not None and not 0 <= config.ema < 1:
        raise ConfigError(f"ema is {config.ema:g}, expected a share from 0 up to 1, such as 0.999")
    if config.layer_decay > 1:
        raise ConfigError(f"layer_decay is {config.layer_decay:g}, expected a factor above 0 and up to 1")
    if config.alpha is not None:
        _check_alpha(config)
    if config.context_length not in (None, *CONTEXT_LENGTHS):
        raise ConfigError(
            f"context_length is {config.context_length}, expected {', '.join(map(str, CONTEXT_LENGTHS))}: the first 20 of 77 "
            "positions, and the others two, three or four times"
        )
    if config.train_blocks is not None and "text" in config.freeze:
        raise ConfigError(f"train_blocks is {config.train_blocks}, but freeze holds text; give one of the two")


def _check_adapter(config: Any) -> None:
    """Refuse settings of an adapter without one, and those beside it that speak of weights which it leaves alone."""
    if config.lora_rank is None:
        for name, given in (
            ("lora_alpha", config.lora_alpha is not None),
            ("lora_targets", config.lora_targets != LORA_TARGETS),
        ):
            if given:
                raise ConfigError(f"{name} is given, but no lora_rank, which asks for an adapter; give both")
        return
    if not config.lora_targets or not set(config.lora_targets) <= set(LORA_TARGETS):
        raise ConfigError(f"lora_targets is {','.join(config.lora_targets)!r}, expected attn, mlp or attn,mlp")
    for name, given, why in (
        ("freeze", "text" in config.freeze, "holds text, which the adapter is to change"),
        ("unseen_rate", config.unseen_rate is not None, "trains token rows, which no adapter holds"),
        ("context_length", config.context_length is not None, "stretches positions, which no adapter holds"),
        ("init", config.init == "random", "is random, and an adapter changes weights that are there"),
    ):
        if given:
            raise ConfigError(f"lora_rank is {config.lora_rank}, and {name} {why}; leave one out")


def _check_shares(config: Any) -> None:
    """Refuse beside `fsdp` what would need the weights whole in every process."""
    for name, given, why in (
        ("lora_rank", config.lora_rank is not None, "is small enough to be whole everywhere"),
        ("ema", config.ema is not None, "averages whole weights"),
        ("alpha", config.alpha is not None, "mixes whole weights"),
        ("compile", config.compile, "compiles whole blocks"),
        (
            "precision",
            config.precision == "fp16",
            "is fp16, and overflows of a share are not told to the others; use bf16",
        ),
    ):
        if config.fsdp and given:
            raise ConfigError(f"fsdp divides the weights, and {name} {why}; leave one out")


def _check_alpha(config: Any) -> None:
    if config.init == "random":
        raise ConfigError("alpha mixes in the weights from before, and init is 'random', which has none; leave one out")
    if config.alpha == "auto":
        if config.target is None or not (config.val_data or config.val_count):
            raise ConfigError(
                "alpha is 'auto', which needs held-out pairs (val_data or val_count) and a target to measure on"
            )
        return
    try:
        good = 0 <= float(config.alpha) <= 1
    except ValueError:
        good = False
    if not good:
        raise ConfigError(f"alpha is {config.alpha!r}, expected 'auto' or a number from 0 to 1")
