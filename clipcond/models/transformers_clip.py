"""transformers' CLIPModel from a folder or the hub. Nothing of the folder is run, and no question is ever asked."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from contextlib import nullcontext
from pathlib import Path
from typing import Any

from clipcond.errors import ClipCondError, ModelError
from clipcond.models.checks import check_numbers, count, outline
from clipcond.models.dual import DualEncoder, dual_from_transformers
from clipcond.models.spec import ModelSpec, Overrides
from clipcond.prompt.tokenizer import CONTEXT, VOCABULARY
from clipcond.runtime.hub import offline_where_unreachable, why_not
from clipcond.runtime.quiet import quiet_calls, quiet_logs, without_bars
from clipcond.runtime.torchvision_repair import repair
from clipcond.wording import first_line

_PROCESSORS = ("preprocessor_config.json", "processor_config.json")
_WEIGHTS = (".safetensors", ".bin")
_IGNORED = ("position_ids",)  # stored by old versions; computed since


def load_transformers(spec: str, named: ModelSpec, where: str, device: str) -> DualEncoder:
    """Load a CLIPModel from a folder or, by its id, from the hub or its cache. Raises ModelError."""
    local = Path(where).is_dir()
    try:
        with quiet_calls(), quiet_logs(), nullcontext() if local else offline_where_unreachable():
            return _load(spec, named.overrides, where, device)
    except ClipCondError:
        raise
    except Exception as error:
        if local:
            raise ModelError(f"{spec} cannot be loaded by transformers: {first_line(error)}") from error
        hint = f"; did you mean hf:{where.removeprefix('hf-hub:')}?" if where.startswith("hf-hub:") else ""
        raise ModelError(
            f"the files of {spec} {why_not(error)}; check the name, connect once, or pass a folder as hf:FOLDER{hint}"
        ) from error


def _load(spec: str, overrides: Overrides, where: str, device: str) -> DualEncoder:
    repair()
    from transformers import CLIPImageProcessor, CLIPModel

    config = _config(spec, overrides, where)
    folder = Path(where)
    if folder.is_dir() and not any((folder / name).is_file() for name in _PROCESSORS):
        raise ModelError(f"{spec} has no {_PROCESSORS[0]}; copy it from the model that it was made from")
    shapes = outline(f"the config of {spec}", lambda: CLIPModel(config))
    if folder.is_dir():
        _check_against_files(spec, folder, count(shapes))
    processor, _ = CLIPImageProcessor.get_image_processor_dict(where)
    with without_bars(folder.is_dir() or not sys.stderr.isatty()):
        model, report = CLIPModel.from_pretrained(
            where, config=config, trust_remote_code=False, output_loading_info=True
        )
    notes = _check_report(spec, report)
    stated = {f"image_{name}": value for name, value in overrides.preprocess.items()}
    return dual_from_transformers(spec, model, {**_image_part(processor), **stated}, device, notes)


def _config(spec: str, overrides: Overrides, where: str) -> Any:
    """The model's config as transformers' own class, which is asked for by name: `auto_map` is not looked at."""
    from transformers import CLIPConfig

    document, _ = CLIPConfig.get_config_dict(where)
    kind, listed = document.get("model_type"), document.get("architectures")
    kinds = " ".join(map(str, listed)) if isinstance(listed, list) else ""
    if kind in ("clip_text_model", "clip_vision_model") or "CLIPText" in kinds or "CLIPVision" in kinds:
        lacks = "text" if "vision" in f"{kind}{kinds}".lower() else "image"
        raise ModelError(f"{spec} holds {kinds or kind} and has no {lacks} encoder; expected a CLIPModel")
    if kind != "clip":
        named = f"a {kind} model" if isinstance(kind, str) else "a model of no stated type"
        raise ModelError(f"{spec} is {named}; expected a CLIPModel (model_type clip)")
    check_numbers(f"the config of {spec}", document)
    config: Any = CLIPConfig.from_dict(document)
    vocabulary, context = config.text_config.vocab_size, config.text_config.max_position_embeddings
    if (vocabulary, context) != (VOCABULARY, CONTEXT):
        raise ModelError(
            f"{spec} has a vocabulary of {vocabulary} and {context} positions; "
            f"expected CLIP's {VOCABULARY} and {CONTEXT}"
        )
    if overrides.size not in (None, config.vision_config.image_size):
        raise ModelError(
            f"{spec} reads pictures of {config.vision_config.image_size}×{config.vision_config.image_size}; "
            "size= can be stated for open_clip's NAME/PRETRAINED and NAME@CHECKPOINT only"
        )
    if overrides.quick_gelu is not None:
        for part in (config.text_config, config.vision_config):
            part.hidden_act = "quick_gelu" if overrides.quick_gelu else "gelu"
    return config


def _check_against_files(spec: str, folder: Path, weights: int) -> None:
    """Refuse a config of more weights than its files have bytes, before memory is taken for them."""
    size = sum(path.stat().st_size for path in folder.iterdir() if path.suffix in _WEIGHTS and path.is_file())
    if weights > size > 0:
        raise ModelError(f"the config of {spec} describes {weights:,} weights, but its files hold {size:,} bytes")


def _check_report(spec: str, report: Mapping[str, Any]) -> tuple[str, ...]:
    """Refuse a model that lacks a weight; return a note about weights that it has no place for."""
    missing = sorted({*report["missing_keys"], *(str(key) for key in report.get("mismatched_keys", ()))})
    if missing:
        lacks = "no image encoder" if any(key.startswith("vision_model.") for key in missing) else "not all its weights"
        raise ModelError(f"{spec} has {lacks}: {missing[0]} is missing ({len(missing)} in all)")
    unknown = sorted(str(key) for key in report.get("unexpected_keys", ()) if not str(key).endswith(_IGNORED))
    if not unknown:
        return ()
    return (f"{spec} also holds {unknown[0]} ({len(unknown)} in all), which a CLIPModel has no place for; not used",)


def _image_part(processor: Mapping[str, Any]) -> Mapping[str, Any]:
    """The image processor's settings, which `processor_config.json` has in a part of their own."""
    inner = processor.get("image_processor")
    return inner if isinstance(inner, Mapping) else processor
