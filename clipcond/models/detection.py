"""Models that find what is described in a picture, loaded by spec: OWL-ViT, OWLv2, Grounding DINO, CLIPSeg, Florence-2."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from clipcond.models.checks import one_line_errors
from clipcond.models.dual import ready
from clipcond.models.spec import ModelSpec, parse_spec
from clipcond.models.transformers_families import Family
from clipcond.models.transformers_model import library_place, read_library_model, with_library


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class Detector:
    """A detection model of transformers, in float32, and the library's own processor of its pictures and texts."""

    name: str
    family: Family
    model: Any
    processor: Any
    notes: tuple[str, ...] = ()


def load_detector(spec: str, *, device: str = "cpu") -> Detector:
    """Load the detection model that `spec` names: `hf:ID`, `hf:FOLDER` or a folder. Nothing of the folder is run.

    Raises ModelError if there is no such model, it or its processor cannot be read, or it is none that detects.
    """
    spec = spec.strip()
    with one_line_errors(spec):
        named = parse_spec(spec)
        where = library_place(spec, named, "a detection model")
        return with_library(spec, where, lambda: _load(spec, named, where, device))


def _load(spec: str, named: ModelSpec, where: str, device: str) -> Detector:
    from transformers import AutoProcessor

    loaded = read_library_model(spec, named.overrides, where, "detection")
    processor = AutoProcessor.from_pretrained(where, trust_remote_code=False)
    return Detector(
        name=spec,
        family=loaded.family,
        model=ready(spec, loaded.model, device),
        processor=processor,
        notes=loaded.notes,
    )
