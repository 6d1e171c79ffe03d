"""A collection of prompts in numbers: how long they are, which words split into many tokens, what is said again and again."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from heapq import nsmallest
from itertools import islice
from typing import TYPE_CHECKING, TypedDict

from clipcond.prompt.dialects.names import check_dialect
from clipcond.prompt.tokenizer import CONTENT, count_tokens

if TYPE_CHECKING:
    from clipcond.prompt.items import Item

AUTO = "auto"
TOP = 20  # rows of each table
_BATCH = 5000  # prompts that are tokenised at once
_BINS = 24  # bars of the histogram that suffice
_LONGEST_WORD = 60  # characters; beyond it is no word but a link or noise
_LARGE = 3_000_000  # entries of a table of counts, some 400 MB
_LETTERS = re.compile(r"[^\W\d_]+")
_BETWEEN_PHRASES = re.compile(r"[,;|\n，、；。！？]|[.!?](?=\s)")
_EDGES = " \t\r.!?\"'()[]{}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Bin:
    """Prompts of `first` to `last` content tokens."""

    first: int
    last: int
    prompts: int


@dataclass(frozen=True, slots=True, kw_only=True)
class SplitWord:
    """A word of several tokens, and how often it stands in the collection."""

    word: str
    tokens: int
    count: int


@dataclass(frozen=True, slots=True, kw_only=True)
class CommonPhrase:
    """A phrase, from comma to comma in lower case, and how often it stands in the collection."""

    phrase: str
    count: int


@dataclass(frozen=True, slots=True, kw_only=True)
class LongPrompt:
    """One of the longest prompts; lines count from 1."""

    line: int
    tokens: int
    prompt: str


class _Lengths(TypedDict):
    """Figures of a survey about lengths."""

    prompts: int
    empty: int
    tokens: int
    limit: int
    over: int
    over_two: int
    lost_tokens: int
    shortest: int
    median: int
    p90: int
    p99: int
    longest: int
    histogram: tuple[Bin, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Survey:
    """A collection in numbers. Lengths are content tokens of CLIP; `over` prompts are cut by a stock pipeline.

    `histogram` has bins of equal width that begin at 0 and never straddle the limit. `split_words` are those that cost
    most tokens in all beyond the first of each.
    """

    dialect: str
    prompts: int
    empty: int
    distinct: int
    tokens: int
    limit: int
    over: int
    over_two: int
    lost_tokens: int
    shortest: int
    median: int
    p90: int
    p99: int
    longest: int
    histogram: tuple[Bin, ...]
    split_words: tuple[SplitWord, ...]
    phrases: tuple[CommonPhrase, ...]
    longest_prompts: tuple[LongPrompt, ...]

    @property
    def mean(self) -> float:
        """Content tokens of the average prompt."""
        return self.tokens / self.prompts if self.prompts else 0.0

    @property
    def over_share(self) -> float:
        """Return the share of prompts that a stock pipeline cuts."""
        return self.over / self.prompts if self.prompts else 0.0

    def to_json(self) -> dict[str, object]:
        """Return the document of `clipcond tokens --stats --json`."""
        return {
            "dialect": self.dialect,
            "prompts": self.prompts,
            "empty": self.empty,
            "distinct": self.distinct,
            "content_tokens": self.tokens,
            "limit": self.limit,
            "over_limit": {
                "prompts": self.over,
                "share": round(self.over_share, 6),
                "over_two_chunks": self.over_two,
                "lost_content_tokens": self.lost_tokens,
            },
            "length": {
                "mean": round(self.mean, 3),
                "shortest": self.shortest,
                "median": self.median,
                "p90": self.p90,
                "p99": self.p99,
                "longest": self.longest,
            },
            "histogram": [{"first": bar.first, "last": bar.last, "prompts": bar.prompts} for bar in self.histogram],
            "split_words": [
                {"word": word.word, "content_tokens": word.tokens, "count": word.count} for word in self.split_words
            ],
            "phrases": [{"phrase": phrase.phrase, "count": phrase.count} for phrase in self.phrases],
            "longest_prompts": [
                {"line": long.line, "content_tokens": long.tokens, "prompt": long.prompt}
                for long in self.longest_prompts
            ],
        }


def survey(prompts: Iterable[str], *, dialect: str = "plain", top: int = TOP, limit: int = CONTENT) -> Survey:
    """Measure a collection, one prompt at a time as far as memory goes.   limit: the tokens that CLIP reads of each.

    A word is a run of letters; a phrase stands between commas, semicolons, bars, line feeds or the ends of sentences. In
    a dialect other than `plain` its marks are taken out first; `auto` decides for each prompt. Raises ConfigError for an
    unknown dialect.
    """
    lengths: Counter[int] = Counter()
    words: Counter[str] = Counter()
    phrases: Counter[str] = Counter()
    seen: set[int] = set()
    dialect = check_dialect(dialect, also=[AUTO])
    read = _reader(dialect)
    left = iter(prompts)
    longest: list[LongPrompt] = []
    while batch := list(islice(left, _BATCH)):
        seen.update(map(hash, batch))
        texts = [read(prompt) for prompt in batch]
        counts = count_tokens(texts)
        longest = _longer(longest, counts, batch, lengths.total(), top)
        lengths.update(counts)
        text = "\n".join(texts).lower()
        words.update(_LETTERS.findall(text))
        phrases.update(filter(None, map(_trimmed, _BETWEEN_PHRASES.split(text))))
        for table in (words, phrases):
            _thin(table)
    return Survey(
        **_statistics(lengths, limit),
        dialect=dialect,
        distinct=len(seen),
        split_words=_split_words(words, top),
        phrases=_common(phrases, top),
        longest_prompts=tuple(longest),
    )


def _reader(dialect: str) -> Callable[[str], str]:
    """Return a function that takes a dialect's marks out of a prompt."""
    if dialect == "plain":
        return str
    from clipcond.prompt.dialects.detect import detect
    from clipcond.prompt.dialects.parse import parse

    def read(prompt: str) -> str:
        return _text(parse(prompt, detect(prompt).dialect if dialect == AUTO else dialect).items)

    return read


