"""open_clip folders: `open_clip_config.json` beside `open_clip_model.safetensors`, read and written.

A token table of which few rows are used can be stored packed: its rows that are not zero under `<name>.rows`, and their
numbers under `<name>.ids`, in place of `<name>`. Reading fills the rest with zeros. A config may say `pipeline_layers`: how
many layers of the text tower the pipelines read that were trained with it; those behind them serve the dual encoder alone.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from types import NoneType
from typing import TYPE_CHECKING, Any

from clipcond.errors import ModelError
from clipcond.files import write_by_name, write_file
from clipcond.images.preprocess import OPENAI_MEAN, OPENAI_STD
from clipcond.models.checkpoint import SUFFIXES, fill_open_clip, read_checkpoint
from clipcond.models.checks import check_numbers, check_shapes, count, outline
from clipcond.models.json_file import read_json
from clipcond.models.open_clip_build import buildable, builder
from clipcond.wording import first_line, visible

if TYPE_CHECKING:
    from open_clip import CLIP
    from torch import Tensor

CONFIG, WEIGHTS = "open_clip_config.json", "open_clip_model.safetensors"
DEFAULT_PREPROCESS = {"mean": OPENAI_MEAN, "std": OPENAI_STD}  # what open_clip's own folders leave out when it is this
_NAMES = (
    WEIGHTS, "open_clip_pytorch_model.safetensors", "open_clip_pytorch_model.bin", "open_clip_pytorch_model.pth",
    "model.safetensors", "pytorch_model.bin", "pytorch_model.pth", "model.pth",
)  # fmt: skip
_TABLE = "token_embedding.weight"


def read_config(folder: Path) -> dict[str, Any]:
    """The folder's `open_clip_config.json`, which must hold `model_cfg`. Raises ModelError."""
    path = folder / CONFIG
    if not path.is_file():
        raise ModelError(f"{folder} is not an open_clip folder: there is no {CONFIG} in it")
    config = read_json(path)
    if "model_cfg" not in config:
        raise ModelError(f'{path} has no "model_cfg"; expected the file that open_clip writes beside its weights')
    for name in ("model_cfg", "preprocess_cfg"):
        if not isinstance(config.get(name, {}), (dict, NoneType)) or (name == "model_cfg" and not config[name]):
            raise ModelError(
                f"{path} has a {name} that is no object of settings: {first_line(ValueError(config[name]))}"
            )
    check_numbers(str(path), config)
    return config


def pipeline_layers(config: dict[str, Any]) -> int | None:
    """The layers of the text tower that pipelines read, None where the config does not say. Raises ModelError."""
    stated, layers = config.get("pipeline_layers"), (config["model_cfg"].get("text_cfg") or {}).get("layers", 12)
    if stated is None or (isinstance(stated, int) and 1 <= stated <= layers):
        return stated
    raise ModelError(f"{CONFIG} says that pipelines read {visible(str(stated))} layers; expected 1 to {layers}")


def preprocess_of_folder(
    folder: Path, config: dict[str, Any], model: Any, size: int | None = None
) -> tuple[dict[str, Any], tuple[str, ...]]:
    """Return the folder's `preprocess_cfg` in full, and notes.

    The size is that of the model's own input, as in open_clip; a config that says otherwise earns a note, and a `size`
    that was asked for and differs is a ModelError.
    """
    own = model.visual.image_size
    square = own[0] if isinstance(own, (tuple, list)) and len(set(own)) == 1 else own
    if size is not None and size != square:
        raise ModelError(f"{folder} reads pictures of {square}; size={size} needs open_clip's NAME@CHECKPOINT")
    stated = config.get("preprocess_cfg") or {}
    said = stated.get("size", own)
    square_said = said[0] if isinstance(said, (tuple, list)) and len(said) == 2 and said[0] == said[1] else said
    note = f"{folder / CONFIG} says pictures of {said}, but its model reads {square}; {square} is used"
    return {**DEFAULT_PREPROCESS, **stated, "size": own}, () if square_said == square else (visible(note),)


