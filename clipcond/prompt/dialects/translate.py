"""The same words and weights in another dialect, and a list of what cannot be said there.

What is syntax in the target, and was text in the source, is escaped. Weights are written as numbers, one group for each
passage, never nested: so it does not matter that a1111 multiplies nested weights and comfy replaces them. What was written
is read again in the target: words or weights that arrive otherwise are in the list.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType

from clipcond.errors import ResourceMissing
from clipcond.prompt.dialects.names import check_dialect
from clipcond.prompt.dialects.parse import parse
from clipcond.prompt.dialects.target_syntax import SYNTAX, Syntax, weight_text
from clipcond.prompt.findings import Finding
from clipcond.prompt.items import Adapter, Break, Compose, Embedding, Item, Schedule, Swap, Words
from clipcond.prompt.layout import joined, touching
from clipcond.prompt.tokenizer import token_ids, without_surrogates

# what tokenizers take for blanks: not the separators U+001C to U+001F, which Python counts among them
_BLANKS = "".join(each for each in map(chr, range(0x3001)) if each.isspace() and not "\x1c" <= each <= "\x1f")
_WORD = re.compile(rf"[^{_BLANKS}]+")
_NO_EMBEDDINGS: Mapping[str, int] = MappingProxyType({})
_Leaf = Words | Break | Compose | Adapter | Embedding


@dataclass(frozen=True, slots=True)
class Translation:
    """A prompt in the target's syntax. `lost` lists what it could not take along; spans index the source's string."""

    text: str
    lost: tuple[Finding, ...]


def translate(prompt: str, source: str, target: str, *, embeddings: Mapping[str, int] = _NO_EMBEDDINGS) -> Translation:
    """Say a prompt of the dialect `source` in the dialect `target`.

    embeddings: textual-inversion names and how many vectors they hold, where names alone would be taken for words.
    A prompt never raises, and one that stays in its dialect stays as it is. Either the target reads the same words with the
    same weights, or `lost` says what differs, with the codes `lost-…` and `changed-…` of `finding_codes`. Raises
    ConfigError for an unknown dialect.

    >>> translate("a (red:1.3) fox (close-up)", "a1111", "compel").text
    'a (red)1.3 fox (close-up)1.1'
    """
    source, target = check_dialect(source), check_dialect(target)
    if source == target:
        return Translation(without_surrogates(prompt), ())
    parsed = parse(prompt, source, embeddings=embeddings)
    writer = _Writer(SYNTAX[target], target)
    writer.write(parsed.items)
    lost = writer.lost
    lost += [
        Finding("lost-comment", "comments are left out", found.start, found.end)
        for found in parsed.warnings
        if found.code == "comment"
    ]
    text = writer.text()
    if not {"changed-text", "lost-embedding"} & {found.code for found in lost}:
        arrived = parse(text, target, embeddings=embeddings).items
        lost += _differences(parsed.items, arrived, weighted=target != "plain")
    return Translation(text, tuple(sorted(lost, key=lambda one: (one.start, one.end))))


class _Writer:
    """Puts the target's text together, and lists what it cannot say."""

    def __init__(self, syntax: Syntax, target: str) -> None:
        self.lost: list[Finding] = []
        self._syntax, self._target = syntax, target
        self._written: list[str] = []
        # the end of the text so far: "" nothing, " " a blank, "b" one in the place of a mark, "g" a group, "w" words
        self._last = ""
        self._last_weight = ""
        self._parts = 0  # of a composed prompt, so far

    def text(self) -> str:
        """Return what was written."""
        text = without_surrogates("".join(self._written))
        return text if self._syntax.finish is None else self._syntax.finish(text)

    def write(self, items: Iterable[Item]) -> None:
        """Write items, one after the other."""
        for item in joined(_adapters_last(self._leaves(items))):
            match item:
                case Words():
                    self._words(item)
                case Embedding():
                    self._embedding(item)
                case Break():
                    self._blank()
                    self._lose("lost-break", "BREAK starts no chunk there", item)
                case Compose():
                    self._compose(item)
                case Adapter():
                    self._adapter(item)

    def _leaves(self, items: Iterable[Item]) -> Iterator[_Leaf]:
        """Yield the items, with what a schedule or a swap shows first in its place."""
        for item in items:
            if isinstance(item, Schedule):
                self._lose("lost-schedule", "there are no schedules there; what holds first is kept", item)
                yield from self._leaves(item.items)
            elif isinstance(item, Swap):
                self._lose("lost-swap", "words cannot be swapped there; the original is kept", item)
                yield from self._leaves(item.items)
            else:
                yield item

    def _words(self, item: Words) -> None:
        text = self._sayable(item)
        inner = text.strip(_BLANKS)
        before, behind = (text, "") if not inner else (text[: text.index(inner[0])], text[len(text.rstrip(_BLANKS)) :])
        if self._last != "b":
            self._put(before, " ")
        if inner:
            self._passage(self._syntax.escape(inner, weight_text(item.weight)), item)
            self._put(behind, " ")

    def _sayable(self, item: Words) -> str:
        """Return the text of words, with keywords of the target in lower case and without what it cannot say."""
        text = item.text
        if (keywords := self._syntax.keywords) is not None:
            for match in keywords.finditer(text):
                message = f"{match[0]} is a keyword in {self._target}; in lower case CLIP reads the same"
                start, end = item.places[match.start()], item.places[match.end()]
                self.lost.append(Finding("changed-case", message, start, end))
            text = keywords.sub(lambda match: match[0].lower(), text)
        for character in self._syntax.unsayable:
            if character in text:
                at = text.index(character)
                message = f"{character} cannot be written in {self._target} and is left out"
                self.lost.append(Finding("changed-text", message, item.places[at], item.places[at] + 1))
                text = text.replace(character, "")
        return text

    def _passage(self, written: str, item: Words | Embedding) -> None:
        """Write words without blanks at their ends, or a name: in brackets where they have a weight."""
        number = weight_text(item.weight)
        group = self._syntax.group if number != "1.0" else None
        if group is None and number != "1.0":
            self._lose("lost-weight", f"the weight {number} cannot be said there", item)
        elif number.startswith("-") and self._target == "compel":
            message = f"compel itself reads no negative weight; clipcond's compel dialect reads .attend({number})"
            self._lose("lost-weight", message, item)
        self._part_from_last(number, grouped=group is not None)
        self._put(written if group is None else group(written, number), "w" if group is None else "g")
        self._last_weight = number

    def _part_from_last(self, number: str, *, grouped: bool) -> None:
        """Write a blank where a passage would grow together with the one before it.

        The tokenizer reads passages one by one, so a blank between them changes nothing.
        """
        touches = self._last == "w" or (self._last == "g" and self._syntax.spaced)
        apart = not grouped or self._syntax.spaced or (self._written and self._written[-1].endswith("\\"))
        if (touches and apart) or (self._last in ("w", "g") and self._syntax.joins and number == self._last_weight):
            self._put(" ", " ")

    def _embedding(self, item: Embedding) -> None:
        number = weight_text(item.weight)
        name = self._syntax.embedding(item.name)
        if name is None:
            message = f"the name {item.name!r} cannot be written as an embedding's; it stays as words"
            self._lose("lost-embedding", message, item)
            name = "".join(character for character in item.name if character not in self._syntax.unsayable)
            name = self._syntax.escape(name, number)
        self._passage(name, item)

    def _compose(self, item: Compose) -> None:
        """Write the border of a part: parts follow one another, joined in the target's own way if it has one."""
        self._parts += 1
        border = self._syntax.border if item.how == "concatenate" else None
        if border is not None and item.weight != 1:
            self._lose("lost-weight", f"the part's weight {weight_text(item.weight)} cannot be said there", item)
        if self._parts == 1:
            if item.how == "noise" and item.weight != 1:
                message = f"the first part's weight {weight_text(item.weight)} cannot be said there"
                self.lost.append(Finding("lost-weight", message, item.start, item.end))
            return
        self._blank()
        if border is not None:
            self._put(border, "w")
            self._put(" ", "b")
        elif item.how in ("noise", "concatenate"):
            self._lose("lost-and", "prompts cannot be put together there; their words follow one another", item)
        else:
            self._lose("lost-blend", "prompts cannot be blended there; their words follow one another", item)

    def _adapter(self, item: Adapter) -> None:
        tag = self._syntax.adapter(item)
        if tag is None:
            self._lose("lost-adapter", f"the adapter {item.name!r} cannot be named there", item)
            return
        self._part_from_last("", grouped=True)
        self._put(tag, "g")
        if item.unet_weight is not None:
            message = f"{item.name!r} has one weight there, not {item.unet_weight:g} in the U-Net"
            self._lose("lost-adapter-weight", message, item)

    def _blank(self) -> None:
        """Write a blank where there is none, in the place of a mark that has no equal; those behind it are left out."""
        if self._last in ("w", "g"):
            self._put(" ", "b")
        elif self._last == " ":
            self._last = "b"

    def _put(self, text: str, kind: str) -> None:
        if text:
            self._written.append(text)
            self._last = kind

    def _lose(self, code: str, message: str, item: Item) -> None:
        self.lost.append(Finding(code, message, item.start, item.end))


