"""An image's bytes: a whole file, or a stretch of a tar."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import BinaryIO

from clipcond.errors import DataError
from clipcond.wording import visible

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
        with self._opened() as file:
            content = file.read() if self.size is None else file.read(self.size)
        if self.size is not None and len(content) < self.size:
            raise DataError(f"cannot read {self}: the tar ends within it")
        return content

    @contextmanager
    def stream(self) -> Iterator[BinaryIO]:
        """Open the image's bytes for a while; a file is not read whole. Raises DataError."""
        if self.size is not None:
            yield BytesIO(self.read())
        else:
            with self._opened() as file:
                yield file

    def length(self) -> int:
        """Return the number of bytes. Raises DataError."""
        if self.size is not None:
            return self.size
        try:
            return (self.unpacked or self.path).stat().st_size
        except OSError as error:
            raise DataError(f"cannot read {self}: {error.strerror or error}") from error

    def digest(self) -> bytes:
        """Return the SHA-256 of the bytes, read a little at a time. Raises DataError."""
        digest = hashlib.sha256()
        with self._opened() as file:
            left = self.length()
            while left > 0 and (block := file.read(min(left, _BLOCK))):
                digest.update(block)
                left -= len(block)
        return digest.digest()

    @contextmanager
    def _opened(self) -> Iterator[BinaryIO]:
        try:
            with (self.unpacked or self.path).open("rb") as file:
                file.seek(self.start)
                yield file
        except OSError as error:
            raise DataError(f"cannot read {self}: {error.strerror or error}") from error
