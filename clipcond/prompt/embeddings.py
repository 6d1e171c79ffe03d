"""Textual-inversion files: their names and how many vectors they hold, without torch and without running a pickle.

`.safetensors`: the header is read. `.pt` and `.bin`: the outline of the pickle inside (`prompt.pickle_outline`).
"""

from __future__ import annotations

import io
import json
import os
import re
import struct
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from clipcond.errors import DataError, ResourceMissing
from clipcond.prompt.pickle_outline import Noted, outline

SUFFIXES = (".safetensors", ".pt", ".bin")
WIDTHS: Mapping[int, str] = {768: "clip_l", 1024: "clip_h", 1280: "clip_g"}

_ENCODERS = frozenset(WIDTHS.values())
_MOST_VECTORS = 512  # more rows are some other matrix
_MOST_HEADER = 32 << 20  # bytes of a header or a pickle; those of embeddings have some hundred
_OTHER_KEY = re.compile(r"[.:/]")  # weights of a network have such names, embeddings have not
_UNNAMED = frozenset({"emb_params", "*", "string_to_param"})
_LEGACY_MAGIC = 0x1950A86A20F9469CFC6C  # opens a file of torch before 1.6
Shape = tuple[int, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class EmbeddingFile:
    """A textual inversion: the name to type and the number of vectors for each encoder that it has any for."""

    name: str
    vectors: Mapping[str, int]
    path: Path


class Embeddings(Mapping[str, EmbeddingFile]):
    """The embeddings of a folder, by name. `unreadable`: (path, reason) of each file that gave no embedding."""

    def __init__(self, files: Mapping[str, EmbeddingFile], unreadable: tuple[tuple[Path, str], ...] = ()) -> None:
        self._files, self.unreadable = dict(files), unreadable

    def __getitem__(self, name: str) -> EmbeddingFile:
        return self._files[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._files)

    def __len__(self) -> int:
        return len(self._files)


def scan(folder: str | Path, widths: Mapping[int, str] = WIDTHS) -> Embeddings:
    """The embeddings in a folder and the folders below, in the order of their paths.

    A file of one embedding is known by the file's name, as in A1111 and ComfyUI, and by the token stored in it, as in
    diffusers; of two embeddings with one name the first counts. widths: which encoder vectors of a width are for.
    Raises ResourceMissing where there is no such folder.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise ResourceMissing(f"{folder}: no such folder; give one with .safetensors, .pt or .bin embeddings")
    files: dict[str, EmbeddingFile] = {}
    unreadable: list[tuple[Path, str]] = []
    for path in sorted(path for path in folder.rglob("*") if path.suffix.lower() in SUFFIXES and not path.is_dir()):
        if not path.is_file():  # opening a pipe waits for a writer
            unreadable.append(
                (path, "a link to nothing" if path.is_symlink() and not path.exists() else "no regular file")
            )
            continue
        try:
            found = read(path, widths)
        except (DataError, OSError) as error:
            unreadable.append((path, str(error)))
            continue
        for embedding in found:
            other = files.setdefault(embedding.name, embedding)
            if other.path != path:
                unreadable.append((path, f"the name {embedding.name} is taken by {other.path}"))
    return Embeddings(files, tuple(unreadable))


def read(path: Path, widths: Mapping[int, str] = WIDTHS) -> tuple[EmbeddingFile, ...]:
    """The embeddings of one file. Raises DataError for a file that holds none or cannot be read; OSError."""
    return tuple(
        EmbeddingFile(name=name, vectors={encoder: count for encoder, (_, count) in places.items()}, path=path)
        for name, places in place(_read_shapes(path), path.stem, widths).items()
    )


def _read_shapes(path: Path) -> list[tuple[str, Shape]]:
    """The keys and shapes of a file's tensors, nothing of it run. Raises DataError for what cannot be read; OSError."""
    try:
        with path.open("rb") as stream:
            return _safetensors(stream) if path.suffix.lower() == ".safetensors" else _pickled(stream)
    except OSError:
        raise
    except Exception as error:  # whatever a damaged file makes of json, zipfile, zlib, lzma or pickletools
        reason = " ".join(str(error).split()) or type(error).__name__
        raise DataError(f"not readable as {path.suffix[1:]}: {reason[:120]}") from error


def place(
    shapes: Sequence[tuple[str, Shape]], stem: str, widths: Mapping[int, str] = WIDTHS
) -> dict[str, dict[str, tuple[int, int]]]:
    """The embeddings among a file's tensors: name → encoder → (index into `shapes`, number of vectors).

    stem: the file's name without its ending.   widths: which encoder a width is for, where the key does not say so.
    Raises DataError where none is.
    """
    named: dict[str, dict[str, tuple[int, int]]] = {}
    for index, (key, shape) in enumerate(shapes):
        encoder, vectors = _fit(shape, widths)
        if encoder and vectors and not _OTHER_KEY.search(key):
            name = stem if key in _UNNAMED | _ENCODERS else key
            named.setdefault(name, {})[key if key in _ENCODERS else encoder] = index, vectors
    if not named:
        raise DataError("holds no textual inversion")
    if len(named) == 1:
        named.setdefault(stem, *named.values())
    return named


def _fit(shape: Shape, widths: Mapping[int, str]) -> tuple[str | None, int]:
    """The encoder that an embedding's shape (P) or (vectors, P) is for, and its vectors."""
    if not 1 <= len(shape) <= 2:
        return None, 0
    vectors = shape[0] if len(shape) == 2 else 1
    return widths.get(shape[-1]), vectors if vectors <= _MOST_VECTORS else 0


def _safetensors(stream: BinaryIO) -> list[tuple[str, Shape]]:
    size = os.fstat(stream.fileno()).st_size
    (length,) = struct.unpack("<Q", stream.read(8))
    if length > min(_MOST_HEADER, size - 8):
        raise ValueError(f"a header of {length} bytes in a file of {size}")
    header = json.loads(stream.read(length))
    if not isinstance(header, dict):
        raise ValueError("its header is no object with tensors")
    return [(key, _sizes(key, tensor)) for key, tensor in header.items() if key != "__metadata__"]


def _sizes(key: str, tensor: object) -> Shape:
    """The shape that a header gives a tensor. Raises ValueError for what is none."""
    shape = tensor.get("shape") if isinstance(tensor, dict) else None
    if not isinstance(shape, list) or not all(type(size) is int and size >= 0 for size in shape):
        raise ValueError(f"the shape of {key[:40]!r} is no list of sizes")
    return tuple(shape)


# pickles


def _pickled(stream: BinaryIO) -> list[tuple[str, Shape]]:
    if zipfile.is_zipfile(stream):
        stream.seek(0)
        with zipfile.ZipFile(stream) as archive:
            inside = [entry for entry in archive.infolist() if entry.filename.endswith("data.pkl")]
            if len(inside) != 1 or inside[0].file_size > _MOST_HEADER:
                raise ValueError("no data.pkl of a fit size in it")
            with archive.open(inside[0]) as entry:
                document = outline(io.BytesIO(entry.read(_MOST_HEADER)))
    else:
        stream.seek(0)
        legacy = io.BytesIO(stream.read(_MOST_HEADER))
        if outline(legacy) != _LEGACY_MAGIC:
            raise ValueError("neither a zip file nor a file of an old torch")
        outline(legacy), outline(legacy)  # protocol and machine
        document = outline(legacy)
    if not isinstance(document, dict):
        raise ValueError("no dictionary of tensors")
    if (parameters := document.get("string_to_param")) is not None:  # A1111's own form
        return [("*", shape) for shape in _shapes_within(parameters)]
    found = ((str(key), _shape(value)) for key, value in document.items())
    return [(key, shape) for key, shape in found if shape is not None]


def _shape(value: object) -> Shape | None:
    """The shape of a tensor that was noted; None for anything else."""
    while isinstance(value, Noted) and value.name.startswith("torch._utils _rebuild_parameter"):
        value = value.arguments[0]
    if not isinstance(value, Noted) or not value.name.startswith("torch._utils _rebuild_tensor"):
        return None
    shape = value.arguments[2]
    if not isinstance(shape, tuple) or not all(isinstance(size, int) for size in shape):
        return None
    return shape


def _shapes_within(value: object) -> Iterator[Shape]:
    """The shapes of all tensors in containers inside of one another, each container looked into once."""
    seen: set[int] = set()
    waiting = [value]
    while waiting:
        value = waiting.pop()
        if id(value) in seen:
            continue
        seen.add(id(value))
        if (shape := _shape(value)) is not None:
            yield shape
        elif isinstance(value, Noted):
            waiting += (value.state, value.items)
        elif isinstance(value, dict):
            waiting += reversed(value.values())
