"""Pictures to files: where they go, and PNGs that carry their prompt and settings."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from io import BytesIO
from pathlib import Path

from PIL import Image
from PIL.PngImagePlugin import PngInfo

from clipcond.errors import OutputExists
from clipcond.files import write_file
from clipcond.prompt.infotext import format_infotext

_OTHERWISE = "name another folder or seed"
_NUMBERED = re.compile(r"(\d{5,9})-(\d{1,19})\.png")


def destinations(folder: str | Path, count: int, seed: int, *, first: int = 0) -> list[Path]:
    """Return the files that `count` pictures go to: `00000-seed.png` and on, from number `first`.

    Raises OutputExists when one of them is there, so that nothing is computed in vain.
    """
    folder = folder_for_pictures(folder)
    files = numbered(folder, count, seed, first=first)
    taken = [file for file in files if file.exists()]
    if taken:
        more = f" and {len(taken) - 1} more are" if len(taken) > 1 else " is"
        raise OutputExists(f"{taken[0]}{more} there already; {_OTHERWISE}, nothing is overwritten")
    return files


def folder_for_pictures(folder: str | Path) -> Path:
    """Return a folder's path, which may not be there yet. Raises OutputExists for a file."""
    folder = Path(folder)
    if folder.exists() and not folder.is_dir():
        raise OutputExists(f"{folder} is a file; name a folder for the pictures")
    return folder


def numbered(folder: Path, count: int, seed: int, *, first: int = 0) -> list[Path]:
    """Return the names of `count` pictures, whatever is there: picture i has number `first + i` and seed `seed + i`."""
    return [folder / f"{first + index:05d}-{seed + index}.png" for index in range(count)]


def highest(folders: Iterable[Path]) -> tuple[int, int] | None:
    """Return the highest number and the highest seed among the numbered pictures of some folders; None without any."""
    found = []
    for folder in folders:
        if folder.is_dir():
            found += [match for file in folder.iterdir() if (match := _NUMBERED.fullmatch(file.name))]
    if not found:
        return None
    return max(int(match[1]) for match in found), max(int(match[2]) for match in found)


def write_picture(
    image: Image.Image, path: str | Path, *, prompt: str, negative_prompt: str = "", settings: Mapping[str, object]
) -> None:
    """Write a PNG that carries its prompt and settings in a `parameters` text chunk.

    Raises OutputExists when the file is there already.
    """
    text = PngInfo()
    text.add_text("parameters", format_infotext(prompt, negative_prompt, settings))
    encoded = BytesIO()  # in memory first: a picture that cannot be encoded leaves no file
    image.save(encoded, format="PNG", pnginfo=text)
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    write_file(path, encoded.getvalue(), otherwise=_OTHERWISE)
