"""Models that can be loaded, and which of them are on this machine already: the rows of `clipcond models`."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from clipcond.errors import ModelError, ResourceMissing
from clipcond.models.clip_tokens import check_reads_clip_tokens
from clipcond.models.json_file import read_json
from clipcond.resources import embedded
from clipcond.runtime.torchvision_repair import repair
from clipcond.wording import first_line

Kind = Literal["embedded", "open_clip", "transformers", "pipeline"]
_WEIGHTS = (".safetensors", ".bin", ".pt", ".pth")


@dataclass(frozen=True, slots=True, kw_only=True)
class Model:
    """One row: a model by the name that every command takes."""

    spec: str
    kind: Kind
    use: tuple[str, ...]  # what it is good for: `generate` takes a pipeline, `rerank` and `train` both encoders
    cached: bool  # no network is needed to load it
    bytes: int | None  # on disk, where it is cached
    source: str  # a folder, or what would be downloaded from where

    def to_json(self) -> dict[str, Any]:
        """The row as plain values."""
        return {**asdict(self), "use": list(self.use)}


def hub_cache() -> Path:
    """The folder in which huggingface_hub keeps downloads, read from the environment as that library reads it."""
    try:
        from huggingface_hub.constants import HF_HUB_CACHE
    except ImportError:
        home = os.environ.get("HF_HOME", Path.home() / ".cache" / "huggingface")
        return Path(os.environ.get("HF_HUB_CACHE", Path(home) / "hub")).expanduser()
    return Path(HF_HUB_CACHE).expanduser()


def local_models(cache: Path | None = None) -> tuple[Model, ...]:
    """Return the models that need no network beside open_clip's: `mini`, and those of transformers and diffusers in the cache.

    cache: a hub cache; by default this machine's. A folder that cannot be read is passed over.
    """
    return (*_embedded(), *_of_cache(hub_cache() if cache is None else cache))


def open_clip_models(cache: Path | None = None) -> tuple[Model, ...]:
    """Every architecture and pretrained tag of open_clip that clipcond can load, in open_clip's own order.

    cache: a hub cache in which to look for the weights. Raises ModelError if open_clip cannot be imported.
    """
    cache = hub_cache() if cache is None else cache
    try:
        repair()
        import open_clip
        from open_clip.pretrained import get_pretrained_cfg
    except (ImportError, RuntimeError, OSError) as error:
        raise ModelError(
            f"open_clip cannot be imported ({first_line(error)}); `clipcond doctor` says what is wrong"
        ) from error
    readable = {name for name in open_clip.list_models() if _reads_like_clip(name, open_clip.get_model_config(name))}
    pairs = [(name, tag) for name, tag in open_clip.list_pretrained() if name in readable]
    return tuple(_of_open_clip(name, tag, get_pretrained_cfg(name, tag), cache) for name, tag in pairs)


def pretrained_here(use: str) -> str:
    """Return the spec of the largest pretrained model that needs no download, for a use such as `rerank`; empty without one."""
    known = [model for model in local_models() if model.kind != "embedded"]
    if use != "generate":
        with suppress(ModelError):
            known += open_clip_models()
    fitting = [model for model in known if model.cached and use in model.use]
    return max(fitting, key=lambda model: (model.bytes or 0, model.spec)).spec if fitting else ""


def _embedded() -> Iterator[Model]:
    try:
        folders = [embedded("clip"), embedded("pipeline")]
    except ResourceMissing:
        return
    yield Model(
        spec="mini",
        kind="embedded",
        use=("generate", "rerank", "train"),
        cached=True,
        bytes=sum(size_on_disk(folder) for folder in folders),
        source=str(folders[0].parent),
    )


def _of_open_clip(name: str, tag: str, published: dict[str, Any], cache: Path) -> Model:
    """The row of one pretrained tag. Its weights come from the hub, or from an address where it has no hub entry."""
    hub = str(published.get("hf_hub") or "").strip("/")
    address = str(published.get("url") or "")
    if hub:
        repository = "/".join(hub.split("/")[:2])
        folders = _snapshots(cache, repository)
        found = [file for folder in folders for file in _weights(folder) if file.name.startswith("open_clip")]
    else:
        file = Path.home() / ".cache" / "clip" / address.rsplit("/", 1)[-1]
        found = [file] if file.is_file() else []
    return Model(
        spec=f"{name}/{tag}",
        kind="open_clip",
        use=("rerank", "train"),
        cached=bool(found),
        bytes=max(file.stat().st_size for file in found) if found else None,
        source=f"hub: {repository}" if hub else address,
    )


def _of_cache(cache: Path) -> Iterator[Model]:
    """CLIP models in transformers' format and diffusers pipelines whose weights a hub cache holds."""
    for folder in sorted(cache.glob("models--*")) if cache.is_dir() else ():
        repository = folder.name.removeprefix("models--").replace("--", "/")
        for snapshot in _snapshots(cache, repository):
            size = size_on_disk(snapshot)
            if (snapshot / "model_index.json").is_file() and _weights(snapshot):
                yield Model(
                    spec=repository, kind="pipeline", use=("generate",), cached=True, bytes=size, source=str(folder)
                )
                break
            if _config(snapshot / "config.json").get("model_type") == "clip" and _weights(snapshot):
                spec, use = f"hf:{repository}", ("rerank", "train")
                yield Model(spec=spec, kind="transformers", use=use, cached=True, bytes=size, source=str(folder))
                break


def _snapshots(cache: Path, repository: str) -> list[Path]:
    folder = cache / f"models--{repository.replace('/', '--')}" / "snapshots"
    return sorted(path for path in folder.iterdir() if path.is_dir()) if folder.is_dir() else []


def _weights(folder: Path) -> list[Path]:
    """Weight files that are really there: in a snapshot they are links, which dangle when a download was cut short."""
    return [path for path in folder.rglob("*") if path.suffix in _WEIGHTS and path.is_file()]


def size_on_disk(folder: Path) -> int:
    """The bytes of all files in a folder, links followed."""
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def _config(path: Path) -> dict[str, Any]:
    try:
        return read_json(path)
    except ModelError:
        return {}


def _reads_like_clip(name: str, config: dict[str, Any] | None) -> bool:
    """True if `load_dual` takes this architecture: the loader's own check is asked."""
    try:
        check_reads_clip_tokens(name, config or {})
    except ModelError:
        return False
    return True
