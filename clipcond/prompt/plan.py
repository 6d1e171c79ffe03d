"""The chunk plan of a prompt: what each encoder of a model family is given, and what a stock pipeline would lose."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from clipcond.errors import ConfigError
from clipcond.prompt.chunking import POLICIES, check, split
from clipcond.prompt.dialects.detect import plain_findings
from clipcond.prompt.dialects.names import DIALECTS, Dialect, check_dialect
from clipcond.prompt.families import CLIP_FRAME, FAMILIES, Encoder, Family, Frame, clip_frame, t5_frame
from clipcond.prompt.findings import Finding
from clipcond.prompt.items import Adapter, Break, Compose, Embedding, Schedule, Swap, adapters_in, swapped
from clipcond.prompt.layout import (
    PADDING,
    EmbeddingToken,
    PlannedToken,
    Section,
    SectionSlots,
    apart_rows,
    ends_word,
    flat,
    planned_tokens,
    sections,
)  # fmt: skip
from clipcond.prompt.tokenizer import TokenRow, rows_beyond, token_rows

if TYPE_CHECKING:
    from clipcond.prompt.embeddings import EmbeddingFile
    from clipcond.prompt.items import Item, Parsed
    from clipcond.prompt.language import LanguageTokenizer
    from clipcond.prompt.t5 import T5Tokenizer

__all__ = [
    "CHUNKINGS", "DIALECTS", "FAMILIES", "Chunk", "Cut", "Dialect", "Dropped", "EmbeddingToken", "EncoderPlan", "Family",
    "Part", "PlannedToken", "PromptPlan", "plan",
]  # fmt: skip

Cut = Literal["end", "full", "break", "backtrack"]
Embeddings = Mapping[str, "EmbeddingFile | int"]

CHUNKINGS = tuple(POLICIES)
# a dialect's own chunking; compel's would leave most of a chunk empty for a full stop near its start
CHUNKING: Mapping[str, str] = {"plain": "hard", "a1111": "a1111", "comfy": "comfy", "compel": "word"}
_HOLD_ADAPTERS = (Adapter, Schedule, Swap)


@dataclass(frozen=True, slots=True, kw_only=True)
class Chunk:
    """One pass through an encoder: its content tokens, with special tokens and padding added when it is encoded.

    `cut` says why the chunk ends where it does: the prompt does (`end`), all places are taken (`full`), the user said so
    (`break`), or what comes next was kept whole (`backtrack`). `part` is the part of the prompt that it belongs to, from
    0. `segments` numbers the pieces of one weight that its tokens come from, in the order of the prompt: tokens of one
    number were written as one piece; without syntax all are of piece 0, and it is empty.
    """

    index: int
    tokens: tuple[PlannedToken, ...]
    cut: Cut
    part: int = 0
    frame: Frame = CLIP_FRAME
    segments: tuple[int, ...] = ()

    @property
    def padding(self) -> int:
        """The places for content tokens that stay empty; in a chunk cut by `backtrack` they are its price."""
        return self.frame.content - len(self.tokens)

    def ids(self, pad_id: int) -> list[int]:
        """The ids that an encoder takes, 77 for most CLIPs: BOS, content, EOS, then `pad_id` on the right; T5 has no BOS."""
        frame = self.frame
        ids = [] if frame.opening is None else [frame.opening]
        ids += [token.id for token in self.tokens]
        ids.append(frame.closing)
        return ids + [pad_id] * (frame.length - len(ids))


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """One of several prompts in one, as AND, `.and()` and `.blend()` write them; `how` as in `items.Compose`."""

    weight: float
    how: Literal["noise", "concatenate", "blend", "sum"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Dropped:
    """The part that a stock pipeline loses: prompt[start:end], from the first dropped token to the end of the last."""

    text: str
    start: int
    end: int
    content_tokens: int


@dataclass(frozen=True, slots=True, kw_only=True)
class EncoderPlan:
    """The chunks of one encoder. `limit` is what a stock pipeline gives it; `dropped` is None when nothing is truncated.

    `content_tokens` counts what clipcond encodes, without the marks of the dialect; a stock pipeline reads the marks as
    text, and `truncated` and `dropped` are about that. `unknown` is the reason why nothing can be said (no tokenizer at
    hand): then `content_tokens` and `truncated` are None and there are no chunks.
    """

    name: str
    limit: int
    content_tokens: int | None
    truncated: bool | None
    dropped: Dropped | None
    pad_id: int
    chunks: tuple[Chunk, ...]
    unknown: str | None = None

    def ids(self) -> list[list[int]]:
        """The ids of all chunks, (K, 77) for most CLIPs; T5: one row, or one for each part of an AND."""
        return [chunk.ids(self.pad_id) for chunk in self.chunks]


@dataclass(frozen=True, slots=True, kw_only=True)
class PromptPlan:
    """The encoding of a prompt for a family, per encoder in the order of the pipeline.

    `parts` is empty for a prompt that is one; otherwise chunk.part indexes it. `adapters` are taken out of the text.
    `weight` is that of a whole A1111 prompt (`a cat :1.2`), which only guidance can apply.
    """

    prompt: str
    dialect: str
    family: str
    encoders: Mapping[str, EncoderPlan]
    warnings: tuple[Finding, ...]
    parts: tuple[Part, ...] = ()
    adapters: tuple[Adapter, ...] = ()
    steps: int | None = None  # of the sampler, where the longest text over them was planned
    weight: float = 1.0

    @property
    def truncated(self) -> bool:
        """True if a stock pipeline would lose anything."""
        return any(encoder.truncated for encoder in self.encoders.values())

    @property
    def counted(self) -> str:
        """The name of the first encoder whose tokens are known; of the first one where none are."""
        return next((name for name, each in self.encoders.items() if each.unknown is None), next(iter(self.encoders)))

    def _repr_html_(self) -> str:
        """A table for a notebook: each encoder's tokens, and what a stock pipeline would lose."""
        from clipcond.wording import html_table  # a notebook's need, not a plan's

        rows = [
            (
                each.name,
                each.limit,
                each.unknown or each.content_tokens,
                len(each.chunks),
                _dropped_text(each),
            )
            for each in self.encoders.values()
        ]
        columns = ("encoder", "reads", "tokens", "chunks", "a stock pipeline drops")
        notes = [f"{found.code}: {found.message}" for found in self.warnings]
        return html_table(f"{self.prompt} ({self.dialect}, {self.family})", columns, rows, notes=notes)

    def to_json(self) -> dict[str, object]:
        """The document of `clipcond tokens --json`, of dicts, lists, strings and numbers only."""
        return {
            "prompt": self.prompt,
            "dialect": self.dialect,
            "family": self.family,
            "encoders": [_encoder_json(encoder) for encoder in self.encoders.values()],
            "warnings": [
                {"code": found.code, "message": found.message, "start": found.start, "end": found.end}
                for found in self.warnings
            ],
        }


