"""Textual-inversion files: their names and how many vectors they hold, without torch and without running a pickle.

`.safetensors`: the header is read. `.pt` and `.bin`: the pickle inside is followed on paper by a small stack machine
that knows containers, strings, numbers and tensor sizes; whatever a pickle would call is written down and never called.
"""

from __future__ import annotations

import io
import json
import pickletools
import re
import struct
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO

from clipcond.errors import DataError, ResourceMissing

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
    """What a folder holds, by name. `unreadable`: (path, reason) of each file that gave no embedding."""

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
    for path in sorted(path for path in folder.rglob("*") if path.suffix.lower() in SUFFIXES and path.is_file()):
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
    except (
        ValueError,
        KeyError,
        IndexError,
        TypeError,
        EOFError,
        struct.error,
        zipfile.BadZipFile,
        RuntimeError,
    ) as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        raise DataError(f"not readable as {path.suffix[1:]}: {reason[:120]}") from error


def place(
    shapes: Sequence[tuple[str, Shape]], stem: str, widths: Mapping[int, str] = WIDTHS
) -> dict[str, dict[str, tuple[int, int]]]:
    """Which of a file's tensors are embeddings: name → encoder → (index into `shapes`, number of vectors).

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
    (length,) = struct.unpack("<Q", stream.read(8))
    if length > _MOST_HEADER:
        raise ValueError(f"a header of {length} bytes")
    header = json.loads(stream.read(length))
    tensors = [(str(key), tensor["shape"]) for key, tensor in header.items() if key != "__metadata__"]
    return [(key, tuple(int(size) for size in shape)) for key, shape in tensors]


# pickles


def _pickled(stream: BinaryIO) -> list[tuple[str, Shape]]:
    if zipfile.is_zipfile(stream):
        stream.seek(0)
        with zipfile.ZipFile(stream) as archive:
            inside = [entry for entry in archive.infolist() if entry.filename.endswith("data.pkl")]
            if len(inside) != 1 or inside[0].file_size > _MOST_HEADER:
                raise ValueError("no data.pkl of a fit size in it")
            with archive.open(inside[0]) as entry:
                document = _follow(io.BytesIO(entry.read(_MOST_HEADER)))
    else:
        stream.seek(0)
        legacy = io.BytesIO(stream.read(_MOST_HEADER))
        if _follow(legacy) != _LEGACY_MAGIC:
            raise ValueError("neither a zip file nor a file of an old torch")
        _follow(legacy), _follow(legacy)  # protocol and machine
        document = _follow(legacy)
    if not isinstance(document, dict):
        raise ValueError("no dictionary of tensors")
    if (parameters := document.get("string_to_param")) is not None:  # A1111's own form
        return [("*", shape) for _, shape in _tensors("*", parameters, depth=4)]
    return [found for key, value in document.items() for found in _tensors(str(key), value, depth=0)]


@dataclass(slots=True)
class _Noted:
    """What a pickle would have called, with which arguments, and what it would have put in."""

    name: str
    arguments: tuple[object, ...] = ()
    items: dict[object, object] = field(default_factory=dict)
    state: object = None


def _tensors(key: str, value: object, depth: int) -> Iterator[tuple[str, Shape]]:
    """The tensors in what was noted, to some depth."""
    if isinstance(value, _Noted):
        if value.name.startswith("torch._utils _rebuild_tensor"):
            shape = value.arguments[2]
            if isinstance(shape, tuple) and all(isinstance(size, int) for size in shape):
                yield key, shape
        elif value.name.startswith("torch._utils _rebuild_parameter"):
            yield from _tensors(key, value.arguments[0], depth)
        elif depth:
            for part in (value.items, value.state):
                yield from _tensors(key, part, depth - 1)
    elif isinstance(value, dict) and depth:
        for name, part in value.items():
            yield from _tensors(str(name), part, depth - 1)


_PLAIN_VALUES = frozenset({
    "BINUNICODE", "SHORT_BINUNICODE", "BINUNICODE8", "UNICODE", "BININT", "BININT1", "BININT2", "INT", "LONG", "LONG1",
    "LONG4", "BINFLOAT", "FLOAT", "BINBYTES", "SHORT_BINBYTES", "BINSTRING", "SHORT_BINSTRING", "STRING",
})  # fmt: skip
_CONSTANTS: Mapping[str, object] = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False, "EMPTY_TUPLE": ()}
_TUPLES = {"TUPLE1": 1, "TUPLE2": 2, "TUPLE3": 3}
_MARK = object()


def _follow(stream: BinaryIO) -> object:
    """What one pickle describes, with `_Noted` in the place of everything that would be called.

    Raises ValueError for instructions that embeddings do not need.
    """
    stack: list[object] = []
    memo: dict[int, object] = {}

    def since_mark() -> list[object]:
        at = len(stack) - 1
        while stack[at] is not _MARK:
            at -= 1
            if at < 0:
                raise ValueError("a pickle without its mark")
        values = stack[at + 1 :]
        del stack[at:]
        return values

    def put(pairs: list[object]) -> None:
        target = stack[-1].items if isinstance(stack[-1], _Noted) else stack[-1]
        if isinstance(target, dict):
            target.update(
                (key, value) for key, value in zip(pairs[::2], pairs[1::2], strict=True) if isinstance(key, (str, int))
            )

    for opcode, argument, _ in pickletools.genops(stream):
        name = opcode.name
        if name in _PLAIN_VALUES:
            stack.append(argument)
        elif name in _CONSTANTS:
            stack.append(_CONSTANTS[name])
        elif name in ("BINPUT", "LONG_BINPUT", "PUT"):
            memo[int(str(argument))] = stack[-1]
        elif name == "MEMOIZE":
            memo[len(memo)] = stack[-1]
        elif name in ("BINGET", "LONG_BINGET", "GET"):
            stack.append(memo[int(str(argument))])
        elif name == "MARK":
            stack.append(_MARK)
        elif name in _TUPLES:
            values = tuple(stack[-_TUPLES[name] :])
            del stack[-_TUPLES[name] :]
            stack.append(values)
        elif name == "TUPLE":
            stack.append(tuple(since_mark()))
        elif name == "EMPTY_DICT":
            stack.append({})
        elif name == "EMPTY_LIST":
            stack.append([])
        elif name == "EMPTY_SET":
            stack.append(_Noted("set"))
        elif name in ("LIST", "DICT"):
            values_since = since_mark()
            stack.append({} if name == "DICT" else values_since)
            if name == "DICT":
                put(values_since)
        elif name == "SETITEMS":
            put(since_mark())
        elif name == "SETITEM":
            value, key = stack.pop(), stack.pop()
            put([key, value])
        elif name in ("APPENDS", "ADDITEMS"):
            since_mark()
        elif name in ("APPEND", "POP"):
            stack.pop()
        elif name == "GLOBAL":
            stack.append(_Noted(str(argument)))
        elif name == "STACK_GLOBAL":
            attribute, module = stack.pop(), stack.pop()
            stack.append(_Noted(f"{module} {attribute}"))
        elif name in ("REDUCE", "NEWOBJ"):
            arguments, called = stack.pop(), stack.pop()
            if not isinstance(called, _Noted) or not isinstance(arguments, tuple):
                raise ValueError("a pickle that calls what it must not")
            stack.append(_Noted(called.name, arguments))
        elif name == "BUILD":
            state = stack.pop()
            if isinstance(stack[-1], _Noted):
                stack[-1].state = state
        elif name == "BINPERSID":
            stack[-1] = _Noted("storage")
        elif name == "STOP":
            return stack.pop()
        elif name not in ("PROTO", "FRAME"):
            raise ValueError(f"a pickle with {name}, which embeddings do not need")
    raise ValueError("a pickle without an end")
