"""The same words and weights in another dialect, and a list of what cannot be said there.

What is syntax in the target, and was text in the source, is escaped. Weights are written as numbers, one group for each
passage, never nested: so it does not matter that a1111 multiplies nested weights and comfy replaces them.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from types import MappingProxyType

from clipcond.errors import ConfigError
from clipcond.prompt.dialects.parse import DIALECTS, parse
from clipcond.prompt.findings import Finding
from clipcond.prompt.items import Adapter, Break, Compose, Embedding, Item, Schedule, Swap, Words
from clipcond.prompt.tokenizer import without_surrogates

_NO_EMBEDDINGS: Mapping[str, int] = MappingProxyType({})


@dataclass(frozen=True, slots=True)
class Translation:
    """A prompt in the target's syntax. `lost` says what it could not take along; spans index the source's string."""

    text: str
    lost: tuple[Finding, ...]


def translate(prompt: str, source: str, target: str, *, embeddings: Mapping[str, int] = _NO_EMBEDDINGS) -> Translation:
    """Say a prompt of the dialect `source` in the dialect `target`.

    embeddings: textual-inversion names and how many vectors they hold, where names alone would be taken for words.
    A prompt never raises, and one that stays in its dialect stays as it is. What is lost has one of the codes
    `lost-weight`, `lost-break`, `lost-and`, `lost-schedule`, `lost-adapter`, `lost-embedding`, `lost-blend`, `lost-swap`
    and `changed-case`. Raises ConfigError for an unknown dialect.

    >>> translate("a (red:1.3) fox (close-up)", "a1111", "compel").text
    'a (red)1.3 fox (close-up)1.1'
    """
    for dialect in (source, target):
        if dialect not in DIALECTS:
            raise ConfigError(f"unknown dialect {dialect!r}; there are {', '.join(DIALECTS)}")
    if source == target:
        return Translation(without_surrogates(prompt), ())
    writer = _Writer(_SYNTAX[target], target)
    writer.write(parse(prompt, source, embeddings=embeddings).items)
    return writer.translation()


@dataclass(frozen=True, slots=True)
class _Syntax:
    """How a dialect writes things; None for what it cannot say."""

    group: Callable[[str, str], str] | None  # escaped text and number
    escape: Callable[[str, str], str] = lambda text, number: text  # text and the number of its group
    spaced: bool = False  # whether marks count only at the start of a word
    embedding: Callable[[str], str | None] = str  # its name
    adapter: Callable[[Adapter], str | None] = lambda adapter: None
    border: str | None = None  # between parts that are encoded apart and joined
    keywords: re.Pattern[str] | None = None  # words that are none in any brackets, but in lower case


def _escape_a1111(text: str, number: str) -> str:
    return re.sub(r"<(?=\w+:)", "(<:1)", re.sub(r"[()\[\]\\]", r"\\\g<0>", text))  # (<:1) starts no tag


def _escape_comfy(text: str, number: str) -> str:
    def escaped(match: re.Match[str]) -> str:
        return f"({match[0]}:{number})" if match[0] == ":" else f"\\{match[0]}"

    return _COMFY_MARKS.sub(escaped, text)


_COMFY_MARKS = re.compile(r"[()]|(?i:(?<=\bembedding)):(?=[^\s,:;()\[\]{}<>|])")  # in a group the colon names nothing


def _escape_compel(text: str, number: str) -> str:
    return re.sub(r'[()"]|[+-](?=[\s()",.+=-]|\Z)|(?<=\\)[,.+=-]', r"\\\g<0>", text)


def _group_compel(escaped: str, number: str) -> str:
    """`(red fox)1.3`, with a blank where the bracket would be escaped."""
    return f"({escaped} ){number}" if escaped.endswith("\\") else f"({escaped}){number}"


def _embedding_comfy(name: str) -> str | None:
    return f"embedding:{name}" if re.fullmatch(r"[^\s,:;()\[\]{}<>|]*[^\s,:;()\[\]{}<>|.!?'\"]", name) else None


def _lora_a1111(adapter: Adapter) -> str | None:
    return f"<{adapter.kind}:{adapter.name}:{_number(adapter.weight)}>"


def _lora_compel(adapter: Adapter) -> str | None:
    sayable = adapter.kind == "lora" and re.fullmatch(r'[^\s(),"]+', adapter.name)
    return f"withLora({adapter.name},{_number(adapter.weight)})" if sayable else None


_SYNTAX = {
    "plain": _Syntax(group=None),
    "a1111": _Syntax(
        group="({}:{})".format,
        escape=_escape_a1111,
        adapter=_lora_a1111,
        border="BREAK",
        keywords=re.compile(r"\b(?:BREAK|AND)\b"),
    ),
    "comfy": _Syntax(
        group="({}:{})".format,
        escape=_escape_comfy,
        embedding=_embedding_comfy,
    ),
    "compel": _Syntax(
        group=_group_compel,
        escape=_escape_compel,
        spaced=True,
        adapter=_lora_compel,
    ),
}


class _Writer:
    """Puts the target's text together."""

    def __init__(self, syntax: _Syntax, target: str) -> None:
        self._syntax, self._target = syntax, target
        self._written: list[str] = []
        self._last = (
            ""  # what the text so far ends with: "" nothing, " " a blank, "b" one for a mark, "g" a group, "w" words
        )
        self._lost: list[Finding] = []
        self._parts = 0  # of a composed prompt, so far

    def translation(self) -> Translation:
        """What was written, and what was lost, in the order of its places."""
        text = without_surrogates("".join(self._written))
        return Translation(text, tuple(sorted(self._lost, key=lambda one: (one.start, one.end))))

    def write(self, items: Iterable[Item]) -> None:
        """Write items, one after the other."""
        for item in items:
            match item:
                case Words():
                    self._words(item)
                case Embedding():
                    self._embedding(item)
                case Break():
                    self._blank()
                    self._lose("break", "BREAK starts no chunk there", item)
                case Compose():
                    self._compose(item)
                case Schedule():
                    self.write(item.items)
                    self._lose("schedule", "there are no schedules there; what holds first is kept", item)
                case Swap():
                    self.write(item.items)
                    self._lose("swap", "words cannot be swapped there; the original is kept", item)
                case Adapter():
                    self._adapter(item)

    def _words(self, item: Words) -> None:
        text = item.text
        if self._syntax.keywords is not None:
            for match in self._syntax.keywords.finditer(text):
                message = f"{match[0]} is a keyword in {self._target}; in lower case CLIP reads the same"
                start, end = item.places[match.start()], item.places[match.end()]
                self._lost.append(Finding("changed-case", message, start, end))
            text = self._syntax.keywords.sub(lambda match: match[0].lower(), text)
        inner = text.strip()
        before, behind = (text, "") if not inner else (text[: text.index(inner[0])], text[len(text.rstrip()) :])
        if self._last != "b":
            self._put(before, " ")
        if inner:
            self._passage(self._syntax.escape(inner, _number(item.weight)), item)
            self._put(behind, " ")

    def _passage(self, written: str, item: Words | Embedding) -> None:
        """Words without blanks at their ends, or a name: in brackets where they have a weight."""
        number = _number(item.weight)
        group = self._syntax.group if number != "1.0" else None
        if group is None and number != "1.0":
            self._lose("weight", f"the weight {number} cannot be said there", item)
        self._part_from_last(grouped=group is not None)
        self._put(written if group is None else group(written, number), "w" if group is None else "g")

    def _part_from_last(self, *, grouped: bool) -> None:
        """Write a blank where a passage would grow together with the one before it.

        Passages are tokenised each for itself, so a blank between them changes nothing.
        """
        touching = self._last == "w" or (self._last == "g" and self._syntax.spaced)
        if touching and (not grouped or self._syntax.spaced or self._written[-1].endswith("\\")):
            self._put(" ", " ")

    def _embedding(self, item: Embedding) -> None:
        said = self._syntax.embedding(item.name)
        if said is None:
            self._lose(
                "embedding", f"the name {item.name!r} cannot be written as an embedding's; it stays as words", item
            )
        self._passage(said or self._syntax.escape(item.name, _number(item.weight)), item)

    def _compose(self, item: Compose) -> None:
        """Parts follow one another; those that are joined after encoding, in the target's own way if it has one."""
        self._parts += 1
        border = self._syntax.border if item.how == "concatenate" else None
        if border is not None and item.weight != 1:
            self._lose("weight", f"the part's weight {_number(item.weight)} cannot be said there", item)
        if self._parts == 1:
            return
        self._blank()
        if border is not None:
            self._put(border, "w")
            self._put(" ", "b")
        elif item.how in ("noise", "concatenate"):
            self._lose("and", "prompts cannot be put together there; their words follow one another", item)
        else:
            self._lose("blend", "prompts cannot be blended there; their words follow one another", item)

    def _adapter(self, item: Adapter) -> None:
        tag = self._syntax.adapter(item)
        if tag is None:
            self._lose("adapter", f"the adapter {item.name!r} cannot be named there", item)
            return
        self._part_from_last(grouped=True)
        self._put(tag, "g")
        if item.unet_weight is not None:
            self._lose(
                "adapter-weight", f"{item.name!r} has one weight there, not {item.unet_weight:g} in the U-Net", item
            )

    def _blank(self) -> None:
        """A blank where there is none: in the place of a mark that has no equal. The blanks behind it are left out."""
        if self._last in ("w", "g"):
            self._put(" ", "b")
        elif self._last == " ":
            self._last = "b"

    def _put(self, text: str, kind: str) -> None:
        if text:
            self._written.append(text)
            self._last = kind

    def _lose(self, what: str, message: str, item: Item) -> None:
        self._lost.append(Finding(f"lost-{what}", message, item.start, item.end))


def _number(weight: float) -> str:
    """A weight to six decimals, without an exponent, and with one decimal at least: `2.` would take a full stop."""
    text = f"{weight:.6f}".rstrip("0")
    return text + "0" if text.endswith(".") else text
