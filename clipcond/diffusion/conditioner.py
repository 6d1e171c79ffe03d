"""From prompts of any length to what a pipeline takes, in one forward of each of its text encoders.

A prompt is cut into chunks of 75 content tokens; T5 reads it as one sequence. Every different chunk of all prompts and
negative prompts, the empty prompt, and what the weighting needs besides, is encoded once, in one batch for each encoder;
weights are applied, a prompt's chunks are laid end to end, and all are brought to one length. A plain prompt within the
pipeline's own limit gives what its `encode_prompt` gives. How families differ: `clipcond.condition.families`.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import torch

from clipcond.condition.cache import Cache
from clipcond.condition.families import T5
from clipcond.diffusion.batch import Batch
from clipcond.diffusion.conditioning import Conditioning, PlacedFinding
from clipcond.diffusion.encode_requests import as_written, findings_of, others_of, sides_of, unread
from clipcond.diffusion.pipeline_view import PipelineView, view_pipeline
from clipcond.diffusion.planner import Planner
from clipcond.diffusion.prompts import Prompts, Texts, negatives_of, prompts_of
from clipcond.diffusion.requests import Options, Request
from clipcond.diffusion.timeline import Timeline, needed, scheduled, split, spread
from clipcond.diffusion.word_swaps import Edit, edits_of, with_edits
from clipcond.encode.inversion import Inversions, Source, gather
from clipcond.errors import ConfigError
from clipcond.prompt.dialects.parse import parse
from clipcond.prompt.dialects.schedules import is_scheduled
from clipcond.prompt.plan import PromptPlan

if TYPE_CHECKING:
    from clipcond.diffusion.compose_denoiser import Composition


class Conditioner(Planner):
    """Conditions one pipeline; the pipeline is used and never changed."""

    def __init__(
        self, loading: PipelineView, *, cache: Cache | None = None, inversions: Inversions | None = None
    ) -> None:
        super().__init__(loading, inversions)
        self.cache = cache

    @classmethod
    def from_pipeline(
        cls, pipe: Any, *, cache: Cache | None = None, embeddings: Source | Iterable[Source] | None = None
    ) -> Conditioner:
        """Condition a diffusers pipeline of Stable Diffusion 1, 2, XL, 3 or Flux: text to image, img2img, inpaint,
        ControlNet, adapters, whatever takes `prompt_embeds`.

        pipe: a loaded pipeline, in any dtype, on any device, offloaded or not.   cache: states of rows encoded before.
        embeddings: textual inversions that are not in the pipeline: a folder, files, or what
        `clipcond.encode.inversion` loaded; those that the pipeline's tokenizers hold are known without.
        Raises ModelError, naming the class and what it lacks, for any other pipeline, ConfigError for a cache that is none.
        """
        if cache is not None and not isinstance(cache, Cache):
            raise ConfigError(f"cache is {cache!r}, expected a clipcond.Cache, such as Cache(folder=…)")
        loading = view_pipeline(pipe)
        widths = {name: each.tower.width for name, each in loading.encoders.items() if name != T5}
        return cls(loading, cache=cache, inversions=gather(embeddings, widths))

    @property
    def pad_id(self) -> int:
        """What the first encoder's rows are filled up with."""
        return next(iter(self.loading.encoders.values())).pad_id

    @torch.no_grad()
    def __call__(
        self,
        prompt: Prompts,
        negative_prompt: Prompts | None = None,
        *,
        prompt_2: Prompts | None = None,
        prompt_3: Prompts | None = None,
        negative_prompt_2: Prompts | None = None,
        negative_prompt_3: Prompts | None = None,
        dialect: str = "plain",
        weighting: str | None = None,
        chunking: str | None = None,
        clip_skip: int | None = 0,
        pooled: str = "first",
        lengths: str | None = None,
        num_images_per_prompt: int = 1,
        steps: int | None = None,
        max_sequence_length: int | None = None,
    ) -> Conditioning:
        """Condition one prompt or a list of them.

        prompt: of any length.   negative_prompt: one for all prompts or one for each; None is what the pipeline makes of
        None: the empty prompt, in SDXL zeros where its config says so, in Flux no negative side.
        prompt_2, prompt_3 and their negatives: for the encoders that the pipeline names so; None is the prompt itself.
        dialect: `plain`, `a1111`, `comfy` or `compel`.   weighting: see `clipcond.condition.weighting`; None is the
        dialect's own.   chunking: see `clipcond.prompt.chunking`; None is the dialect's own.
        clip_skip: 0 or None the family's own layer, n that of n layers before, on both sides; the table is in
        `clipcond.condition.families`.   pooled: `first`, `last`, `mean` or `weighted`, over the chunks of a long prompt.
        lengths: `lcm` repeats, exactly as far as cross-attention is concerned, all texts of the call to one length, so
        that 7, 8 and 9 chunks would become 504, which is refused (call for each); `pad_empty` appends empty chunks, the
        default of SD3 and Flux; `mask` appends zeros and needs a pipeline that takes `prompt_attention_mask`.
        num_images_per_prompt: how often each prompt's rows are repeated.
        steps: of the sampler, as many as the pipeline will run; needed where a text has a schedule (`[from:to:when]`,
        `[a|b]` of dialect `a1111`). All its texts are encoded now; give the pipeline `callback_on_step_end=out.callback`.
        max_sequence_length: the places of a T5 row, with the pipeline's own default; a text beyond it is read whole, in a
        longer row, and what is shorter in the same list is filled up with the end of an empty prompt.

        Raises ConfigError for settings that do not fit one another or the pipeline, for a schedule without `steps`, and
        for a prompt of several parts that only a denoiser can compose (A1111's AND).
        """
        if num_images_per_prompt < 1:
            raise ConfigError(f"num_images_per_prompt is {num_images_per_prompt}, expected 1 or more")
        options = self.options(
            dialect=dialect,
            weighting=weighting,
            clip_skip=clip_skip,
            pooled=pooled,
            lengths=lengths,
            max_sequence_length=max_sequence_length,
        )
        others = self.others("prompt", prompt_2, prompt_3)
        other_negatives = self.others("negative_prompt", negative_prompt_2, negative_prompt_3)
        texts = prompts_of(prompt, others)
        negatives = negatives_of(negative_prompt, other_negatives, len(texts))
        absent = negative_prompt is None and not any(other_negatives.values())
        known: dict[str, PromptPlan] = {}
        changing = scheduled([*texts, *negatives]) if dialect == "a1111" else None
        written = [
            [self.request(each, options, dialect, chunking, known, argument) for each in side]
            for side, argument in ((texts, "prompt"), (negatives, "negative_prompt"))
        ]
        for planned in known.values():
            _refuse_noise(planned)
        times, (positive, negative) = None, written
        if changing is not None:
            times, texts, negatives = spread(texts, negatives, needed(steps, changing))
            positive = [self.request(each, options, dialect, chunking, known) for each in texts]
            negative = [self.request(each, options, dialect, chunking, known, "negative_prompt") for each in negatives]
        edits = self._edits(texts) if dialect == "compel" else []
        if any(edits):
            new: dict[str, PromptPlan] = {}
            positive = [*positive, *(self.request(t, options, dialect, chunking, new, edited=True) for t in texts)]
            negative = [*negative, *negative]
        out = self.condition(
            positive,
            [] if absent and self.family == "flux" else negative,
            options,
            zeros=absent and self.loading.zeros,
            dialect=dialect,
            chunking=chunking,
            images=num_images_per_prompt,
        )
        if any(edits):
            return with_edits(out, edits)
        return out if times is None else self._over_steps(out, times, *written)

    def _over_steps(
        self, out: Conditioning, times: Timeline, positive: Sequence[Request], negative: Sequence[Request]
    ) -> Conditioning:
        """The conditioning of all variants as that of the first, with the others in its callback.

        positive, negative: the requests as they were written, whose plans and findings are kept: their spans are those
        of the user's own string.
        """
        from clipcond.diffusion.step_callback import StepCallback

        states = split(out.kwargs, len(times.variants))
        first: dict[str, Any] = dict(split(out.tensors, len(times.variants))[0])
        findings = as_written((positive, negative), out.findings, lambda index: index % len(positive))
        callback = StepCallback(self.loading.pipe, times, states)
        if callback.keeps_pooled:
            message = f"{self.loading.name} keeps the pooled vector of the first step; only the token states change"
            findings += [
                PlacedFinding("schedule-pooled", message, 0, len(planned.prompt), argument, number)
                for side in (positive, negative)
                for number, request in enumerate(side)
                for argument, planned in request.texts.items()
                if is_scheduled(planned.prompt)
            ]
        return replace(
            out,
            **first,
            plans=tuple(each.texts["prompt"] for each in positive),
            negative_plans=tuple(each.texts["negative_prompt"] for each in negative),
            other_plans=others_of(positive) | others_of(negative),
            findings=tuple(findings),
            callback=callback,
        )

    def compose(
        self,
        prompt: Prompts,
        negative_prompt: Prompts | None = None,
        *,
        dialect: str = "a1111",
        num_images_per_prompt: int = 1,
        steps: int | None = None,
        **settings: Any,
    ) -> Composition:
        """Condition prompts whose parts the denoiser composes: `a red circle AND a blue square :0.8` in dialect `a1111`.

        Each part is encoded as a prompt of its own, all in the one pass; draw with
        `with composed(pipe, parts): pipe(**parts.kwargs, …)` of `clipcond.diffusion.compose_denoiser`. A prompt without AND is
        one part.
        settings: `weighting`, `chunking`, `clip_skip`, `pooled`, `lengths`, `max_sequence_length`, and the rest as for a
        call. Raises ConfigError for what a call refuses, for AND in a negative prompt, and for Flux.
        """
        from clipcond.diffusion.compose_prompts import compose

        return compose(
            self,
            prompt,
            negative_prompt,
            dialect=dialect,
            num_images_per_prompt=num_images_per_prompt,
            steps=steps,
            **settings,
        )

    def condition(
        self,
        positive: Sequence[Request],
        negative: Sequence[Request],
        options: Options,
        *,
        dialect: str,
        chunking: str | None = None,
        zeros: bool = False,
        images: int = 1,
    ) -> Conditioning:
        """Encode requests of both sides in one pass and make tensors of them.

        negative: one for each of the positive, or none for a pipeline that may do without.   zeros: zeros in the place of
        what the negative requests say.   images: how often each prompt's rows are repeated.
        """
        loading = self.loading
        read = negative if "negative_prompt_embeds" in loading.takes else []
        encoding = [*positive, *([] if zeros else read)]
        batch = Batch(loading, encoding, options, inversions=self.inversions, cache=self.cache)
        encoded = batch.encode()
        sides = sides_of(batch, encoded, len(positive), zeros=zeros and bool(read))
        tensors: dict[str, Any] = {
            name: tensor.to(batch.device).repeat_interleave(images, dim=0) for name, tensor in sides.items()
        }
        findings = [*findings_of(batch, encoding, encoded, len(positive))]
        if negative and not read:
            findings += unread(negative, f"the call of {loading.name} takes no negative prompt")
        return Conditioning(
            **tensors,
            plans=tuple(each.texts["prompt"] for each in positive),
            negative_plans=tuple(each.texts["negative_prompt"] for each in negative),
            other_plans=others_of(positive) | others_of(negative),
            findings=tuple(findings),
            family=self.family,
            dialect=dialect,
            clip_skip=options.clip_skip,
            weighting=str(options.method),
            chunking=chunking,
            pooled=options.pooled,
            lengths=options.lengths,
            fingerprints={name: each.tower.fingerprint() for name, each in self.loading.encoders.items()},
            takes=self.loading.takes,
        )

    def _edits(self, texts: Sequence[Texts]) -> list[tuple[Edit, ...]]:
        """The swaps of each prompt; their spans count the tokens of CLIP."""
        widest = {name: max(each.vectors.values(), default=0) for name, each in self.embeddings().items()}
        return [
            edits_of(parse(each[""], "compel", embeddings=widest).items) if ".swap(" in each[""] else ()
            for each in texts
        ]


def condition(pipe: Any, prompt: Prompts, negative_prompt: Prompts | None = None, **options: Any) -> Conditioning:
    """`Conditioner.from_pipeline(pipe)(prompt, negative_prompt, **options)` as one function, for pipeline files."""
    return Conditioner.from_pipeline(pipe)(prompt, negative_prompt, **options)


def _refuse_noise(planned: PromptPlan) -> None:
    if any(part.how == "noise" for part in planned.parts):
        raise ConfigError(
            "the prompt has AND in it, whose parts only the denoiser can compose; "
            'use conditioner.compose(...), or write "and"'
        )
