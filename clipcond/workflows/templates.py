"""Prompt templates: filled in where it was asked for, and noticed where it was not."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from clipcond.errors import OptionsError

if TYPE_CHECKING:
    from clipcond.prompt.wildcards import Expansion
    from clipcond.workflows.events import Events


@dataclass(frozen=True, slots=True, kw_only=True)
class ExpandOptions:
    """A template and how many prompts to make of it.

    count: at random, prompt i the one of `seed + i`.   everything: all combinations, up to `limit`.
    wildcards: folders of lists.   Raises OptionsError for numbers out of range.
    """

    template: str
    count: int = 1
    seed: int = 0
    everything: bool = False
    limit: int = 1000
    wildcards: tuple[Path, ...] = ()

    def __post_init__(self) -> None:
        if self.count < 1 or self.limit < 1:
            raise OptionsError("--count and --limit are 1 or more")


def run(options: ExpandOptions) -> Expansion:
    """Fill in a template. Raises ResourceMissing for a folder of lists that is not there."""
    from clipcond.prompt.wildcards import expand

    return expand(
        options.template,
        seed=options.seed,
        count=options.count,
        folders=options.wildcards,
        combinatorial=options.everything,
        limit=options.limit,
    )


def expanded(template: str, events: Events, *, seed: int = 0, wildcards: Sequence[Path] = ()) -> str:
    """Return the prompt that a template gives with a seed; warnings become notes."""
    from clipcond.workflows.events import Note

    found = run(ExpandOptions(template=template, seed=seed, wildcards=tuple(wildcards)))
    for warning in found.warnings:
        events(Note(f"template: {warning.message}"))
    return found.prompts[0]


def template_hint(prompt: str) -> str:
    """Say that a prompt holds `{a|b}` or `__name__`, which nobody fills in; empty where it does not."""
    if "{" not in prompt and "__" not in prompt:
        return ""
    from clipcond.prompt.templates import Choice, Reference, parse

    for node in parse(prompt).nodes:
        if isinstance(node, Reference) or (isinstance(node, Choice) and len(node.options) > 1):
            typed = prompt[node.start : node.end]
            shown = typed if len(typed) <= 40 else typed[:39] + "…"
            return f"{shown} is read as it stands; --expand fills it in, clipcond expand lists what it gives"
    return ""
