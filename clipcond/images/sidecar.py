"""Prompts beside pictures: a file of the picture's name that ends in `.txt`, `.caption` or `.json`."""

from __future__ import annotations

import stat
from pathlib import Path

from clipcond.errors import DataError
from clipcond.images.metadata.comfyui import read_comfyui
from clipcond.images.metadata.fooocus import read_fooocus
from clipcond.images.metadata.image_prompt import ImagePrompt
from clipcond.images.metadata.json_text import LARGEST_PROMPT, image_prompt, json_object, plain_text
from clipcond.images.metadata.swarmui import read_swarmui
from clipcond.images.suffixes import SIDECARS
from clipcond.images.tar_paths import member_of, tar_of
from clipcond.prompt.infotext import parse_infotext
from clipcond.wording import visible

LARGEST = 1 << 22  # bytes
_POSITIVE = ("prompt", "positive_prompt", "positive", "caption", "text", "Prompt", "description")
_NEGATIVE = ("negative_prompt", "negativePrompt", "negative", "Negative Prompt", "uc")
_SETTINGS = ("seed", "steps", "width", "height", "model", "sampler", "cfg_scale", "guidance_scale")


def read_sidecar(picture: str | Path) -> ImagePrompt | None:
    """Return the prompt in a file beside a picture, `a.txt` or `a.png.txt` for `a.png`; a reason if it cannot be read.

    The first file that holds a prompt is taken; of a text file, the whole text, or the infotext that it is. None where
    there is no such file. Of a picture in a tar the files beside it there. Never raises.
    """
    picture = Path(picture)
    reasons = []
    for suffix in SIDECARS:
        for path in dict.fromkeys((picture.with_suffix(suffix), picture.with_name(picture.name + suffix))):
            found = None if path == picture else _read(path)
            if found is not None and found.infotext is not None:
                return found
            if found is not None:
                reasons.append(found)
    return reasons[0] if reasons else None


def _read(path: Path) -> ImagePrompt | None:
    name = visible(path.name)
    try:
        content = _content(path)
        if content is None:
            return None
        if len(content) > LARGEST:
            return ImagePrompt(None, name, f"{name} is too large to hold a prompt (more than {LARGEST:,} bytes)")
        text = _decoded(content)
    except (OSError, DataError, ValueError) as error:
        reason = _reason(error)
        return ImagePrompt(None, name, f"{name} cannot be read ({reason})")
    if not text.strip():
        return ImagePrompt(None, name, f"{name} is empty")
    return _from_json(name, text) if path.suffix == ".json" else _from_text(name, text)


def _content(path: Path) -> bytes | None:
    """The first bytes of a regular file or of a tar's member, one more than a prompt has at most; None where there is none."""
    if tar_of(path) is not None:
        try:
            member = member_of(path)
        except DataError:  # no such name in it
            return None
        assert member is not None
        with member.stream() as stream:
            return stream.read(LARGEST + 1)
    try:
        if not stat.S_ISREG(path.stat().st_mode):
            return None
        with path.open("rb") as file:
            return file.read(LARGEST + 1)
    except FileNotFoundError:
        return None


def _reason(error: Exception) -> str:
    if isinstance(error, DataError):
        return str(error)
    return error.strerror if isinstance(error, OSError) and error.strerror else "it is no text in UTF-8"


def _decoded(content: bytes) -> str:
    """Text in UTF-8, or in UTF-16 with a mark, as Windows writes it."""
    if content[:2] in (b"\xff\xfe", b"\xfe\xff"):
        return content.decode("utf-16")
    return content.decode("utf-8-sig")


def _from_text(name: str, text: str) -> ImagePrompt:
    if len(text) > LARGEST_PROMPT:
        return ImagePrompt(None, name, f"{name} is too large to hold a prompt ({len(text):,} characters)")
    return ImagePrompt(parse_infotext(text.replace("\0", "")), name)


def _from_json(name: str, text: str) -> ImagePrompt:
    """A prompt by its usual names, or the metadata of a tool."""
    values = json_object(text)
    if values is None:
        return ImagePrompt(None, name, f"{name} is no JSON object")
    for read, field in ((read_swarmui, "parameters"), (read_comfyui, "prompt"), (read_fooocus, "parameters")):
        found = read({field: text})
        if found is not None:
            return ImagePrompt(found.infotext, name, found.reason)
    positive = next((plain_text(values[each]) for each in _POSITIVE if plain_text(values.get(each))), "")
    if not positive:
        return ImagePrompt(None, name, f"{name} holds no prompt (no {', '.join(_POSITIVE[:5])})")
    negative = next((plain_text(values[each]) for each in _NEGATIVE if plain_text(values.get(each))), "")
    dialect = plain_text(values.get("dialect")) or "a1111"
    settings = {each: values[each] for each in _SETTINGS if each in values}
    found = image_prompt(
        tool="sidecar", field=name, prompt=positive, negative_prompt=negative, dialect=dialect, settings=settings
    )
    return ImagePrompt(found.infotext, name, found.reason)
