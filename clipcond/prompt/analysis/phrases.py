"""Phrases of a planned prompt, their places, and findings about tokens and attention that they cost.

A border inside a word is a warning of the plan itself. A phrase is what stands between two commas (semicolons, bars, full
stops, line feeds, BREAKs); brackets of the dialect are never cut: `(red, blue:1.2)` is one phrase of the table, while
findings look between its commas too. The lists of boilerplate ship as `prompts/analysis/*.txt`.
"""

from __future__ import annotations

import re
from bisect import bisect_right
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from itertools import takewhile
from math import isclose
from sys import maxsize
from typing import TYPE_CHECKING

from clipcond.errors import ConfigError
from clipcond.prompt.findings import Finding
from clipcond.prompt.layout import EmbeddingToken
from clipcond.resources import bundled

if TYPE_CHECKING:
    from clipcond.prompt.plan import EncoderPlan, PlannedToken, PromptPlan

LISTS = ("quality", "platforms", "negative")
RARE = 4  # a word of so many tokens is spelled, not known

_END_OF_WORD = "</w>"
_COMMAS, _STOPS = frozenset(",;|，、；。！？"), frozenset(".!?")
_WORDS = re.compile(r"'(?:s|t|re|ve|m|ll|d)(?![^\W\d_])|[^\W\d_]+|\d|(?:[^\w\s]|_)+")
_CLOSING = re.compile(r"(?::[ ]?[+-]?[\d.]{1,20})?[)\]}]+(?:\++|-+)?")
_PAIRS = {"a1111": "()[]", "comfy": "()", "compel": "()"}  # of each dialect
_BRACKETS = re.compile(r"\\.|<\w+:[^<>]*>|[()\[\]]", re.DOTALL)  # an escape and a tag are no brackets
_DEEPEST = 64  # brackets inside of one another that are looked through for a partner
_LARGE_SHARE, _MANY = 0.25, 8  # boilerplate that is worth a word
_SHOWN = 40  # characters of the user's text that a message quotes


@dataclass(frozen=True, slots=True, kw_only=True)
class Phrase:
    """A passage that the user typed between two commas, with brackets around it: `text` is prompt[start:end].

    `first` numbers its first content token from 0, `tokens` counts all of them; `chunks` are the indices of the chunks
    that hold its first and its last token. `weight` is the weight furthest from 1 inside it.
    """

    text: str
    start: int
    end: int
    first: int
    tokens: int
    chunks: tuple[int, int]
    weight: float
    boilerplate: bool
    repeats: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Analysis:
    """Phrases and findings of one encoder's plan. Spans and findings index the user's own string, in its order."""

    encoder: str
    content_tokens: int
    phrases: tuple[Phrase, ...]
    boilerplate: tuple[tuple[int, int], ...]
    boilerplate_tokens: int
    wasted_places: int
    findings: tuple[Finding, ...]

    @property
    def boilerplate_share(self) -> float:
        """Return the share of the content tokens that boilerplate takes; 0.0 for an empty prompt."""
        return self.boilerplate_tokens / self.content_tokens if self.content_tokens else 0.0

    def to_json(self) -> dict[str, object]:
        """Of dicts, lists, strings and numbers only."""
        return {
            "encoder": self.encoder,
            "content_tokens": self.content_tokens,
            "boilerplate_tokens": self.boilerplate_tokens,
            "boilerplate_share": round(self.boilerplate_share, 4),
            "wasted_places": self.wasted_places,
            "phrases": [
                {
                    "text": phrase.text,
                    "start": phrase.start,
                    "end": phrase.end,
                    "first_token": phrase.first,
                    "content_tokens": phrase.tokens,
                    "chunks": list(phrase.chunks),
                    "weight": phrase.weight,
                    "boilerplate": phrase.boilerplate,
                    "repeats": phrase.repeats,
                }
                for phrase in self.phrases
            ],
            "findings": [
                {"code": found.code, "message": found.message, "start": found.start, "end": found.end}
                for found in self.findings
            ],
        }


@dataclass(slots=True)
class _Word:
    """A run of tokens that CLIP reads as one word. `text`: lower case, without marks."""

    tokens: list[PlannedToken]
    first: int
    chunks: tuple[int, int]
    text: str = ""
    border: bool = False  # something other than a token parts it from the word before: a line feed, BREAK
    fresh: bool = False  # it begins a chunk that the user asked for

    @property
    def start(self) -> int:
        return self.tokens[0].start

    @property
    def end(self) -> int:
        return self.tokens[-1].end


