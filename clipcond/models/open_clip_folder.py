"""open_clip folders: `open_clip_config.json` beside `open_clip_model.safetensors`, read and written.

A token table of which few rows are used can be stored packed: its rows that are not zero under `<name>.rows`, and their
numbers under `<name>.ids`, in place of `<name>`. Reading fills the rest with zeros.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from clipcond.errors import ModelError
from clipcond.files import write_file
from clipcond.runtime.torchvision_repair import repair

if TYPE_CHECKING:
    from open_clip import CLIP
    from torch import Tensor

CONFIG, WEIGHTS = "open_clip_config.json", "open_clip_model.safetensors"
_TABLE = "token_embedding.weight"


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
    state = {name: value.float() for name, value in _unpacked(load_file(path), model.state_dict()).items()}
    try:
        missing, unexpected = model.load_state_dict(state, strict=False)
    except RuntimeError as error:
        raise ModelError(f"{path} does not fit {CONFIG}: {str(error).splitlines()[-1].strip()}") from error
    if missing or unexpected:
        wrong = "lacks " + missing[0] if missing else "has the unknown " + unexpected[0]
        raise ModelError(f"{path} does not fit {CONFIG}: it {wrong} ({len(missing) + len(unexpected)} in all)")
    return model


def _unpacked(state: dict[str, Tensor], like: dict[str, Tensor]) -> dict[str, Tensor]:
    """The state with a packed token table laid out in full, as large as the model's own."""
    for name in (_TABLE, f"text.{_TABLE}"):
        if f"{name}.rows" in state and name in like:
            rows = state.pop(f"{name}.rows")
            table = rows.new_zeros(like[name].shape)
            table[state.pop(f"{name}.ids").long()] = rows
            state[name] = table
    return state


def _packed(state: dict[str, Tensor]) -> dict[str, Tensor]:
    table = state[_TABLE]
    used = table.abs().amax(dim=1).nonzero().squeeze(1)
    rest = {name: value for name, value in state.items() if name != _TABLE}
    return {**rest, f"{_TABLE}.rows": table[used].contiguous(), f"{_TABLE}.ids": used.int()}


def write_open_clip_folder(model: CLIP, config: dict[str, Any], folder: str | Path, *, packed: bool = False) -> Path:
    """Write the model's weights as they are and its config; both files appear complete or not at all.

    packed: leave out the rows of the token table that are zero; only clipcond reads the result.
    """
    from safetensors.torch import save

    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    weights = {name: value.detach().cpu().contiguous() for name, value in model.state_dict().items()}
    if packed:
        weights = _packed(weights)
    write_file(folder / WEIGHTS, save(weights), overwrite=True)
    write_file(folder / CONFIG, json.dumps(config, indent=2) + "\n", overwrite=True)
    return folder
