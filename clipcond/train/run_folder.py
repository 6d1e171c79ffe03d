"""A run's folder: held by one process at a time, its config, its log, its checkpoints and its model."""

from __future__ import annotations

import json
import os
import socket
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, BinaryIO

from clipcond.errors import ModelError, OutputExists
from clipcond.files import UNFINISHED, write_file
from clipcond.train import checkpoints
from clipcond.train.config import TrainConfig
from clipcond.train.toml_text import to_toml
from clipcond.wording import visible

LOCK = "run.lock"
_ATTEMPTS = 10_000  # to open a lock that others take away with its folder
_LOCKED_BYTE = 1 << 20  # beyond what the lock says, which others read


class RunFolder:
    """The files of a run. Nothing in it is touched before `begin`."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.model, self.checkpoints, self._log = path / "model", path / "checkpoints", path / "log.jsonl"
        self.lora = path / "lora.safetensors"

    def refuse_foreign(self) -> None:
        """Raise OutputExists if the folder holds a model or a config that no run wrote, or that none can go on from."""
        if self.model.exists() and not checkpoints.existing(self.checkpoints):
            raise OutputExists(
                f"{self.model} is there, but no checkpoint to go on from; choose another out or remove it"
            )
        config = self.path / "config.json"
        if config.exists() and not self._log.exists():
            raise OutputExists(f"{config} is there, but {self.path} is no training run; choose another out")

    def begin(self, config: TrainConfig) -> None:
        """Write the config, as JSON and as TOML that begins the same run.

        What a killed run did not write to its end is taken away: files, and a line of the log.
        """
        for folder in (self.path, self.checkpoints, self.model):
            for unfinished in folder.glob(f".*{UNFINISHED}"):
                unfinished.unlink(missing_ok=True)
        settings = config.to_dict()
        write_file(self.path / "config.json", json.dumps(settings, indent=2) + "\n", overwrite=True)
        write_file(self.path / "config.toml", to_toml(settings), overwrite=True)
        if self._log.exists():
            with self._log.open("rb+") as file:
                content = file.read()
                file.truncate(content.rfind(b"\n") + 1)

    def log(self, line: dict[str, Any]) -> None:
        """Add a line to the log. Raises OSError, naming the log, on a full disk."""
        try:
            with self._log.open("a", encoding="utf-8") as file:
                file.write(json.dumps(line) + "\n")
        except OSError as error:
            raise OSError(error.errno, error.strerror, str(self._log)) from error


def refuse_unfinished(spec: str) -> None:
    """Raise ModelError if a model's name is the folder of a run that has not written its model yet."""
    folder = RunFolder(Path(spec))
    if folder.checkpoints.is_dir() and not folder.model.is_dir() and (folder.path / "config.json").is_file():
        kept = checkpoints.existing(folder.checkpoints)
        where = f" (it is at {kept[-1].name})" if kept else ""
        raise ModelError(
            f"{spec} is a training run that is not finished{where}; go on with it, then name it as a model"
        )


# ── one writer ───────────────────────────────────────────────────────────────────────────────────────────────────────


@contextmanager
def held(path: Path) -> Iterator[RunFolder]:
    """Hold a run's folder for this process alone, as long as it lives; make it, and take it away if it stays empty.

    Raises OutputExists, naming the holder, if another process has it.
    """
    made = [folder for folder in (path, *path.parents) if not folder.exists()]
    try:
        with _locked(path / LOCK):
            yield RunFolder(path)
    finally:
        with suppress(OSError):  # not empty any more
            for folder in made:
                folder.rmdir()


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    file = _take(path)
    try:
        yield
    finally:
        if sys.platform == "win32":  # which removes no open file
            file.close()
        path.unlink(missing_ok=True)
        file.close()


def _take(path: Path) -> BinaryIO:
    """Open and lock a file, in a folder that is made if need be, and write into it who holds it."""
    attempts = (_opened(path) for _ in range(_ATTEMPTS))
    file = next((opened for opened in attempts if opened is not None), None)
    if file is None:
        raise OutputExists(f"{path.parent} is made and taken away by others all the time; choose another out")
    with suppress(OSError):  # a full disk: the lock holds all the same
        file.truncate(0)
        since = time.strftime("%Y-%m-%d %H:%M:%S")
        file.write(f"process {os.getpid()} on {socket.gethostname()}, since {since}\n".encode())
    return file


def _opened(path: Path) -> BinaryIO | None:
    """Return the file, locked; None where its last holder took it away at that moment. Raises OutputExists if it has one."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        file = path.open("ab+", buffering=0)
    except FileNotFoundError:
        return None
    except FileExistsError:  # by mkdir, for a folder that was gone when it looked again
        if path.parent.is_file():
            raise
        return None
    if not _lock(file):
        file.seek(0)
        holder = visible(file.read(200).decode("utf-8", "replace").strip()) or "another process"
        file.close()
        raise OutputExists(f"{path.parent} is in use by {holder}; wait for it, or choose another out")
    with suppress(FileNotFoundError):
        if os.path.samestat(os.fstat(file.fileno()), path.stat()):
            return file
    file.close()
    return None


def _lock(file: BinaryIO) -> bool:
    """Lock a file until it is closed, by whatever ends the process; False if another has it.

    True as well on a file system without locks.
    """
    if sys.platform == "win32":
        import msvcrt

        file.seek(_LOCKED_BYTE)
        try:
            msvcrt.locking(file.fileno(), msvcrt.LK_NBLCK, 1)
        except OSError:
            return False
    else:
        import fcntl

        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        except OSError:
            return True
    return True