def _dropped_text(encoder: EncoderPlan) -> str:
    return "" if encoder.dropped is None else encoder.dropped.text


def plan(
    prompt: str,
    *,
    dialect: str = "plain",
    family: str = "sd15",
    chunking: str | None = None,
    embeddings: Embeddings | None = None,
    t5_tokenizer: T5Tokenizer | str | Path | None = None,
    language_tokenizer: LanguageTokenizer | str | Path | None = None,
    encoders: Mapping[str, Encoder] | None = None,
    edited: bool = False,
    steps: int | None = None,
    comments: bool = True,
    negative: bool = False,
    strict: bool = False,
) -> PromptPlan:
    """Split a prompt into chunks for each encoder of a family.

    chunking: where a long prompt is cut (`clipcond.prompt.chunking`); None is the dialect's own: `hard` for plain,
    `a1111`, `comfy`, and `word` for compel.
    embeddings: textual inversions by name, from `clipcond.prompt.embeddings.scan`, or names with their vector counts.
    t5_tokenizer: a loaded one, a tokenizer.json, its folder or a hub name in the local cache; without one, and none in
    the cache under the usual names, what T5 gets is marked unknown.   language_tokenizer: that of a family's language model,
    named in the same ways.
    encoders: those of a pipeline where they are not the family's own: fewer, other pad ids, another length of T5.
    edited: plan what compel's `.swap()` puts in, and not the original.
    steps: plan the longest text that a pass of so many steps reads of a scheduled prompt, and tell what no step reads;
    None plans the first alternative of each schedule.
    comments, negative, strict: as for `parse`.

    Without `strict` a prompt never raises: what is odd about it becomes a warning with a span. Raises ConfigError for a
    dialect, a family or a chunking that does not exist, ResourceMissing for a T5 tokenizer that was named and is not there.
    """
    dialect = dialect if dialect in DIALECTS else check_dialect(dialect)
    if family not in FAMILIES:
        raise ConfigError(f"unknown family {family!r}; there are {', '.join(FAMILIES)}")
    if chunking:
        check(chunking)
    chunking = chunking or CHUNKING[dialect]
    parsed = None
    if dialect != "plain" or embeddings:
        from clipcond.prompt.dialects.parse import parse

        widest = _widest(embeddings or {})
        parsed = parse(prompt, dialect, embeddings=widest, comments=comments, negative=negative, strict=strict)
        parsed = replace(parsed, items=swapped(parsed.items)) if edited else parsed
        if steps is not None and dialect == "a1111" and "[" in prompt:
            parsed = _longest(parsed, steps, comments=comments, negative=negative)
    planned: dict[str, EncoderPlan] = {}
    found: list[Finding] = [*(parsed.warnings if parsed else plain_findings(prompt))]
    told = len(found)
    clip = _ClipChunks(prompt, parsed, chunking, embeddings or {})
    for name, encoder in (encoders or FAMILIES[family]).items():
        if encoder.kind == "t5":
            planned[name] = _t5_plan(prompt, parsed, encoder, family, t5_tokenizer, found)
        elif encoder.kind == "language":
            planned[name] = _language_plan(prompt, dialect, encoder, family, language_tokenizer)
        else:
            planned[name] = clip.plan(encoder, found)
    if len(found) > told:
        found = sorted(dict.fromkeys(found), key=lambda finding: (finding.start, finding.end))
    items = parsed.items if parsed else ()
    parts = tuple(Part(weight=item.weight, how=item.how) for item in items if isinstance(item, Compose))
    alone = len(parts) == 1 and parts[0].how == "noise"
    return PromptPlan(
        prompt=prompt,
        dialect=dialect,
        family=family,
        encoders=planned,
        warnings=tuple(found),
        parts=() if alone else parts,
        weight=parts[0].weight if alone else 1.0,
        adapters=tuple(adapters_in(items)) if any(isinstance(each, _HOLD_ADAPTERS) for each in items) else (),
        steps=steps,
    )


