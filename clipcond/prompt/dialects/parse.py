"""Reading a prompt: `parse` gives its items, each with its place in the user's own string, and what is odd about it.

Any text parses, without an exception and in time linear in its length. The grammars stand in `_a1111`, `_comfy` and
`_compel`; `plain` has none.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from functools import partial
from types import MappingProxyType

from clipcond.errors import ConfigError
from clipcond.prompt.dialects.embedding_names import split
from clipcond.prompt.dialects.reading import Notes
from clipcond.prompt.findings import a1111_place, compel_place, embedding_place, findings, said_to_be, unreadable
from clipcond.prompt.items import Item, Parsed, Words

DIALECTS = ("plain", "a1111", "comfy", "compel")
_SAID = {
    "plain": "nothing in it looks like syntax",
    "a1111": "{} is A1111 syntax",
    "comfy": "{} is ComfyUI syntax",
    "compel": "{} is compel syntax",
}
_SHOWN = 30  # characters of the prompt that a reason quotes
_NO_EMBEDDINGS: Mapping[str, int] = MappingProxyType({})


@dataclass(frozen=True, slots=True)
class Detection:
    """The dialect that a prompt seems to be written in, and why."""

    dialect: str
    reason: str


def parse(
    prompt: str,
    dialect: str = "plain",
    *,
    embeddings: Mapping[str, int] = _NO_EMBEDDINGS,
    adapters: Collection[str] | None = None,
    schedules: bool = True,
) -> Parsed:
    """Read a prompt in a dialect.

    embeddings: textual-inversion names and how many vectors they hold. adapters: the names that a `<lora:…>` may have;
    None leaves them unchecked. schedules: False reads A1111's square brackets as emphasis only, which is right for a
    text whose schedules were resolved.

    A prompt never raises; what is odd about it becomes a warning. Raises ConfigError for an unknown dialect.

    >>> [(item.text, item.weight) for item in parse("a (red:1.3) fox", "a1111")]
    [('a ', 1.0), ('red', 1.3), (' fox', 1.0)]
    """
    notes = Notes()
    into_embeddings = partial(split, embeddings=embeddings) if embeddings else _no_embeddings
    items: tuple[Item, ...]
    if dialect == "plain":
        items = into_embeddings(_whole(prompt)) if prompt else ()
        notes.extend(findings(prompt))
    elif dialect == "a1111":
        from clipcond.prompt.dialects.a1111 import read

        items = read(prompt, notes, into_embeddings, adapters=adapters, schedules=schedules)
    elif dialect == "comfy":
        from clipcond.prompt.dialects.comfy import read as read_comfy

        items = read_comfy(prompt, notes, embeddings)
    elif dialect == "compel":
        from clipcond.prompt.dialects.compel import read as read_compel

        items = read_compel(prompt, notes, into_embeddings, adapters)
    else:
        raise ConfigError(f"unknown dialect {dialect!r}; there are {', '.join(DIALECTS)}")
    if dialect != "plain":
        from clipcond.prompt.dialects.foreign import note_foreign

        note_foreign(prompt, dialect, notes)
        notes.extend(unreadable(prompt))
    return Parsed(prompt=prompt, dialect=dialect, items=items, warnings=notes.told())


def _no_embeddings(words: Words) -> tuple[Item, ...]:
    return (words,)


def _whole(prompt: str) -> Words:
    end = len(prompt)
    return Words(text=prompt, weight=1.0, start=0, end=end, places=tuple(range(end + 1)))


def detect(prompt: str) -> Detection:
    """Guess the dialect of a prompt from the syntax in it.

    `(red:1.3)` is A1111's as well as ComfyUI's: it is read as A1111's unless an `embedding:name` says otherwise. Where
    passages of A1111 and of compel stand side by side, those that are more decide.

    >>> detect("a (red:1.3) fox")
    Detection(dialect='a1111', reason='(red:1.3) is A1111 syntax')
    """
    found = {"a1111": a1111_place(prompt), "compel": compel_place(prompt), "comfy": embedding_place(prompt)}
    if found["a1111"] and found["compel"]:
        counts = said_to_be(prompt)
        dialect = max(counts, key=lambda name: counts[name])
    else:
        dialect = next((name for name, span in found.items() if span), "plain")
    if dialect == "a1111" and found["comfy"]:
        dialect = "comfy"
    span = found.get(dialect)
    passage = "" if span is None else prompt[slice(*span)]
    quoted = passage if len(passage) <= _SHOWN else passage[: _SHOWN - 1] + "…"
    return Detection(dialect, _SAID[dialect].format(quoted))
