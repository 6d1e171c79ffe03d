"""Both encoders of a model from the one name by which models are known everywhere in clipcond.

`mini`, `emoji`, `ViT-L-14/openai`, `ViT-L-14@checkpoint.pt`, `hf:openai/clip-vit-large-patch14`, `./folder`, each with overrides
behind commas (`ViT-B-32@clip.pt,activation=quick_gelu,mean=0.5`). Weights are always loaded in full and checked, never
left random; what cannot be loaded is a ModelError of one line, and nothing of a model folder is run.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from clipcond.errors import ModelError
from clipcond.models.checks import one_line_errors
from clipcond.models.dual import DualEncoder as DualEncoder
from clipcond.models.folder_models import held_by
from clipcond.models.open_clip_build import dual_from_open_clip, open_clip_tokenizer
from clipcond.models.open_clip_folder import (
    CONFIG,
    pipeline_layers,
    preprocess_of_folder,
    read_config,
    read_open_clip_folder,
)
from clipcond.models.open_clip_named import load_checkpoint, load_pretrained
from clipcond.models.spec import FORMS, OPENAI_NAMES, ModelSpec, did_you_mean, parse_spec
from clipcond.models.transformers_dual import load_transformers
from clipcond.resources import embedded_dual

if TYPE_CHECKING:
    from open_clip import CLIP


def load_dual(spec: str, *, device: str = "cpu") -> DualEncoder:
    """Load both encoders of the model that `spec` names, in float32, ready for inference.

    Raises ModelError if there is no such model, if it or its tokenizer cannot be fetched or read, if a weight is missing or
    not finite, or if it is no dual encoder; ResourceMissing if an embedded model is not installed.
    """
    spec = spec.strip()
    with one_line_errors(spec):
        named = parse_spec(spec)
        base = named.base
        if (ours := embedded_dual(base)) is not None:
            return _from_folder(spec, named, ours, device)
        if base.startswith("hf:"):
            return _from_transformers(spec, named, base[3:], device)
        path = Path(base).expanduser()
        if path.is_dir():
            return _from_folder(spec, named, path, device)
        if path.is_file():
            raise ModelError(f"{base} is a file; name its architecture too, as in ViT-B-32@{base}")
        if base in OPENAI_NAMES:
            raise ModelError(f"no model {base!r} by OpenAI's own name{did_you_mean(base)}")
        if "@" in base:
            return load_checkpoint(spec, named, device)
        if base.startswith((".", "/", "~")):
            raise ModelError(f"no model {base!r}: there is no such folder")
        if "/" not in base or base.startswith("hf-hub:"):
            raise ModelError(f"no model {base!r}: expected {FORMS}{did_you_mean(base)}")
        return load_pretrained(spec, named, device)


def load_open_clip_folder(path: str | Path, *, quick_gelu: bool | None = None) -> CLIP:
    """The open_clip model of a folder (`open_clip_config.json` beside its weights), float32 on the CPU.

    Also takes the file names that open_clip uses on the hub. quick_gelu: the activation, in place of the config's.
    Raises ModelError as `load_dual` does.
    """
    with one_line_errors(str(path)):
        return read_open_clip_folder(path, quick_gelu=quick_gelu)


def _from_folder(spec: str, named: ModelSpec, folder: Path, device: str) -> DualEncoder:
    """Whatever the folder holds: an open_clip model, a training run with one, or a transformers model."""
    if (folder / CONFIG).is_file():
        return _open_clip_folder(spec, named, folder, device)
    if (folder / "model" / CONFIG).is_file():
        return _from_folder(spec, named, folder / "model", device)
    if (folder / "model_index.json").is_file():
        raise ModelError(
            f"{spec} is a diffusers pipeline and has no image encoder; name the CLIP model it was made with"
        )
    if (folder / "checkpoints").is_dir() and (folder / "log.jsonl").is_file():
        raise ModelError(f"{spec} is a training run that is not finished; go on with it, then name it as a model")
    if (folder / "config.json").is_file():
        return load_transformers(spec, named, str(folder), device)
    raise ModelError(f"{spec} holds no model: looked for {CONFIG}, model/{CONFIG} and config.json")


def _open_clip_folder(spec: str, named: ModelSpec, folder: Path, device: str) -> DualEncoder:
    config = read_config(folder)
    places: list[str | Path] = [*named.overrides.places, folder]
    tokenizer = open_clip_tokenizer(spec, config["model_cfg"], places)
    model = read_open_clip_folder(folder, quick_gelu=named.overrides.quick_gelu, places=named.overrides.places)
    preprocess, notes = preprocess_of_folder(folder, config, model, named.overrides.size)
    stated = {**preprocess, **named.overrides.preprocess}
    return dual_from_open_clip(
        spec, model, config["model_cfg"], stated, device, tokenizer=tokenizer, notes=notes,
        pipeline_layers=pipeline_layers(config),
    )  # fmt: skip


def _open_clip_snapshot(repository: str) -> Path | None:
    """The folder of the hub's cache in which a repository in open_clip's format lies with its weights, if it does."""
    from huggingface_hub import try_to_load_from_cache
    from huggingface_hub.errors import HFValidationError

    try:
        found = try_to_load_from_cache(repository, CONFIG)
    except HFValidationError:
        return None
    folder = Path(found).parent if isinstance(found, str) else None
    return folder if folder is not None and any(held.library == "open_clip" for held in held_by(folder)) else None


def _from_transformers(spec: str, named: ModelSpec, where: str, device: str) -> DualEncoder:
    folder = Path(where).expanduser()
    if folder.is_dir():
        if not (folder / "config.json").is_file():
            return _from_folder(spec, named, folder, device)
        return load_transformers(spec, named, str(folder), device)
    if not where or where.startswith((".", "/", "~")):
        raise ModelError(f"{spec}: there is no such folder; expected hf:ID or hf:FOLDER")
    snapshot = _open_clip_snapshot(where)
    if snapshot is not None:
        return _open_clip_folder(spec, named, snapshot, device)
    return load_transformers(spec, named, where, device)
