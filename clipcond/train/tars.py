"""The images and captions of WebDataset tars, paired by name."""

from __future__ import annotations

import posixpath
from dataclasses import dataclass, field, replace
from pathlib import Path

from clipcond.errors import DataError
from clipcond.images.image_source import ImageSource
from clipcond.images.tars import TarMember, tar_members
from clipcond.train.indexed import Indexed, Relations
from clipcond.train.rows import EMPTY, MISSING, BadRows, RowError
from clipcond.train.sidecars import CAPTIONS, GROUP, LONGEST, NEGATIVE, Said, has_captions, read_said
from clipcond.wording import visible


@dataclass(slots=True)
class _Shard:
    """The files of a tar, by name without the last ending: pictures, and the bytes of texts by ending."""

    path: Path
    pictures: dict[str, list[ImageSource]] = field(default_factory=dict)
    texts: dict[str, dict[str, bytes]] = field(default_factory=dict)

    def beside(self, stem: str) -> dict[str, bytes]:
        """Return the texts of a picture, by what follows its stem."""
        more = {f"{name}.txt": self.texts.get(stem + name, {}).get(".txt") for name in (NEGATIVE, GROUP)}
        return {**self.texts.get(stem, {}), **{name: text for name, text in more.items() if text is not None}}

    def is_more(self, stem: str) -> bool:
        """True for the negatives or groups of a picture that is there."""
        return any(stem.endswith(name) and stem[: -len(name)] in self.pictures for name in (NEGATIVE, GROUP))


def index_shard(path: Path, bad: BadRows, notes: list[str]) -> list[Indexed]:
    """Return the images of a tar, each with its captions, in the tar's order; add notes about what is not used.

    A picture and its texts have one name up to the last ending: `a.png` and `a.txt` or `a.json`; see
    `clipcond.train.sidecars`. What stands before the first dot of the base name is the sample: `a.mask.png` is another
    file of the sample `a`, not its picture. Raises DataError for a damaged tar, and for a picture without a caption.
    """
    shard = _read_shard(path, bad)
    found: list[Indexed] = []
    for stem in shard.pictures:
        try:
            if not shard.is_more(stem) and (pair := _pair(shard, stem)):
                found.append(pair)
        except DataError as error:
            bad.leave_out(error)
    alone = [
        stem for stem in shard.texts
        if stem not in shard.pictures and _sample(stem) not in shard.pictures and not shard.is_more(stem)
    ]  # fmt: skip
    if alone:
        ending = next(iter(shard.texts[alone[0]]))
        more = f" and {len(alone) - 1} more have" if len(alone) > 1 else " has"
        notes.append(visible(f"{path}: {alone[0]}{ending}{more} no picture"))
    return found


def _pair(shard: _Shard, stem: str) -> Indexed | None:
    """Return a picture and its captions; None for another file of a sample that has its own picture. Raises DataError."""
    picture, *others = shard.pictures[stem]
    if others:
        raise DataError(f"{picture} and {visible(others[0].name)} are both the picture of one caption; expected one")
    files = shard.beside(stem)
    if has_captions(files):
        said = read_said(files, f"{shard.path}:{stem}")
        return Indexed(image=picture, captions=said.captions, relations=_relations(shard, stem, said))
    sample = _sample(stem)
    if sample != stem and sample in shard.pictures and sample in shard.texts:
        return None
    near = next((other for other in shard.texts if _sample(other) == sample), None)
    if near is not None:
        name = near + next(iter(shard.texts[near]))
        raise DataError(visible(
            f"{picture} and {name} cannot be paired; the caption of the first would be {stem}.txt or {stem}.json"
        ))  # fmt: skip
    raise RowError(visible(f"{picture} has no caption: there is no {stem}.txt or {stem}.json beside it"), EMPTY)


def _relations(shard: _Shard, stem: str, said: Said) -> Relations:
    """Return the relations of a picture. Raises DataError for a negative picture that is not in the tar."""
    images = list(shard.pictures.get(stem + NEGATIVE, []))
    for name in said.negative_images:
        at = posixpath.normpath(posixpath.join(posixpath.dirname(stem), name))
        found = [each for each in shard.pictures.get(posixpath.splitext(at)[0], []) if each.name.endswith(name)]
        if not found:
            raise RowError(visible(f"{shard.path}:{stem}.json names {name}, which is not in the tar"), MISSING)
        images += found
    return Relations(negatives=said.negatives, negative_images=tuple(images), groups=said.groups)


def _sample(stem: str) -> str:
    """Return a name up to the first dot of its last part: WebDataset's key."""
    folder, slash, last = stem.rpartition("/")
    return folder + slash + last.partition(".")[0]


def _read_shard(path: Path, bad: BadRows) -> _Shard:
    shard = _Shard(path)
    for member in tar_members(path):
        if member.is_picture or member.ending in CAPTIONS:
            _add(shard, member, bad)
    return shard


def _add(shard: _Shard, member: TarMember, bad: BadRows) -> None:
    source = member.source
    if not member.own:
        bad.leave_out(
            DataError(f"{shard.path}:{visible(member.name)} is a link or a sparse file, not a file of its own")
        )
    elif member.is_picture:
        same = shard.pictures.setdefault(member.stem, [])
        same[:] = [*(other for other in same if other.name != source.name), source]  # a later one replaces
    else:
        most = min(source.length(), LONGEST + 1)
        shard.texts.setdefault(member.stem, {})[member.ending] = replace(source, size=most).read()
