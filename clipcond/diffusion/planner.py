"""From the arguments of a call to plans: settings checked, prompts listed by argument and planned for one pipeline."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import cast

from clipcond.condition.families import T5, layer
from clipcond.condition.lengths import LENGTHS, Lengths
from clipcond.condition.pooled import POLICIES, unknown_policy
from clipcond.condition.weighting import DEFAULTS, parse_method
from clipcond.diffusion.pipeline_view import PipelineView, bare
from clipcond.diffusion.prompt_plans import EncodeOptions, PromptPlans, Prompts, Sides
from clipcond.encode.inversion import Inversions
from clipcond.encode.text import TextTower
from clipcond.errors import ConfigError
from clipcond.prompt.dialects.names import DIALECTS, check_dialect
from clipcond.prompt.embeddings import EmbeddingFile
from clipcond.prompt.findings import Finding
from clipcond.prompt.layout import EmbeddingToken
from clipcond.prompt.plan import PromptPlan, plan

PromptArgument = str | Sequence[str]  # one prompt, or one for each picture
PlansByPrompt = dict[tuple[str, bool], PromptPlan]  # by prompt, and whether it is read as a negative one


class Planner:
    """Plans the prompts of calls for one pipeline, which it never changes."""

    def __init__(self, pipeline: PipelineView, inversions: Inversions | None = None) -> None:
        self.pipeline = pipeline
        self.inversions = Inversions() if inversions is None else inversions

    def options(
        self,
        *,
        dialect: str,
        weighting: str | None = None,
        chunking: str | None = None,
        clip_skip: int | None = 0,
        pooled: str = "first",
        lengths: str | None = None,
        max_sequence_length: int | None = None,
    ) -> EncodeOptions:
        """Check the settings of a call. Raises ConfigError."""
        pipeline = self.pipeline
        dialect = dialect if dialect in DIALECTS else check_dialect(dialect)
        if pooled not in POLICIES:
            raise unknown_policy(pooled)
        clip_skip = clip_skip or 0
        lengths = lengths or pipeline.layout.lengths
        if lengths not in LENGTHS:
            raise ConfigError(f"lengths is {lengths!r}, expected one of {', '.join(LENGTHS)}")
        if lengths == "mask" and "prompt_attention_mask" not in pipeline.takes:
            raise ConfigError(
                f"lengths is 'mask', but the call of {pipeline.name} takes no prompt_attention_mask; "
                "use 'lcm' or 'pad_empty'"
            )
        for name, each in pipeline.encoders.items():
            skip, _ = layer(pipeline.layout, name, clip_skip)  # refuses a skip that the family has not
            if isinstance(each.tower, TextTower) and skip > each.tower.layers:
                most = each.tower.layers - pipeline.layout.skip
                raise ConfigError(f"clip_skip is {clip_skip}, expected 0 to {most} for {name} of {pipeline.name}")
        return EncodeOptions(
            dialect=dialect,
            chunking=chunking,
            method=parse_method(weighting or DEFAULTS[dialect]),
            clip_skip=clip_skip,
            pooled=pooled,
            lengths=cast("Lengths", lengths),
            max_sequence_length=pipeline.max_sequence_length(max_sequence_length),
        )

    def prompts(
        self,
        prompt: PromptArgument,
        negative_prompt: PromptArgument | None = None,
        *,
        others: Mapping[str, PromptArgument | None] | None = None,
        negative_others: Mapping[str, PromptArgument | None] | None = None,
    ) -> Sides[Prompts]:
        """List the prompts of each picture by argument.

        prompt: one or a list.   negative_prompt: one for all or one for each; None is the empty prompt.   others: those of
        further encoders by suffix, `_2` and `_3`; one that is None or an empty string is the prompt itself, as in diffusers.
        Raises ConfigError for an empty list, lists of different lengths, and an encoder that the pipeline has not.
        """
        further = self._further("prompt", others or {})
        negative_further = self._further("negative_prompt", negative_others or {})
        first = _listed("prompt", prompt)
        if not first:
            raise ConfigError("the list of prompts is empty; expected one prompt or more")
        negative = _spread("negative_prompt", "" if negative_prompt is None else negative_prompt, len(first))
        return Sides(
            tuple(_by_argument("prompt", first, further)),
            tuple(_by_argument("negative_prompt", negative, negative_further)),
        )

    def plans(
        self, prompts: Sides[Prompts], options: EncodeOptions, by_prompt: PlansByPrompt, *, edited: bool = False
    ) -> Sides[PromptPlans]:
        """Plan the prompts of both sides.

        by_prompt: plans by prompt, looked up and filled, so that equal prompts share theirs.   edited: plan the replacements of
        compel's `.swap()`, and not the originals.
        """
        embeddings: dict[str, EmbeddingFile] | None = None
        for negative, side in ((False, prompts.positive), (True, prompts.negative)):
            for prompt in (prompt for each in side for prompt in each.values()):
                if (key := _key(prompt, options.dialect, negative)) not in by_prompt:
                    embeddings = self.embeddings(options.dialect) if embeddings is None else embeddings
                    by_prompt[key] = self._plan(prompt, options, embeddings, edited=edited, negative=key[1])
        return Sides(
            tuple(self._plans("prompt", each, options, by_prompt, at) for at, each in enumerate(prompts.positive)),
            tuple(
                self._plans("negative_prompt", each, options, by_prompt, at) for at, each in enumerate(prompts.negative)
            ),
        )

    def _plans(
        self, argument: str, prompts: Prompts, options: EncodeOptions, by_prompt: PlansByPrompt, index: int
    ) -> PromptPlans:
        language = None if self.pipeline.language is None else self.pipeline.language.name
        own = {
            suffix: by_prompt[_key(prompt, options.dialect, argument != "prompt")] for suffix, prompt in prompts.items()
        }
        return PromptPlans(
            by_encoder={
                name: own.get(suffix, own[""])
                for name, suffix in self.pipeline.arguments.items()
                if name in self.pipeline.encoders or name == language
            },
            by_argument={argument + suffix: plan for suffix, plan in own.items()},
            index=index,
        )

    def _plan(
        self,
        prompt: str,
        options: EncodeOptions,
        embeddings: Mapping[str, EmbeddingFile],
        *,
        edited: bool,
        negative: bool,
    ) -> PromptPlan:
        """Plan a prompt for the encoders of the pipeline, with every textual inversion that it knows."""
        encoders = self.pipeline.encoders
        planned = plan(
            prompt,
            dialect=options.dialect,
            family=self.pipeline.family,
            chunking=options.chunking,
            embeddings=embeddings,
            t5_tokenizer=encoders[T5].t5 if T5 in encoders else None,
            language_tokenizer=self.pipeline.language_tokenizer,
            encoders=self.pipeline.plan_encoders(options.max_sequence_length),
            edited=edited,
            negative=negative,
        )
        as_text = tuple(_embeddings_as_text(planned, self.pipeline)) if options.dialect == "comfy" else ()
        return replace(planned, warnings=planned.warnings + as_text) if as_text else planned

    def embeddings(self, dialect: str = "plain") -> dict[str, EmbeddingFile]:
        """Return the number of vectors that each textual inversion has for each encoder; the pipeline's own go first.

        ComfyUI's `embedding:name` has no room for brackets: there the pipeline's `<name>` is known as `name` too, unless
        another one is called so.
        """
        files = self.inversions.files
        counts: dict[str, dict[str, int]] = {}
        for name, encoder in self.pipeline.encoders.items():
            for token, ids in encoder.added().items():
                counts.setdefault(token, {})[name] = len(ids)
                if dialect == "comfy" and bare(token) not in files:
                    counts.setdefault(bare(token), {}).setdefault(name, len(ids))
        own = {
            name: EmbeddingFile(
                name=name, vectors={**(files[name].vectors if name in files else {}), **vectors}, path=Path()
            )
            for name, vectors in counts.items()
        }
        return files | own

    def _further(self, argument: str, others: Mapping[str, PromptArgument | None]) -> dict[str, PromptArgument]:
        """The prompts of further encoders. Raises ConfigError for those that the pipeline has not."""
        suffixes = set(self.pipeline.arguments.values())
        for suffix, prompt in others.items():
            if prompt and suffix not in suffixes:
                raise ConfigError(
                    f"{argument}{suffix} is given, but {self.pipeline.name} has no encoder that reads it; leave it out"
                )
        return {suffix: prompt for suffix, prompt in others.items() if prompt is not None and prompt != ""}


def _key(prompt: str, dialect: str, negative: bool) -> tuple[str, bool]:
    """A prompt, and whether it is read as a negative one, where that may make a difference (A1111's AND and numbers)."""
    return prompt, negative and dialect == "a1111" and ("AND" in prompt or ":" in prompt)


def _by_argument(argument: str, first: list[str], others: Mapping[str, PromptArgument]) -> Iterator[Prompts]:
    columns = {"": first}
    columns |= {suffix: _spread(argument + suffix, prompt, len(first)) for suffix, prompt in others.items()}
    return (dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True))