def read_open_clip_folder(
    folder: str | Path,
    *,
    random_weights: bool = False,
    quick_gelu: bool | None = None,
    places: Sequence[str | Path] = (),
) -> CLIP:
    """Build the folder's model on the CPU in float32 and load its weights, which may be stored in any float dtype.

    random_weights: leave the weights as open_clip initialises them (from torch's global generator) and read no file.
    quick_gelu: the activation, in place of the config's.   places: folders that may hold the config of its text model, where
    that is one of transformers.
    Raises ModelError if the folder is not complete or its weights do not fit its config, before memory is taken for it.
    """
    folder = Path(folder)
    with buildable(str(folder), read_config(folder)["model_cfg"], [*places, folder]) as config:
        return _filled(folder, builder(config, quick_gelu=quick_gelu), random_weights)


def _filled(folder: Path, build: Callable[[], CLIP], random_weights: bool) -> CLIP:
    shapes = outline(str(folder / CONFIG), build)
    if random_weights:
        return build()
    path = _weights_file(folder)
    if path.name != WEIGHTS:
        return _of_open_clips_own_file(path, build, count(shapes))
    check_shapes(str(path), CONFIG, _stored_shapes(path, shapes), shapes)
    from safetensors.torch import load_file

    model = build()
    weights = _unpacked(load_file(path), model.state_dict())
    model.load_state_dict({name: value.float() for name, value in weights.items()})
    return model


def _weights_file(folder: Path) -> Path:
    """The folder's weights, under clipcond's name or one of those that open_clip uses on the hub."""
    named = next((folder / name for name in _NAMES if (folder / name).is_file()), None)
    if named is not None:
        return named
    others = sorted(path for path in folder.iterdir() if path.suffix in SUFFIXES)
    if len(others) > 1:
        raise ModelError(
            f"{folder} holds several weights ({', '.join(path.name for path in others)}); expected {WEIGHTS}"
        )
    if not others:
        raise ModelError(f"{folder} holds a config but no {WEIGHTS}; random weights must be asked for by name")
    return others[0]


def _of_open_clips_own_file(path: Path, build: Callable[[], CLIP], weights: int) -> CLIP:
    """Build and fill a model from a file in any of open_clip's layouts, pickled ones included."""
    if weights > path.stat().st_size:
        raise ModelError(f"{path} does not fit {CONFIG}, which describes {weights:,} weights: it is smaller")
    model = build()
    try:
        fill_open_clip(model, read_checkpoint(path))
    except Exception as error:
        raise ModelError(f"{path} does not fit {CONFIG}: {first_line(error)}") from error
    return model


def _stored_shapes(path: Path, expected: dict[str, tuple[int, ...]]) -> dict[str, tuple[int, ...]]:
    """The shapes of a file's weights from its header, a packed table's as if it were unpacked."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="pt") as file:
            shapes = {name: tuple(file.get_slice(name).get_shape()) for name in file.keys()}  # noqa: SIM118
    except (SafetensorError, OSError) as error:
        raise ModelError(f"{path} cannot be loaded: {first_line(error)}") from error
    for name in (_TABLE, f"text.{_TABLE}"):
        rows, ids = shapes.get(f"{name}.rows"), shapes.get(f"{name}.ids")
        if rows is not None and ids is not None and name in expected and rows[1:] == expected[name][1:]:
            del shapes[f"{name}.rows"], shapes[f"{name}.ids"]
            shapes[name] = expected[name]
    return shapes


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
    return write_open_clip_weights(model.state_dict(), config, folder, packed=packed)


def write_open_clip_weights(
    state: Mapping[str, Tensor], config: dict[str, Any], folder: str | Path, *, packed: bool = False
) -> Path:
    """Write weights by their names in a model, and its config, as `write_open_clip_folder` does. Raises OSError.

    Those on the CPU are written from where they lie, without a copy in memory.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    weights = {name: value.detach().cpu().contiguous() for name, value in state.items()}
    _write_weights(folder / WEIGHTS, _packed(weights) if packed else weights)
    write_file(folder / CONFIG, json.dumps(config, indent=2) + "\n", overwrite=True)
    return folder


def _write_weights(path: Path, weights: dict[str, Tensor]) -> None:
    from safetensors import SafetensorError
    from safetensors.torch import save_file

    try:
        write_by_name(path, partial(save_file, weights), overwrite=True)
    except SafetensorError as error:
        raise OSError(f"{path} cannot be written: {first_line(error)}") from error
