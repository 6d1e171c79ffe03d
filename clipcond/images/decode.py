"""Picture files to decoded pictures: regular files only, decoded to their end, one line for whatever is wrong with them.

What people see of a decoded picture (upright, on white, sRGB) is `clipcond.images.colour`.
"""

from __future__ import annotations

import logging
import os
import stat
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from importlib.util import find_spec
from io import BytesIO
from pathlib import Path
from threading import Lock
from typing import BinaryIO

from PIL import Image, UnidentifiedImageError

from clipcond.errors import ClipCondError, DataError, ImageError
from clipcond.images.tar_paths import member_of
from clipcond.wording import visible

# of Pillow's formats those that hold pixels and nothing else; it gives an EPS to Ghostscript, which runs it as a program
_AVIF = () if find_spec("PIL.AvifImagePlugin") is None else ("AVIF",)
FORMATS = ("PNG", "JPEG", "WEBP", *_AVIF, "GIF", "BMP", "TIFF", "PPM", "JPEG2000", "QOI", "ICO", "PSD", "TGA")
LARGE = 1 << 27  # bytes of a decoded picture above which one waits for the other in `decoded`

_ONE_LARGE = Lock()


def open_image(
    source: str | Path | bytes | BinaryIO, *, name: str | None = None, shrink_to: int | None = None
) -> Image.Image:
    """Open and decode a picture.

    source: the path of a regular file or into a tar, a picture's bytes, or a binary stream that can seek.
    name: the picture's name in messages; by default the path.
    shrink_to: sides in pixels that will do. A JPEG is then decoded at 1/2, 1/4 or 1/8 of its size, as long as both its
    sides stay at least that long; every other picture comes in full. Twice the size of the model's input is safe.
    Raises ImageError `NAME: reason` for anything that cannot be decoded to its end.
    """
    with _opened(source, name or _name_of(source)) as image:
        if shrink_to is not None:
            image.draft(None, (shrink_to, shrink_to))
        image.load()
        return image


@contextmanager
def decoded(
    source: str | Path | bytes | BinaryIO, *, name: str | None = None, shrink_to: int | None = None
) -> Iterator[Image.Image]:
    """A decoded picture for a while; of large ones, one at a time over all threads, which bounds memory.

    The arguments are those of `open_image`. Raises ImageError as it does, also for memory that runs out while the picture
    is in use.
    """
    with _opened(source, name or _name_of(source)) as image:
        if shrink_to is not None:
            image.draft(None, (shrink_to, shrink_to))
        large = 4 * image.width * image.height > LARGE
        with _ONE_LARGE if large else nullcontext():
            image.load()
            yield image


@contextmanager
def open_header(source: str | Path | bytes | BinaryIO, *, name: str | None = None) -> Iterator[Image.Image]:
    """A picture of which no more than the header is read, for a while: its size, its mode, text before its pixels.

    Raises ImageError as `open_image` does.
    """
    with _opened(source, name or _name_of(source)) as image:
        yield image


@contextmanager
def quiet_pillow() -> Iterator[None]:
    """Keep Pillow's warnings and log lines (large pictures, odd tags) off stderr.

    For the main thread: filters of warnings are the process's.
    """
    logger = logging.getLogger("PIL")
    handler, propagate = logging.NullHandler(), logger.propagate
    logger.addHandler(handler)
    logger.propagate = False
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", category=Image.DecompressionBombWarning)
            warnings.filterwarnings("ignore", category=UserWarning, module=r"PIL\.")
            yield
    finally:
        logger.propagate = propagate
        logger.removeHandler(handler)


def workers() -> int:
    """Threads for decoding and resizing: Pillow releases the interpreter while it works."""
    return min(8, os.cpu_count() or 1)


def _name_of(source: str | Path | bytes | BinaryIO) -> str:
    return str(source) if isinstance(source, (str, Path)) else "picture"


@contextmanager
def _stream(source: str | Path | bytes | BinaryIO) -> Iterator[BinaryIO]:
    """The source as a binary stream; a path is opened only where it is a regular file."""
    if isinstance(source, bytes):
        yield BytesIO(source)
    elif isinstance(source, (str, Path)):
        member = member_of(source)
        with _regular_file(Path(source)) if member is None else member.stream() as file:
            yield file
    else:
        yield source


def _regular_file(path: Path) -> BinaryIO:
    """Open a file without waiting: a pipe or a device would block, or act, when it is opened."""
    try:
        _refuse_irregular(path, path.stat().st_mode)
        handle = os.open(path, os.O_RDONLY | getattr(os, "O_BINARY", 0) | getattr(os, "O_NONBLOCK", 0))
    except FileNotFoundError:
        reason = "is a link to a file that is not there" if path.is_symlink() else "no such file"
        raise ImageError(f"{path}: {reason}") from None
    except ImageError:
        raise
    except (OSError, ValueError) as error:  # ValueError: a NUL in the name
        raise ImageError(f"{path}: cannot be opened ({_brief(error)})") from error
    file = os.fdopen(handle, "rb")
    _refuse_irregular(path, os.fstat(handle).st_mode)  # it may have been exchanged in between
    return file


def _refuse_irregular(path: Path, mode: int) -> None:
    if stat.S_ISDIR(mode):
        readable = os.access(path, os.R_OK | os.X_OK)
        raise ImageError(f"{path}: is a folder{', not a picture' if readable else ' that cannot be read'}")
    if not stat.S_ISREG(mode):
        raise ImageError(f"{path}: is no regular file (a pipe, socket or device), not a picture")


@contextmanager
def _opened(source: str | Path | bytes | BinaryIO, name: str) -> Iterator[Image.Image]:
    """A picture of which the header is read; whatever goes wrong while it is open is its ImageError."""
    with _one_line(name), _stream(source) as stream:
        start = stream.tell()
        if not stream.read(1):
            raise ImageError(f"{name}: is empty")
        stream.seek(start)
        with Image.open(stream, formats=FORMATS) as image:
            yield image


@contextmanager
def _one_line(name: str) -> Iterator[None]:
    """Turn whatever Pillow raises into an ImageError."""
    try:
        yield
    except ImageError as error:
        if str(error).startswith(f"{name}: "):
            raise
        raise ImageError(f"{name}: {error}") from error
    except DataError as error:  # of a tar
        raise ImageError(f"{name}: {str(error).removeprefix(f'{name} ')}") from error
    except ClipCondError:
        raise
    except UnidentifiedImageError:  # its own text names a buffer in memory
        raise ImageError(f"{name}: is not a picture in a format that can be read") from None
    except (Image.DecompressionBombError, Image.DecompressionBombWarning, MemoryError) as error:
        raise ImageError(f"{name}: is too large ({_brief(error)})") from error
    except Exception as error:  # Pillow's decoders raise almost anything on damaged bytes
        raise ImageError(f"{name}: cannot be decoded ({_brief(error)})") from error


def _brief(error: BaseException) -> str:
    text = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
    return visible(" ".join(text.split())) or type(error).__name__
