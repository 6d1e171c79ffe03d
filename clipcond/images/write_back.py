"""A score into the picture it belongs to: a text chunk of a PNG, and a star rating that photo programs show.

Pixels are never decoded: the file is taken apart, one part is exchanged, and all others stay byte for byte.
"""

from __future__ import annotations

import json
import math
import os
import stat
import zlib
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

from clipcond.errors import ConfigError, ImageError
from clipcond.files import writing
from clipcond.images.containers import (
    PNG_SIGNATURE,
    Chunk,
    Container,
    read_jpeg,
    read_png,
    read_webp,
    webp_canvas,
    write_jpeg,
    write_png,
    write_webp,
)
from clipcond.images.xmp import LARGEST, new_packet, with_rating

KEYWORD = "clipcond"  # of the PNG's text chunk
LARGEST_FILE = 1 << 30  # bytes
_XMP_KEYWORD = b"XML:com.adobe.xmp"
_XMP_SEGMENT = b"http://ns.adobe.com/xap/1.0/\0"
_APP0, _APP1 = b"\xe0", b"\xe1"
_XMP_FLAG, _ALPHA_FLAG = 0x04, 0x10  # of a WebP's VP8X chunk
_Edit = Callable[[Container], Container]


@dataclass(frozen=True, slots=True, kw_only=True)
class WrittenScore:
    """A score as it stands in a picture. scale: its column, such as `clipscore`."""

    model: str
    scale: str
    score: float
    prompt: str


def write_back(
    path: str | Path, *, score: WrittenScore | None = None, rating: int | None = None, keep_times: bool = False
) -> tuple[str, ...]:
    """Write a score, a rating of 0 to 5 stars, or both; what is there of an earlier call is replaced.

    score: for PNG only, as JSON in the text chunk `clipcond`.   rating: `xmp:Rating`, for PNG, JPEG and WebP.
    keep_times: the file keeps the time of its last change. Returns the names of the fields that were written, which are
    empty for a score alone in a JPEG or WebP. Raises ConfigError for a number out of range, and ImageError for a file of
    another format or a damaged one, which stays untouched; OSError where it cannot be written.
    """
    _check(score, rating)
    path = Path(os.path.realpath(path))  # a link stays a link
    data, before = _read(path)
    try:
        read, write, edits = _edits(data, score, rating)
        container = read(data)
        for edit in edits.values():
            container = edit(container)
        content = write(container)
    except ValueError as error:
        raise ImageError(f"{path}: nothing is written into it, {error}") from error
    if content != data:
        _replace(path, content, before, keep_times)
    return tuple(edits)


def read_score(text: str) -> WrittenScore | None:
    """Return the score of a `clipcond` text chunk; None where it holds none."""
    try:
        found = json.loads(text)
        values = {name: found[name] for name in ("model", "scale", "prompt")}
        number = float(found["score"])
    except (ValueError, TypeError, KeyError, RecursionError, OverflowError):
        return None
    if not all(isinstance(value, str) for value in values.values()) or not math.isfinite(number):
        return None
    return WrittenScore(**values, score=number)


def _check(score: WrittenScore | None, rating: int | None) -> None:
    if score is None and rating is None:
        raise ConfigError("nothing to write back; expected a score or a rating")
    if score is not None and not math.isfinite(score.score):
        raise ConfigError(f"a score of {score.score} cannot be written back; expected a finite number")
    if rating is not None and (isinstance(rating, bool) or not isinstance(rating, int) or not 0 <= rating <= 5):
        raise ConfigError(f"a rating of {rating!r} makes no sense; expected 0 to 5 stars")


def _read(path: Path) -> tuple[bytes, os.stat_result]:
    """The bytes of a regular file and its state."""
    try:
        state = path.stat()
        if not stat.S_ISREG(state.st_mode):
            raise ImageError(f"{path}: is no regular file, nothing is written into it")
        if state.st_size > LARGEST_FILE:
            raise ImageError(f"{path}: is too large to be written into ({state.st_size:,} bytes)")
        return path.read_bytes(), state
    except OSError as error:
        raise ImageError(f"{path}: cannot be read ({error.strerror})") from error


def _replace(path: Path, content: bytes, before: os.stat_result, keep_times: bool) -> None:
    """Put the new file in the place of the old one, with its mode, unless that has changed meanwhile."""
    with writing(path, overwrite=True, durable=True) as file:
        file.write(content)
        now = path.stat()
        if (now.st_mtime_ns, now.st_size, now.st_ino) != (before.st_mtime_ns, before.st_size, before.st_ino):
            raise ImageError(f"{path}: has changed meanwhile, nothing is written into it")
    path.chmod(stat.S_IMODE(before.st_mode))
    if keep_times:
        os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))


