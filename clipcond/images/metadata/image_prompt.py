"""The prompt that a picture carries, or the reason why it has none."""

from __future__ import annotations

import json
from contextlib import suppress
from dataclasses import dataclass

from clipcond.prompt.dialects.names import DIALECTS
from clipcond.prompt.dialects.translate import translate
from clipcond.prompt.infotext import Infotext

REGIONS = "Regions"  # the setting of clipcond's own: a JSON list of regions, each with its prompt


@dataclass(frozen=True, slots=True)
class ImagePrompt:
    """An infotext and the field that held it, or the reason why there is none."""

    infotext: Infotext | None
    source: str = ""
    reason: str = ""


def plain_prompt(infotext: Infotext) -> str:
    """Return the prompt without the marks of its syntax, for a model that reads plain text.

    The syntax is the one that clipcond wrote beside it, otherwise A1111's, whose format this is. The prompts of clipcond's
    regions follow.
    """
    return ", ".join(
        filter(None, (_plain(each, infotext) for each in (infotext.prompt, *_prompts_of_regions(infotext))))
    )


def plain_negative_prompt(infotext: Infotext) -> str:
    """Return the negative prompt without the marks of its syntax."""
    return _plain(infotext.negative_prompt, infotext)


def _plain(text: str, infotext: Infotext) -> str:
    dialect = infotext.settings.get("Prompt dialect", "")
    return translate(text, dialect if dialect in DIALECTS else "a1111", "plain").text.strip()


def _prompts_of_regions(infotext: Infotext) -> list[str]:
    """Return the prompts of regions, as far as they can be read."""
    with suppress(ValueError, RecursionError, TypeError, KeyError):
        return [str(each["prompt"]) for each in json.loads(infotext.settings[REGIONS])]
    return []
