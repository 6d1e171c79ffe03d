"""The prompt that a picture was made from: out of its metadata, a file beside it, or its pixels, in this order."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from clipcond.images.metadata.image_prompt import ImagePrompt, plain_negative_prompt, plain_prompt
from clipcond.images.metadata.reading import read_metadata
from clipcond.images.sidecar import read_sidecar

if TYPE_CHECKING:
    from PIL import Image

    from clipcond.prompt.infotext import Infotext

_BEFORE_COMMA = re.compile(r"\s+(?=,)")
_COMMAS = re.compile(r",{2,}")
_LONGEST_SEED = 32  # characters
_EMPTY = "its own prompt is empty; pass a prompt"


@dataclass(frozen=True, slots=True, kw_only=True)
class PicturePrompt:
    """Positive and negative prompt without the marks of their syntax; a reason where there is no prompt to score.

    source: `metadata (FIELD)`, `sidecar (FILE)` or `pixels (FIELD)`.   seed: as it stands beside the prompt.
    """

    text: str = ""
    negative: str = ""
    source: str = ""
    reason: str = ""
    seed: str = ""


def picture_prompt(path: Path, image: Image.Image, *, decoded: bool) -> PicturePrompt | None:
    """Return the prompt of a picture; None where only decoding it can tell.

    image: opened; decoded: its pixels and what stands behind them are read too. Never raises.
    """
    found = read_metadata(image)
    if found.infotext is not None:
        return _stripped(found, "metadata")
    if not decoded and image.format == "PNG":  # text may stand behind the pixels
        return None
    beside = read_sidecar(path)
    if beside is not None and beside.infotext is not None:
        return _stripped(beside, "sidecar")
    if not decoded and image.format == "WEBP":  # and letters in them
        return None
    hidden = read_metadata(image, hidden=True) if decoded else found
    if hidden.infotext is not None:
        return _stripped(hidden, "pixels")
    return PicturePrompt(reason=(beside.reason if beside else "") or found.reason)


def text_to_score(infotext: Infotext) -> str:
    """Return the text that a picture with such an infotext is scored by."""
    return _tidy(plain_prompt(infotext))


def _stripped(found: ImagePrompt, place: str) -> PicturePrompt:
    infotext = found.infotext
    assert infotext is not None
    text = text_to_score(infotext)
    plain_negative = _tidy(plain_negative_prompt(infotext))
    source = f"{place} ({found.source})" if found.source else place
    seed = next((value for name, value in infotext.settings.items() if name.casefold() == "seed"), "")
    return PicturePrompt(
        text=text, negative=plain_negative, source=source, reason="" if text else _EMPTY, seed=str(seed)[:_LONGEST_SEED]
    )


def _tidy(text: str) -> str:
    """The text without the commas that removed tags leave: each would cost a token."""
    return _COMMAS.sub(",", _BEFORE_COMMA.sub("", text)).strip(" ,;\n")
