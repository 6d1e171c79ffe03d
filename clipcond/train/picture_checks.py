"""Pictures before a run: what cannot be decoded, what is there twice, what is held out and trained on as well."""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor

from clipcond.errors import DataError, ImageError
from clipcond.images.decode import decoded, workers
from clipcond.images.image_source import ImageSource
from clipcond.prompt.analysis.plan_summary import counted
from clipcond.train.caption_checks import caption_owners
from clipcond.train.check import NOTE, OK, SHOWN, STOPS, WARNING, Check, short
from clipcond.train.data import Pairs

_AT_ONCE = 64


def check_decoding(
    pairs: Pairs, most: int | None, *, allowed: int, advance: Callable[[int], object] = lambda count: None
) -> Check:
    """Decode evenly spread pictures to their end. most: None for all of them.

    allowed: how many more may be left out before the run stops.
    """
    rows = list(range(len(pairs))) if most is None else pairs.sample(most) if most else []
    if not rows:
        return Check(name="pictures", verdict=OK, text="none decoded")
    problems: list[str] = []
    with ThreadPoolExecutor(workers()) as pool:
        for start in range(0, len(rows), _AT_ONCE):
            part = rows[start : start + _AT_ONCE]
            problems += [each for each in pool.map(lambda row: _problem(pairs.images[row]), part) if each]
            advance(len(part))
    numbers = {"decoded": len(rows), "of": len(pairs), "unreadable": len(problems)}
    of = "all" if len(rows) == len(pairs) else f"{len(rows):,} of {len(pairs):,}"
    if not problems:
        return Check(name="pictures", verdict=OK, text=f"{of} decoded to their end", numbers=numbers)
    verdict = STOPS if len(problems) > allowed else WARNING
    text = f"{counted(len(problems), 'picture')} cannot be decoded ({of} tried)"
    return Check(name="pictures", verdict=verdict, text=text, examples=tuple(problems[:SHOWN]), numbers=numbers)


def _problem(source: ImageSource) -> str:
    try:
        with source.stream() as stream, decoded(stream, name=str(source)):
            return ""
    except (DataError, ImageError) as error:
        return str(error)


def check_same_pictures(pairs: Pairs) -> Check:
    """Count the pictures that are another one byte for byte, under another name."""
    groups = [group for group in same_bytes(pairs.images) if len(group) > 1]
    copies = sum(len(group) - 1 for group in groups)
    numbers = {"copies": copies}
    if not copies:
        return Check(name="same pictures", verdict=OK, text="no two files are the same picture", numbers=numbers)
    examples = tuple(" = ".join(str(pairs.images[row]) for row in group[:3]) for group in groups[:SHOWN])
    are = "is a copy" if copies == 1 else "are copies"
    text = f"{counted(copies, 'file')} {are} of another, byte for byte: false negatives of one another"
    return Check(name="same pictures", verdict=WARNING, text=text, examples=examples, numbers=numbers)


def same_bytes(images: Sequence[ImageSource]) -> list[list[int]]:
    """Return groups of images of equal content. Bytes are read where a size is there twice; what cannot be read is left out."""
    sizes: dict[int, list[int]] = defaultdict(list)
    for row, image in enumerate(images):
        try:
            sizes[image.length()].append(row)
        except DataError:
            continue
    found: list[list[int]] = []
    for rows in sizes.values():
        digests: dict[bytes, list[int]] = defaultdict(list)
        for row in rows if len(rows) > 1 else ():
            try:
                digests[images[row].digest()].append(row)
            except DataError:
                continue
        found += [group for group in digests.values() if len(group) > 1]
    return found


def check_leakage(training: Pairs, held_out: Pairs, *, by_bytes: bool = True) -> Check:
    """Count the held-out pictures and captions that are trained on as well. by_bytes: read what has the same size."""
    places = {_place(image) for image in training.images}
    leaked = {row for row, image in enumerate(held_out.images) if _place(image) in places}
    if by_bytes:
        leaked |= _copies(training, held_out)
    known = caption_owners(training)
    said = sorted(key for key in caption_owners(held_out) if key in known)
    count = len(held_out)
    numbers = {"held_out_images": count, "leaked_images": len(leaked), "leaked_captions": len(said)}
    if not leaked and not said:
        return Check(name="held out", verdict=OK, text=f"{counted(count, 'image')}, none trained on", numbers=numbers)
    parts = [f"{counted(len(leaked), 'held-out image')} of {count:,} trained on as well"] if leaked else []
    parts += [f"{counted(len(said), 'held-out caption')} said in the training data too"] if said else []
    examples = [str(held_out.images[row]) for row in sorted(leaked)[:SHOWN]] or [short(key) for key in said[:SHOWN]]
    verdict = WARNING if leaked else NOTE
    text = "; ".join(parts) + ("; retrieval will look better than it is" if leaked else "")
    return Check(name="held out", verdict=verdict, text=text, examples=tuple(examples), numbers=numbers)


def _place(image: ImageSource) -> tuple[str, int]:
    return os.path.realpath(image.path), image.start


def _copies(training: Pairs, held_out: Pairs) -> set[int]:
    """Return the held-out rows that have the bytes of a training picture."""
    first = len(training)
    groups: Iterable[list[int]] = same_bytes([*training.images, *held_out.images])
    return {row - first for group in groups if group[0] < first for row in group if row >= first}
