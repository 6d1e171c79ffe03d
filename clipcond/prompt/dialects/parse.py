"""Reading a prompt: `parse` gives its items, each with its place in the user's own string, and its findings.

Any text parses, in time linear in its length, and raises only where `strict` asks for it. Each dialect has a reader of its
own: `plain`, `a1111`, `comfy`, `compel`.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from functools import partial
from types import MappingProxyType

from clipcond.prompt.dialects.detect import plain_findings, unreadable
from clipcond.prompt.dialects.embedding_names import split_at_embeddings
from clipcond.prompt.dialects.names import DIALECTS, check_dialect
from clipcond.prompt.dialects.plain import read_plain
from clipcond.prompt.dialects.reading import FindingCollector
from clipcond.prompt.items import Item, Parsed, Words

_NO_EMBEDDINGS: Mapping[str, int] = MappingProxyType({})


def parse(
    prompt: str,
    dialect: str = "plain",
    *,
    embeddings: Mapping[str, int] = _NO_EMBEDDINGS,
    adapters: Collection[str] | None = None,
    schedules: bool = True,
    comments: bool = True,
    negative: bool = False,
    strict: bool = False,
) -> Parsed:
    """Read a prompt in a dialect.

    embeddings: textual-inversion names and how many vectors they hold.   adapters: the names that a `<lora:…>` may have;
    None leaves them unchecked.   strict: raise PromptSyntaxError for the first finding that is an error of syntax
    (`finding_codes`); without it a prompt never raises.

    Of A1111 alone: schedules=False reads square brackets as emphasis only, which is right for a text whose schedules were
    resolved; comments=False keeps `#` and what follows as text; negative=True reads a negative prompt, where AND and the
    weight of a part are text.

    Raises ConfigError for an unknown dialect.

    >>> [(item.text, item.weight) for item in parse("a (red:1.3) fox", "a1111")]
    [('a ', 1.0), ('red', 1.3), (' fox', 1.0)]
    """
    dialect = dialect if dialect in DIALECTS else check_dialect(dialect)
    findings = FindingCollector()
    split = partial(split_at_embeddings, embeddings=embeddings) if embeddings else _no_embeddings
    items: tuple[Item, ...]
    if dialect == "plain":
        items = tuple(item for words in read_plain(prompt) for item in split(words))
        findings.extend(plain_findings(prompt))
    elif dialect == "a1111":
        from clipcond.prompt.dialects.a1111 import read_a1111

        items = read_a1111(
            prompt, findings, split, adapters=adapters, schedules=schedules, comments=comments, negative=negative
        )
    elif dialect == "comfy":
        from clipcond.prompt.dialects.comfy import read_comfy

        items = read_comfy(prompt, findings, embeddings)
    else:
        from clipcond.prompt.dialects.compel import read_compel

        items = read_compel(prompt, findings, split, adapters)
    if dialect != "plain":
        from clipcond.prompt.dialects.detect import note_foreign

        note_foreign(prompt, dialect, findings)
        findings.extend(unreadable(prompt))
    warnings = findings.in_order()
    if strict:
        from clipcond.prompt.finding_codes import refuse_errors

        refuse_errors(warnings, prompt)
    return Parsed(prompt=prompt, dialect=dialect, items=items, warnings=warnings)


def _no_embeddings(words: Words) -> tuple[Item, ...]:
    return (words,)
