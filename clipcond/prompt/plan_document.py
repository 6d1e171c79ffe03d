"""A plan as values, and its document: chunks, encoders, parts, what a stock pipeline drops, findings."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from clipcond.prompt.families import CLIP_FRAME, Frame
from clipcond.prompt.findings import Finding
from clipcond.prompt.items import Adapter
from clipcond.prompt.layout import EmbeddingToken, PlannedToken

Cut = Literal["end", "full", "break", "backtrack"]


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
        """The ids that an encoder takes, 77 for CLIP: BOS, content, EOS, then `pad_id` on the right; T5 has no BOS."""
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
        """The ids of all chunks, (K, 77); T5: one row, or one for each part of an AND."""
        return [chunk.ids(self.pad_id) for chunk in self.chunks]


@dataclass(frozen=True, slots=True, kw_only=True)
class PromptPlan:
    """The encoding of a prompt for a family, per encoder in the order of the pipeline.

    `parts` is empty for a prompt that is one; otherwise chunk.part indexes it. `adapters` are taken out of the text.
    """

    prompt: str
    dialect: str
    family: str
    encoders: Mapping[str, EncoderPlan]
    warnings: tuple[Finding, ...]
    parts: tuple[Part, ...] = ()
    adapters: tuple[Adapter, ...] = ()

    @property
    def truncated(self) -> bool:
        """True if a stock pipeline would lose anything."""
        return any(encoder.truncated for encoder in self.encoders.values())

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
