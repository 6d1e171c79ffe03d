"""Prompt templates filled in: at random with a seed, or every combination up to a limit.

Templates are expanded before anything else of a prompt is read: their marks (`{}`, `$`, `__`) are no marks of any
dialect. The syntax stands in `clipcond.prompt.templates`. The same seed gives the same prompts on every platform and
Python, and whatever is in a template, expansion ends: lists that name one another in a circle, alternatives that
explode and unknown names stay as text and earn a warning; what a prompt, and all prompts together, may grow to is
bounded.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from clipcond.errors import ConfigError
from clipcond.prompt.draws import Counter, Dice, Draw, Picker
from clipcond.prompt.findings import Finding
from clipcond.prompt.templates import MAX_DEPTH, Choice, Node, Reference, Template, Variable, parse
from clipcond.prompt.wildcard_lists import Pool, WildcardLists

MAX_LENGTH = 100_000  # characters and choices that lists, alternatives and variables may add to one prompt
MAX_WORK = 5_000_000, 2_000  # characters that they may add to all prompts together, and more for each prompt asked for
_WORK_OF_CHOICE = 20  # characters that take as long as one choice
_COMPARISONS = 30  # names compared with a pattern in the time of one choice
_EACH = 50  # warnings of one code that are told one by one


@dataclass(frozen=True, slots=True)
class Expansion:
    """The prompts that a template gives, and the warnings about it (spans in the template)."""

    prompts: tuple[str, ...]
    warnings: tuple[Finding, ...]


def expand(
    template: str,
    *,
    seed: int = 0,
    count: int = 1,
    folders: Sequence[str | Path] = (),
    combinatorial: bool = False,
    limit: int = 1000,
) -> Expansion:
    """Fill in a template.

    At random: `count` prompts; prompt i is the one that `seed + i` gives alone. Combinatorial: every combination in
    the template's order, the last choice changing fastest, equal ones once; at most `limit` combinations are tried, and
    `seed` and `count` mean nothing. Lists are the `.txt` files of `folders`, of which the first that has a name wins,
    then those that ship with clipcond.

    Lists, alternatives and variables add at most 100,000 characters to a prompt; prompts that are long and many end
    early. Both is a warning: `too-long`, `too-many`. The others are `unknown-wildcard`, `empty-wildcard`,
    `cyclic-wildcard`, `unreadable-wildcard`, `unknown-variable`, `too-deep`, `unclosed-brace`, `stray-brace`,
    `unsupported-wrap`; what they are about stays as text. A line of a list is read, and warned about, when it is drawn.

    Raises ConfigError for a negative count or a limit below 1, ResourceMissing for a folder that is not there.

    >>> expand("a {red|blue} fox", combinatorial=True).prompts
    ('a red fox', 'a blue fox')
    """
    if count < 0 or limit < 1:
        given = f"count {count}" if count < 0 else f"limit {limit}"
        raise ConfigError(f"{given}: give a count of 0 or more and a limit of 1 or more")
    parsed = parse(template)
    warnings = _Warnings(parsed.warnings)
    lists = WildcardLists(folders)

    def fill(picker: Picker) -> tuple[str, int]:
        filling = _Filling(lists, picker, warnings)
        return filling.fill(parsed), filling.work

    expanded = _combinations(fill, limit) if combinatorial else _at_random(fill, seed, count)
    if expanded.problem:
        warnings.add(Finding("too-many", expanded.problem, 0, len(template)))
    return Expansion(expanded.prompts, warnings.told())


@dataclass(frozen=True, slots=True)
class _Expanded:
    prompts: tuple[str, ...]
    problem: str = ""


def _at_random(fill: Callable[[Picker], tuple[str, int]], seed: int, count: int) -> _Expanded:
    """`count` prompts, or as many as the work allows."""
    prompts: list[str] = []
    work = MAX_WORK[0] + count * MAX_WORK[1]
    for number in range(count):
        if work <= 0:
            return _Expanded(tuple(prompts), f"the prompts are too long for {count} of them; these are the first")
        prompt, done = fill(Dice(seed + number))
        prompts.append(prompt)
        work -= done
    return _Expanded(tuple(prompts))


def _combinations(fill: Callable[[Picker], tuple[str, int]], limit: int) -> _Expanded:
    """The first combinations, up to a limit or as many as the work allows, equal ones once."""
    prompts: dict[str, None] = {}
    counter, work = Counter(), MAX_WORK[0] + limit * MAX_WORK[1]
    for number in range(limit):
        if work <= 0:
            problem = f"the prompts are too long for {limit} combinations; these are the first {number}"
            return _Expanded(tuple(prompts), problem)
        prompt, done = fill(counter)
        prompts[prompt] = None
        work -= done
        if not counter.advance():
            return _Expanded(tuple(prompts))
    return _Expanded(tuple(prompts), f"there are more than {limit} combinations; these are the first")


class _Warnings:
    """Warnings, each once; of a code that has too many, those after the fiftieth become one."""

    def __init__(self, found: Sequence[Finding]) -> None:
        self._found: dict[str, dict[Finding, None]] = {}
        self._more: dict[str, Finding] = {}
        for one in found:
            self.add(one)

    def full(self, code: str) -> bool:
        """True if no other warning of a code will be told in its own words."""
        return len(self._found.get(code, ())) >= _EACH

    def add(self, found: Finding) -> None:
        """Note a warning."""
        known = self._found.setdefault(found.code, {})
        if found in known or len(known) < _EACH:
            known[found] = None
        else:
            self._more.setdefault(found.code, Finding(found.code, "and more of the same", found.start, found.end))

    def told(self) -> tuple[Finding, ...]:
        """All warnings, in the order of their places."""
        found = [one for each in self._found.values() for one in each] + list(self._more.values())
        return tuple(sorted(found, key=lambda one: (one.start, one.end, one.code, one.message)))


@dataclass(frozen=True, slots=True)
class _Scope:
    """The surroundings of nodes: the text that they are of, and the lists, braces and variables that led there.

    span: of the part of the user's template that led there; None: the nodes are of that template itself.
    """

    source: str
    depth: int = 0
    span: tuple[int, int] | None = None
    chain: tuple[str, ...] = ()  # the lists and variables that led here

    def span_of(self, node: Choice | Reference | Variable) -> tuple[int, int]:
        """The place of a node in the user's template, or of what led to it."""
        return self.span or (node.start, node.end)


