"""The prompt that a picture carries, or the reason why it has none."""

from __future__ import annotations

from dataclasses import dataclass

from clipcond.prompt.dialects.names import DIALECTS
from clipcond.prompt.dialects.translate import translate
from clipcond.prompt.infotext import Infotext


@dataclass(frozen=True, slots=True)
class ImagePrompt:
    """An infotext and the field that held it, or the reason why there is none."""

    infotext: Infotext | None
    source: str = ""
    reason: str = ""


def plain_prompt(infotext: Infotext) -> str:
    """Return the prompt without the marks of its syntax, for a model that reads plain text.

    The syntax is the one that clipcond wrote beside it, otherwise A1111's, whose format this is.
    """
    dialect = infotext.settings.get("Prompt dialect", "")
    return translate(infotext.prompt, dialect if dialect in DIALECTS else "a1111", "plain").text.strip()
