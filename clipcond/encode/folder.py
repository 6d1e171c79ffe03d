"""open_clip folders: `open_clip_config.json` beside `open_clip_model.safetensors`, read and written."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from clipcond.encode.torchvision_repair import repair
from clipcond.errors import ModelError

if TYPE_CHECKING:
    from open_clip import CLIP

CONFIG, WEIGHTS = "open_clip_config.json", "open_clip_model.safetensors"


def read_config(folder: Path) -> dict[str, Any]:
    """The folder's `open_clip_config.json`, which must hold `model_cfg`. Raises ModelError."""
    path = folder / CONFIG
    if not path.is_file():
        raise ModelError(f"{folder} is not an open_clip folder: there is no {CONFIG} in it")
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ModelError(f"{path} is not JSON: {error}") from error
    if not isinstance(config, dict) or "model_cfg" not in config:
        raise ModelError(f'{path} has no "model_cfg"; expected the file that open_clip writes beside its weights')
    return config


def read_open_clip_folder(folder: str | Path, *, random_weights: bool = False) -> CLIP:
    """Build the folder's model on the CPU in float32 and load its weights, which may be stored in any float dtype.

    random_weights: leave the weights as open_clip initialises them (from torch's global generator) and read no file.
    Raises ModelError if the folder is not complete or its weights do not fit its config.
    """
    folder = Path(folder)
    config = read_config(folder)
    repair()
    import open_clip
    from safetensors.torch import load_file

    custom = config["model_cfg"].get("custom_text") or "hf_model_name" in config["model_cfg"].get("text_cfg", {})
    kind = open_clip.CustomTextCLIP if custom else open_clip.CLIP
    arguments = {name: value for name, value in config["model_cfg"].items() if name != "custom_text"}
    try:
        model = kind(**arguments)
    except (TypeError, KeyError) as error:
        raise ModelError(f"{folder / CONFIG} does not describe a model that open_clip can build: {error}") from error
    if random_weights:
        return model
    path = folder / WEIGHTS
    if not path.is_file():
        raise ModelError(f"{folder} holds a config but no {WEIGHTS}; random weights must be asked for by name")
    state = {name: value.float() for name, value in load_file(path).items()}
    try:
        missing, unexpected = model.load_state_dict(state, strict=False)
    except RuntimeError as error:
        raise ModelError(f"{path} does not fit {CONFIG}: {str(error).splitlines()[-1].strip()}") from error
    if missing or unexpected:
        wrong = "lacks " + missing[0] if missing else "has the unknown " + unexpected[0]
        raise ModelError(f"{path} does not fit {CONFIG}: it {wrong} ({len(missing) + len(unexpected)} in all)")
    return model


def write_open_clip_folder(model: CLIP, config: dict[str, Any], folder: str | Path) -> Path:
    """Write the model's weights as they are and its config; both files appear complete or not at all."""
    from safetensors.torch import save_file

    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    weights = {name: value.detach().cpu().contiguous() for name, value in model.state_dict().items()}
    save_file(weights, folder / (WEIGHTS + ".tmp"))
    (folder / (CONFIG + ".tmp")).write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")
    for name in (WEIGHTS, CONFIG):
        (folder / (name + ".tmp")).replace(folder / name)
    return folder
