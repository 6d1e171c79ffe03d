"""Pipelines by name: the embedded one, a diffusers folder, or a hub id; loaded quietly, with errors of one line."""

from __future__ import annotations

import gc
import json
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from clipcond.diffusion.pipeline_names import find_pipeline
from clipcond.errors import ConfigError, ModelError
from clipcond.runtime.devices import device_of
from clipcond.runtime.hub import offline_where_unreachable, why_not
from clipcond.runtime.quiet import quiet_loading
from clipcond.wording import first_line

_STOCK_GUIDANCE = 7.5
_ADVICE = "clipcond.json"


@dataclass(frozen=True, slots=True, kw_only=True)
class Advice:
    """The settings that a pipeline folder recommends for itself, in an optional `clipcond.json`."""

    guidance_scale: float = _STOCK_GUIDANCE
    guidance_rescale: float = 0.0
    steps: int = 20


def load_pipeline(
    spec: str | Path, *, dtype: torch.dtype | None = None, device: str | torch.device | None = None
) -> Any:
    """Load a diffusers pipeline.

    spec: `mini`, a local folder with a `model_index.json`, or a hub id.   dtype: float32 if not given.
    device: where to put it; if not given, CUDA where there is one, else the CPU.
    Raises ModelError saying what was tried, ConfigError for a device or a dtype that is not there, ResourceMissing when the
    embedded model is incomplete.
    """
    place = device_of(device)
    if dtype is not None and not isinstance(dtype, torch.dtype):  # diffusers would take float32 for it
        raise ConfigError(f"dtype is {dtype!r}, expected a torch.dtype such as torch.float16")
    source, options = find_pipeline(str(spec))
    local = Path(source).is_dir()
    with _uncollected(), quiet_loading():
        try:
            from diffusers import DiffusionPipeline

            with nullcontext() if local else offline_where_unreachable():
                pipe = DiffusionPipeline.from_pretrained(source, torch_dtype=dtype or torch.float32, **options)
            return pipe.to(place)
        except Exception as error:  # whatever the libraries below raise: one line, with the original as its cause
            if local:
                raise ModelError(
                    f"pipeline {str(spec)!r} could not be loaded from the folder: {first_line(error)}"
                ) from error
            raise ModelError(
                f"the files of pipeline {str(spec)!r} {why_not(error)}; check the name, connect once, or pass a folder"
            ) from error


def advice(pipe: Any) -> Advice:
    """Return the advice of the folder that a pipeline came from; the stock values where it has none.

    Raises ModelError when its `clipcond.json` is not a JSON object of known settings.
    """
    source = getattr(pipe.config, "_name_or_path", None) or ""
    file = Path(source) / _ADVICE
    if not source or not file.is_file():
        return Advice()
    try:
        return Advice(**json.loads(file.read_text(encoding="utf-8")))
    except (TypeError, ValueError) as error:
        raise ModelError(f"{file} is not a JSON object of known settings: {first_line(error)}") from error


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