class _ClipChunks:
    """The chunks of one prompt for CLIP encoders; those that read it alike share them."""

    def __init__(self, prompt: str, parsed: Parsed | None, chunking: str, embeddings: Embeddings) -> None:
        self._prompt, self._parsed, self._chunking, self._embeddings = prompt, parsed, chunking, embeddings
        self._chunks: dict[tuple[int, ...], tuple[Chunk, ...]] = {}
        self._lost: dict[tuple[bool, int], Sequence[TokenRow]] = {}  # rows that a stock pipeline drops

    def plan(self, encoder: Encoder, found: list[Finding]) -> EncoderPlan:
        """Plan the prompt for an encoder; what is odd about it goes to `found`."""
        prompt, parsed = self._prompt, self._parsed
        apart = encoder.pads_apart and PADDING in prompt
        vectors, limit = _vectors(self._embeddings, encoder), encoder.limit
        if (key := (apart, limit, *vectors.values())) not in self._chunks:
            self._chunks[key] = self._read(apart, limit, vectors)
            found += _cut_words(prompt, self._chunks[key])
        if parsed is not None and self._embeddings:
            found += _unfit(parsed.items, self._embeddings, vectors, encoder)
        return _encoder_plan(encoder, self._chunks[key], _dropped(prompt, self._lost[apart, limit]))

    def _read(self, apart: bool, limit: int, vectors: Mapping[str, int]) -> tuple[Chunk, ...]:
        prompt, rows = self._prompt, apart_rows if apart else token_rows
        if self._parsed is None:
            read = rows(prompt)
            laid, self._lost[apart, limit] = [_plain(prompt, read)], read[limit:]
        else:
            laid = sections(prompt, self._parsed.items, rows, vectors)
            self._lost[apart, limit] = apart_rows(prompt)[limit:] if apart else rows_beyond(prompt, limit)
        return _chunks(laid, self._chunking, clip_frame(limit))


def _longest(parsed: Parsed, steps: int, *, comments: bool, negative: bool) -> Parsed:
    """Return a scheduled prompt as the longest text that a pass of so many steps reads, and what no step reads."""
    from clipcond.prompt.dialects.schedule_steps import longest_items
    from clipcond.prompt.dialects.schedules import schedule_of

    unread = schedule_of(parsed.prompt, steps, comments=comments, negative=negative).unread
    warnings = sorted([*parsed.warnings, *unread], key=lambda finding: (finding.start, finding.end))
    return replace(parsed, items=longest_items(parsed.items, steps), warnings=tuple(warnings))


