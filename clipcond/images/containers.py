"""PNG, JPEG and WebP files as the parts they consist of, so that one can be exchanged and all others stay as they are.

Each reader checks the structure to its end and raises ValueError, in a few words, for one that is damaged.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterable
from dataclasses import dataclass, replace

PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_JPEG_START, _JPEG_END, _JPEG_SCAN = b"\xff\xd8", b"\xff\xd9", 0xDA
_ALONE = (0x01, *range(0xD0, 0xD8))  # JPEG markers without a length
LARGEST_SEGMENT = 0xFFFF - 2


@dataclass(frozen=True, slots=True)
class Chunk:
    """A chunk of a PNG or WebP, by its four letters, or a segment of a JPEG, by its marker."""

    kind: bytes
    content: bytes


@dataclass(frozen=True, slots=True)
class Container:
    """A picture's chunks in order, and the bytes behind them that belong to no chunk."""

    chunks: tuple[Chunk, ...]
    rest: bytes

    def with_chunks(self, chunks: Iterable[Chunk]) -> Container:
        """Return the picture with other chunks."""
        return replace(self, chunks=tuple(chunks))


def read_png(data: bytes) -> Container:
    """Split a PNG. Raises ValueError for a chunk that is cut off, a wrong checksum or a missing header, data or end."""
    chunks: list[Chunk] = []
    at = len(PNG_SIGNATURE)
    while not chunks or chunks[-1].kind != b"IEND":
        if at + 12 > len(data):
            raise ValueError("it is cut off")
        length, kind = struct.unpack_from(">I4s", data, at)
        end = at + 12 + length
        if end > len(data):
            raise ValueError("it is cut off")
        content = data[at + 8 : end - 4]
        if zlib.crc32(content, zlib.crc32(kind)) != int.from_bytes(data[end - 4 : end], "big"):
            raise ValueError(f"the checksum of its {kind.decode('latin-1')} chunk is wrong")
        chunks.append(Chunk(kind, content))
        at = end
    kinds = [chunk.kind for chunk in chunks]
    if kinds[0] != b"IHDR" or b"IDAT" not in kinds:
        raise ValueError("it has no header or no pixels")
    return Container(tuple(chunks), data[at:])


def write_png(png: Container) -> bytes:
    """Join a PNG, each chunk with its checksum."""
    parts = [PNG_SIGNATURE]
    for chunk in png.chunks:
        sum_of = zlib.crc32(chunk.content, zlib.crc32(chunk.kind))
        parts += [struct.pack(">I", len(chunk.content)), chunk.kind, chunk.content, struct.pack(">I", sum_of)]
    return b"".join([*parts, png.rest])


def read_jpeg(data: bytes) -> Container:
    """Split a JPEG up to its first scan, which is the rest. Raises ValueError where that or the end is missing."""
    segments, at = [], len(_JPEG_START)
    while True:
        while data[at : at + 2] == b"\xff\xff":  # fill bytes
            at += 1
        if at + 4 > len(data) or data[at] != 0xFF:
            raise ValueError("it is cut off or damaged before its pixels")
        marker = data[at + 1]
        if marker == _JPEG_SCAN:
            break
        if marker in _ALONE:
            raise ValueError("it is damaged before its pixels")
        length = int.from_bytes(data[at + 2 : at + 4], "big")
        if length < 2 or at + 2 + length > len(data):
            raise ValueError("it is cut off or damaged before its pixels")
        segments.append(Chunk(data[at + 1 : at + 2], data[at + 4 : at + 2 + length]))
        at += 2 + length
    if _JPEG_END not in data[at:]:
        raise ValueError("it is cut off")
    return Container(tuple(segments), data[at:])


def write_jpeg(jpeg: Container) -> bytes:
    """Join a JPEG. Raises ValueError for a segment of more than 65,533 bytes."""
    parts = [_JPEG_START]
    for segment in jpeg.chunks:
        if len(segment.content) > LARGEST_SEGMENT:
            raise ValueError(f"{len(segment.content):,} bytes do not fit into a segment of a JPEG")
        parts += [b"\xff", segment.kind, struct.pack(">H", len(segment.content) + 2), segment.content]
    return b"".join([*parts, jpeg.rest])


def read_webp(data: bytes) -> Container:
    """Split a WebP. Raises ValueError for a chunk that is cut off, or without pixels."""
    size = int.from_bytes(data[4:8], "little") + 8
    if size > len(data):
        raise ValueError("it is cut off")
    chunks, at = [], 12
    while at + 8 <= size:
        kind, length = struct.unpack_from("<4sI", data, at)
        if at + 8 + length > size:
            raise ValueError("it is cut off")
        chunks.append(Chunk(kind, data[at + 8 : at + 8 + length]))
        at += 8 + length + length % 2
    kinds = {chunk.kind for chunk in chunks}
    if at < size or not kinds & {b"VP8 ", b"VP8L", b"ANMF"}:
        raise ValueError("it has no pixels, or bytes that belong to nothing")
    return Container(tuple(chunks), data[size:])


def write_webp(webp: Container) -> bytes:
    """Join a WebP, chunks padded to even lengths."""
    parts = []
    for chunk in webp.chunks:
        parts += [chunk.kind, struct.pack("<I", len(chunk.content)), chunk.content, b"\0" * (len(chunk.content) % 2)]
    body = b"WEBP" + b"".join(parts)
    return b"RIFF" + struct.pack("<I", len(body)) + body + webp.rest


def webp_canvas(chunk: Chunk) -> tuple[int, int, bool]:
    """Return width, height and use of alpha of a WebP that has one chunk of pixels, `VP8 ` or `VP8L`.

    Raises ValueError for a damaged one.
    """
    head = chunk.content[:10]
    if chunk.kind == b"VP8 " and len(head) == 10 and head[3:6] == b"\x9d\x01\x2a":
        width, height = struct.unpack_from("<HH", head, 6)
        return width & 0x3FFF, height & 0x3FFF, False  # the upper bits are a scale
    if chunk.kind == b"VP8L" and len(head) >= 5 and head[0] == 0x2F:
        bits = int.from_bytes(head[1:5], "little")
        return (bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1, bool(bits >> 28 & 1)
    raise ValueError("its pixels are damaged")
