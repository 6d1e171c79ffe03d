"""open_clip's architectures by name: with published weights, or with those of a checkpoint file."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from clipcond.errors import ClipCondError, ModelError
from clipcond.models.checkpoint import SUFFIXES, Checkpoint, fill_open_clip, read_checkpoint
from clipcond.models.dual import DualEncoder
from clipcond.models.open_clip_build import buildable, dual_from_open_clip, open_clip_tokenizer
from clipcond.models.spec import ModelSpec, did_you_mean, listed
from clipcond.runtime.hub import offline_where_unreachable, why_not
from clipcond.runtime.quiet import quiet_calls, quiet_logs
from clipcond.runtime.torchvision_repair import repair
from clipcond.wording import first_line

_PREPROCESSING = ("mean", "std", "interpolation", "resize_mode")


def load_pretrained(spec: str, named: ModelSpec, device: str) -> DualEncoder:
    """Load `NAME/PRETRAINED` of open_clip, from its cache or downloaded. Raises ModelError."""
    name, _, tag = named.base.partition("/")
    repair()
    import open_clip

    tags = open_clip.list_pretrained_tags_by_model(name)
    if name not in open_clip.list_models():
        hint = did_you_mean(named.base) or f"; a transformers model of the hub is hf:{named.base}"
        raise ModelError(f"no model {named.base!r}: open_clip knows no {name!r} and there is no such folder{hint}")
    if tag not in tags:
        raise ModelError(f"open_clip has no weights {tag!r} for {name}; expected {listed(tags)}")
    config = open_clip.get_model_config(name) or {}
    tokenizer = open_clip_tokenizer(spec, config, named.overrides.places)
    published = open_clip.get_pretrained_cfg(name, tag)
    options: dict[str, Any] = {"force_quick_gelu": bool(published.get("quick_gelu", False))}
    if named.overrides.quick_gelu is not None:
        options = {"force_quick_gelu": named.overrides.quick_gelu, "quick_gelu": named.overrides.quick_gelu}
    if named.overrides.size is not None:
        options["force_image_size"] = named.overrides.size
    try:
        with _own_parts(spec, named, config) as parts, quiet_calls(), quiet_logs(), offline_where_unreachable():
            model = open_clip.create_model(name, pretrained=tag, require_pretrained=True, **options, **parts)
    except ClipCondError:
        raise
    except Exception as error:
        raise ModelError(
            f"the weights of {spec} {why_not(error)}; connect once to fill the cache, or pass a file as {name}@FILE"
        ) from error
    return dual_from_open_clip(spec, model, config, preprocess_of(model, named), device, tokenizer=tokenizer)


def load_checkpoint(spec: str, named: ModelSpec, device: str) -> DualEncoder:
    """Load `NAME@FILE`: an open_clip architecture with a state dict, a training checkpoint or OpenAI's own archive.

    OpenAI's archives have quick GELU whatever the architecture says, unless the spec states an activation. Pictures are
    prepared as for the weights that are published for the architecture. Raises ModelError.
    """
    name, _, file = named.base.partition("@")
    path = Path(file).expanduser()
    repair()
    import open_clip

    if name not in open_clip.list_models():
        raise ModelError(f"open_clip knows no architecture {name!r}{did_you_mean(name)}")
    if not path.is_file():
        raise ModelError(f"no such checkpoint: {path}; expected a file in NAME@FILE")
    if path.suffix not in SUFFIXES:
        raise ModelError(f"{path} is not a checkpoint that can be read; expected one of {', '.join(SUFFIXES)}")
    config = open_clip.get_model_config(name) or {}
    tokenizer = open_clip_tokenizer(spec, config, named.overrides.places)
    try:
        checkpoint = read_checkpoint(path)
    except Exception as error:
        raise ModelError(f"{path} is not a checkpoint of {name}: {first_line(error)}") from error
    quick, notes = _activation(named, checkpoint, bool(config.get("quick_gelu", False)))
    prepared, note = _published_preprocessing(name, named)
    try:
        with _own_parts(spec, named, config) as parts, quiet_logs():
            model = open_clip.create_model(
                name,
                load_weights=False,
                quick_gelu=quick,
                force_image_size=named.overrides.size,
                force_preprocess_cfg=prepared,
                **parts,
            )
            fill_open_clip(model, checkpoint)
    except ClipCondError:
        raise
    except Exception as error:
        raise ModelError(f"{path} is not a checkpoint of {name}: {first_line(error)}") from error
    prepared = preprocess_of(model, named)
    return dual_from_open_clip(spec, model, config, prepared, device, tokenizer=tokenizer, notes=(*notes, *note))


def preprocess_of(model: Any, named: ModelSpec) -> dict[str, Any]:
    """Return the preprocessing that open_clip's factory attached to the model, with the spec's overrides."""
    return {**dict(model.visual.preprocess_cfg), **named.overrides.preprocess}


@contextmanager
def _own_parts(spec: str, named: ModelSpec, config: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """While open, what the factory is to be told beside the name, so that no part brings weights of its own."""
    with buildable(spec, config, named.overrides.places) as changed:
        if changed["text_cfg"] is config["text_cfg"]:
            yield {}
        else:
            yield {"text_cfg": changed["text_cfg"], "pretrained_text": False}


def _published_preprocessing(name: str, named: ModelSpec) -> tuple[dict[str, Any], tuple[str, ...]]:
    """The preprocessing that all weights published for an architecture share; a note where they differ."""
    import open_clip

    tags = open_clip.list_pretrained_tags_by_model(name)
    kinds = {
        tuple(repr(open_clip.get_pretrained_cfg(name, tag).get(key)) for key in _PREPROCESSING): tag for tag in tags
    }
    if len(kinds) == 1:
        published = open_clip.get_pretrained_cfg(name, tags[0])
        return {key: published[key] for key in _PREPROCESSING if published.get(key) is not None}, ()
    if not kinds or {"mean", "std"} <= named.overrides.preprocess.keys():
        return {}, ()
    return {}, (
        f"{named.base}: the weights published for {name} differ in how they want their pictures; prepared as OpenAI's, "
        "`,mean=` and `,std=` say otherwise",
    )


def _activation(named: ModelSpec, checkpoint: Checkpoint, config: bool) -> tuple[bool, tuple[str, ...]]:
    """True for quick GELU, as the spec says, the file shows or the architecture has it; and notes about the choice."""
    if named.overrides.quick_gelu is not None:
        return named.overrides.quick_gelu, ()
    if checkpoint.openai and not config:
        return True, (
            f"{named.base}: OpenAI's own file, so its activation is quick GELU; `,activation=gelu` says otherwise",
        )
    if not config:
        return False, (f"{named.base}: built with GELU; weights of OpenAI's models need `,activation=quick_gelu`",)
    return config, ()
