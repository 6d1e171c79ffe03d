"""The only place that writes a file whole: complete under its name or not at all, and never over another unasked.

A writer that is killed leaves at most a hidden `.NAME.….unfinished` beside the file, which nothing reads.
"""

from __future__ import annotations

import errno
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from tempfile import mkdtemp, mkstemp
from typing import BinaryIO

from clipcond.errors import ClipCondError, OutputExists, ResourceMissing

UNFINISHED = ".unfinished"
_ABANDONED = 3600.0  # seconds after which an unfinished file has nobody left who writes it
_LEAST_LEFT = 0.9  # of a folder's limit: so that not every new file has to clear the folder


def refuse_to_overwrite(path: Path, otherwise: str = "name another file") -> None:
    """Raise OutputExists when something is at `path`, so that nothing is computed in vain. otherwise: what to do."""
    if os.path.lexists(path):
        raise OutputExists(f"{path} is there already; {otherwise}, nothing is overwritten")


def check_output(path: Path, otherwise: str = "name another file", *, overwrite: bool = False) -> None:
    """Check, before any work, that a file can be made: nothing is there unless it may be replaced, and its folder is.

    Raises OutputExists and ResourceMissing.
    """
    if not overwrite or path.is_dir():
        refuse_to_overwrite(path, otherwise)
    if not path.parent.is_dir():
        raise ResourceMissing(f"there is no folder {path.parent} for {path.name}; make it, or name another")


def write_file(
    path: str | Path, content: bytes | str, *, overwrite: bool = False, otherwise: str = "name another file"
) -> Path:
    """Write a file whole; text as UTF-8. Returns its path.

    Raises OutputExists when something is there, unless `overwrite`, and OSError, naming the file, as `writing` does.
    """
    with writing(path, overwrite=overwrite, otherwise=otherwise) as file:
        file.write(content.encode() if isinstance(content, str) else content)
    return Path(path)


def write_by_name(path: str | Path, write: Callable[[str], object], *, overwrite: bool = False) -> Path:
    """Have a library write a file that it opens by a name of its own; it appears under `path` as in `writing`.

    write: takes the name of the unfinished file, which it may replace. Raises what it raises, and what `writing` does.
    """
    with writing(path, overwrite=overwrite) as file:
        write(file.name)
    return Path(path)


@contextmanager
def writing(
    path: str | Path, *, overwrite: bool = False, otherwise: str = "name another file", durable: bool = False
) -> Iterator[BinaryIO]:
    """Open a file for writing that appears under its name, complete, when the block ends; not at all if it raises.

    durable: on the disk before it appears.   The file's `name` is where it can be read back after a flush.
    Raises OutputExists when something is there, unless `overwrite`; OSError with `path` as its file name when the disk is
    full or the folder is not there.
    """
    path = Path(path)
    if not overwrite:
        refuse_to_overwrite(path, otherwise)
    temporary = None
    try:
        number, name = mkstemp(dir=path.parent, prefix=f".{path.name[:100]}.", suffix=UNFINISHED)
        temporary = Path(name)
        with open(name, "wb", opener=lambda *_: number) as file:  # so that its name is the path
            yield file
            file.flush()
            if durable:
                os.fsync(file.fileno())
        temporary.chmod(_mode_of_new_files())  # mkstemp's own is for its owner alone
        if overwrite:
            temporary.replace(path)
        else:
            _name(temporary, path, otherwise)
    except OSError as error:
        ours = temporary is None or error.filename in (None, str(temporary))
        if isinstance(error, ClipCondError) or error.errno is None or not ours:
            raise
        raise OSError(error.errno, error.strerror, str(path)) from error
    finally:
        if temporary is not None:
            temporary.unlink(missing_ok=True)


def _name(temporary: Path, path: Path, otherwise: str) -> None:
    """Give a file its name unless another has it, which a link does in one step."""
    try:
        path.hardlink_to(temporary)
    except FileExistsError:
        refuse_to_overwrite(path, otherwise)
        raise
    except OSError:  # a file system without links: look first
        refuse_to_overwrite(path, otherwise)
        temporary.replace(path)


def move_file(path: Path, target: Path) -> Path:
    """Move a file, never over another. Returns the target. Raises OutputExists and OSError; the file is then in place.

    To another file system it goes as a copy that is on the disk before the file is removed.
    """
    otherwise = f"{path} stays where it is"
    refuse_to_overwrite(target, otherwise)
    try:
        _name(path, target, otherwise)
    except OSError as error:
        if error.errno != errno.EXDEV:
            raise
        copy_file(path, target, otherwise=otherwise)
        _to_disk(target.parent)
    path.unlink(missing_ok=True)
    return target


