"""`model_index.json` of a pipeline folder, read as hostile input: only classes that are on a list are ever imported.

diffusers imports the libraries that the file names; some versions import any module. So names are compared with a list
before diffusers sees the folder, whatever its version.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from clipcond.errors import ModelError
from clipcond.models.json_file import read_json
from clipcond.wording import visible

INDEX = "model_index.json"
# classes of components by library; `Auto…` classes and pipelines are none of them: those look for code in the folder
_CLASSES: Mapping[str, re.Pattern[str]] = {
    "diffusers": re.compile(
        r"(?!\w*Pipeline)((Autoencoder|Asymmetric|ConsistencyDecoder|ControlNet|Flux|Motion|Multi|SD3|StableDiffusion|T2I|UNet|VQ|Vae)\w*"
        r"|[A-Z]\w*(Scheduler|Transformer2DModel))"
    ),
    "transformers": re.compile(r"(CLIP|DPT|MT5|Siglip|T5|UMT5|ViT)\w*|PreTrainedTokenizerFast|TokenizersBackend"),
    "stable_diffusion": re.compile(r"StableDiffusionSafetyChecker"),  # a module of diffusers' pipelines
}
_PIPELINE = re.compile(r"(?!Auto|Flax|Onnx)[A-Z]\w*Pipeline(Legacy)?")
_NAME = re.compile(r"[A-Za-z]\w*")


@dataclass(frozen=True, slots=True, kw_only=True)
class Component:
    """A component of a pipeline, with the class that loads it."""

    name: str
    library: str
    class_name: str


@dataclass(frozen=True, slots=True)
class PipelineIndex:
    """The class of a pipeline and its components, those that are null left out."""

    class_name: str
    components: tuple[Component, ...]


def read_index(folder: Path) -> PipelineIndex:
    """Read the `model_index.json` of a folder. Raises ModelError as `parse_index` does, and where it is no JSON object."""
    return parse_index(folder / INDEX, read_json(folder / INDEX))


def parse_index(where: str | Path, document: Mapping[str, Any]) -> PipelineIndex:
    """Return the content of a `model_index.json`.

    where: its path, for messages. Raises ModelError for a pipeline or a component with code of its own, and for a class
    that no supported pipeline has.
    """
    kind = document.get("_class_name")
    if not isinstance(kind, str) or not _PIPELINE.fullmatch(kind):
        raise ModelError(f"{where} names the pipeline class {_shown(kind)}; expected one of diffusers' own")
    named = {key: value for key, value in document.items() if isinstance(value, (list, tuple)) and key[:1] != "_"}
    parsed = [_component(where, name, value) for name, value in named.items()]
    return PipelineIndex(kind, tuple(each for each in parsed if each is not None))


def _component(where: str | Path, name: str, value: Any) -> Component | None:
    if not any(isinstance(each, str) for each in value):
        return None  # a null component, or a setting that is a list of numbers
    library, class_name = map(str, value) if len(value) == 2 else ("", "")
    known = _CLASSES.get(library)
    if known is None or not known.fullmatch(class_name) or not _NAME.fullmatch(name):
        raise ModelError(
            f"{where} names {_shown(value)} as the class of {_shown(name)}, which is not on clipcond's list of classes "
            "that are loaded; code of a folder's own is never run"
        )
    return Component(name=name, library=library, class_name=class_name)


def _shown(value: object) -> str:
    text = visible(repr(value))
    return text if len(text) <= 100 else text[:99] + "…"
