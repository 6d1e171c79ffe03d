"""The models that a folder holds, by what its config files say: no library is asked, and no weight is read."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from clipcond.errors import ModelError
from clipcond.models.json_file import read_json
from clipcond.models.open_clip_text import check_reads_clip_tokens
from clipcond.models.transformers_families import CAPTIONERS, uses_of
from clipcond.resources import embedded_dual

Kind = Literal["dual", "pipeline", "matching", "detection"]
KINDS: tuple[Kind, ...] = ("dual", "pipeline", "matching", "detection")
OPEN_CLIP_CONFIG = "open_clip_config.json"
TOKENIZER_FILES = (
    "tokenizer.json", "vocab.txt", "vocab.json", "spiece.model", "sentencepiece.bpe.model", "tokenizer.model",
)  # fmt: skip
_WEIGHTS = (".safetensors", ".bin", ".pt", ".pth", ".ckpt")


@dataclass(frozen=True, slots=True, kw_only=True)
class Held:
    """A model of a folder. library: whose format it is in.   use: the commands that take it."""

    kind: Kind
    library: Literal["open_clip", "transformers", "diffusers"]
    use: tuple[str, ...]


def folder_named(spec: str) -> Path | None:
    """Return the open_clip folder that a spec without overrides names: of a model that ships, the folder itself, or the
    model of a training run in it; None if there is none. Raises ResourceMissing."""
    ours = embedded_dual(spec)
    places = (Path(spec), Path(spec) / "model") if ours is None else (ours,)
    return next((place for place in places if (place / OPEN_CLIP_CONFIG).is_file()), None)


def held_by(folder: Path) -> tuple[Held, ...]:
    """Return the models that a folder holds with their weights; none where it holds none that can be loaded."""
    if (folder / "model" / OPEN_CLIP_CONFIG).is_file():  # a training run
        folder = folder / "model"
    if not weight_files(folder):
        return ()
    if (folder / "model_index.json").is_file():
        return (Held(kind="pipeline", library="diffusers", use=("generate",)),)
    if (folder / OPEN_CLIP_CONFIG).is_file():
        use = ("rerank", "train") if _trains(config_of(folder / OPEN_CLIP_CONFIG)) else ("rerank",)
        return (Held(kind="dual", library="open_clip", use=use),)
    config = config_of(folder / "config.json")
    captions = ("interrogate",) if config.get("model_type") in CAPTIONERS else ()
    ranks = {"dual": ("rerank",), "matching": (), "detection": ("detect", *captions)}
    return tuple(Held(kind=use, library="transformers", use=ranks[use]) for use in uses_of(config))


def weight_files(folder: Path) -> list[Path]:
    """Weight files that are really there: in a snapshot they are links, which dangle when a download was cut short."""
    return [path for path in folder.rglob("*") if path.suffix in _WEIGHTS and path.is_file()]


def has_tokenizer(folder: Path) -> bool:
    """True if a folder holds the files of a tokenizer."""
    return any((folder / name).is_file() for name in TOKENIZER_FILES)


def size_on_disk(folder: Path) -> int:
    """The bytes of all files in a folder, links followed."""
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def config_of(path: Path) -> dict[str, Any]:
    """Return a JSON document of a folder that nobody vouches for; an empty one where it cannot be read."""
    try:
        return read_json(path)
    except ModelError:
        return {}


def _trains(config: dict[str, Any]) -> bool:
    document = config.get("model_cfg")
    return isinstance(document, dict) and trains(document)


def trains(config: dict[str, Any]) -> bool:
    """True if `train` takes an open_clip `model_cfg`."""
    try:
        check_reads_clip_tokens("", config)
    except ModelError:
        return False
    return True