def _plain(prompt: str, rows: Sequence[TokenRow]) -> Section:
    """A prompt without syntax: one section."""
    return Section(
        tokens=[
            *planned_tokens(
                [(number, piece, prompt[start:end], start, end, 1.0, 0) for number, piece, start, end in rows]
            )
        ]
    )


def _chunks(laid: Sequence[Section], chunking: str, frame: Frame) -> tuple[Chunk, ...]:
    """The chunks of one CLIP encoder; at least one."""
    chunks: list[Chunk] = []
    size = frame.content
    for section in laid:
        tokens = section.tokens
        if len(tokens) <= size:
            spans = [(0, len(tokens))]
        elif chunking == "hard" and not section.marks:  # what `split` would give, without the slots
            spans = [(start, min(start + size, len(tokens))) for start in range(0, len(tokens), size)]
        else:
            spans = split(SectionSlots(section), chunking, size)
        for start, end in spans:
            cut: Cut = section.cut if end == len(tokens) else "full" if end - start == size else "backtrack"
            chunks.append(
                Chunk(
                    index=len(chunks),
                    tokens=tuple(tokens[start:end]),
                    cut=cut,
                    part=section.part,
                    frame=frame,
                    segments=tuple([mark[0] for mark in section.marks[start:end]]),
                )
            )
    return tuple(chunks)


def _encoder_plan(encoder: Encoder, chunks: tuple[Chunk, ...], lost: Dropped | None) -> EncoderPlan:
    return EncoderPlan(
        name=encoder.name,
        limit=encoder.limit,
        content_tokens=sum([len(chunk.tokens) for chunk in chunks]),
        truncated=lost is not None,
        dropped=lost,
        pad_id=encoder.pad_id,
        chunks=chunks,
    )


def _cut_words(prompt: str, chunks: Sequence[Chunk]) -> Iterator[Finding]:
    """A finding for each word, and each embedding, that a chunk border goes through."""
    for chunk, following in pairwise(chunks):
        if chunk.cut in ("end", "break"):
            continue
        last, first = chunk.tokens[-1], following.tokens[0]
        if isinstance(last, EmbeddingToken) and isinstance(first, EmbeddingToken) and first.vector:
            message = f"{last.piece} has more vectors than a chunk has places, so that it is cut"
            yield Finding("embedding-split", message, last.start, last.end)
        elif not ends_word(last):
            first_of_word = next((at for at in range(len(chunk.tokens), 0, -1) if ends_word(chunk.tokens[at - 1])), 0)
            begin = chunk.tokens[first_of_word].start
            end = next((t.end for t in following.tokens if ends_word(t)), following.tokens[-1].end)
            yield Finding("word-split", f"a chunk ends inside {prompt[begin:end]!r}", begin, end)


# textual inversion


def _widest(embeddings: Embeddings) -> dict[str, int]:
    """The number of vectors of each embedding in the encoder that it has most in."""
    return {
        name: found if isinstance(found, int) else max(found.vectors.values(), default=0)
        for name, found in embeddings.items()
    }


def _vectors(embeddings: Embeddings, encoder: Encoder) -> dict[str, int]:
    """The number of vectors of each embedding for an encoder."""
    return {
        name: found if isinstance(found, int) else found.vectors.get(encoder.name, 0)
        for name, found in embeddings.items()
    }


def _unfit(
    items: Sequence[Item], embeddings: Embeddings, vectors: Mapping[str, int], encoder: Encoder
) -> Iterator[Finding]:
    for item in flat(items):
        if isinstance(item, Embedding) and item.name in embeddings and not vectors.get(item.name):
            message = f"{item.name} has no vectors for {encoder.name}{_held(embeddings[item.name], encoder.name)}"
            message += ", which reads the name as text"
            yield Finding("embedding-unfit", message, item.start, item.end)


def _held(embedding: EmbeddingFile | int, wanted: str) -> str:
    """The widths that an embedding has instead of the one that an encoder wants, as part of a message."""
    from clipcond.prompt.embeddings import WIDTHS

    if isinstance(embedding, int):
        return ""
    widths = {encoder: width for width, encoder in WIDTHS.items()}
    theirs = " and ".join(f"{widths[encoder]} ({encoder})" for encoder in embedding.vectors if encoder in widths)
    return f" of width {widths[wanted]}, only of {theirs}" if theirs and wanted in widths else ""


# T5