@dataclass(slots=True)
class _Run:
    """The words of a phrase, how many of its tokens are boilerplate, and how many there are, those between words too."""

    words: list[_Word]
    spans: list[tuple[int, int]] = field(default_factory=list)
    boilerplate: int = 0
    tokens: int = 0

    def __post_init__(self) -> None:
        self.tokens = self.tokens or sum(len(word.tokens) for word in self.words)

    @property
    def key(self) -> tuple[tuple[int, str], ...]:
        return tuple((token.id, token.piece) for word in self.words for token in word.tokens)


def analyse(plan: PromptPlan, encoder: str | None = None) -> Analysis:
    """Look at a plan through one of its encoders; the default is the first whose tokens are known.

    Takes time linear in the length of the prompt. Raises ConfigError for an encoder that the plan does not have.
    """
    name = encoder or plan.counted
    if name not in plan.encoders:
        raise ConfigError(f"no encoder {name!r} in this plan; there is {', '.join(plan.encoders)}")
    chosen = plan.encoders[name]
    runs = list(_runs(plan.prompt, chosen))
    for run in runs:
        _mark_boilerplate(run)
    content = sum(len(chunk.tokens) for chunk in chosen.chunks)
    brackets = _brackets(plan.prompt, plan.dialect)
    found = [
        *_border_findings(runs, chosen),
        *_padding_findings(chosen),
        *_rare_words(runs),
        *_repetitions(runs),
        *_boilerplate_finding(runs, plan.prompt, content),
        *_late_emphasis(runs, chosen.limit),
    ]
    return Analysis(
        encoder=name,
        content_tokens=content,
        phrases=tuple(_phrases(_joined(runs, brackets), plan.prompt, brackets)),
        boilerplate=tuple(span for run in runs for span in run.spans),
        boilerplate_tokens=sum(run.boilerplate for run in runs),
        wasted_places=sum(_wasted(chosen)),
        findings=tuple(sorted(found, key=lambda finding: (finding.start, finding.end, finding.code))),
    )


def words(plan: PromptPlan, encoder: str | None = None) -> Iterator[tuple[int, int]]:
    """Yield (start, end) of each word that one of a plan's encoders reads, the first known by default; marks are none."""
    name = encoder or plan.counted
    for word in _words(plan.prompt, plan.encoders[name]):
        if any(map(str.isalnum, word.text)):
            yield word.start, word.end


@cache
def boilerplate() -> Mapping[tuple[str, ...], bool]:
    """Return the passages of all lists as words; True where one counts only as a whole phrase."""
    passages: dict[tuple[str, ...], bool] = {}
    for name in LISTS:
        for line in bundled("prompts", f"analysis/{name}.txt").read_text(encoding="utf-8").splitlines():
            if line.strip() and not line.startswith("#"):
                passages[tuple(_WORDS.findall(line.lower().removeprefix("=")))] = line.startswith("=")
    return passages


# from tokens to phrases


def _words(prompt: str, encoder: EncoderPlan) -> Iterator[_Word]:
    word: _Word | None = None
    number = 0
    for chunk in encoder.chunks:
        fresh = chunk.index > 0 and encoder.chunks[chunk.index - 1].cut == "break"
        for token in chunk.tokens:
            last = word.tokens[-1] if word else None
            if word and last and (fresh or not _continues(last, token)):
                yield _finished(word)
                between = prompt[last.end : token.start]
                border = "\n" in between or fresh
                word = _Word([], number, (chunk.index, chunk.index), border=border, fresh=fresh)
            if word is None:
                word = _Word([], number, (chunk.index, chunk.index))
            word.tokens.append(token)
            word.chunks = (word.chunks[0], chunk.index)
            number, fresh = number + 1, False
    if word:
        yield _finished(word)


def _continues(last: PlannedToken, token: PlannedToken) -> bool:
    """Return True if a token belongs to the word of the one before it; the vectors of an embedding are a word."""
    if isinstance(last, EmbeddingToken):
        return token.start == last.start
    return not last.piece.endswith(_END_OF_WORD) and token.start <= last.end


def _finished(word: _Word) -> _Word:
    texts = dict.fromkeys((token.start, token.text) for token in word.tokens)  # an emoji's tokens share its text
    word.text = "".join(text for _, text in texts).lower()
    return word


def _runs(prompt: str, encoder: EncoderPlan) -> Iterator[_Run]:
    """Yield the words of a plan between separators, which belong to no phrase."""
    words = list(_words(prompt, encoder))
    run: list[_Word] = []
    for at, word in enumerate(words):
        if word.border and run:
            yield _Run(run)
            run = []
        if not _separates(words, at):
            run.append(word)
        elif run:
            yield _Run(run)
            run = []
    if run:
        yield _Run(run)


def _separates(words: Sequence[_Word], at: int) -> bool:
    text = words[at].text
    if any(map(str.isalnum, text)):
        return False
    before, after = words[at - 1] if at else None, words[at + 1] if at + 1 < len(words) else None
    if not _COMMAS.isdisjoint(text):  # but not the comma of 1,000
        return not (
            before and after and before.text.isdigit() and after.text.isdigit() and after.start == words[at].end
        )
    return not _STOPS.isdisjoint(text) and (after is None or after.start > words[at].end)


