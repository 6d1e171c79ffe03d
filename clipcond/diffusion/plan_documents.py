"""A prompt's plan as JSON values and back, to the last field: what `PromptPlan.to_json` shows people is less than all.

Tokens are lists (id, piece, text, start, end, weight, and the vector of an embedding's), the rest are objects by the
names of the fields.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from clipcond.prompt.families import Frame
from clipcond.prompt.findings import Finding
from clipcond.prompt.items import Adapter
from clipcond.prompt.layout import EmbeddingToken, PlannedToken
from clipcond.prompt.plan import Chunk, Dropped, EncoderPlan, Part, PromptPlan

Document = dict[str, Any]


def to_document(plan: PromptPlan) -> Document:
    """The plan as dicts, lists, strings and numbers."""
    return {
        "prompt": plan.prompt,
        "dialect": plan.dialect,
        "family": plan.family,
        "encoders": {name: _encoder_document(encoder) for name, encoder in plan.encoders.items()},
        "warnings": [asdict(found) for found in plan.warnings],
        "parts": [asdict(part) for part in plan.parts],
        "adapters": [asdict(adapter) for adapter in plan.adapters],
    }


def from_document(document: Mapping[str, Any]) -> PromptPlan:
    """The plan that `to_document` was given. Raises KeyError, TypeError or ValueError for anything else."""
    return PromptPlan(
        prompt=document["prompt"],
        dialect=document["dialect"],
        family=document["family"],
        encoders={name: _encoder(encoder) for name, encoder in document["encoders"].items()},
        warnings=tuple(Finding(**found) for found in document["warnings"]),
        parts=tuple(Part(**part) for part in document["parts"]),
        adapters=tuple(Adapter(**adapter) for adapter in document["adapters"]),
    )


def _encoder_document(encoder: EncoderPlan) -> Document:
    return {
        "name": encoder.name,
        "limit": encoder.limit,
        "content_tokens": encoder.content_tokens,
        "truncated": encoder.truncated,
        "dropped": None if encoder.dropped is None else asdict(encoder.dropped),
        "pad_id": encoder.pad_id,
        "unknown": encoder.unknown,
        "chunks": [_chunk_document(chunk) for chunk in encoder.chunks],
    }


def _encoder(document: Document) -> EncoderPlan:
    dropped = document["dropped"]
    return EncoderPlan(
        **{
            **document,
            "dropped": None if dropped is None else Dropped(**dropped),
            "chunks": tuple(_chunk(chunk) for chunk in document["chunks"]),
        }
    )


def _chunk_document(chunk: Chunk) -> Document:
    return {
        "index": chunk.index,
        "tokens": [_token_document(token) for token in chunk.tokens],
        "cut": chunk.cut,
        "part": chunk.part,
        "frame": asdict(chunk.frame),
        "segments": list(chunk.segments),
    }


def _chunk(document: Document) -> Chunk:
    return Chunk(
        **{
            **document,
            "tokens": tuple(_token(token) for token in document["tokens"]),
            "frame": Frame(**document["frame"]),
            "segments": tuple(document["segments"]),
        }
    )


def _token_document(token: PlannedToken) -> list[Any]:
    fields = [token.id, token.piece, token.text, token.start, token.end, token.weight]
    return [*fields, token.vector] if isinstance(token, EmbeddingToken) else fields


def _token(fields: list[Any]) -> PlannedToken:
    return EmbeddingToken(*fields) if len(fields) > 6 else PlannedToken(*fields)
