"""Textual inversions: their vectors from files.

Names and encoders follow `clipcond.prompt.embeddings`, so that a plan made from a folder and the vectors loaded from it
agree. Pickles are opened with `weights_only`: nothing in them is run. A vector is known by the digest of its content,
which is what `TokenSequence.vectors` holds.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import Tensor

from clipcond.encode.shapes import check_axes
from clipcond.errors import ConfigError, DataError, ModelError, ResourceMissing
from clipcond.prompt.embeddings import SUFFIXES, WIDTHS, EmbeddingFile, place, scan
from clipcond.wording import first_line


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Inversion:
    """A textual inversion: the name to type and n vectors for each encoder that it has any for."""

    name: str
    vectors: Mapping[str, Tensor]  # encoder (clip_l, clip_g, clip_h) → (n, D) float32 on the CPU
    path: Path | None = None  # None where it came from no file
    digests: Mapping[str, tuple[str, ...]] = field(init=False)  # encoder → the digest of each of its n vectors

    def __post_init__(self) -> None:
        """Bring vectors to (n, D) float32 on the CPU and digest them. Raises ShapeError for other axes."""
        vectors = {encoder: _rows(self.name, tensor) for encoder, tensor in self.vectors.items()}
        object.__setattr__(self, "vectors", vectors)
        object.__setattr__(self, "digests", {key: tuple(map(digest, rows)) for key, rows in vectors.items()})


class Inversions(Mapping[str, Inversion]):
    """Textual inversions by name. Of two with one name the first counts.

    unreadable: (path, reason) of each file of a folder that gave no textual inversion.
    """

    def __init__(self, inversions: Iterable[Inversion] = (), unreadable: Iterable[tuple[Path, str]] = ()) -> None:
        self._known: dict[str, Inversion] = {}
        self.unreadable = tuple(unreadable)
        for inversion in inversions:
            self._known.setdefault(inversion.name, inversion)

    def __getitem__(self, name: str) -> Inversion:
        return self._known[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._known)

    def __len__(self) -> int:
        return len(self._known)

    @property
    def files(self) -> dict[str, EmbeddingFile]:
        """Names and numbers of vectors, as `clipcond.prompt.plan.plan(embeddings=…)` takes them."""
        return {
            name: EmbeddingFile(
                name=name,
                vectors={encoder: len(rows) for encoder, rows in inversion.vectors.items()},
                path=inversion.path or Path(),
            )
            for name, inversion in self._known.items()
        }

    def vectors(self, encoder: str) -> dict[str, Tensor]:
        """Digest → (D,) float32 vector of all that an encoder may be given, as towers take them beside rows."""
        return {
            key: row
            for inversion in self._known.values()
            if encoder in inversion.vectors
            for key, row in zip(inversion.digests[encoder], inversion.vectors[encoder], strict=True)
        }

    def digests(self, encoder: str) -> dict[str, tuple[str, ...]]:
        """Name → the digests of its vectors for an encoder, in order; names without any are left out."""
        return {name: each.digests[encoder] for name, each in self._known.items() if encoder in each.digests}

    def check(self, widths: Mapping[str, int]) -> None:
        """Raise ModelError where a vector has not the width of the encoder that it is for.

        widths: encoder → D, of the encoders that there are; vectors for others stay unused.
        """
        for inversion in self._known.values():
            for encoder, rows in inversion.vectors.items():
                if encoder in widths and rows.shape[1] != widths[encoder]:
                    place = "" if inversion.path is None else f" of {inversion.path}"
                    raise ModelError(
                        f"textual inversion {inversion.name!r}{place} has vectors of {rows.shape[1]} numbers for {encoder}, "
                        f"whose token table is {widths[encoder]} wide; use one that was made for this model"
                    )


def digest(vector: Tensor) -> str:
    """The same text for equal vectors, whatever file they came from: of (D,) numbers as float32."""
    return hashlib.blake2b(vector.float().contiguous().numpy().tobytes(), digest_size=16).hexdigest()


def load_inversion(path: str | Path, *, widths: Mapping[int, str] = WIDTHS) -> tuple[Inversion, ...]:
    """The textual inversions of one file: A1111's `.pt`, diffusers' `.bin`, `.safetensors`, SDXL's `clip_l`/`clip_g`.

    A file of one inversion is known by the file's name and by the token in it: two entries, of the same vectors.
    widths: which encoder vectors of a width are for, where the file does not say so.
    Raises ResourceMissing when there is no such file, DataError when it holds none, cannot be read, or has vectors that
    are not finite.
    """
    path = Path(path)
    if not path.is_file():
        raise ResourceMissing(f"{path}: no such file; give a textual inversion ({', '.join(SUFFIXES)})")
    tensors = _read(path)
    shapes = [(key, tuple(tensor.shape)) for key, tensor in tensors]
    try:
        placed = place(shapes, path.stem, widths)
    except DataError as error:
        sizes = sorted({shape[-1] for _, shape in shapes if shape})
        found = f"tensors of width {', '.join(map(str, sizes))}" if sizes else "no tensors"
        raise DataError(f"{path} {error}: {found}, expected {', '.join(map(str, sorted(widths)))}") from None
    return tuple(
        Inversion(
            name=name,
            vectors={encoder: _finite(path, *tensors[at]) for encoder, (at, _) in found.items()},
            path=path,
        )
        for name, found in placed.items()
    )


def load_folder(folder: str | Path, *, widths: Mapping[int, str] = WIDTHS) -> Inversions:
    """The textual inversions in a folder and the folders below, as `clipcond.prompt.embeddings.scan` finds them.

    Files that are in the way there (other weights, damaged ones, those that would have to be run, names that are taken)
    are listed in `unreadable`. Raises ResourceMissing when there is no such folder.
    """
    files = scan(folder, widths)
    unreadable = list(files.unreadable)
    loaded: dict[Path, Inversions] = {}
    for path in dict.fromkeys(file.path for file in files.values()):
        try:
            loaded[path] = Inversions(load_inversion(path, widths=widths))
        except DataError as error:
            unreadable.append((path, str(error).removeprefix(f"{path} ")))
    found = (loaded[file.path][name] for name, file in files.items() if file.path in loaded)
    return Inversions(found, unreadable)


Source = str | Path | Inversion | Inversions


def gather(source: Source | Iterable[Source] | None, encoders: Mapping[str, int]) -> Inversions:
    """A folder, a file, inversions that are loaded already, or a list of these, as one collection for some encoders.

    encoders: name → D, the width of its token table. From a folder, what is for other encoders is kept and stays
    unused; a file or an Inversion that is named and fits none of them is an error.
    Raises ModelError naming both widths where one does not fit; ConfigError for another kind of source; and what
    `load_inversion` and `load_folder` raise.
    """
    unreadable: list[tuple[Path, str]] = []
    found = Inversions(list(_gather(source, encoders, unreadable)), unreadable)
    found.check(encoders)
    return found


def _gather(
    source: Source | Iterable[Source] | None, encoders: Mapping[str, int], unreadable: list[tuple[Path, str]]
) -> Iterator[Inversion]:
    """The inversions of a source; files of its folders that give none are added to `unreadable`."""
    widths = {**WIDTHS, **{encoders[name]: name for name in reversed(list(encoders))}}
    if isinstance(source, Inversion):
        yield _fitting(source, encoders)
    elif isinstance(source, Inversions):
        unreadable += source.unreadable
        yield from source.values()
    elif isinstance(source, (str, Path)) and Path(source).is_dir():
        folder = load_folder(source, widths=widths)
        unreadable += folder.unreadable
        yield from folder.values()
    elif isinstance(source, (str, Path)):
        if not Path(source).exists():
            raise ResourceMissing(f"{source}: no such folder or file; give textual inversions ({', '.join(SUFFIXES)})")
        yield from (_fitting(each, encoders) for each in load_inversion(source, widths=widths))
    elif isinstance(source, Iterable) and not isinstance(source, Mapping):
        for each in source:
            yield from _gather(each, encoders, unreadable)
    elif source is not None:
        raise ConfigError(f"embeddings is a {type(source).__name__}, expected a folder, files or Inversions")


def _fitting(inversion: Inversion, encoders: Mapping[str, int]) -> Inversion:
    """The inversion itself, if it has vectors for any of the encoders."""
    if not inversion.vectors.keys() & encoders.keys():
        theirs = ", ".join(f"{rows.shape[1]} ({encoder})" for encoder, rows in inversion.vectors.items())
        ours = ", ".join(f"{width} ({encoder})" for encoder, width in encoders.items())
        raise ModelError(
            f"textual inversion {inversion.name!r} has vectors of {theirs or 0} numbers, "
            f"expected {ours}; use one that was made for this model"
        )
    return inversion


def _rows(name: str, tensor: Tensor) -> Tensor:
    rows = tensor.detach().to("cpu", torch.float32)
    rows = rows[None] if rows.ndim == 1 else rows
    check_axes(f"vectors of {name}", rows, "N D")
    return rows


def _finite(path: Path, key: str, tensor: Tensor) -> Tensor:
    """A tensor as float32 on the CPU. Raises DataError where a number in it is not finite or it holds none."""
    try:
        rows = tensor.detach().to("cpu", torch.float32)
        finite = bool(torch.isfinite(rows).all())
    except (RuntimeError, NotImplementedError, TypeError) as error:  # sparse, quantised or without data
        raise DataError(f"{path} has a tensor {key!r} that holds no vectors: {first_line(error)}") from error
    if not finite:
        raise DataError(f"{path} has a tensor {key!r} with a number that is not finite (NaN or infinity)")
    return rows


def _read(path: Path) -> list[tuple[str, Tensor]]:
    """The tensors of a file by key; those of A1111's form under `*`."""
    try:
        if path.suffix.lower() == ".safetensors":
            from safetensors.torch import load_file

            return list(load_file(path).items())
        with torch.serialization.safe_globals([torch.nn.ParameterDict]):  # of the first textual inversions
            document = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # whatever the libraries below raise: one line, with the original as its cause
        raise DataError(f"{path} cannot be loaded without running code: {first_line(error)[:120]}") from error
    if not isinstance(document, Mapping):
        raise DataError(f"{path} holds no dictionary of tensors, but {type(document).__name__}")
    if (parameters := document.get("string_to_param")) is not None:
        named = dict(parameters.items()) if isinstance(parameters, (Mapping, torch.nn.ParameterDict)) else {}
        return [("*", tensor) for tensor in named.values() if isinstance(tensor, Tensor)]
    return [(str(key), value) for key, value in document.items() if isinstance(value, Tensor)]