def _text(items: Iterable[Item]) -> str:
    """Return the text of parsed items as an encoder reads it, with line feeds for the borders between chunks."""
    from clipcond.prompt.items import Break, Compose, Embedding, Schedule, Words

    texts = []
    for item in items:
        match item:
            case Words():
                texts.append(item.text)
            case Break() | Compose():
                texts.append("\n")
            case Embedding():
                texts.append(item.name)
            case Schedule():
                texts.append(_text(item.items))
    return "".join(texts)


def _trimmed(phrase: str) -> str:
    return phrase.strip(_EDGES)


def _thin(table: Counter[str]) -> None:
    """Forget what was seen once when a table has become large; the common entries are what counts."""
    if len(table) > _LARGE:
        for entry in [entry for entry, count in table.items() if count == 1]:
            del table[entry]


def _split_words(words: Counter[str], top: int) -> tuple[SplitWord, ...]:
    known = [word for word in words if len(word) <= _LONGEST_WORD]
    split = [
        SplitWord(word=word, tokens=tokens, count=words[word])
        for word, tokens in zip(known, count_tokens(known), strict=True)
        if tokens > 1
    ]
    return tuple(sorted(split, key=lambda word: (-word.count * (word.tokens - 1), -word.tokens, word.word))[:top])


def _common(phrases: Counter[str], top: int) -> tuple[CommonPhrase, ...]:
    often = [(count, phrase) for phrase, count in phrases.items() if count > 1]
    best = nsmallest(top, often, key=lambda pair: (-pair[0], pair[1]))
    return tuple(CommonPhrase(phrase=phrase, count=count) for count, phrase in best)


def _longer(
    longest: Sequence[LongPrompt], counts: Sequence[int], batch: Sequence[str], before: int, top: int
) -> list[LongPrompt]:
    """Return the longest of those so far and of one batch, which has `before` prompts before it."""
    numbers = nsmallest(top, range(len(batch)), key=lambda number: -counts[number])
    fresh = [LongPrompt(line=before + n + 1, tokens=counts[n], prompt=batch[n]) for n in numbers]
    return sorted([*longest, *fresh], key=lambda long: -long.tokens)[:top]


def _statistics(lengths: Counter[int], limit: int) -> _Lengths:
    ordered = sorted(lengths.items())
    prompts = lengths.total()
    long = [(length, count) for length, count in ordered if length > limit]
    return _Lengths(
        prompts=prompts,
        empty=lengths[0],
        tokens=sum(length * count for length, count in ordered),
        limit=limit,
        over=sum(count for _, count in long),
        over_two=sum(count for length, count in long if length > 2 * limit),
        lost_tokens=sum((length - limit) * count for length, count in long),
        shortest=ordered[0][0] if ordered else 0,
        median=_percentile(ordered, prompts, 50),
        p90=_percentile(ordered, prompts, 90),
        p99=_percentile(ordered, prompts, 99),
        longest=ordered[-1][0] if ordered else 0,
        histogram=tuple(_histogram(ordered, _percentile(ordered, prompts, 99), limit)),
    )


def _percentile(ordered: Sequence[tuple[int, int]], prompts: int, percent: int) -> int:
    """Return the smallest length that so many per cent of the prompts do not exceed."""
    below = 0
    for length, count in ordered:
        below += count
        if below * 100 >= percent * prompts:
            return length
    return 0


def _histogram(ordered: Sequence[tuple[int, int]], usual: int, limit: int) -> Iterator[Bin]:
    """Yield bins of equal width up to the usual length, and one for the few prompts beyond it."""
    if not ordered:
        return
    widths = (width for width in range(1, limit + 1) if limit % width == 0)  # the limit is always between two bars
    width = next((width for width in widths if usual <= width * _BINS), usual // (limit * _BINS) * limit + limit)
    longest = ordered[-1][0]
    bars = max(-(-usual // width), 1)
    counts: Counter[int] = Counter()
    for length, count in ordered:
        counts[min(max(length - 1, 0) // width, bars)] += count
    for number in range(bars + 1):
        first, last = number * width + 1 if number else 0, (number + 1) * width
        if number < bars or counts[number]:
            yield Bin(first=first, last=last if number < bars else longest, prompts=counts[number])
