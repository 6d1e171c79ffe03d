"""Pictures to files: where they go, and PNGs that carry their prompt and settings."""

from __future__ import annotations

from collections.abc import Mapping
from io import BytesIO
from pathlib import Path

from PIL import Image
from PIL.PngImagePlugin import PngInfo

from clipcond.errors import OutputExists
from clipcond.files import write_file
from clipcond.prompt.infotext import format_infotext

_OTHERWISE = "name another folder or seed"


def destinations(folder: str | Path, count: int, seed: int) -> list[Path]:
    """The files that `count` pictures go to, `00000-seed.png` and on.

    Raises OutputExists when one of them is there, so that nothing is computed in vain.
    """
    folder = Path(folder)
    if folder.exists() and not folder.is_dir():
        raise OutputExists(f"{folder} is a file; name a folder for the pictures")
    files = [folder / f"{index:05d}-{seed + index}.png" for index in range(count)]
    taken = [file for file in files if file.exists()]
    if taken:
        more = f" and {len(taken) - 1} more are" if len(taken) > 1 else " is"
        raise OutputExists(f"{taken[0]}{more} there already; {_OTHERWISE}, nothing is overwritten")
    return files


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
