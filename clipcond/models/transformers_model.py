"""A model of transformers from a folder or the hub. Nothing of the folder is run, and no question is ever asked."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from clipcond.errors import ClipCondError, ModelError
from clipcond.models.checks import check_numbers, count, outline
from clipcond.models.spec import ModelSpec, Overrides
from clipcond.models.tokenizer_files import read_library_tokenizer
from clipcond.models.transformers_families import Family, Use, architectures_of, family_of
from clipcond.prompt.tokenizer import CONTEXT, VOCABULARY
from clipcond.runtime.hub import offline_where_unreachable, why_not
from clipcond.runtime.quiet import quiet_calls, quiet_logs, without_bars
from clipcond.runtime.torchvision_repair import repair
from clipcond.wording import first_line

_PROCESSORS = ("preprocessor_config.json", "processor_config.json")
_WEIGHTS = (".safetensors", ".bin")
_IGNORED = ("position_ids",)  # stored by old versions; computed since
_Made = TypeVar("_Made")


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class LibraryModel:
    """A model with every weight in place.

    processor: the settings of its image processor.   tokenizer: transformers', where it has another than CLIP's and reads
    its texts by itself.
    """

    family: Family
    model: Any
    config: Any
    processor: Mapping[str, Any]
    tokenizer: Any
    notes: tuple[str, ...]


def library_place(spec: str, named: ModelSpec, wanted: str) -> str:
    """The folder or the id of a spec that only transformers can be meant by. Raises ModelError for any other."""
    where = named.base.removeprefix("hf:")
    folder = Path(where).expanduser()
    if folder.is_dir():
        return str(folder)
    if not named.base.startswith("hf:") or not where or where.startswith((".", "/", "~")):
        raise ModelError(
            f"{spec} names no folder and no model of transformers; expected {wanted} as hf:ID or hf:FOLDER"
        )
    return where


def with_library(spec: str, where: str, make: Callable[[], _Made]) -> _Made:
    """Call `make`, which loads from a folder or, by its id, from the hub or its cache; foreign errors become one line.

    Raises ModelError.
    """
    local = Path(where).is_dir()
    try:
        with quiet_calls(), quiet_logs(), nullcontext() if local else offline_where_unreachable():
            return make()
    except ClipCondError:
        raise
    except Exception as error:
        if local:
            raise ModelError(f"{spec} cannot be loaded by transformers: {first_line(error)}") from error
        hint = f"; did you mean hf:{where.removeprefix('hf-hub:')}?" if where.startswith("hf-hub:") else ""
        raise ModelError(
            f"the files of {spec} {why_not(error)}; check the name, connect once, or pass a folder as hf:FOLDER{hint}"
        ) from error


def read_library_model(spec: str, overrides: Overrides, where: str, use: Use) -> LibraryModel:
    """Load the model of a folder or an id for a use. To be called through `with_library`. Raises ModelError."""
    repair()
    import transformers

    family, name, config = _config(spec, overrides, where, use)
    kind: Any = getattr(transformers, name)
    folder = Path(where)
    if folder.is_dir() and not any((folder / name).is_file() for name in _PROCESSORS):
        raise ModelError(f"{spec} has no {_PROCESSORS[0]}; copy it from the model that it was made from")
    shapes = outline(f"the config of {spec}", lambda: kind(config))
    if folder.is_dir():
        _check_against_files(spec, folder, count(shapes))
    own_tokens = use != "detection" and not family.clip_tokens
    tokenizer = read_library_tokenizer(spec, [*overrides.places, where]) if own_tokens else None  # before the weights
    processor, _ = transformers.CLIPImageProcessor.get_image_processor_dict(where)
    with without_bars(folder.is_dir() or not sys.stderr.isatty()):
        model, report = kind.from_pretrained(where, config=config, trust_remote_code=False, output_loading_info=True)
    return LibraryModel(
        family=family,
        model=model,
        config=config,
        processor=_image_part(processor),
        tokenizer=tokenizer,
        notes=_check_report(spec, name, report),
    )


def _config(spec: str, overrides: Overrides, where: str, use: Use) -> tuple[Family, str, Any]:
    """The family, the name of the class, and the config as transformers' own class.

    Classes are asked for by name: `auto_map` is not looked at.
    """
    import transformers

    document, _ = transformers.CLIPConfig.get_config_dict(where)
    kinds = " ".join(architectures_of(document))
    kind = str(document.get("model_type"))
    if kind in ("clip_text_model", "clip_vision_model") or "CLIPText" in kinds or "CLIPVision" in kinds:
        lacks = "text" if "vision" in f"{kind}{kinds}".lower() else "image"
        raise ModelError(f"{spec} holds {kinds or kind} and has no {lacks} encoder; expected a CLIPModel")
    family = family_of(spec, document, use)
    known = tuple(
        each for each in architectures_of(document) if hasattr(transformers, each)
    )  # others' own names say nothing
    name = family.model_class(spec, use, known)
    if not hasattr(transformers, name):
        raise ModelError(f"{spec} is {family.title}, which transformers {transformers.__version__} does not have yet")
    check_numbers(f"the config of {spec}", document)
    config: Any = getattr(transformers, family.config).from_dict(document)
    if family.clip_tokens:
        _check_clip_tokens(spec, config)
    _check_overrides(spec, overrides, family, config)
    return family, name, config


def _check_clip_tokens(spec: str, config: Any) -> None:
    vocabulary, context = config.text_config.vocab_size, config.text_config.max_position_embeddings
    if (vocabulary, context) != (VOCABULARY, CONTEXT):
        raise ModelError(
            f"{spec} has a vocabulary of {vocabulary} and {context} positions; "
            f"expected CLIP's {VOCABULARY} and {CONTEXT}"
        )


def _check_overrides(spec: str, overrides: Overrides, family: Family, config: Any) -> None:
    """Refuse a size that is not the model's own and an activation where there is no choice; put the activation in."""
    own = getattr(getattr(config, "vision_config", None), "image_size", None)
    if overrides.size not in (None, own):
        raise ModelError(
            f"{spec} reads pictures of {own}×{own}; "
            "size= can be stated for open_clip's NAME/PRETRAINED and NAME@CHECKPOINT only"
        )
    if overrides.quick_gelu is not None:
        if family.model_type != "clip":
            raise ModelError(f"{spec} is {family.title}; activation= can be stated for CLIP models only")
        for part in (config.text_config, config.vision_config):
            part.hidden_act = "quick_gelu" if overrides.quick_gelu else "gelu"