def _adapters_last(items: Iterable[_Leaf]) -> Iterator[_Leaf]:
    """Yield the items, with an adapter in the midst of a word behind the word."""
    last: _Leaf | None = None
    waiting: list[_Leaf] = []
    for item in items:
        if isinstance(item, Adapter):
            waiting.append(item)
            continue
        if waiting and not (isinstance(last, Words) and isinstance(item, Words) and touching(last, item)):
            yield from waiting
            waiting = []
        yield item
        last = item
    yield from waiting


# the check


@dataclass(frozen=True, slots=True)
class _Word:
    text: str
    weight: float
    start: int
    end: int


def _differences(left: Sequence[Item], arrived: Sequence[Item], *, weighted: bool) -> list[Finding]:
    """Return a finding for the first word that arrives with other tokens or another weight, if one does."""
    before, after = [*_words(left, weighted=weighted)], [*_words(arrived, weighted=weighted)]
    place = next((n for n, pair in enumerate(zip(before, after, strict=False)) if not _same(*pair)), None)
    if place is None and len(before) == len(after):
        return []
    if _tokens(before) == _tokens(after):
        return []
    place = min(len(before), len(after)) if place is None else place
    if not before:
        return []
    word = before[min(place, len(before) - 1)]
    return [Finding("changed-tokens", "from here on the target reads other tokens or weights", word.start, word.end)]


def _words(items: Iterable[Item], *, weighted: bool) -> Iterator[_Word]:
    """Yield the words that a tokenizer reads, with the name of an embedding in its place."""
    for item in joined(_adapters_last(_first_shown(items))):
        if isinstance(item, Embedding):
            for name in item.name.lower().split():
                yield _Word(name, item.weight if weighted else 1.0, item.start, item.end)
        elif isinstance(item, Words):
            for word in _WORD.finditer(item.text):
                start, end = item.places[word.start()], item.places[word.end()]
                yield _Word(word[0].lower(), item.weight if weighted else 1.0, start, end)


def _first_shown(items: Iterable[Item]) -> Iterator[_Leaf]:
    for item in items:
        if isinstance(item, (Schedule, Swap)):
            yield from _first_shown(item.items)
        else:
            yield item


def _same(before: _Word, after: _Word) -> bool:
    return before.text == after.text and weight_text(before.weight) == weight_text(after.weight)


def _tokens(words: Sequence[_Word]) -> list[tuple[int, str]] | None:
    """Return the tokens of words with their weights; None where the vocabulary is missing."""
    try:
        return [(number, weight_text(word.weight)) for word in words for number in token_ids(word.text)]
    except ResourceMissing:
        return None
