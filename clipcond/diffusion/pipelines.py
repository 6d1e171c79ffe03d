"""Pipelines by name: the embedded one, a diffusers folder, or a hub id; loaded quietly, with errors of one line."""

from __future__ import annotations

import gc
import json
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, fields
from math import isfinite
from pathlib import Path
from typing import Any

import torch

from clipcond.diffusion.components import load_component
from clipcond.diffusion.pipeline_index import INDEX, parse_index, read_index
from clipcond.diffusion.pipeline_names import find_pipeline
from clipcond.errors import ClipCondError, ConfigError, ModelError
from clipcond.models.json_file import read_json
from clipcond.runtime.devices import device_of
from clipcond.runtime.hub import offline_where_unreachable, why_not
from clipcond.runtime.quiet import quiet_loading
from clipcond.wording import first_line, visible

_STOCK_GUIDANCE = 7.5
_ADVICE = "clipcond.json"
_MOST_STEPS, _MOST_GUIDANCE = 1000, 1000


@dataclass(frozen=True, slots=True, kw_only=True)
class Advice:
    """The settings that a pipeline folder recommends for itself, in an optional `clipcond.json`."""

    guidance_scale: float = _STOCK_GUIDANCE
    guidance_rescale: float = 0.0
    steps: int = 20


def load_pipeline(
    spec: str | Path,
    *,
    dtype: torch.dtype | None = None,
    device: str | torch.device | None = None,
    on_note: Callable[[str], object] | None = None,
) -> Any:
    """Load a diffusers pipeline. Nothing of its folder is run, and no weight of it is random.

    spec: `mini`, a local folder with a `model_index.json`, or a hub id.   dtype: float32 if not given.
    device: where to put it; if not given, CUDA where there is one, else the CPU.   on_note: called with each line about
    weights of a file that the pipeline has no place for; a warning if not given.
    Raises ModelError saying what was tried: for files that are not there or damaged, for classes that are not diffusers'
    and transformers' own, and for weights that are missing or not finite, naming component and weight. Raises ConfigError
    for a device or a dtype that is not there, ResourceMissing when the embedded model is incomplete.
    """
    place = device_of(device)
    if dtype is not None and not isinstance(dtype, torch.dtype):  # diffusers would take float32 for it
        raise ConfigError(f"dtype is {dtype!r}, expected a torch.dtype such as torch.float16")
    folder = _local_folder(str(spec))
    with _uncollected(), quiet_loading(), _one_line_errors(str(spec), local=folder is not None):
        if folder is not None:
            pipe, notes = _load(folder, dtype or torch.float32)
        else:
            pipe, notes = _load(_downloaded(str(spec)), dtype or torch.float32)
            pipe.register_to_config(_name_or_path=str(spec))
        pipe = pipe.to(place)
    for note in notes:
        warnings.warn(note, stacklevel=2) if on_note is None else on_note(note)
    return pipe


def _load(folder: Path, dtype: torch.dtype) -> tuple[Any, tuple[str, ...]]:
    """Load a pipeline from a folder, with notes."""
    index = read_index(folder)
    from diffusers import DiffusionPipeline

    loaded = {each.name: load_component(folder, each, dtype) for each in index.components}
    components = {name: component for name, (component, _) in loaded.items() if component is not None}
    pipe = DiffusionPipeline.from_pretrained(str(folder), torch_dtype=dtype, trust_remote_code=False, **components)
    return pipe, tuple(note for _, notes in loaded.values() for note in notes)


def _downloaded(spec: str) -> Path:
    """The folder in the hub's cache of a pipeline's files; of one with foreign code nothing but its index is fetched."""
    from diffusers import DiffusionPipeline

    with offline_where_unreachable():
        parse_index(f"{spec}/{INDEX}", DiffusionPipeline.load_config(spec))
        return Path(DiffusionPipeline.download(spec, trust_remote_code=False))


@contextmanager
def _one_line_errors(spec: str, *, local: bool) -> Iterator[None]:
    """Turn whatever the libraries raise into a ModelError of one line, with the original as its cause."""
    try:
        yield
    except ClipCondError:
        raise
    except Exception as error:
        if local:
            raise ModelError(f"pipeline {spec!r} could not be loaded from the folder: {first_line(error)}") from error
        raise ModelError(
            f"the files of pipeline {spec!r} {why_not(error)}; check the name, connect once, or pass a folder"
        ) from error


def advice(pipe: Any) -> Advice:
    """Return the advice of the folder that a pipeline came from; the stock values where it has none.

    Raises ModelError when its `clipcond.json` is not a JSON object of known settings, numbers within their ranges.
    """
    source = getattr(pipe.config, "_name_or_path", None) or ""
    file = Path(source) / _ADVICE
    return _advice(file) if source and file.is_file() else Advice()


def _advice(file: Path) -> Advice:
    document = read_json(file)
    known = [each.name for each in fields(Advice)]
    if unknown := sorted(document.keys() - set(known)):
        raise ModelError(
            f"{file} is not a JSON object of known settings: it has {visible(unknown[0])!r}; known are {', '.join(known)}"
        )
    for name, value in document.items():
        whole = name == "steps"
        least, most = (1, _MOST_STEPS) if whole else (0, _MOST_GUIDANCE)
        right = isinstance(value, int if whole else (int, float)) and not isinstance(value, bool)
        if not right or not isfinite(value) or not least <= value <= most:
            kind = "whole number" if whole else "number"
            raise ModelError(
                f"{file} gives {name} {visible(json.dumps(value))[:60]}; expected a {kind} from {least} to {most}"
            )
    return Advice(**document)


def _local_folder(spec: str) -> Path | None:
    """The folder of a spec, None for a hub id. Raises ModelError for what can be neither."""
    source = Path(find_pipeline(spec))
    return source if source.is_dir() else None


@contextmanager
def _uncollected() -> Iterator[None]:
    """No garbage collection while thousands of modules are imported: it finds nothing and takes a third of the time."""
    running = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if running:
            gc.enable()
