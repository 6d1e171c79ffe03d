"""The prompt of a picture, from the first reader that finds one.

A reader takes a picture's text fields (`fields.text_fields`) and returns an ImagePrompt, or None for the next one.
Metadata is hostile input: sizes are capped, and the answer is a prompt or a reason, never an exception.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from PIL import Image

from clipcond.images.metadata.a1111 import read_a1111
from clipcond.images.metadata.fields import text_fields
from clipcond.images.metadata.image_prompt import ImagePrompt as ImagePrompt
from clipcond.images.metadata.image_prompt import plain_prompt as plain_prompt

Reader = Callable[[Mapping[str, str]], ImagePrompt | None]
READERS: tuple[Reader, ...] = (read_a1111,)  # in the order in which they are asked
_NOTHING = "it carries no prompt (no parameters, UserComment or comment field); pass a prompt"


def read_metadata(image: Image.Image) -> ImagePrompt:
    """Return the prompt of a picture that was opened and decoded. Never raises."""
    fields = text_fields(image)
    return next((found for reader in READERS if (found := reader(fields)) is not None), ImagePrompt(None, "", _NOTHING))
