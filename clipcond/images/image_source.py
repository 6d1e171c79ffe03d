"""An image's bytes: a whole file, or a stretch of a tar."""

from __future__ import annotations

import hashlib
import io
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

from clipcond.errors import DataError
from clipcond.wording import visible

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer

_BLOCK = 1 << 20


@dataclass(frozen=True, slots=True)
class ImageSource:
    """A file, or `size` bytes of one from `start` on, there called `name`.

    unpacked: of a compressed tar, the file that holds its bytes meanwhile.
    """

    path: Path
    start: int = 0
    size: int | None = None
    name: str = ""
    unpacked: Path | None = None

    def __str__(self) -> str:
        return visible(f"{self.path}:{self.name}" if self.name else str(self.path))

    def read(self) -> bytes:
        """Return the image's bytes. Raises DataError."""
        with self._one_line(), self._open() as file:
            content = file.read() if self.size is None else file.read(self.size)
        if self.size is not None and len(content) < self.size:
            raise DataError(f"cannot read {self}: the tar ends within it")
        return content

    @contextmanager
    def stream(self) -> Iterator[BinaryIO]:
        """Open the image's bytes for a while; nothing is read whole. Raises DataError where they cannot be opened."""
        with self._one_line():
            file = self._open()
        with file:
            if self.size is None:
                yield file
                return
            if file.seek(0, io.SEEK_END) < self.start + self.size:
                raise DataError(f"cannot read {self}: the tar ends within it")
            yield io.BufferedReader(_Stretch(file, self.start, self.size))

    def length(self) -> int:
        """Return the number of bytes. Raises DataError."""
        if self.size is not None:
            return self.size
        with self._one_line():
            return (self.unpacked or self.path).stat().st_size

    def digest(self) -> bytes:
        """Return the SHA-256 of the bytes, read a little at a time. Raises DataError."""
        digest = hashlib.sha256()
        with self._one_line(), self.stream() as file:
            while block := file.read(_BLOCK):
                digest.update(block)
        return digest.digest()

    def _open(self) -> BinaryIO:
        file = (self.unpacked or self.path).open("rb")
        file.seek(self.start)
        return file

    @contextmanager
    def _one_line(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise DataError(f"cannot read {self}: {error.strerror or error}") from error


class _Stretch(io.RawIOBase):
    """Some bytes of a file, as if they were a file of their own."""

    def __init__(self, file: BinaryIO, start: int, size: int) -> None:
        self._file, self._start, self._size, self._at = file, start, size, 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        at = offset + {io.SEEK_SET: 0, io.SEEK_CUR: self._at, io.SEEK_END: self._size}[whence]
        if at < 0:
            raise ValueError(f"cannot seek to {at}, before the first byte")
        self._at = at
        return at

    def readinto(self, buffer: WriteableBuffer) -> int:
        view = memoryview(buffer).cast("B")
        self._file.seek(self._start + self._at)
        content = self._file.read(max(0, min(len(view), self._size - self._at)))
        view[: len(content)] = content
        self._at += len(content)
        return len(content)
