"""Settings that go together, for a size of data: each is a start, and what is given otherwise wins over it.

`small` is for up to some ten thousand pairs and a pretrained model: the image tower is locked, so that each picture is
embedded once, at the rates of NegCLIP and CLIP-RSICD. `medium` is for more of them: both towers train, at the rates of FLYP
and CLIP-RSICD. `scratch` begins with random weights at open_clip's rates.
"""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from typing import Any

from clipcond.errors import ConfigError

PRESETS: Mapping[str, Mapping[str, Any]] = {
    "small": {
        "batch_size": 128, "epochs": 10.0, "learning_rate": 5e-6, "weight_decay": 0.1, "lock_image": True, "retention": 3.0,
    },
    "medium": {
        "batch_size": 512, "epochs": 5.0, "learning_rate": 1e-5, "weight_decay": 0.1, "random_crop": 0.9, "retention": 3.0,
    },
    "scratch": {
        "batch_size": 1024, "epochs": 32.0, "learning_rate": 5e-4, "weight_decay": 0.2, "random_crop": 0.9, "init": "random",
    },
}  # fmt: skip
_LENGTHS = ("steps", "epochs")


def preset(name: str, *, target: str | None = None) -> dict[str, Any]:
    """Return the settings of a preset, to be given to a TrainConfig.

    target: of the run, without which there is nothing to retain. Raises ConfigError for a name that does not exist.
    """
    if name not in PRESETS:
        near = difflib.get_close_matches(name.lower(), PRESETS, n=1)
        hint = f"; did you mean {near[0]}?" if near else ""
        raise ConfigError(f"preset is {name!r}, expected {', '.join(PRESETS)}{hint}")
    return {key: value for key, value in PRESETS[name].items() if key != "retention" or target is not None}


def with_preset(given: Mapping[str, Any]) -> dict[str, Any]:
    """Return settings in which a `preset` is written out; what is given beside it wins. Raises ConfigError."""
    settings = dict(given)
    name = settings.pop("preset", None)
    if name is None:
        return settings
    target = settings.get("target")
    chosen = preset(str(name), target=None if target is None else str(target))
    if any(settings.get(length) is not None for length in _LENGTHS):
        chosen = {key: value for key, value in chosen.items() if key not in _LENGTHS}
    return {**chosen, **{key: value for key, value in settings.items() if value is not None or key not in chosen}}


def fitting_batch(batch_size: int, images: int) -> int:
    """Return a preset's batch, or the largest power of two that so many images can fill; 2 at least."""
    while batch_size > max(2, images):
        batch_size = 1 << (batch_size - 1).bit_length() - 1
    return batch_size


def preset_line(given: Mapping[str, Any], used: Mapping[str, Any]) -> str:
    """Say in one line what a preset sets and what was given otherwise.

    given: the settings with their `preset`.   used: those of the run.
    """
    name, target = str(given["preset"]), given.get("target")
    chosen = preset(name, target=None if target is None else str(target))
    own = [key for key in chosen if given.get(key) is None and used.get(key) is not None]
    other = [key for key in chosen if key not in own]
    told = ", ".join(f"{key} {_shown(used[key])}" for key in own)
    retention = "" if "retention" in chosen else "; without a target nothing is retained"
    return (
        f"preset {name}: {told}"
        + (f"; given otherwise: {', '.join(other)}" if other else "")
        + (retention if "retention" in PRESETS[name] and given.get("retention") is None else "")
    )


def _shown(value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    return f"{value:g}" if isinstance(value, float) else str(value)
