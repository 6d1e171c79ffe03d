"""The syntax of prompt templates, as dynamicprompts made it common: alternatives, wildcard names, variables, comments.

| in a template | says |
|---|---|
| `{red\\|blue}` `{0.7::red\\|blue}` | one of them; the first 0.7 times as likely as the second |
| `{2$$a\\|b\\|c}` `{1-2$$ and $$a\\|b}` | two of them, joined by a comma; one or two, joined by ` and ` |
| `{2$${red} cat\\|dog}` `{2$$ and $${a}\\|b}` | the same before a choice: what stands behind `$$` is no variable |
| `__colours__` `__places/indoors__` `__place*__` | an entry of a list, of a list in a folder, of all lists that match |
| `${v=…}` `${v=!…}` `${v?=…}` `${v}` `${v:red}` | set, set to one choice, set if unset, use, use with a default |
| ` # …` | a comment to the end of the line; `#` directly before a letter is text |
| `\\{` `\\}` `\\__` `\\#`, and `\\\\|` in braces | the character itself |

Parsing is linear and total: what does not close stays text and earns a warning.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import accumulate

from clipcond.prompt.findings import Finding

ALL = 10**6  # `{2-$$…}`: as many as there are
MAX_DEPTH = 50  # of braces in one another; what stands deeper stays text
_TOKEN = re.compile(
    r"""
      (?P<escape>\\(?:[{}|\#\\]|__))
    | __(?!\ )(?P<list>(?:[^\W_]|[*./-]|_(?!_)|\ (?!_))+)__
    | (?P<variable>\$\{\s*(?P<name>[^\W\d]\w*)\s*(?P<how>\?=!?|=!?|:|(?=\})))
    | (?P<mark>%\{|[{}|\#])
    | [^\\{}|$%_\#]+ | .
    """,
    re.VERBOSE | re.DOTALL,
)
_AMOUNT = re.compile(
    r"""
      \s* (?: (?P<low>[0-9]{1,6}) (?P<dash>-)? (?P<high>[0-9]{1,6})? | -(?P<up_to>[0-9]{1,6}) ) \$\$
      (?: (?P<joiner>(?:[^${}|\\]|\\.)*) \$\$ )?
    """,
    re.VERBOSE | re.DOTALL,
)
_JOINER_ESCAPE = re.compile(r"\\([{}|#]|__)")
_LIKELY = re.compile(r"\s*([0-9]{1,9}(?:\.[0-9]{0,9})?|\.[0-9]{1,9})::")
UNIT = 10**9  # weights are counted in these parts, so that sums of them are exact


@dataclass(frozen=True, slots=True)
class Option:
    """One of the alternatives, with its weight beside the others."""

    weight: float
    nodes: tuple[Node, ...]


@dataclass(frozen=True, slots=True)
class Choice:
    """`{…}`: from `least` to `most` of the options, joined. start:end is its place in the source.

    odds: those of the options, summed up (`summed_odds`).
    """

    options: tuple[Option, ...]
    odds: Sequence[int]
    least: int
    most: int
    joiner: str
    start: int
    end: int


@dataclass(frozen=True, slots=True)
class Reference:
    """`__name__`: an entry of a list."""

    name: str
    start: int
    end: int


@dataclass(frozen=True, slots=True)
class Variable:
    """`${…}`. how: `` or `:` use it, `=` sets it, `?=` sets it if it is unset; `!` behind a sign chooses at once."""

    name: str
    how: str
    nodes: tuple[Node, ...]
    start: int
    end: int


Node = str | Choice | Reference | Variable


@dataclass(frozen=True, slots=True)
class Template:
    """A parsed template. The nodes' offsets index `source`."""

    source: str
    nodes: tuple[Node, ...]
    warnings: tuple[Finding, ...] = ()


@dataclass(slots=True)
class _Open:
    """A brace that is still open. `options` holds the pieces between its bars, `amount` what stands before them."""

    start: int
    head: str
    match: re.Match[str] | None = None
    amount: re.Match[str] | None = None
    options: list[list[Node]] = field(default_factory=lambda: [[]])


def parse(source: str) -> Template:
    """Read a template. Never raises; warnings: `unclosed-brace`, `stray-brace`, `too-deep`, `unsupported-wrap`."""
    stack, warnings, skipped, at = [_Open(0, "")], [], 0, 0
    while match := _TOKEN.match(source, at):
        start, end = match.span()
        at, top, mark = end, stack[-1], match["mark"]
        nodes = top.options[-1]
        if match["escape"]:
            kept = match[0] == r"\\" or (match[0] == r"\|" and top.head != "{")  # left to the weights' syntax
            nodes.append(match[0] if kept else match[0][1:])
        elif match["list"]:
            nodes.append(Reference(match["list"], start, end))
        elif mark == "#" and _starts_comment(source, start):
            at = _leave_comment(source, start, nodes)
        elif match["variable"] or mark in ("{", "%{"):
            if len(stack) <= MAX_DEPTH:
                amount = _AMOUNT.match(source, end) if mark == "{" else None
                at = amount.end() if amount else end
                stack.append(_Open(start, match[0] if match["variable"] else str(mark), match, amount))
            else:
                if not skipped:
                    warnings.append(Finding("too-deep", f"braces more than {MAX_DEPTH} deep stay text", start, end))
                skipped += 1
                nodes.append(match[0])
        elif mark == "}" and skipped:
            skipped -= 1
            nodes.append(mark)
        elif mark == "}" and len(stack) > 1:
            stack.pop()
            stack[-1].options[-1].append(_close(top, source, end, warnings))
        elif mark == "|" and top.head == "{" and not skipped:
            top.options.append([])
        else:
            if mark == "}":
                warnings.append(Finding("stray-brace", "this brace closes nothing and stays text", start, end))
            nodes.append(match[0])
    for lost in stack[1:]:
        where = lost.start, lost.start + len(lost.head)
        warnings.append(Finding("unclosed-brace", "this brace is never closed and stays text", *where))
    return Template(source, _merged(_flat(stack)), tuple(sorted(warnings, key=lambda found: (found.start, found.end))))


def entry(line: str) -> tuple[float, Template]:
    """A line of a list: its weight (`0.5::` in front, else 1), and its template, whose source lacks that mark."""
    match = _LIKELY.match(line)
    return (float(match[1]), parse(line[match.end() :].strip())) if match else (1.0, parse(line.strip()))


def weight(line: str) -> float:
    """The weight of a line of a list, without reading the rest of it."""
    match = _LIKELY.match(line)
    return float(match[1]) if match else 1.0


def summed_odds(weights: Sequence[float]) -> Sequence[int]:
    """Of each alternative its odds and those of all before it, as whole numbers of no other meaning."""
    if all(weight == 1 for weight in weights):
        return range(1, len(weights) + 1)
    return list(accumulate(round(weight * UNIT) for weight in weights))


def _starts_comment(source: str, at: int) -> bool:
    return (at == 0 or source[at - 1].isspace()) and source[at + 1 : at + 2].strip() == ""


def _leave_comment(source: str, at: int, nodes: list[Node]) -> int:
    """The place behind a comment. The blanks before it go, and its whole line if it has nothing else."""
    if nodes and isinstance(nodes[-1], str):
        nodes[-1] = nodes[-1].rstrip(" \t")
    line_end = source.find("\n", at)
    line_end = len(source) if line_end < 0 else line_end
    alone = not source[source.rfind("\n", 0, at) + 1 : at].strip()
    return line_end + 1 if alone else line_end


def _close(closed: _Open, source: str, end: int, warnings: list[Finding]) -> Node:
    """The node of a brace that has found its partner."""
    if closed.head == "%{":
        warnings.append(
            Finding("unsupported-wrap", "wrapping with %{…} is not known and stays text", closed.start, end)
        )
        return source[closed.start : end]
    if closed.match and closed.match["variable"]:
        how = closed.match["how"]
        return Variable(closed.match["name"], how, _merged(closed.options[0]), closed.start, end)
    options = tuple(_option(_merged(nodes)) for nodes in closed.options)
    least, most, joiner = _amount(closed.amount)
    odds = summed_odds([option.weight for option in options])
    return Choice(options, odds, least, most, joiner, closed.start, end)


def _amount(said: re.Match[str] | None) -> tuple[int, int, str]:
    """The least and the greatest number of options, and what joins them; without a mark one option."""
    if said is None:
        return 1, 1, ","
    least = int(said["low"] or 1)
    most = int(said["high"] or said["up_to"] or (ALL if said["dash"] else least))
    joiner = "," if said["joiner"] is None else _JOINER_ESCAPE.sub(r"\1", said["joiner"])
    return min(least, most), max(least, most), joiner


def _option(nodes: tuple[Node, ...]) -> Option:
    """Take the weight off the front, and the blanks off both ends."""
    weight = 1.0
    if match := _LIKELY.match(_first_text(nodes)):
        weight, nodes = float(match[1]), _behind(nodes, match.end())
    trimmed = list(nodes)
    if trimmed and isinstance(trimmed[0], str):
        trimmed[0] = trimmed[0].lstrip()
    if trimmed and isinstance(trimmed[-1], str):
        trimmed[-1] = trimmed[-1].rstrip()
    return Option(weight, tuple(node for node in trimmed if node != ""))


def _first_text(nodes: tuple[Node, ...]) -> str:
    return nodes[0] if nodes and isinstance(nodes[0], str) else ""


def _behind(nodes: tuple[Node, ...], at: int) -> tuple[Node, ...]:
    """The nodes without the first `at` characters of the text that they start with."""
    return (_first_text(nodes)[at:], *nodes[1:])


def _merged(nodes: list[Node]) -> tuple[Node, ...]:
    """Nodes with neighbouring texts put together."""
    result: list[Node] = []
    texts: list[str] = []
    for node in nodes:
        if isinstance(node, str):
            texts.append(node)
        else:
            result += ("".join(texts), node) if texts else (node,)
            texts.clear()
    return (*result, "".join(texts)) if texts else tuple(result)


def _flat(stack: list[_Open]) -> list[Node]:
    """Everything in the open braces as one row, their marks as text."""
    nodes: list[Node] = []
    for frame in stack:
        nodes.append(frame.head + (frame.amount[0] if frame.amount else ""))
        for number, option in enumerate(frame.options):
            nodes += ["|", *option] if number else option
    return nodes