def _mark_boilerplate(run: _Run) -> None:
    """Find the longest passages of the lists, from left to right."""
    passages, words, at = boilerplate(), run.words, 0
    while at < len(words):
        for length in range(min(_longest_passage(), len(words) - at), 0, -1):
            whole_only = passages.get(tuple(word.text for word in words[at : at + length]))
            if whole_only is False or (whole_only and length == len(words)):
                found = words[at : at + length]
                run.spans.append((found[0].start, found[-1].end))
                run.boilerplate += sum(len(word.tokens) for word in found)
                at += length
                break
        else:
            at += 1


@cache
def _longest_passage() -> int:
    return max(map(len, boilerplate()))


def _phrases(runs: Sequence[_Run], prompt: str, brackets: Sequence[tuple[int, int]]) -> Iterator[Phrase]:
    seen: set[tuple[tuple[int, str], ...]] = set()
    for number, run in enumerate(runs):
        first, last, tokens = run.words[0], run.words[-1], run.tokens
        before = runs[number - 1].words[-1].end if number else 0
        after = runs[number + 1].words[0].start if number + 1 < len(runs) else len(prompt)
        start, end = _with_brackets(brackets, first.start, last.end)
        if start < before or after < end:  # a BREAK inside of the bracket
            start, end = first.start, last.end
        start, end = _with_marks(prompt, start, end, before, after)
        yield Phrase(
            text=prompt[start:end],
            start=start,
            end=end,
            first=first.first,
            tokens=tokens,
            chunks=(first.chunks[0], last.chunks[1]),
            weight=_strongest(run),
            boilerplate=run.boilerplate == _size(run),
            repeats=run.key in seen,
        )
        seen.add(run.key)


def _joined(runs: Sequence[_Run], brackets: Sequence[tuple[int, int]]) -> list[_Run]:
    """Return the runs, those that share a bracket made one; a chunk border that the user asked for still parts them."""
    joined: list[_Run] = []
    for run in runs:
        before = joined[-1] if joined else None
        if before and not run.words[0].fresh and _share(brackets, before.words[-1], run.words[0]):
            between = run.words[0].first - before.words[0].first - before.tokens
            tokens = before.tokens + between + run.tokens
            words = [*before.words, *run.words]
            joined[-1] = _Run(words, [*before.spans, *run.spans], before.boilerplate + run.boilerplate, tokens)
        else:
            joined.append(run)
    return joined


def _share(brackets: Sequence[tuple[int, int]], before: _Word, after: _Word) -> bool:
    """Return True if one bracket holds a word and the one before it."""
    at = bisect_right(brackets, (before.start, maxsize)) - 1
    return at >= 0 and brackets[at][0] <= before.start and after.end <= brackets[at][1]


def _with_brackets(brackets: Sequence[tuple[int, int]], start: int, end: int) -> tuple[int, int]:
    """Return a passage with all of the brackets that it begins or ends in."""
    for place in (start, max(end - 1, start)):
        at = bisect_right(brackets, (place, maxsize)) - 1
        if at >= 0 and place < brackets[at][1]:
            start, end = min(start, brackets[at][0]), max(end, brackets[at][1])
    return start, end


def _brackets(prompt: str, dialect: str) -> list[tuple[int, int]]:
    """Return the outermost pairs of brackets of a dialect, in order; a bracket without a partner is text."""
    pairs = _PAIRS.get(dialect, "")
    if not any(mark in prompt for mark in pairs):
        return []
    stack: list[tuple[str, int]] = []
    found: list[tuple[int, int]] = []
    for match in _BRACKETS.finditer(prompt):
        mark = match[0]
        if len(mark) > 1 or mark not in pairs:
            continue
        if mark in "([":
            stack.append((mark, match.start()))
        elif (opening := pairs[pairs.index(mark) - 1]) in {held for held, _ in stack[-_DEEPEST:]}:
            while stack and stack[-1][0] != opening:
                stack.pop()
            start = stack.pop()[1]
            while found and found[-1][0] > start:
                found.pop()
            found.append((start, match.end()))
    return found


def _with_marks(prompt: str, start: int, end: int, before: int, after: int) -> tuple[int, int]:
    """A passage with the brackets and the weight that stand around it, as far as its neighbours leave room."""
    while start > before and prompt[start - 1] in "([{":
        start -= 1
    closing = _CLOSING.match(prompt, end, after)
    return start, closing.end() if closing else end


def _size(run: _Run) -> int:
    return sum(len(word.tokens) for word in run.words)


def _strongest(run: _Run) -> float:
    return max((token.weight for word in run.words for token in word.tokens), key=lambda weight: abs(weight - 1))