def copy_file(path: Path, target: Path, *, otherwise: str = "name another file") -> Path:
    """Copy a file with its times and mode, never over another; the copy is on the disk. Returns the target.

    Raises OutputExists when something is there, and OSError.
    """
    with open(path, "rb") as source, writing(target, otherwise=otherwise, durable=True) as file:
        shutil.copyfileobj(source, file, 1 << 20)
    with suppress(OSError):  # a file system without them
        shutil.copystat(path, target)
    return target


def link_file(path: Path, target: Path) -> Path:
    """Give a file a second name, or copy it where the file system links none. Returns the target.

    Both names are one file: what is written into it under one of them shows under the other. Raises OutputExists, OSError.
    """
    otherwise = f"{path} is not linked to it"
    refuse_to_overwrite(target, otherwise)
    try:
        target.hardlink_to(path.resolve())  # a hub's snapshot holds links to its files
    except OSError:
        copy_file(path, target, otherwise=otherwise)
    return target


@contextmanager
def writing_folder(
    path: str | Path, *, overwrite: bool = False, otherwise: str = "name another folder"
) -> Iterator[Path]:
    """Fill a folder that appears under its name, complete, when the block ends; not at all if it raises.

    overwrite: in place of a folder with no other entries than the new one has, which goes when the new one is complete.
    Raises OutputExists when something else is there, and OSError.
    """
    path = Path(path)
    if not overwrite:
        refuse_to_overwrite(path, otherwise)
    temporary = Path(mkdtemp(dir=path.parent, prefix=f".{path.name[:100]}.", suffix=UNFINISHED))
    try:
        folder = temporary / "new"
        folder.mkdir()
        yield folder
        if os.path.lexists(path):
            _put_aside(path, temporary / "old", folder, overwrite, otherwise)
        folder.rename(path)
    finally:
        if (old := temporary / "old").exists() and not os.path.lexists(path):
            old.rename(path)
        shutil.rmtree(temporary, ignore_errors=True)


def _put_aside(path: Path, old: Path, new: Path, overwrite: bool, otherwise: str) -> None:
    """Move a folder out of the way of its successor. Raises OutputExists if it holds what the successor does not."""
    if not overwrite or not path.is_dir() or path.is_symlink():
        raise OutputExists(f"{path} is there already; {otherwise}, nothing is overwritten")
    foreign = sorted({each.name for each in path.iterdir()} - {each.name for each in new.iterdir()})
    if foreign:
        raise OutputExists(f"{path} also holds {foreign[0]}, which would be lost; {otherwise}, or remove it first")
    path.rename(old)


def _to_disk(folder: Path) -> None:
    """Make the names of a folder durable, where the system can."""
    with suppress(OSError):
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


def _mode_of_new_files() -> int:
    """The permissions that the umask leaves to a new file."""
    mask = os.umask(0)
    os.umask(mask)
    return 0o666 & ~mask


class BoundedFolder:
    """A folder of files by key, those unused for longest removed beyond a number of bytes.

    Several processes may share it. The time of a file's last change is that of its last use.
    """

    def __init__(self, path: Path, limit: int, suffix: str) -> None:
        self._path, self._limit, self._suffix = path, limit, suffix
        self._size = self._added = 0  # at the last count, and since
        self._counted = False

    def read(self, key: str) -> bytes | None:
        """The content of a file; None when there is none or when it cannot be read."""
        file = self._path / (key + self._suffix)
        try:
            content = file.read_bytes()
        except OSError:
            return None
        with suppress(OSError):  # a folder may be for reading only
            os.utime(file)
        return content

    def write(self, key: str, content: bytes) -> None:
        """Keep a file. A disk that is full or not writable costs the file and nothing else."""
        if len(content) > self._limit:
            return
        with suppress(OSError):
            self._path.mkdir(parents=True, exist_ok=True)
            write_file(self._path / (key + self._suffix), content, overwrite=True)
            self._added += len(content)
            if not self._counted or self._size + self._added > self._limit or self._added > self._limit // 20:
                self._clear()  # now and then in any case: other processes add as well

    def _clear(self) -> None:
        """Count the files; beyond the limit, remove those unused for longest until there is some room again."""
        files = self._files()
        size = sum(each for _, each, _ in files)
        wanted = size if size <= self._limit else int(self._limit * _LEAST_LEFT)
        newest = files[-1][0] if files else 0.0
        for used, each, path in files:
            abandoned = newest - used > _ABANDONED
            if abandoned if path.name.endswith(UNFINISHED) else size > wanted:
                path.unlink(missing_ok=True)
                size -= each
        self._size, self._added, self._counted = size, 0, True

    def _files(self) -> list[tuple[float, int, Path]]:
        """Last use, size and path of each file, the one unused for longest first."""
        found = []
        for path in self._path.iterdir():
            if path.name.endswith(self._suffix) or (self._suffix in path.name and path.name.endswith(UNFINISHED)):
                with suppress(OSError):  # another process removed it
                    status = path.stat()
                    found.append((status.st_mtime, status.st_size, path))
        return sorted(found)