def _spread(argument: str, prompt: PromptArgument, count: int) -> list[str]:
    """One prompt for each picture."""
    prompts = [prompt] * count if isinstance(prompt, str) else _listed(argument, prompt)
    if len(prompts) != count:
        what = "negative prompts" if argument == "negative_prompt" else f"texts of {argument}"
        raise ConfigError(f"{len(prompts)} {what} for {count} prompts; give one for all or one for each")
    return prompts


def _listed(argument: str, prompt: PromptArgument) -> list[str]:
    prompts = list(prompt) if isinstance(prompt, Iterable) and not isinstance(prompt, str | bytes) else [prompt]
    for each in prompts:
        if not isinstance(each, str):
            raise ConfigError(f"{argument} is or holds a {type(each).__name__}, expected a string or a list of strings")
    return prompts


def _embeddings_as_text(planned: PromptPlan, pipeline: PipelineView) -> Iterator[Finding]:
    """Yield embeddings of the pipeline that ComfyUI's dialect reads as text, since it writes them in another way."""
    pieces = {
        token.piece
        for encoder in planned.encoders.values()
        for chunk in encoder.chunks
        for token in chunk.tokens
        if isinstance(token, EmbeddingToken)
    }
    for token in dict.fromkeys(token for encoder in pipeline.encoders.values() for token in encoder.added()):
        match = re.search(rf"(?<![\w:]){re.escape(token)}(?!\w)", planned.prompt, re.IGNORECASE)
        if match and bare(token) not in pieces:
            message = f"{token} is an embedding of the pipeline, which this dialect writes embedding:{bare(token)}"
            yield Finding("embedding-as-text", message, *match.span())
