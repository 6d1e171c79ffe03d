"""A model to train: both towers as one open_clip module, its config, and how it wants its pictures."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from clipcond.errors import ModelError
from clipcond.images.preprocess import Preprocess
from clipcond.models.checks import check_finite_weights, one_line_errors
from clipcond.models.folder_models import folder_named
from clipcond.models.load import load_dual, load_open_clip_folder
from clipcond.models.open_clip_folder import (
    CONFIG,
    preprocess_of_folder,
    read_config,
    read_open_clip_folder,
)
from clipcond.models.open_clip_named import preprocess_of
from clipcond.models.open_clip_text import check_reads_clip_tokens
from clipcond.models.spec import ModelSpec, parse_spec
from clipcond.runtime.quiet import quiet_logs
from clipcond.runtime.torchvision_repair import repair


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class Trainable:
    """An open_clip `CLIP` on the CPU in float32, every weight ready to train.

    config: what `open_clip_config.json` of the trained model says, so that the folder builds the same model again.
    """

    model: Any
    config: dict[str, Any]
    preprocess: Preprocess


def load_trainable(spec: str, *, random_weights: bool = False) -> Trainable:
    """Load what a spec names: `mini`, `emoji`, an open_clip folder, a training run, `NAME/PRETRAINED` or `NAME@CHECKPOINT`.

    random_weights: initialise instead, from torch's global generator; then a bare `NAME` and a folder that holds only
    the config will do. Raises ModelError, ResourceMissing.
    """
    with one_line_errors(spec):
        named = parse_spec(spec)
        folder = folder_named(named.base)
        if folder is not None:
            model, config, preprocess = _from_folder(folder, named, random_weights)
        elif named.base.startswith("hf:") or Path(named.base).is_dir():
            raise ModelError(
                f"cannot train {spec!r}: it is no open_clip model; expected a folder with {CONFIG}, or a NAME"
            )
        else:
            model, config = _named(spec, named, random_weights)
            preprocess = config["preprocess_cfg"]
        if not random_weights:
            check_finite_weights(spec, model)
        model = model.float().requires_grad_(True)
        return Trainable(model=model, config=config, preprocess=Preprocess.from_open_clip(preprocess))


def _from_folder(folder: Path, named: ModelSpec, random_weights: bool) -> tuple[Any, dict[str, Any], dict[str, Any]]:
    """The model of a folder, its config and its preprocessing, with the spec's overrides in both."""
    config, quick = read_config(folder), named.overrides.quick_gelu
    check_reads_clip_tokens(str(folder), config["model_cfg"])
    if random_weights:
        model = read_open_clip_folder(folder, random_weights=True, quick_gelu=quick)
    else:
        model = load_open_clip_folder(folder, quick_gelu=quick)
    preprocess, _ = preprocess_of_folder(folder, config, model, named.overrides.size)
    if quick is not None:
        config["model_cfg"]["quick_gelu"] = quick
    if named.overrides.preprocess:
        config["preprocess_cfg"] = {**(config.get("preprocess_cfg") or {}), **named.overrides.preprocess}
    return model, config, {**preprocess, **named.overrides.preprocess}


def _named(spec: str, named: ModelSpec, random_weights: bool) -> tuple[Any, dict[str, Any]]:
    """An architecture that open_clip knows by name, with its weights or random ones."""
    name = re.split("[/@]", named.base, maxsplit=1)[0]
    repair()
    import open_clip

    if random_weights and name not in open_clip.list_models():
        raise ModelError(f"cannot train {spec!r}: no such folder, and open_clip knows no architecture {name!r}")
    if name in open_clip.list_models():
        check_reads_clip_tokens(spec, open_clip.get_model_config(name) or {})
    if random_weights:
        quick = {} if named.overrides.quick_gelu is None else {"quick_gelu": named.overrides.quick_gelu}
        with quiet_logs():
            model = open_clip.create_model(name, load_weights=False, force_image_size=named.overrides.size, **quick)
    else:
        model = load_dual(spec).image.model
    described = dict(open_clip.get_model_config(name) or {})
    # comes with the weights or the spec, not with the architecture
    described["quick_gelu"] = any(type(module).__name__ == "QuickGELU" for module in model.modules())
    if named.overrides.size is not None:
        described["vision_cfg"] = {**described["vision_cfg"], "image_size": named.overrides.size}
    preprocess = {key: value for key, value in preprocess_of(model, named).items() if value is not None}
    return model, {"model_cfg": described, "preprocess_cfg": preprocess}
