"""Text encoders of a pipeline by the names of its parts: which target each of them is, and what a run of both needs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from clipcond.errors import ConfigError

FIRST_PART, SECOND_PART, BOTH = "text_encoder", "text_encoder_2", "both"
PAIRS: Mapping[str, tuple[str, str]] = {"sdxl": ("sdxl-l", "sdxl-g"), "sd3": ("sd3-l", "sd3-g")}
TWO_ENCODERS = ("sdxl-l", "sdxl-g")  # targets whose denoiser reads a second encoder beside the one that trains
SECOND = ("sdxl-g", "sd3-g")  # targets that train on the second caption


@dataclass(frozen=True, slots=True, kw_only=True)
class PairSettings:
    """Settings of two runs, one after the other: of the first text encoder and of the second."""

    family: str
    out: str
    first: dict[str, Any]
    second: dict[str, Any]


def resolve_encoder(settings: Mapping[str, Any]) -> dict[str, Any] | PairSettings:
    """Return the settings with `encoder` and `model_2` resolved: one run with a target of its own, or two.

    Raises ConfigError where a family of two encoders does not say which, or one is named of another target.
    """
    given = dict(settings)
    encoder, model_2, target = given.pop("encoder", None), given.pop("model_2", None), str(given.get("target"))
    if encoder is None and target not in PAIRS:
        if model_2 is not None:
            raise ConfigError(f"model_2 is {model_2!r}, which only encoder {BOTH!r} trains")
        return given
    names = (FIRST_PART, SECOND_PART, BOTH)
    if target not in PAIRS:
        raise ConfigError(f"encoder is {encoder!r}, which needs target {' or '.join(PAIRS)}; target is {target!r}")
    if encoder is None:
        raise ConfigError(
            f"target {target!r} has two text encoders; say with --encoder which trains: {', '.join(names)}"
        )
    if encoder not in names:
        raise ConfigError(f"encoder is {encoder!r}, expected {', '.join(names)}")
    if encoder != BOTH:
        if model_2 is not None:
            raise ConfigError(f"model_2 is {model_2!r}, but encoder is {encoder!r}; model is what it trains")
        return {**given, "target": PAIRS[target][names.index(encoder)]}
    return _pair(target, given, model_2)


def one_run(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Return the settings of one run with `encoder` resolved. Raises ConfigError as `resolve_encoder` does, and for two runs."""
    found = resolve_encoder(settings)
    if isinstance(found, PairSettings):
        raise ConfigError(f"encoder is {BOTH!r}, which is two runs; clipcond.workflows.train_pair trains them")
    return found


def first_run(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Return the settings of a run with `encoder` resolved, of two runs those of the first. Raises ConfigError."""
    found = resolve_encoder(settings)
    return found.first if isinstance(found, PairSettings) else found


def _pair(family: str, given: Mapping[str, Any], model_2: Any) -> PairSettings:
    if not model_2:
        raise ConfigError(
            f"encoder is {BOTH!r}, which trains two models: name that of {SECOND_PART} too, as model_2 (--model-2)"
        )
    if family != "sdxl" and given.get("pipeline"):
        raise ConfigError(f"the denoising loss of two encoders is SDXL's; target is {family!r}: leave out pipeline")
    out = str(given.get("out", ""))
    runs = [
        {**given, "target": target, "model": model, "out": str(Path(out, part))}
        for target, model, part in zip(
            PAIRS[family], (given.get("model"), model_2), (FIRST_PART, SECOND_PART), strict=True
        )
    ]
    return PairSettings(family=family, out=out, first=runs[0], second=runs[1])
