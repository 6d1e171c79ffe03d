"""Models that find what is described in a picture, loaded by spec: OWL-ViT, OWLv2, Grounding DINO, CLIPSeg, Florence-2.

What they find is `clipcond.models.sightings`; what Florence-2 writes, `clipcond.models.florence`.
"""

from __future__ import annotations

from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from clipcond.models.checks import one_line_errors
from clipcond.models.dual import ready
from clipcond.models.folder_models import config_of
from clipcond.models.spec import ModelSpec, parse_spec
from clipcond.models.transformers_families import CAPTIONERS, Family, uses_of
from clipcond.models.transformers_model import library_place, read_library_model, with_library
from clipcond.runtime.devices import exact_convolutions


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class Detector:
    """A detection model of transformers, in float32, and the library's own processor of its pictures and texts."""

    name: str
    family: Family
    model: Any
    processor: Any
    notes: tuple[str, ...] = ()

    def inputs(self, **given: Any) -> dict[str, Any]:
        """The processor's tensors of pictures and texts, on the model's device."""
        device = next(self.model.parameters()).device
        return {name: value.to(device) for name, value in self.processor(**given, return_tensors="pt").items()}

    def exact(self) -> AbstractContextManager[None]:
        """The context in which the model computes: convolutions of float32 weights are not rounded."""
        weight = next(self.model.parameters())
        return exact_convolutions(weight.device, weight.dtype)


def names_detector(spec: str) -> bool:
    """True if a spec names a folder, or a model of the hub's cache, whose config is a detection model's."""
    return "detection" in uses_of(_config_named(spec))


def names_captioner(spec: str) -> bool:
    """True if a spec names, in the same way, a model that writes captions."""
    config = _config_named(spec)
    return config.get("model_type") in CAPTIONERS and "detection" in uses_of(config)


def _config_named(spec: str) -> dict[str, Any]:
    base = parse_spec(spec.strip()).base
    where = base.removeprefix("hf:")
    folder = Path(where).expanduser()
    if folder.is_dir():
        return config_of(folder / "config.json")
    return _cached_config(where) if base.startswith("hf:") else {}


def _cached_config(repository: str) -> dict[str, Any]:
    """The config of a model in the hub's cache, or else from the hub; empty where there is none."""
    from huggingface_hub import hf_hub_download

    from clipcond.runtime.hub import offline_where_unreachable

    try:
        with offline_where_unreachable():
            return config_of(Path(hf_hub_download(repository, "config.json")))
    except Exception:  # the loader says what is wrong with the name
        return {}


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
