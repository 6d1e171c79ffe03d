"""Other words for a phrase of a prompt, in a picture that stays as it is everywhere else."""

from __future__ import annotations

from collections.abc import Mapping

from clipcond.diffusion.explain.spans import check_asked, passages
from clipcond.diffusion.prompt_plans import Prompts, Sides
from clipcond.errors import ConfigError
from clipcond.prompt.plan import plan
from clipcond.wording import visible


def replaced_prompts(prompts: Sides[Prompts], phrases: Mapping[str, str], dialect: str) -> tuple[Prompts, ...]:
    """The positive prompts of a call after a replacement; those of further encoders stay.

    phrases: what takes the place of each phrase, wherever a prompt has it, in any case.
    Raises ConfigError for a phrase that no prompt has, an empty one, one that stays the same, and phrases that overlap.
    """
    if not phrases:
        raise ConfigError("replace is empty; expected phrases of the prompt, each with what takes its place")
    for old, new in phrases.items():
        if not old.strip() or not new.strip():
            raise ConfigError(
                f"replace has {old!r}: {new!r}, expected words on both sides; a weight of 0 takes a phrase out"
            )
    texts = [each[""] for each in prompts.positive]
    check_asked([plan(text, dialect=dialect) for text in texts], list(phrases))
    made = tuple({**each, "": replaced_text(text, phrases)} for each, text in zip(prompts.positive, texts, strict=True))
    if all(each[""] == text for each, text in zip(made, texts, strict=True)):
        raise ConfigError(f"the prompt stays as it is: {visible(texts[0][:60])!r} has the new words already")
    return made


def replaced_text(prompt: str, phrases: Mapping[str, str]) -> str:
    """A prompt with other words in place of phrases. Raises ConfigError where two of them overlap."""
    found = sorted((start, end, phrase) for phrase in phrases for start, end in passages(prompt, phrase))
    made, at = "", 0
    for start, end, phrase in found:
        if start < at:
            raise ConfigError(f"“{visible(phrase)}” overlaps with another phrase that is replaced; name one of them")
        made += prompt[at:start] + phrases[phrase]
        at = end
    return made + prompt[at:]
