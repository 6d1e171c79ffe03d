"""The images and captions of WebDataset tars, paired by name."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path

from clipcond.errors import DataError
from clipcond.images.image_source import ImageSource
from clipcond.images.tars import TarMember, tar_members
from clipcond.train.rows import BadRows, captions_of, problem_with
from clipcond.train.tables import parsed_json
from clipcond.wording import visible

_CAPTIONS = (".txt", ".json")
_LONGEST_CAPTION = 1 << 20  # bytes of a caption's file

Indexed = tuple[ImageSource, tuple[str, ...]]


@dataclass(slots=True)
class _Shard:
    """The files of a tar, by name without the last ending: pictures, and the bytes of caption files by ending."""

    path: Path
    pictures: dict[str, list[ImageSource]] = field(default_factory=dict)
    captions: dict[str, dict[str, bytes]] = field(default_factory=dict)


def index_shard(path: Path, bad: BadRows, notes: list[str]) -> list[Indexed]:
    """Return the images of a tar, each with its captions, in the tar's order; add notes about what is not used.

    A picture and its caption have one name up to the last ending: `a.png` and `a.txt` or `a.json`; where both are there
    the text file is it. What stands before the first dot of the base name is the sample: `a.mask.png` is another file
    of the sample `a`, not its picture. Raises DataError for a damaged tar, and for a picture without a caption.
    """
    shard = _read_shard(path, bad)
    found: list[Indexed] = []
    for stem in shard.pictures:
        try:
            if pair := _pair(shard, stem):
                found.append(pair)
        except DataError as error:
            bad.leave_out(error)
    alone = [stem for stem in shard.captions if stem not in shard.pictures and _sample(stem) not in shard.pictures]
    if alone:
        ending = next(iter(shard.captions[alone[0]]))
        more = f" and {len(alone) - 1} more have" if len(alone) > 1 else " has"
        notes.append(visible(f"{path}: {alone[0]}{ending}{more} no picture"))
    return found


def _pair(shard: _Shard, stem: str) -> Indexed | None:
    """Return a picture and its captions; None for another file of a sample that has its own picture. Raises DataError."""
    picture, *others = shard.pictures[stem]
    if others:
        raise DataError(f"{picture} and {visible(others[0].name)} are both the picture of one caption; expected one")
    said = shard.captions.get(stem)
    if said:
        return picture, _captions(said, f"{shard.path}:{stem}")
    sample = _sample(stem)
    if sample != stem and sample in shard.pictures and sample in shard.captions:
        return None
    near = next((other for other in shard.captions if _sample(other) == sample), None)
    if near is not None:
        name = near + next(iter(shard.captions[near]))
        raise DataError(visible(
            f"{picture} and {name} cannot be paired; the caption of the first would be {stem}.txt or {stem}.json"
        ))  # fmt: skip
    raise DataError(visible(f"{picture} has no caption: there is no {stem}.txt or {stem}.json beside it"))


def _sample(stem: str) -> str:
    """Return a name up to the first dot of its last part: WebDataset's key."""
    folder, slash, last = stem.rpartition("/")
    return folder + slash + last.partition(".")[0]


def _captions(said: dict[str, bytes], stem: str) -> tuple[str, ...]:
    ending = ".txt" if ".txt" in said else ".json"
    where = visible(stem + ending)
    if len(said[ending]) > _LONGEST_CAPTION:
        raise DataError(f"{where}: longer than {_LONGEST_CAPTION >> 20} MiB, which is no caption")
    text = said[ending].decode("utf-8-sig", "surrogateescape")
    captions = (text.strip(),) if ending == ".txt" else captions_of(parsed_json(text, where), where)
    if not all(caption.strip() for caption in captions):
        raise DataError(f"{where}: the caption is empty")
    for caption in captions:
        if problem := problem_with(caption):
            raise DataError(f"{where}: {problem}")
    return captions


def _read_shard(path: Path, bad: BadRows) -> _Shard:
    shard = _Shard(path)
    for member in tar_members(path):
        if member.is_picture or member.ending in _CAPTIONS:
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
        most = min(source.length(), _LONGEST_CAPTION + 1)
        shard.captions.setdefault(member.stem, {})[member.ending] = replace(source, size=most).read()
