"""Pipelines by name: the embedded one, a diffusers folder, or a hub id; found without loading anything."""

from __future__ import annotations

import re
from pathlib import Path

from clipcond.errors import ModelError
from clipcond.resources import embedded

FORMS = "`mini`, a folder that a diffusers pipeline was saved in, or a hub id such as owner/name"
_OPEN_CLIP = "open_clip_config.json"
_HUB_ID = re.compile(r"[\w.-]+/[\w.-]+")


def find_pipeline(spec: str) -> str:
    """Return the folder or the hub id that a spec means.

    Raises ModelError for what is neither, ResourceMissing when the embedded model is incomplete.
    """
    if spec == "mini":
        return _folder(spec, embedded("pipeline"))
    path = Path(spec).expanduser()
    if path.is_dir():
        return _folder(spec, path)
    if not _HUB_ID.fullmatch(spec) or spec.startswith("."):
        raise ModelError(f"no pipeline {spec!r}: there is no such folder; a pipeline is {FORMS}")
    return spec


def _folder(spec: str, path: Path) -> str:
    if not (path / "model_index.json").is_file():
        if (path / "model" / _OPEN_CLIP).is_file() or (path / _OPEN_CLIP).is_file():
            raise ModelError(
                f"{spec} is a dual encoder, no pipeline: clipcond export {spec} --to diffusers --into PIPELINE --out FOLDER"
                " puts it into one"
            )
        raise ModelError(f"{spec} is a folder without model_index.json: no diffusers pipeline; a pipeline is {FORMS}")
    return str(path)
