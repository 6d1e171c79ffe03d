"""A model to train: both towers as one open_clip module, its config, and how it wants its pictures."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from clipcond.errors import ModelError
from clipcond.images.preprocess import Preprocess
from clipcond.models.load import DEFAULT_PREPROCESS, load_dual, load_open_clip_folder
from clipcond.models.open_clip_folder import CONFIG, read_config, read_open_clip_folder
from clipcond.resources import embedded
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
    """Load what a spec names: `mini`, an open_clip folder, a training run, `NAME/PRETRAINED` or `NAME@CHECKPOINT`.

    random_weights: initialise instead, from torch's global generator; then a bare `NAME` and a folder that holds only
    the config will do. Raises ModelError, ResourceMissing.
    """
    folder = _folder(spec)
    if folder is not None:
        config = read_config(folder)
        model = read_open_clip_folder(folder, random_weights=True) if random_weights else load_open_clip_folder(folder)
        preprocess = {**DEFAULT_PREPROCESS, "size": model.visual.image_size, **(config.get("preprocess_cfg") or {})}
    elif spec.startswith("hf:") or Path(spec).is_dir():
        raise ModelError(f"cannot train {spec!r}: it is no open_clip model; expected a folder with {CONFIG}, or a NAME")
    else:
        model, config = _named(spec, random_weights)
        preprocess = config["preprocess_cfg"]
    model = model.float().requires_grad_(True)
    return Trainable(model=model, config=config, preprocess=Preprocess.from_open_clip(preprocess))


def _folder(spec: str) -> Path | None:
    if spec == "mini":
        return embedded("clip")
    places = (Path(spec), Path(spec) / "model")
    return next((place for place in places if (place / CONFIG).is_file()), None)


def _named(spec: str, random_weights: bool) -> tuple[Any, dict[str, Any]]:
    """An architecture that open_clip knows by name, with its weights or random ones."""
    name = re.split("[/@]", spec, maxsplit=1)[0]
    repair()
    import open_clip

    if random_weights:
        if name not in open_clip.list_models():
            raise ModelError(f"cannot train {spec!r}: no such folder, and open_clip knows no architecture {name!r}")
        model = open_clip.create_model(name)
    else:
        model = load_dual(spec).image.model
    described = dict(open_clip.get_model_config(name) or {})
    if any(type(module).__name__ == "QuickGELU" for module in model.modules()):
        described["quick_gelu"] = True  # comes with the weights, not with the architecture
    preprocess = {key: value for key, value in dict(model.visual.preprocess_cfg).items() if value is not None}
    return model, {"model_cfg": described, "preprocess_cfg": preprocess}
