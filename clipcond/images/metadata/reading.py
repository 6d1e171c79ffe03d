"""The prompt of a picture, from the first reader that finds one.

A reader takes a picture's text fields (`fields.text_fields`) and returns an ImagePrompt, or None for the next one.
Metadata is hostile input: sizes are capped, and the answer is a prompt or a reason, never an exception.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from PIL import Image

from clipcond.images.metadata.a1111 import read_a1111
from clipcond.images.metadata.comfyui import read_comfyui
from clipcond.images.metadata.draw_things import read_draw_things
from clipcond.images.metadata.easy_diffusion import read_easy_diffusion
from clipcond.images.metadata.fields import text_fields
from clipcond.images.metadata.fooocus import read_fooocus
from clipcond.images.metadata.image_prompt import ImagePrompt as ImagePrompt
from clipcond.images.metadata.image_prompt import plain_prompt as plain_prompt
from clipcond.images.metadata.invokeai import read_invokeai
from clipcond.images.metadata.midjourney import read_midjourney
from clipcond.images.metadata.more_fields import more_text_fields
from clipcond.images.metadata.novelai import read_novelai
from clipcond.images.metadata.stealth import stealth_fields
from clipcond.images.metadata.swarmui import read_swarmui

Reader = Callable[[Mapping[str, str]], ImagePrompt | None]
READERS: tuple[Reader, ...] = (  # in the order in which they are asked: JSON of a known tool before A1111's text
    read_swarmui,
    read_novelai,
    read_fooocus,
    read_a1111,
    read_invokeai,
    read_comfyui,
    read_easy_diffusion,
    read_draw_things,
    read_midjourney,
)
_NOTHING = "it carries no prompt in a field that is known; pass a prompt"


def read_metadata(image: Image.Image, *, hidden: bool = False) -> ImagePrompt:
    """Return the prompt of a picture that was opened and decoded; of several reasons for none, the first.

    hidden: look into the pixels too, where NovelAI and some extensions hide text. Never raises.
    """
    found = first_prompt({**more_text_fields(image), **text_fields(image)})
    if found is None or found.infotext is None:
        found = (first_prompt(stealth_fields(image)) if hidden else None) or found
    return found or ImagePrompt(None, "", _NOTHING)


def first_prompt(fields: Mapping[str, str]) -> ImagePrompt | None:
    """Return the prompt of the first reader that finds one, or else the first reason for none, or None."""
    reason = None
    for reader in READERS:
        found = reader(fields)
        if found is not None and found.infotext is not None:
            return found
        reason = reason or found
    return reason
