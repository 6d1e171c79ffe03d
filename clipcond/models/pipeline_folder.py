"""A diffusers pipeline's folder read as data: its family, and where its CLIP text encoders are."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from clipcond.errors import ConfigError, ModelError
from clipcond.models.json_file import read_json

PAIR: Mapping[str, str] = {"clip_l": "text_encoder", "clip_g": "text_encoder_2"}  # runs in the folder of a pair
# encoder → suffix of its folder, by family
_SUFFIXES: Mapping[str, Mapping[str, str]] = {
    "sd15": {"clip_l": ""},
    "sd2": {"clip_h": ""},
    "sdxl": {"clip_l": "", "clip_g": "_2"},
    "sd3": {"clip_l": "", "clip_g": "_2"},
    "flux": {"clip_l": ""},
}


@dataclass(frozen=True, slots=True, kw_only=True)
class PipelineFolder:
    """A pipeline on disk.

    encoders: the CLIP encoders that are there → the suffix of their folders, `_2` for `text_encoder_2`.
    """

    path: Path
    family: str
    encoders: Mapping[str, str]

    def text_encoder(self, encoder: str) -> Path:
        """Return the folder of an encoder. Raises ConfigError for one that the pipeline lacks."""
        if encoder not in self.encoders:
            raise ConfigError(
                f"{self.path} is {self.family} and has no {encoder}; expected {' or '.join(self.encoders)}"
            )
        return self.path / f"text_encoder{self.encoders[encoder]}"


def read_pipeline_folder(path: Path) -> PipelineFolder:
    """Read a folder with a `model_index.json`. Raises ModelError for one of another family or without its encoders."""
    index = read_json(path / "model_index.json")
    family = _family(path, index)
    folders = {name: f"text_encoder{suffix}" for name, suffix in _SUFFIXES[family].items()}
    there = {
        name: _SUFFIXES[family][name] for name, folder in folders.items() if (path / folder / "config.json").is_file()
    }
    if not there:
        raise ModelError(f"{path} holds no CLIP text encoder: looked for config.json in {', '.join(folders.values())}")
    return PipelineFolder(path=path, family=family, encoders=there)


def encoder_folder(path: Path, encoder: str | None) -> Path:
    """Return the folder of a pipeline's encoder, of its only one for None. Raises ConfigError, ModelError."""
    pipeline = read_pipeline_folder(path)
    if encoder is None and len(pipeline.encoders) > 1:
        raise ConfigError(f"{path} has {' and '.join(pipeline.encoders)}; say which with --encoder")
    return pipeline.text_encoder(encoder or next(iter(pipeline.encoders)))


def is_pair(path: str | Path) -> bool:
    """True for the folder of a run that trained both encoders of a pipeline."""
    return all(Path(path, run, "model", "open_clip_config.json").is_file() for run in PAIR.values())


def pair_run(path: Path, encoder: str | None) -> Path:
    """Return the run of one encoder in the folder of a pair. Raises ConfigError for one that it lacks, and for None."""
    if encoder is None or encoder not in PAIR:
        said = "say which with --encoder" if encoder is None else f"encoder is {encoder!r}"
        raise ConfigError(f"{path} holds {' and '.join(PAIR)}; {said}")
    return path / PAIR[encoder]


def _family(path: Path, index: Mapping[str, Any]) -> str:
    parts = {name for name, value in index.items() if isinstance(value, list) and value and value[-1] is not None}
    if "transformer" in parts:
        if "text_encoder_3" in index:
            return "sd3"
        if "text_encoder_2" in parts:
            return "flux"
    if "unet" in parts:
        if "text_encoder_2" in parts:
            return "sdxl"
        if "text_encoder" in parts:
            return "sd2" if _pads_with_mark(path / "tokenizer") else "sd15"
    raise ModelError(
        f"{path} is a {index.get('_class_name', 'pipeline')}; supported are the Stable Diffusion and Flux shapes"
    )


def _pads_with_mark(tokenizer: Path) -> bool:
    """True if a tokenizer pads with `!`, as those of OpenCLIP's towers do."""
    for name in ("special_tokens_map.json", "tokenizer_config.json"):
        if (tokenizer / name).is_file() and (token := read_json(tokenizer / name).get("pad_token")) is not None:
            return (token.get("content") if isinstance(token, dict) else token) == "!"
    return False