_Passage = tuple[Sequence[Node], _Scope]


class _Filling:
    """One prompt in the making."""

    def __init__(self, lists: WildcardLists, picker: Picker, warnings: _Warnings) -> None:
        self._lists, self._picker, self._warnings = lists, picker, warnings
        self._variables: dict[str, str | tuple[_Scope, Variable]] = {}
        self._left = MAX_LENGTH
        self._told: set[tuple[str, tuple[int, int]]] = set()  # references whose lists' problems are warned of
        self._outermost = (0, 0)  # the span of the template's own node that is being filled in
        self.work = 0

    def fill(self, template: Template) -> str:
        """The template's text with everything picked."""
        scope = _Scope(template.source)
        texts: list[str] = []
        for node in template.nodes:
            if isinstance(node, str):
                texts.append(node)
            else:
                self._outermost = node.start, node.end
                texts.append(self._node(node, scope))
        text = "".join(texts)
        self.work += len(text)
        return text

    def _nodes(self, nodes: Sequence[Node], scope: _Scope) -> str:
        return "".join([self._added(node) if isinstance(node, str) else self._node(node, scope) for node in nodes])

    def _added(self, text: str) -> str:
        """A text that goes into the prompt, or as much of it as may."""
        if len(text) > self._left:
            text = text[: max(self._left, 0)]
            self._warn_of_length()
            self._left = 0
        self._left -= len(text)
        return text

    def _warn_of_length(self) -> None:
        message = f"this adds more than {MAX_LENGTH:,} characters to the prompt, which is cut there"
        self._warnings.add(Finding("too-long", message, *self._outermost))

    def _node(self, node: Choice | Reference | Variable, scope: _Scope) -> str:
        self._left -= 1
        self.work += _WORK_OF_CHOICE
        deeper = _Scope(scope.source, scope.depth + 1, scope.span, scope.chain)
        if self._left <= 0:
            self._warn_of_length()
            return self._as_text(node, deeper)
        if scope.depth > MAX_DEPTH:
            self._warn("too-deep", f"more than {MAX_DEPTH} lists, variables and braces in one another", node, scope)
            return self._as_text(node, deeper)
        match node:
            case Choice():
                return self._choice(node, deeper)
            case Reference():
                return self._reference(node, deeper)
            case Variable():
                return self._variable(node, deeper)

    def _as_text(self, node: Choice | Reference | Variable, scope: _Scope) -> str:
        """The marks of a node as they were written; those of the template itself cost nothing."""
        text = scope.source[node.start : node.end]
        return text if scope.depth == 1 else self._added(text)

    def _choice(self, node: Choice, scope: _Scope) -> str:
        only = node.options[0].nodes
        if node.most > 1 and len(node.options) == len(only) == 1 and isinstance(only[0], Reference):
            drawn = only[0]  # {2$$__colours__}: two entries of the list
            pool = self._pool(drawn, scope)
            if not pool:
                return self._as_text(drawn, scope) if node.least else ""
            return self._several(node, pool.odds, lambda number: self._entry(pool, number, drawn, scope))
        return self._several(node, node.odds, lambda number: (node.options[number].nodes, scope))

    def _several(self, node: Choice, odds: Sequence[int], passage: Callable[[int], _Passage]) -> str:
        """Some of the alternatives of a choice, none twice, joined."""
        least, most = min(node.least, len(odds)), min(node.most, len(odds))
        amount = least + (self._picker.pick(Draw(range(1, most - least + 2))) if most > least else 0)
        draw = Draw(odds)
        texts: list[str] = []
        for drawn in range(amount):
            number = self._picker.pick(draw) if draw.left > 1 else draw.at_place(0)
            if drawn < amount - 1:
                draw.take(number)
            texts.append(self._added(node.joiner) if drawn else "")
            texts.append(self._nodes(*passage(number)))
            self._left -= 1
            self.work += _WORK_OF_CHOICE
            if self._left <= 0 and drawn < amount - 1:
                self._warn_of_length()
                break
        return "".join(texts)

    def _reference(self, node: Reference, scope: _Scope) -> str:
        pool = self._pool(node, scope)
        if not pool:
            return self._as_text(node, scope)
        number = self._picker.pick(Draw(pool.odds)) if len(pool) > 1 else 0
        return self._nodes(*self._entry(pool, number, node, scope))

    def _entry(self, pool: Pool, number: int, node: Reference, scope: _Scope) -> _Passage:
        """A line of a list that a reference draws from."""
        found, line = pool.line(number)
        template = found.template(line)
        for warning in template.warnings:
            self._warn(warning.code, f"in the list {found.name!r}: {warning.message}", node, scope)
        chain = (*scope.chain, found.name)
        return template.nodes, _Scope(template.source, scope.depth, scope.span_of(node), chain)

    def _pool(self, node: Reference, scope: _Scope) -> Pool | None:
        """The lists that a reference draws from; None, with a warning, where there is nothing."""
        compared = self._lists.compared
        matches = self._lists.find(node.name)
        if self._lists.compared > compared:
            self._left -= (self._lists.compared - compared) // _COMPARISONS
            self.work += self._lists.compared - compared
        if matches is None:
            hint = "" if self._warnings.full("unknown-wildcard") else self._lists.hint(node.name)
            self._warn("unknown-wildcard", f"there is no list {node.name!r}{hint}", node, scope)
            return None
        if (told := (node.name, scope.span_of(node))) not in self._told:
            self._told.add(told)
            for code, message in matches.problems:
                self._warn(code, message, node, scope)
        if pool := matches.without(scope.chain):
            return pool
        if matches.lists:
            self._warn_of_circle(node, scope)
        return None

    def _warn_of_circle(self, node: Reference, scope: _Scope) -> None:
        route = " → ".join(name for name in scope.chain if not name.startswith("$"))
        self._warn("cyclic-wildcard", f"the list {node.name!r} leads back to itself: {route}", node, scope)

    def _variable(self, node: Variable, scope: _Scope) -> str:
        known = self._variables.get(node.name)
        if "=" in node.how:
            if known is None or "?" not in node.how:
                now = node.how.endswith("!")
                self._variables[node.name] = self._nodes(node.nodes, scope) if now else (scope, node)
            return ""
        if isinstance(known, str):
            return self._added(known)
        key = f"${node.name}"
        if known is not None and key not in scope.chain:
            origin, setting = known
            chain = (*scope.chain, key)
            return self._nodes(setting.nodes, _Scope(origin.source, scope.depth, scope.span_of(node), chain))
        if node.how == ":" and known is None:
            return self._nodes(node.nodes, scope)
        what = "is not set" if known is None else "is made of itself"
        self._warn("unknown-variable", f"the variable {node.name!r} {what}", node, scope)
        return self._as_text(node, scope)

    def _warn(self, code: str, message: str, node: Choice | Reference | Variable, scope: _Scope) -> None:
        self._warnings.add(Finding(code, message, *scope.span_of(node)))
