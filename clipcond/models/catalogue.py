"""Models that can be loaded, and which of them are on this machine already: the rows of `clipcond models`."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from clipcond.errors import ModelError, ResourceMissing
from clipcond.models.folder_models import Kind, has_tokenizer, held_by, size_on_disk, trains, weight_files
from clipcond.models.open_clip_text import OpenClipTextConfig, read_text_config
from clipcond.resources import EMBEDDED, embedded
from clipcond.runtime.torchvision_repair import repair
from clipcond.wording import first_line

Library = Literal["embedded", "open_clip", "transformers", "diffusers"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Model:
    """One row: a model by the name that every command takes, for one of its uses."""

    spec: str
    kind: Kind  # dual: text and image encoder; matching: scores pairs; detection: finds places; pipeline: draws
    library: Library
    use: tuple[str, ...]  # the commands that take it
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


def local_models(cache: Path | None = None, folders: Sequence[Path] = ()) -> tuple[Model, ...]:
    """Return the models that need no network beside open_clip's: `mini` and `emoji`, those of folders, and those in the cache.

    cache: a hub cache; by default this machine's.   folders: each a model, or a folder of models. A folder that cannot be
    read is passed over. Raises ModelError for one that is not there.
    """
    return (*_embedded(), *_of_folders(folders), *_of_cache(hub_cache() if cache is None else cache))


def open_clip_models(cache: Path | None = None) -> tuple[Model, ...]:
    """Every architecture and pretrained tag of open_clip, in open_clip's own order.

    cache: a hub cache in which to look for the weights, and for the tokenizers of those that have another than CLIP's.
    Raises ModelError if open_clip cannot be imported.
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
    configs = {name: open_clip.get_model_config(name) or {} for name in open_clip.list_models()}
    return tuple(
        _of_open_clip(f"{name}/{tag}", configs[name], get_pretrained_cfg(name, tag), cache)
        for name, tag in open_clip.list_pretrained()
    )


def pretrained_here(use: str) -> str:
    """Return the spec of the largest pretrained model that needs no download, for a use such as `rerank`; empty without one."""
    known = [model for model in local_models() if model.library != "embedded"]
    if use != "generate":
        with suppress(ModelError):
            known += open_clip_models()
    fitting = [model for model in known if model.cached and use in model.use]
    return max(fitting, key=lambda model: (model.bytes or 0, model.spec)).spec if fitting else ""


def _embedded() -> Iterator[Model]:
    parts: list[tuple[str, Kind, str, tuple[str, ...]]] = [
        (name, "dual", parts[0], ("rerank", "train")) for name, parts in EMBEDDED.items()
    ]
    parts.append(("mini", "pipeline", "pipeline", ("generate",)))
    for name, kind, part, use in parts:
        try:
            folder = embedded(part)
        except ResourceMissing:
            continue
        yield Model(
            spec=name,
            kind=kind,
            library="embedded",
            use=use,
            cached=True,
            bytes=size_on_disk(folder),
            source=str(folder),
        )


def _of_open_clip(spec: str, config: dict[str, Any], published: dict[str, Any], cache: Path) -> Model:
    """The row of one pretrained tag. Its weights come from the hub, or from an address where it has no hub entry."""
    hub = str(published.get("hf_hub") or "").strip("/")
    address = str(published.get("url") or "")
    if hub:
        repository = "/".join(hub.split("/")[:2])
        folders = _snapshots(cache, repository)
        found = [file for folder in folders for file in weight_files(folder) if file.name.startswith("open_clip")]
    else:
        file = Path.home() / ".cache" / "clip" / address.rsplit("/", 1)[-1]
        found = [file] if file.is_file() else []
    source = f"hub: {repository}" if hub else address
    lacking = _lacking(read_text_config(spec, config), cache)
    return Model(
        spec=spec,
        kind="dual",
        library="open_clip",
        use=("rerank", "train") if trains(config) else ("rerank",),
        cached=bool(found) and not lacking,
        bytes=max(file.stat().st_size for file in found) if found else None,
        source=f"{source}, tokenizer: {lacking}" if lacking else source,
    )


def _lacking(text: OpenClipTextConfig, cache: Path) -> str:
    """The name of the tokenizer or text model of the hub that an architecture needs and the cache lacks, or nothing."""
    if text.tokenizer and not any(map(has_tokenizer, _snapshots(cache, text.tokenizer))):
        return text.tokenizer
    if text.model and not any((folder / "config.json").is_file() for folder in _snapshots(cache, text.model)):
        return text.model
    return ""


def _of_folders(folders: Sequence[Path]) -> Iterator[Model]:
    """The models of the folders, or of the folders in them; a path that could be a name gets a `./` in front."""
    for folder in folders:
        if not folder.is_dir():
            raise ModelError(f"no folder {folder}; expected one that holds a model, or several in folders of their own")
        within = [folder] if held_by(folder) else sorted(path for path in folder.iterdir() if path.is_dir())
        for path in within:
            spec = str(path) if path.is_absolute() or str(path).startswith(".") else f"./{path}"
            yield from _rows(spec, path, source=str(path))


def _of_cache(cache: Path) -> Iterator[Model]:
    """Models of transformers and open_clip's format and diffusers pipelines whose weights a hub cache holds."""
    for folder in sorted(cache.glob("models--*")) if cache.is_dir() else ():
        repository = folder.name.removeprefix("models--").replace("--", "/")
        for snapshot in _snapshots(cache, repository):
            rows = [*_rows(f"hf:{repository}", snapshot, source=str(folder))]
            if rows:
                yield from rows
                break


def _rows(spec: str, folder: Path, *, source: str) -> Iterator[Model]:
    """A row for each use of a folder's model. A pipeline of the hub goes by its bare name."""
    for held in held_by(folder):
        yield Model(
            spec=spec.removeprefix("hf:") if held.kind == "pipeline" else spec,
            kind=held.kind,
            library=held.library,
            use=held.use,
            cached=True,
            bytes=size_on_disk(folder),
            source=source,
        )


def _snapshots(cache: Path, repository: str) -> list[Path]:
    folder = cache / f"models--{repository.replace('/', '--')}" / "snapshots"
    return sorted(path for path in folder.iterdir() if path.is_dir()) if folder.is_dir() else []