# the findings


def _border_findings(runs: Iterable[_Run], encoder: EncoderPlan) -> Iterator[Finding]:
    for run in runs:
        left, right = run.words[0].chunks[0], run.words[-1].chunks[1]
        if left == right:
            continue
        size = _size(run)
        if size > encoder.limit:
            message = f"{size} tokens without a comma: the phrase fits no chunk, and its parts do not see each other"
        else:
            before = sum(len(word.tokens) for word in run.words if word.chunks[0] == left)
            parts = f"{before} and {size - before} tokens that do not see each other"
            message = f"split over chunks {left + 1} and {right + 1}: {parts}"
        yield Finding("phrase-split", message, run.words[0].start, run.words[-1].end)


def _wasted(encoder: EncoderPlan) -> list[int]:
    """For each chunk the places that going back to a comma left empty."""
    return [chunk.padding if chunk.cut == "backtrack" else 0 for chunk in encoder.chunks]


def _padding_findings(encoder: EncoderPlan) -> Iterator[Finding]:
    for chunk, wasted in zip(encoder.chunks, _wasted(encoder), strict=True):
        if wasted and chunk.tokens:
            last = chunk.tokens[-1]
            places = "1 place is" if wasted == 1 else f"{wasted} places are"
            here = "at this comma" if _COMMAS & set(last.text) else "early, here"
            message = f"chunk {chunk.index + 1} ends {here}, and {places} padding"
            yield Finding("padding-wasted", message, last.start, last.end)


def _rare_words(runs: Iterable[_Run]) -> Iterator[Finding]:
    """One finding for each word, where it stands first."""
    seen: set[str] = set()
    for word in (word for run in runs for word in run.words):
        pieces = len(word.tokens)
        if (
            pieces < RARE
            or word.text in seen
            or isinstance(word.tokens[0], EmbeddingToken)
            or (word.text.isascii() and not word.text.isalnum())
        ):
            continue
        seen.add(word.text)
        if word.text.isascii():
            message = f"takes {pieces} tokens: CLIP spells this word and hardly knows it"
        else:
            letters = len(word.text)
            message = f"takes {pieces} tokens for {letters} character{'s' if letters > 1 else ''}: CLIP hardly knows it"
        yield Finding("rare-word", message, word.start, word.end)


def _repetitions(runs: Iterable[_Run]) -> Iterator[Finding]:
    """One finding for each phrase that is said more than once, at its second place."""
    places: dict[tuple[tuple[int, str], ...], list[_Run]] = {}
    for run in runs:
        if any(map(str.isalnum, "".join(word.text for word in run.words))):
            places.setdefault(run.key, []).append(run)
    for first, *others in places.values():
        if others:
            times, cost = len(others) + 1, len(others) * _size(first)
            often = "twice" if times == 2 else f"{times} times"
            tokens = "1 token" if cost == 1 else f"{cost} tokens"
            message = f"said {often}; the repetition takes {tokens}"
            yield Finding("repeated-phrase", message, others[0].words[0].start, others[0].words[-1].end)


def _boilerplate_finding(runs: Sequence[_Run], prompt: str, total: int) -> Iterator[Finding]:
    spent = sum(run.boilerplate for run in runs)
    spans = [span for run in runs for span in run.spans]
    if spent < _MANY or spent < _LARGE_SHARE * total:
        return
    texts = dict.fromkeys(prompt[start:end].lower()[:_SHOWN] for start, end in spans)
    some = ", ".join(f"“{text}”" for text in list(texts)[:3]) + (" …" if len(texts) > 3 else "")
    message = f"{spent} of {total} tokens ({spent / total:.0%}) go to habit, not to this picture: {some}"
    yield Finding("boilerplate", message, *spans[0])


def _late_emphasis(runs: Iterable[_Run], limit: int) -> Iterator[Finding]:
    """Yield a finding for the weighted words of each phrase, where it stands first behind the first chunk."""
    seen: set[tuple[tuple[int, str], ...]] = set()
    for run in runs:
        weight = _strongest(run)
        if weight <= 1 or isclose(weight, 1) or run.key in seen:
            continue
        words = _first_weighted(run, weight)
        if words and words[0].first >= limit:
            seen.add(run.key)
            message = f"weighted {weight:.4g}, but starts at token {words[0].first + 1}; the first {limit} weigh most"
            yield Finding("late-emphasis", message, words[0].start, words[-1].end)


def _first_weighted(run: _Run, weight: float) -> list[_Word]:
    """Return the first words in a row that have a weight."""
    start = next(n for n, word in enumerate(run.words) if any(token.weight == weight for token in word.tokens))
    return [*takewhile(lambda word: any(token.weight == weight for token in word.tokens), run.words[start:])]