def _check_against_files(spec: str, folder: Path, weights: int) -> None:
    """Refuse a config of more weights than its files have bytes, before memory is taken for them."""
    size = sum(path.stat().st_size for path in folder.iterdir() if path.suffix in _WEIGHTS and path.is_file())
    if weights > size > 0:
        raise ModelError(f"the config of {spec} describes {weights:,} weights, but its files hold {size:,} bytes")


def _check_report(spec: str, name: str, report: Mapping[str, Any]) -> tuple[str, ...]:
    """Refuse a model that lacks a weight; return a note about weights that it has no place for."""
    missing = sorted({*report["missing_keys"], *(str(key) for key in report.get("mismatched_keys", ()))})
    if missing:
        lacks = "no image encoder" if any(key.startswith("vision_model.") for key in missing) else "not all its weights"
        raise ModelError(f"{spec} has {lacks}: {missing[0]} is missing ({len(missing)} in all)")
    unknown = sorted(str(key) for key in report.get("unexpected_keys", ()) if not str(key).endswith(_IGNORED))
    if not unknown:
        return ()
    return (f"{spec} also holds {unknown[0]} ({len(unknown)} in all), which a {name} has no place for; not used",)


def _image_part(processor: Mapping[str, Any]) -> Mapping[str, Any]:
    """The image processor's settings, which `processor_config.json` has in a part of their own."""
    inner = processor.get("image_processor")
    return inner if isinstance(inner, Mapping) else processor
