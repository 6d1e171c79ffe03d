"""The chunk plan of a prompt: what each encoder of a model family is given, and what a stock pipeline would lose."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, get_args

from clipcond.errors import ConfigError
from clipcond.prompt.findings import Finding, findings
from clipcond.prompt.tokenizer import BOS, CONTENT, CONTEXT, EOS, Token, tokenize

Cut = Literal["end", "full"]
Dialect = Literal["plain"]
Family = Literal["sd15", "sd2", "sdxl"]

DIALECTS = get_args(Dialect)
# family -> encoder -> id that fills a chunk after its EOS; OpenCLIP's text towers pad with `!`, id 0
FAMILIES: Mapping[str, Mapping[str, int]] = {
    "sd15": {"clip_l": EOS},
    "sd2": {"clip_h": 0},
    "sdxl": {"clip_l": EOS, "clip_g": 0},
}


@dataclass(frozen=True, slots=True)
class PlannedToken(Token):
    """A content token and the weight that its prompt gives it; 1.0 means untouched."""

    weight: float = 1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Chunk:
    """One pass through an encoder: up to 75 content tokens, with BOS and EOS added when it is encoded.

    `cut` says why the chunk ends where it does: the prompt does (`end`), or all places are taken (`full`).
    """

    index: int
    tokens: tuple[PlannedToken, ...]
    cut: Cut

    def ids(self, pad_id: int) -> list[int]:
        """The 77 ids that an encoder takes: BOS, content, EOS, then `pad_id` on the right."""
        ids = [BOS, *(token.id for token in self.tokens), EOS]
        return ids + [pad_id] * (CONTEXT - len(ids))


@dataclass(frozen=True, slots=True, kw_only=True)
class Dropped:
    """What a stock pipeline loses: prompt[start:end], from the first dropped token to the end of the last."""

    text: str
    start: int
    end: int
    content_tokens: int


@dataclass(frozen=True, slots=True, kw_only=True)
class EncoderPlan:
    """The chunks of one encoder. `limit` is what it takes in one pass; `dropped` is None when nothing is truncated."""

    name: str
    limit: int
    content_tokens: int
    truncated: bool
    dropped: Dropped | None
    pad_id: int
    chunks: tuple[Chunk, ...]

    def ids(self) -> list[list[int]]:
        """The ids of all chunks, (K, 77)."""
        return [chunk.ids(self.pad_id) for chunk in self.chunks]


@dataclass(frozen=True, slots=True, kw_only=True)
class PromptPlan:
    """How clipcond encodes a prompt for a family, per encoder in the order of the pipeline."""

    prompt: str
    dialect: str
    family: str
    encoders: Mapping[str, EncoderPlan]
    warnings: tuple[Finding, ...]

    @property
    def truncated(self) -> bool:
        """Whether a stock pipeline would lose anything."""
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


def plan(prompt: str, *, dialect: str = "plain", family: str = "sd15") -> PromptPlan:
    """Split a prompt into chunks for each encoder of a family.

    A prompt never raises: what is odd about it becomes a warning with a span. Raises ConfigError for a dialect or a
    family that does not exist.
    """
    if dialect not in DIALECTS:
        raise ConfigError(f"unknown dialect {dialect!r}; there is {', '.join(DIALECTS)}")
    if family not in FAMILIES:
        raise ConfigError(f"unknown family {family!r}; there are {', '.join(FAMILIES)}")
    tokens = tuple(
        PlannedToken(token.id, token.piece, token.text, token.start, token.end) for token in tokenize(prompt)
    )
    chunks, dropped = _chunks(tokens), _dropped(prompt, tokens)
    encoders = {
        name: EncoderPlan(
            name=name,
            limit=CONTENT,
            content_tokens=len(tokens),
            truncated=dropped is not None,
            dropped=dropped,
            pad_id=pad_id,
            chunks=chunks,
        )
        for name, pad_id in FAMILIES[family].items()
    }
    return PromptPlan(prompt=prompt, dialect=dialect, family=family, encoders=encoders, warnings=findings(prompt))


def _chunks(tokens: tuple[PlannedToken, ...]) -> tuple[Chunk, ...]:
    """75 content tokens each; an empty prompt is one chunk without content."""
    starts = range(0, max(len(tokens), 1), CONTENT)
    return tuple(
        Chunk(
            index=index,
            tokens=tokens[start : start + CONTENT],
            cut="full" if start + CONTENT < len(tokens) else "end",
        )
        for index, start in enumerate(starts)
    )


def _dropped(prompt: str, tokens: tuple[PlannedToken, ...]) -> Dropped | None:
    lost = tokens[CONTENT:]
    if not lost:
        return None
    start, end = lost[0].start, lost[-1].end
    return Dropped(text=prompt[start:end], start=start, end=end, content_tokens=len(lost))


def _encoder_json(encoder: EncoderPlan) -> dict[str, object]:
    lost = encoder.dropped
    return {
        "name": encoder.name,
        "limit": encoder.limit,
        "content_tokens": encoder.content_tokens,
        "truncated": encoder.truncated,
        "dropped": lost
        and {"text": lost.text, "start": lost.start, "end": lost.end, "content_tokens": lost.content_tokens},
        "chunks": [_chunk_json(chunk) for chunk in encoder.chunks],
    }


def _chunk_json(chunk: Chunk) -> dict[str, object]:
    return {
        "index": chunk.index,
        "content_tokens": len(chunk.tokens),
        "cut": chunk.cut,
        "tokens": [
            {
                "id": token.id,
                "piece": token.piece,
                "text": token.text,
                "start": token.start,
                "end": token.end,
                "weight": token.weight,
            }
            for token in chunk.tokens
        ],
    }
