"""The texts of a call: which encoder reads which, for each prompt and on both sides."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from clipcond.errors import ConfigError

Prompts = str | Sequence[str]
Texts = Mapping[str, str]  # by what follows the word `prompt`: "", "_2", "_3"


def prompts_of(prompt: Prompts, others: Mapping[str, Prompts | None]) -> list[Texts]:
    """The texts of each prompt. One that is None or an empty string is the prompt itself, as in diffusers.

    others: prompt_2 and prompt_3 by `_2` and `_3`; one for all prompts or one for each.
    Raises ConfigError for an empty list and for lists of different lengths.
    """
    first = _listed("prompt", prompt)
    if not first:
        raise ConfigError("the list of prompts is empty; expected one prompt or more")
    return _texts("prompt", first, others)


def negatives_of(negative: Prompts | None, others: Mapping[str, Prompts | None], count: int) -> list[Texts]:
    """The texts of the negative prompt for each of `count` prompts; None is the empty prompt.

    Raises ConfigError for lists of another length.
    """
    return _texts("negative_prompt", _spread("negative_prompt", "" if negative is None else negative, count), others)


def _texts(argument: str, first: list[str], others: Mapping[str, Prompts | None]) -> list[Texts]:
    columns = {"": first}
    for number, given in others.items():
        columns[number] = first if given is None or given == "" else _spread(argument + number, given, len(first))
    return [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]


def _spread(argument: str, given: Prompts, count: int) -> list[str]:
    """One text for each prompt."""
    texts = [given] * count if isinstance(given, str) else _listed(argument, given)
    if len(texts) != count:
        what = "negative prompts" if argument == "negative_prompt" else f"texts of {argument}"
        raise ConfigError(f"{len(texts)} {what} for {count} prompts; give one for all or one for each")
    return texts


def _listed(argument: str, given: Prompts) -> list[str]:
    texts = list(given) if isinstance(given, Iterable) and not isinstance(given, str | bytes) else [given]
    for each in texts:
        if not isinstance(each, str):
            raise ConfigError(f"{argument} is or holds a {type(each).__name__}, expected a string or a list of strings")
    return texts
