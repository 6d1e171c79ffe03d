"""From the arguments of a call to plans: settings checked, texts planned for the encoders of one pipeline."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import cast

from clipcond.condition.families import T5, layer
from clipcond.condition.lengths import LENGTHS, Lengths
from clipcond.condition.pooled import check_policy
from clipcond.condition.weighting import DEFAULTS, parse_method
from clipcond.diffusion.pipeline_view import PipelineView, bare
from clipcond.diffusion.prompts import Prompts, Texts
from clipcond.diffusion.requests import Options, Request
from clipcond.encode.inversion import Inversions
from clipcond.encode.text import TextTower
from clipcond.errors import ConfigError
from clipcond.prompt.dialects.names import check_dialect
from clipcond.prompt.embeddings import EmbeddingFile
from clipcond.prompt.findings import Finding
from clipcond.prompt.layout import EmbeddingToken
from clipcond.prompt.plan import PromptPlan, plan


class Planner:
    """Plans texts for one pipeline, which is read and never changed."""

    def __init__(self, loading: PipelineView, inversions: Inversions | None = None) -> None:
        self.loading = loading
        self.inversions = Inversions() if inversions is None else inversions

    @property
    def family(self) -> str:
        """The family of the pipeline, by its name in `clipcond.prompt.families`."""
        return self.loading.family

    def others(self, argument: str, second: Prompts | None, third: Prompts | None) -> dict[str, Prompts | None]:
        """The prompts of further encoders, those that the pipeline has. Raises ConfigError for others."""
        read = set(self.loading.arguments.values())
        for number, given in (("_2", second), ("_3", third)):
            if given and number not in read:
                raise ConfigError(
                    f"{argument}{number} is given, but {self.loading.name} has no encoder that reads it; leave it out"
                )
        return {number: given for number, given in (("_2", second), ("_3", third)) if given is not None and given != ""}

    def options(
        self,
        *,
        dialect: str,
        weighting: str | None = None,
        clip_skip: int | None = 0,
        pooled: str = "first",
        lengths: str | None = None,
        max_sequence_length: int | None = None,
    ) -> Options:
        """Settings by their names, checked. Raises ConfigError."""
        dialect = check_dialect(dialect)
        check_policy(pooled)
        clip_skip = clip_skip or 0
        lengths = lengths or self.loading.shape.lengths
        if lengths not in LENGTHS:
            raise ConfigError(f"lengths is {lengths!r}, expected one of {', '.join(LENGTHS)}")
        if lengths == "mask" and "prompt_attention_mask" not in self.loading.takes:
            raise ConfigError(
                f"lengths is 'mask', but the call of {self.loading.name} takes no prompt_attention_mask; "
                "use 'lcm' or 'pad_empty'"
            )
        for name, each in self.loading.encoders.items():
            skip, _ = layer(self.loading.shape, name, clip_skip)  # refuses what the family has not
            if isinstance(each.tower, TextTower) and skip > each.tower.layers:
                most = each.tower.layers - self.loading.shape.skip
                raise ConfigError(f"clip_skip is {clip_skip}, expected 0 to {most} for {name} of {self.loading.name}")
        return Options(
            method=parse_method(weighting or DEFAULTS[dialect]),
            clip_skip=clip_skip,
            pooled=pooled,
            lengths=cast("Lengths", lengths),
            positions=self.loading.positions(max_sequence_length),
        )

    def plan(
        self, text: str, options: Options, dialect: str, chunking: str | None = None, *, edited: bool = False
    ) -> PromptPlan:
        """A text planned for the encoders of the pipeline, with every textual inversion that it knows.

        edited: what compel's `.swap()` puts in.
        """
        encoders = self.loading.encoders
        t5 = encoders[T5].t5 if T5 in encoders else None
        planned = plan(
            text,
            dialect=dialect,
            family=self.family,
            chunking=chunking,
            embeddings=self.embeddings(dialect),
            t5_tokenizer=t5,
            encoders=self.loading.planned(options.positions),
            edited=edited,
        )
        unnamed = tuple(_unnamed(planned, self.loading)) if dialect == "comfy" else ()
        return replace(planned, warnings=planned.warnings + unnamed) if unnamed else planned

    def request(
        self,
        texts: Texts,
        options: Options,
        dialect: str,
        chunking: str | None,
        known: dict[str, PromptPlan],
        argument: str = "prompt",
        *,
        edited: bool = False,
    ) -> Request:
        """The plans of one prompt. known: plans by text, looked up and filled, so that equal texts share theirs."""
        for text in texts.values():
            if text not in known:
                known[text] = self.plan(text, options, dialect, chunking, edited=edited)
        return Request(
            plans={
                name: known[texts.get(number, texts[""])]
                for name, number in self.loading.arguments.items()
                if name in self.loading.encoders
            },
            texts={argument + number: known[text] for number, text in texts.items()},
        )

    def embeddings(self, dialect: str = "plain") -> dict[str, EmbeddingFile]:
        """How many vectors each textual inversion has for each encoder; the pipeline's own go first.

        ComfyUI's `embedding:name` has no room for brackets: there the pipeline's `<name>` is known as `name` too, unless
        another one is called so.
        """
        files = self.inversions.files
        found: dict[str, dict[str, int]] = {}
        for name, encoder in self.loading.encoders.items():
            for token, ids in encoder.added().items():
                found.setdefault(token, {})[name] = len(ids)
                if dialect == "comfy" and bare(token) not in files:
                    found.setdefault(bare(token), {}).setdefault(name, len(ids))
        own = {
            name: EmbeddingFile(
                name=name, vectors={**(files[name].vectors if name in files else {}), **vectors}, path=Path()
            )
            for name, vectors in found.items()
        }
        return files | own


def _unnamed(planned: PromptPlan, loading: PipelineView) -> Iterator[Finding]:
    """Embeddings of the pipeline that ComfyUI's dialect reads as text, since nothing there says that they are some."""
    named = {
        token.piece
        for encoder in planned.encoders.values()
        for chunk in encoder.chunks
        for token in chunk.tokens
        if isinstance(token, EmbeddingToken)
    }
    known = dict.fromkeys(token for encoder in loading.encoders.values() for token in encoder.added())
    for token in known:
        match = re.search(rf"(?<![\w:]){re.escape(token)}(?!\w)", planned.prompt, re.IGNORECASE)
        if match and bare(token) not in named:
            message = f"{token} is an embedding of the pipeline, which this dialect writes embedding:{bare(token)}"
            yield Finding("embedding-as-text", message, *match.span())