def _edits(
    data: bytes, score: WrittenScore | None, rating: int | None
) -> tuple[Callable[[bytes], Container], Callable[[Container], bytes], dict[str, _Edit]]:
    """Return what takes the file apart, what puts it together, and the change for each field."""
    if data.startswith(PNG_SIGNATURE):
        found: dict[str, _Edit] = {}
        if score is not None:
            found[KEYWORD] = lambda png: _with_text(png, score)
        return read_png, write_png, found | _rated(_png_rating, rating)
    if data.startswith(b"\xff\xd8\xff"):
        return read_jpeg, write_jpeg, _rated(_jpeg_rating, rating)
    if data[:4] == b"RIFF" and data[8:12] == b"WEBP":
        return read_webp, write_webp, _rated(_webp_rating, rating)
    raise ValueError("it is empty" if not data else "it is no PNG, JPEG or WebP")


def _rated(edit: Callable[[Container, int], Container], rating: int | None) -> dict[str, _Edit]:
    return {} if rating is None else {"xmp:Rating": lambda container: edit(container, rating)}


def _with_text(png: Container, score: WrittenScore) -> Container:
    text = json.dumps(asdict(score))  # ASCII, which a tEXt chunk can hold
    return _with_png_chunk(png, KEYWORD.encode(), Chunk(b"tEXt", KEYWORD.encode() + b"\0" + text.encode()))


def _with_png_chunk(png: Container, keyword: bytes, new: Chunk) -> Container:
    """The PNG with its text of this keyword replaced, or added before the pixels; a second one of it goes."""
    chunks: list[Chunk] = []
    old = [chunk for chunk in png.chunks if _keyword(chunk) == keyword]
    for chunk in png.chunks:
        if old and chunk is old[0]:
            chunks.append(new)
        elif _keyword(chunk) != keyword:
            if not old and chunk.kind == b"IDAT" and new not in chunks:
                chunks.append(new)
            chunks.append(chunk)
    return png.with_chunks(chunks)


def _keyword(chunk: Chunk) -> bytes | None:
    return chunk.content[:80].partition(b"\0")[0] if chunk.kind in (b"tEXt", b"zTXt", b"iTXt") else None


def _png_rating(png: Container, rating: int) -> Container:
    packets = [chunk for chunk in png.chunks if chunk.kind == b"iTXt" and _keyword(chunk) == _XMP_KEYWORD]
    packet = with_rating(_international_text(packets[0].content), rating) if packets else new_packet(rating)
    return _with_png_chunk(png, _XMP_KEYWORD, Chunk(b"iTXt", _XMP_KEYWORD + bytes(5) + packet))


def _international_text(content: bytes) -> bytes:
    """The text of an iTXt chunk: keyword, two bytes about compression, language, translated keyword, text."""
    rest = content.partition(b"\0")[2]
    parts = rest[2:].split(b"\0", 2)
    if len(parts) != 3:
        raise ValueError("its XMP packet is damaged")
    if not rest[0]:
        return parts[2]
    try:
        unpacker = zlib.decompressobj()
        text = unpacker.decompress(parts[2], LARGEST + 1)
    except zlib.error as error:
        raise ValueError("its XMP packet is damaged") from error
    if not unpacker.eof:
        raise ValueError("its XMP packet is damaged or too large")
    return text


def _jpeg_rating(jpeg: Container, rating: int) -> Container:
    segments = list(jpeg.chunks)
    packets = [segment for segment in segments if _is_xmp(segment)]
    old = packets[0].content[len(_XMP_SEGMENT) :] if packets else None
    packet = new_packet(rating) if old is None else with_rating(old, rating)
    new = Chunk(_APP1, _XMP_SEGMENT + packet)
    if packets:
        segments[segments.index(packets[0])] = new
        return jpeg.with_chunks(each for each in segments if each is new or not _is_xmp(each))
    first = [each.kind in (_APP0, _APP1) for each in segments] + [False]
    segments.insert(first.index(False), new)  # behind JFIF and EXIF, which have to be first
    return jpeg.with_chunks(segments)


def _is_xmp(segment: Chunk) -> bool:
    return segment.kind == _APP1 and segment.content.startswith(_XMP_SEGMENT)


def _webp_rating(webp: Container, rating: int) -> Container:
    chunks = list(_extended(webp))
    packets = [chunk for chunk in chunks if chunk.kind == b"XMP "]
    new = Chunk(b"XMP ", with_rating(packets[0].content, rating) if packets else new_packet(rating))
    if packets:
        chunks[chunks.index(packets[0])] = new
        return webp.with_chunks(each for each in chunks if each is new or each.kind != b"XMP ")
    return webp.with_chunks([*chunks, new])


def _extended(webp: Container) -> Iterator[Chunk]:
    """The chunks with a VP8X header that says that there is XMP."""
    first = webp.chunks[0]
    if first.kind == b"VP8X":
        if len(first.content) < 10:
            raise ValueError("its header is damaged")
        yield Chunk(b"VP8X", bytes([first.content[0] | _XMP_FLAG]) + first.content[1:])
        yield from webp.chunks[1:]
        return
    width, height, alpha = webp_canvas(first)
    size = (width - 1).to_bytes(3, "little") + (height - 1).to_bytes(3, "little")
    yield Chunk(b"VP8X", bytes([_XMP_FLAG | (_ALPHA_FLAG if alpha else 0), 0, 0, 0]) + size)
    yield from webp.chunks