def _t5_plan(
    prompt: str,
    parsed: Parsed | None,
    encoder: Encoder,
    family: str,
    named: T5Tokenizer | str | Path | None,
    found: list[Finding],
) -> EncoderPlan:
    """One sequence, or one for each part of an AND; BREAK is told in `found` and changes nothing."""
    from clipcond.prompt import t5

    tokenizer, reason = t5.find(named, family)
    items = parsed.items if parsed else ()
    message = "T5 takes the prompt as one sequence; BREAK changes nothing there"
    found += [
        Finding("break-ignored", message, item.start, item.end) for item in flat(items) if isinstance(item, Break)
    ]
    if tokenizer is None:
        return EncoderPlan(
            name=encoder.name, limit=encoder.limit, content_tokens=None, truncated=None, dropped=None,
            pad_id=encoder.pad_id, chunks=(), unknown=reason,
        )  # fmt: skip
    stock = tokenizer.rows(prompt)
    laid = [_plain(prompt, stock)] if parsed is None else sections(prompt, items, tokenizer.rows, {}, breaks=False)
    chunks = tuple(
        Chunk(
            index=index,
            tokens=tuple(section.tokens),
            cut=section.cut,
            part=section.part,
            frame=t5_frame(len(section.tokens), encoder.limit),
            segments=tuple([mark[0] for mark in section.marks]),
        )
        for index, section in enumerate(laid)
    )
    return _encoder_plan(encoder, chunks, _dropped(prompt, stock[encoder.limit :]))


# language models


def _language_plan(
    prompt: str, dialect: str, encoder: Encoder, family: str, named: LanguageTokenizer | str | Path | None
) -> EncoderPlan:
    """The words of a prompt without its marks, as part of the chat, whose end beyond the limit is lost."""
    from clipcond.prompt.dialects.translate import translate
    from clipcond.prompt.language import find, places_in

    tokenizer, reason = find(named, family, encoder.name)
    if tokenizer is None:
        return EncoderPlan(
            name=encoder.name, limit=encoder.limit, content_tokens=None, truncated=None, dropped=None,
            pad_id=encoder.pad_id, chunks=(), unknown=reason,
        )  # fmt: skip
    assert encoder.chat is not None
    words = translate(prompt, dialect, "plain").text
    rows = tokenizer.rows(words, encoder.chat)
    at = places_in(prompt, words) if words != prompt else range(len(prompt))
    placed = [(position, (i, piece, at[start], at[end - 1] + 1)) for position, (i, piece, start, end) in rows]
    tokens = planned_tokens([(i, piece, prompt[start:end], start, end, 1.0, 0) for _, (i, piece, start, end) in placed])
    chunk = Chunk(index=0, tokens=tuple(tokens), cut="end", frame=Frame(opening=None, closing=0, length=len(rows) + 1))
    lost = [row for position, row in placed if position >= encoder.limit]
    return _encoder_plan(encoder, (chunk,), _dropped(prompt, lost))


def _dropped(prompt: str, lost: Sequence[TokenRow]) -> Dropped | None:
    """The part that a stock pipeline loses, from the rows beyond its limit."""
    if not lost:
        return None
    start, end = lost[0][2], lost[-1][3]
    return Dropped(text=prompt[start:end], start=start, end=end, content_tokens=len(lost))


def _encoder_json(encoder: EncoderPlan) -> dict[str, object]:
    lost = encoder.dropped
    document: dict[str, object] = {
        "name": encoder.name,
        "limit": encoder.limit,
        "content_tokens": encoder.content_tokens,
        "truncated": encoder.truncated,
        "dropped": lost
        and {"text": lost.text, "start": lost.start, "end": lost.end, "content_tokens": lost.content_tokens},
        "chunks": [_chunk_json(chunk) for chunk in encoder.chunks],
    }
    return document if encoder.unknown is None else document | {"unknown": encoder.unknown}


def _chunk_json(chunk: Chunk) -> dict[str, object]:
    return {
        "index": chunk.index,
        "content_tokens": len(chunk.tokens),
        "cut": chunk.cut,
        "tokens": [_token_json(token) for token in chunk.tokens],
    }


def _token_json(token: PlannedToken) -> dict[str, object]:
    document: dict[str, object] = {
        "id": token.id,
        "piece": token.piece,
        "text": token.text,
        "start": token.start,
        "end": token.end,
        "weight": token.weight,
    }
    return document | {"vector": token.vector} if isinstance(token, EmbeddingToken) else document
