"""Expected states of the conformance cases on the seeded pipeline, as a few numbers each: the document `numeric.json`."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from clipcond.prompt.plan import EmbeddingToken
from clipcond.workflows.conformance import TOLERANCE, condition
from clipcond.workflows.conformance_cases import CASES

if TYPE_CHECKING:
    from torch import Tensor

    from clipcond.diffusion.conditioning import Conditioning

VERSION = 1
SETTINGS = (("a1111", "a1111", "a1111"), ("comfy", "comfy", "comfy"), ("compel", "compel", "compel-sentences"))
_CHECKED = (
    "embeddings.token_embedding.weight",
    "encoder.layers.1.mlp.fc2.bias",
    "final_layer_norm.weight",
    "final_layer_norm.bias",
)
_DIGITS = 6


def numeric_document() -> dict[str, Any]:
    """Return the document: the rule's figures, fields, and a vector for each case and dialect."""
    from clipcond.diffusion.conditioner import Conditioner
    from clipcond.diffusion.seeded_pipeline import INVERSION, SEED, SHAPE, VOCABULARY, seeded_pipeline, seeded_values

    conditioner = Conditioner.from_pipeline(seeded_pipeline())
    return {
        "version": VERSION,
        "about": "States of a text encoder that is made of a rule, for prompts of each dialect; docs/conformance.md.",
        "recipe": {
            "seed": SEED,
            "config": {"vocab_size": VOCABULARY + 1, **SHAPE},
            "value": "centre + spread*(2u - 1), u = floor(splitmix64(fnv1a64(name) + seed + i) / 2**40) / 2**24",
            "ranges": {"*embedding*": [0, 1], "*norm*weight": [1, 0.4], "*norm*bias": [0.2, 0.4], "*": [0, 0.4]},
            "checks": {name: [round(float(x), 9) for x in seeded_values(name, (4,))] for name in _CHECKED},
            "tokenizer": f"CLIP's; {INVERSION} is token {VOCABULARY}",
        },
        "tolerance": TOLERANCE,
        "fields": {
            "case": "name",
            "dialect, weighting, chunking": "clipcond's names of what was asked for",
            "prompt, negative": "as typed",
            "ids": "content tokens of the prompt, a list for each chunk; null where several parts are mixed",
            "length": "positions of both sides: the shorter is filled up with encoded empty chunks",
            "norm": "Euclidean norm of all states of the prompt and of the negative, to a relative tolerance",
            "values": "[side (0 prompt, 1 negative), position, dimension, value]",
        },
        "vectors": [
            {
                "case": case.name, "dialect": dialect, "weighting": weighting, "chunking": chunking,
                "prompt": prompt, "negative": case.negative,
                **_numbers(condition(conditioner, dialect, weighting, chunking, prompt, case.negative), VOCABULARY),
            }
            for dialect, weighting, chunking in SETTINGS
            for case in CASES
            if (prompt := case.prompt(dialect)) is not None
        ],
    }  # fmt: skip


def _numbers(ours: Conditioning, inversion: int) -> dict[str, Any]:
    (plan,) = ours.plans
    (encoder,) = plan.encoders.values()
    sides = [ours.prompt_embeds[0], ours.negative_prompt_embeds[0]]  # type: ignore[index]
    ids = [
        [inversion if isinstance(token, EmbeddingToken) else token.id for token in chunk.tokens]
        for chunk in encoder.chunks
    ]
    return {
        "ids": None if len(plan.parts) > 1 else ids,
        "length": len(sides[0]),
        "norm": [round(float(side.double().norm()), _DIGITS) for side in sides],
        "values": [each for number, side in enumerate(sides) for each in _values(number, side)],
    }


def _values(number: int, states: Tensor) -> Iterator[list[float]]:
    """Four numbers of a side: of BOS, of early tokens, and of the last position."""
    for position, dimension in ((0, 0), (2, 9), (4, 18), (len(states) - 1, 27)):
        yield [number, position, dimension, round(float(states[position, dimension]), _DIGITS)]
