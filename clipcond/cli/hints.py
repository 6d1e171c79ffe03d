"""Hints for wrong usage: what was probably meant, and how it is typed."""

from __future__ import annotations

import re
import shlex
import sys
from collections.abc import Sequence
from difflib import get_close_matches
from itertools import takewhile

_DASHED_PROMPT = re.compile(r"-(?!-[a-z][a-z0-9-]*(?:=|$)).*[\s,]|-\d")


def hint_for(problem: str, arguments: Sequence[str], command: str | None, commands: Sequence[str]) -> str:
    """Return a hint about arguments that were refused because of a problem; empty where there is none to give."""
    words = list(arguments)
    if command is None:
        return "" if "Did you mean" in problem else _about_command(words, commands)
    behind = words[words.index(command) + 1 :]
    dashed = next((word for word in behind if _DASHED_PROMPT.match(word)), None)
    if dashed is not None and "--" not in behind:
        return f"put -- before a prompt that begins with a dash: clipcond {command} -- {shlex.quote(dashed)}"
    if problem.startswith("Got unexpected extra argument"):
        prompt = " ".join(takewhile(lambda word: not word.startswith("-"), behind))
        if prompt:
            return f'put the prompt in quotes: clipcond {command} "{prompt}"'
    if command == "generate" and problem.startswith("No such option: --file"):
        return "--infotext FILE draws the prompt in a text file or a picture"
    if command == "tokens" and problem.startswith("give either a PROMPT") and "--file" not in behind:
        if sys.stdin is not None and not sys.stdin.isatty():
            return "to read prompts from a pipe, give - as the prompt: … | clipcond tokens -"
        return 'a prompt stands in quotes: clipcond tokens "a red fox"'
    return ""


def _about_command(words: Sequence[str], commands: Sequence[str]) -> str:
    given = next((word for word in words if not word.startswith("-")), "")
    if " " in given:
        return f"name a command before the prompt: clipcond tokens {shlex.quote(given)}"
    near = get_close_matches(given.lower(), commands, n=1)
    return f"did you mean clipcond {near[0]}?" if near else ""
