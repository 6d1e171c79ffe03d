"""From prompts of any length to the input of a pipeline, in one forward of each of its text encoders.

A prompt is cut into chunks of as many content tokens as the encoder has places for, which are 75 in most; T5 reads it as
one sequence. Every different chunk of all prompts and negative prompts, the empty prompt, and all that the weighting needs
besides, is encoded once, in one batch for each encoder; weights are applied, a prompt's chunks are laid end to end, and all
are brought to one length. A plain prompt within the pipeline's own limit gives the tensors of its `encode_prompt`. How
families differ: `clipcond.condition.families`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, TypedDict

import torch

from clipcond.condition.cache import Cache
from clipcond.condition.families import T5
from clipcond.condition.weighting import COUNTERFACTUAL
from clipcond.diffusion.compose_denoiser import Composition
from clipcond.diffusion.compose_prompts import compose, compose_regions
from clipcond.diffusion.conditioning import Conditioning, named
from clipcond.diffusion.counterfactual.prompts import CounterfactualRequest, encode_counterfactual
from clipcond.diffusion.counterfactual.replaced_prompts import replaced_prompts
from clipcond.diffusion.counterfactual.steering import Steering
from clipcond.diffusion.edits import Edit, Edited
from clipcond.diffusion.encode_plans import EncodedSides, encode_plans
from clipcond.diffusion.findings import findings_of_written, schedule_pooled
from clipcond.diffusion.operate import checked, operand_prompts, operated
from clipcond.diffusion.pipeline_view import PipelineView, view_pipeline
from clipcond.diffusion.planner import Planner, PlansByPrompt, PromptArgument
from clipcond.diffusion.prompt_plans import EncodeOptions, PromptPlans, Prompts, Sides
from clipcond.diffusion.regions import Region
from clipcond.diffusion.timeline import Timeline, first_scheduled, needed_steps, variants_of
from clipcond.diffusion.travel import Travel, free_noise
from clipcond.diffusion.travel_prompts import Film, travel
from clipcond.diffusion.word_swaps import edits_of_prompt
from clipcond.encode.inversion import Inversions, Source, gather
from clipcond.errors import ConfigError
from clipcond.prompt.embeddings import EmbeddingFile
from clipcond.prompt.keyframes import Keyframes, keyframes
from clipcond.prompt.operations import Operation
from clipcond.prompt.plan import PromptPlan

if TYPE_CHECKING:
    from typing_extensions import Unpack


class PromptSettings(TypedDict, total=False):
    """The settings that a call and `compose` share."""

    dialect: str
    weighting: str | None
    chunking: str | None
    clip_skip: int | None
    pooled: str
    lengths: str | None
    num_images_per_prompt: int
    steps: int | None
    max_sequence_length: int | None


class Conditioner:
    """Conditions one pipeline; the pipeline is used and never changed."""

    def __init__(
        self, pipeline: PipelineView, *, cache: Cache | None = None, inversions: Inversions | None = None
    ) -> None:
        self.planner = Planner(pipeline, inversions)
        self.cache = cache

    @classmethod
    def from_pipeline(
        cls, pipe: Any, *, cache: Cache | None = None, embeddings: Source | Iterable[Source] | None = None
    ) -> Conditioner:
        """Condition a diffusers pipeline of Stable Diffusion 1, 2, XL, 3, Flux, or another of the shapes in
        `clipcond.diffusion.pipeline_shapes`: text to image, img2img, inpaint, ControlNet, adapters, films.

        pipe: a loaded pipeline, in any dtype, on any device, offloaded or not.   cache: states of rows encoded before.
        embeddings: textual inversions that are not in the pipeline: a folder, files, or those that
        `clipcond.encode.inversion` loaded; those that the pipeline's tokenizers hold are known without.
        Raises ModelError, naming the class and what it lacks, for any other pipeline, ConfigError for a cache that is none.
        """
        if cache is not None and not isinstance(cache, Cache):
            raise ConfigError(f"cache is {cache!r}, expected a clipcond.Cache, such as Cache(folder=…)")
        pipeline = view_pipeline(pipe)
        widths = {name: each.tower.width for name, each in pipeline.encoders.items() if name != T5}
        return cls(pipeline, cache=cache, inversions=gather(embeddings, widths))

    @property
    def pipeline(self) -> PipelineView:
        """The view of the pipeline."""
        return self.planner.pipeline

    @property
    def family(self) -> str:
        """The family of the pipeline, by its name in `clipcond.prompt.families`."""
        return self.pipeline.family

    @property
    def inversions(self) -> Inversions:
        """The textual inversions that are not in the pipeline."""
        return self.planner.inversions

    @property
    def pad_id(self) -> int:
        """The padding id of the first encoder's rows."""
        return next(iter(self.pipeline.encoders.values())).pad_id

    def embeddings(self, dialect: str = "plain") -> dict[str, EmbeddingFile]:
        """Return the number of vectors of each textual inversion, as `clipcond.plan(embeddings=…)` takes them."""
        return self.planner.embeddings(dialect)

    @torch.no_grad()
    def __call__(
        self,
        prompt: PromptArgument,
        negative_prompt: PromptArgument | None = None,
        *,
        prompt_2: PromptArgument | None = None,
        prompt_3: PromptArgument | None = None,
        prompt_4: PromptArgument | None = None,
        negative_prompt_2: PromptArgument | None = None,
        negative_prompt_3: PromptArgument | None = None,
        negative_prompt_4: PromptArgument | None = None,
        dialect: str = "plain",
        weighting: str | None = None,
        chunking: str | None = None,
        clip_skip: int | None = 0,
        pooled: str = "first",
        lengths: str | None = None,
        num_images_per_prompt: int = 1,
        steps: int | None = None,
        max_sequence_length: int | None = None,
        operations: Sequence[Operation] = (),
        image: Any = None,
    ) -> Conditioning:
        """Condition one prompt or a list of them.

        prompt: of any length.   negative_prompt: one for all prompts or one for each; None is the pipeline's own reading of
        None: the empty prompt, in SDXL zeros where its config says so, in Flux no negative side.
        prompt_2, prompt_3, prompt_4 and their negatives: for the encoders that the pipeline names so; None is the prompt itself.
        dialect: `plain`, `a1111`, `comfy` or `compel`.   weighting: see `clipcond.condition.weighting`; None is the
        dialect's own.   chunking: see `clipcond.prompt.chunking`; None is the dialect's own.
        clip_skip: 0 or None the family's own layer, n that of n layers before, on both sides; the table is in
        `clipcond.condition.families`.   pooled: `first`, `last`, `mean` or `weighted`, over the chunks of a long prompt.
        lengths: `lcm` repeats, exactly as far as cross-attention is concerned, all texts of the call to one length, so
        that 7, 8 and 9 chunks would become 504, which is refused (call for each); `pad_empty` appends empty chunks, the
        default where text and picture share one attention (SD3, Flux); `mask` appends zeros and needs a pipeline that takes
        `prompt_attention_mask`.
        num_images_per_prompt: the times that each prompt's rows are repeated.
        steps: of the sampler, as many as the pipeline will run; needed where a text has a schedule (`[from:to:when]`,
        `[a|b]` of dialect `a1111`). All its texts are encoded now; give the pipeline `callback_on_step_end=out.callback`.
        max_sequence_length: the positions of a T5 row, with the pipeline's own default; a text beyond it is read whole, in a
        longer row, and shorter ones in the same list are filled up with the end of an empty prompt.
        operations: operations on the positive side in their order, of `clipcond.prompt.operations`.
        image: the picture that a language model reads with the prompt, in HunyuanVideo-I2V and Kandinsky 5 I2I, the one of the
        pipeline's call: one for all prompts or one for each.

        Raises ConfigError for settings that do not fit one another or the pipeline, for a schedule without `steps`, and
        for a prompt of several parts that only a denoiser can compose (A1111's AND).
        """
        _check_images(num_images_per_prompt)
        options = self.planner.options(
            dialect=dialect,
            weighting=weighting,
            chunking=chunking,
            clip_skip=clip_skip,
            pooled=pooled,
            lengths=lengths,
            max_sequence_length=max_sequence_length,
        )
        _refuse_counterfactual(options, "acts while a picture is drawn; use conditioner.counterfactual(...)")
        _refuse_free_noise(self.pipeline)
        prompts = self.planner.prompts(
            prompt,
            negative_prompt,
            others={"_2": prompt_2, "_3": prompt_3, "_4": prompt_4},
            negative_others={"_2": negative_prompt_2, "_3": negative_prompt_3, "_4": negative_prompt_4},
        )
        options = self.planner.with_pictures(options, image, len(prompts.positive))
        no_negative = negative_prompt is None and not (negative_prompt_2 or negative_prompt_3 or negative_prompt_4)
        if no_negative and self.pipeline.shape.own_negative:
            prompts = Sides(prompts.positive, ())
        operations = checked(operations, self.pipeline) if operations else ()
        made = self._condition(prompts, options, operations, no_negative, num_images_per_prompt, steps)
        return replace(made, operations=operations) if operations else made

    def _condition(
        self,
        prompts: Sides[Prompts],
        options: EncodeOptions,
        operations: Sequence[Operation],
        no_negative: bool,
        images: int,
        steps: int | None,
    ) -> Conditioning:
        fingerprints = {name: each.tower.fingerprint() for name, each in self.pipeline.encoders.items()}  # once a call

        def encode(*variants: Sides[PromptPlans]) -> list[EncodedSides]:
            return encode_plans(
                self.pipeline,
                variants,
                options,
                inversions=self.inversions,
                cache=self.cache,
                force_zeros=no_negative and self.pipeline.force_zeros,
                num_images_per_prompt=images,
                fingerprints=fingerprints,
            )

        by_prompt: PlansByPrompt = {}

        def encode_prompts(*variants: Sides[Prompts]) -> list[EncodedSides]:
            together = [[each, *(operand_prompts(operations, each) if operations else ())] for each in variants]
            planned = [self.planner.plans(each, options, by_prompt) for own in together for each in own]
            _refuse_and(by_prompt.values())
            encoded = encode(*planned)
            return operated(encoded, operations, self.pipeline) if operations else encoded

        plans = self.planner.plans(prompts, options, by_prompt)
        _refuse_and(by_prompt.values())
        if options.dialect == "a1111" and _mention("[", prompts) and (changing := first_scheduled(prompts)) is not None:
            if self.pipeline.shape.fixed:
                raise ConfigError(f"{self.pipeline.name} reads a language model: its text cannot change over the steps")
            timeline, variants = variants_of(prompts, needed_steps(steps, changing))
            return self._over_steps(plans, options, timeline, encode_prompts(*variants), fingerprints)
        if options.dialect == "compel" and _mention(".swap(", prompts) and any(edits := self._edits(prompts)):
            if operations:
                raise ConfigError("the prompt has .swap() in it, which goes with no operation; leave one of them out")
            edited = self.planner.plans(Sides(prompts.positive, ()), options, {}, edited=True)
            first, second = encode(plans, edited)
            return replace(self._conditioning(first, plans, options, fingerprints), edited=_edited(second, edits))
        (only,) = encode_prompts(prompts) if operations else encode(plans)
        return self._conditioning(only, plans, options, fingerprints)

    def _conditioning(
        self,
        encoded: EncodedSides,
        plans: Sides[PromptPlans],
        options: EncodeOptions,
        fingerprints: Mapping[str, str],
    ) -> Conditioning:
        return Conditioning(
            **named(encoded.tensors),
            plans=tuple(each.by_argument["prompt"] for each in plans.positive),
            negative_plans=tuple(each.by_argument["negative_prompt"] for each in plans.negative),
            other_plans=_other_plans(plans.positive) | _other_plans(plans.negative),
            findings=encoded.findings,
            family=self.family,
            dialect=options.dialect,
            clip_skip=options.clip_skip,
            weighting=str(options.method),
            chunking=options.chunking,
            pooled=options.pooled,
            lengths=options.lengths,
            fingerprints=fingerprints,
            takes=self.pipeline.takes,
            arguments=self.pipeline.shape.arguments,
        )

    def _over_steps(
        self,
        plans: Sides[PromptPlans],
        options: EncodeOptions,
        timeline: Timeline,
        encoded: Sequence[EncodedSides],
        fingerprints: Mapping[str, str],
    ) -> Conditioning:
        """The conditioning of the first variant, with all of them in its callback.

        plans: of the prompts as the user wrote them; spans of findings are in these.
        """
        from clipcond.diffusion.step_callback import StepCallback  # imports diffusers

        takes = self.pipeline.takes
        states = [{name: each.tensors[name] for name in each.tensors if name in takes} for each in encoded]
        callback = StepCallback(self.pipeline.pipe, timeline, states)
        findings = findings_of_written(plans, [found for each in encoded for found in each.findings])
        if callback.keeps_pooled:
            findings += tuple(schedule_pooled(plans, self.pipeline.name))
        return replace(
            self._conditioning(encoded[0], plans, options, fingerprints), findings=findings, callback=callback
        )

    def _edits(self, prompts: Sides[Prompts]) -> list[tuple[Edit, ...]]:
        """The swaps of each prompt; their spans count the tokens of CLIP."""
        vectors = {name: max(each.vectors.values(), default=0) for name, each in self.embeddings().items()}
        return [edits_of_prompt(each[""], vectors) for each in prompts.positive]

    @torch.no_grad()
    def counterfactual(
        self,
        prompt: PromptArgument,
        negative_prompt: PromptArgument | None = None,
        *,
        replace: Mapping[str, str] | None = None,
        every: int = 1,
        prompt_2: PromptArgument | None = None,
        prompt_3: PromptArgument | None = None,
        dialect: str = "plain",
        weighting: str | None = None,
        chunking: str | None = None,
        clip_skip: int | None = 0,
        pooled: str = "first",
        lengths: str | None = None,
        steps: int | None = None,
        max_sequence_length: int | None = None,
    ) -> Steering:
        """Condition prompts whose weights act on the denoiser's prediction, each phrase's where it acts in the picture.

        0 takes a phrase out of the picture, less pushes away from it, more than 1 strengthens it; draw with
        `clipcond.draw_steered(pipe, steering, …)`, or with `with clipcond.steered(pipe, steering): pipe(**steering.kwargs, …)`.
        replace: other words for phrases of the prompt, in place of weights; `weighting` is then the dialect's own if not
        given, and `counterfactual` otherwise.   every: the phrases are predicted anew at every so many steps.
        Further settings are those of a call; a prompt with AND is composed, as by `compose`.
        Raises ConfigError for settings that do not fit, a phrase that the prompt has not, AND in Flux, and other pipelines
        than those of Stable Diffusion 1, 2, XL, 3 and Flux.
        """
        if not self.pipeline.shape.composes and self.family != "flux":
            raise ConfigError(
                f"the prediction of {self.pipeline.name} cannot be steered; use one of Stable Diffusion 1, 2, XL, 3 or Flux"
            )
        if replace is None and weighting not in (None, COUNTERFACTUAL):
            raise ConfigError(f"weighting is {weighting!r}, which steers nothing; leave it out, or give replace")
        if replace is not None and weighting == COUNTERFACTUAL:
            raise ConfigError("weighting is 'counterfactual' and there is something to replace; do one after the other")
        _refuse_free_noise(self.pipeline)
        options = self.planner.options(
            dialect=dialect,
            weighting=COUNTERFACTUAL if replace is None else weighting,
            chunking=chunking,
            clip_skip=clip_skip,
            pooled=pooled,
            lengths=_steerable(lengths),
            max_sequence_length=max_sequence_length,
        )
        prompts = self.planner.prompts(prompt, negative_prompt, others={"_2": prompt_2, "_3": prompt_3})
        if negative_prompt is None and self.pipeline.shape.own_negative:
            prompts = Sides(prompts.positive, ())
        request = CounterfactualRequest(
            prompts=prompts,
            replaced=None if replace is None else replaced_prompts(prompts, replace, dialect),
            empty_negative=negative_prompt is None and self.pipeline.force_zeros,
            steps=steps,
            every=every,
        )
        return encode_counterfactual(self.planner, request, options, cache=self.cache)

    @torch.no_grad()
    def compose(
        self,
        prompt: PromptArgument,
        negative_prompt: PromptArgument | None = None,
        *,
        dialect: str = "a1111",
        weighting: str | None = None,
        chunking: str | None = None,
        clip_skip: int | None = 0,
        pooled: str = "first",
        lengths: str | None = None,
        num_images_per_prompt: int = 1,
        steps: int | None = None,
        max_sequence_length: int | None = None,
    ) -> Composition:
        """Condition prompts whose parts the denoiser composes: `a red circle AND a blue square :0.8` in dialect `a1111`.

        Each part is encoded as a prompt of its own, all in the one pass; draw with
        `with composed(pipe, parts): pipe(**parts.kwargs, …)` of `clipcond.diffusion.compose_denoiser`. A prompt without
        AND is one part. Settings are those of a call.
        In a negative prompt AND is a word, as in A1111.
        Raises ConfigError for settings that a call refuses, and for a pipeline that cannot compose, such as Flux.
        """
        _check_images(num_images_per_prompt)
        if not self.pipeline.shape.composes:
            raise ConfigError(f"{self.pipeline.name} has no negative side that AND could be composed against")
        if self.pipeline.modular and not hasattr(getattr(self.pipeline.pipe, "guider", None), "steer"):
            raise ConfigError(
                f"{self.pipeline.name} runs each side of guidance by itself; AND needs a guider that composes them: "
                "pipe.update_components(guider=clipcond.ClipcondGuider(guidance_scale=…))"
            )
        _refuse_free_noise(self.pipeline)
        options = self.planner.options(
            dialect=dialect,
            weighting=weighting,
            chunking=chunking,
            clip_skip=clip_skip,
            pooled=pooled,
            lengths=lengths,
            max_sequence_length=max_sequence_length,
        )
        _refuse_counterfactual(options, "composes AND as well; use conditioner.counterfactual(...)")
        return compose(
            self.planner,
            self.planner.prompts(prompt, negative_prompt),
            options,
            cache=self.cache,
            force_zeros=negative_prompt is None and self.pipeline.force_zeros,
            num_images_per_prompt=num_images_per_prompt,
            steps=steps,
        )

    @torch.no_grad()
    def regions(
        self,
        prompt: str,
        regions: Iterable[Region],
        negative_prompt: str | None = None,
        *,
        dialect: str = "plain",
        weighting: str | None = None,
        chunking: str | None = None,
        clip_skip: int | None = 0,
        pooled: str = "first",
        lengths: str | None = None,
        num_images_per_prompt: int = 1,
        steps: int | None = None,
        max_sequence_length: int | None = None,
    ) -> Composition:
        """Condition one picture on a base prompt and on regions with prompts of their own, of any length each.

        Draw with `with composed(pipe, parts): pipe(**parts.kwargs, …)`. In each region the denoiser's output is that of the
        region's prompt, elsewhere that of the base prompt; at soft edges both, and where regions overlap they share. The
        negative prompt is for all of the picture. Settings are those of a call, for all prompts; AND composes within a region.
        Raises ConfigError for no region, for settings that a call refuses, in Flux for AND and for a negative prompt, and for
        pipelines whose denoiser regions cannot be put together in.
        """
        _check_images(num_images_per_prompt)
        flux = self.family == "flux"
        if self.pipeline.modular or not (self.pipeline.shape.composes or flux):
            raise ConfigError(f"{self.pipeline.name} has no denoiser that regions could be put together in")
        _refuse_free_noise(self.pipeline)
        places = tuple(regions)
        if not places or not all(isinstance(each, Region) for each in places):
            raise ConfigError(f"regions holds {len(places)}, expected one Region or more, and nothing else")
        if flux and negative_prompt:
            raise ConfigError(
                f"{self.pipeline.name} reads a negative prompt apart, where regions cannot be; leave it out"
            )
        options = self.planner.options(
            dialect=dialect,
            weighting=weighting,
            chunking=chunking,
            clip_skip=clip_skip,
            pooled=pooled,
            lengths=lengths,
            max_sequence_length=max_sequence_length,
        )
        prompts = self.planner.prompts([prompt, *(each.prompt for each in places)], negative_prompt)
        return compose_regions(
            self.planner,
            Sides(prompts.positive, () if flux else prompts.negative[:1]),
            places,
            options,
            cache=self.cache,
            force_zeros=negative_prompt is None and self.pipeline.force_zeros,
            num_images_per_prompt=num_images_per_prompt,
            steps=steps,
        )

    @torch.no_grad()
    def travel(
        self,
        prompts: Keyframes,
        negative_prompt: Keyframes | None = None,
        *,
        frames: int | None = None,
        interpolation: str = "linear",
        dialect: str = "plain",
        weighting: str | None = None,
        chunking: str | None = None,
        clip_skip: int | None = 0,
        pooled: str = "first",
        lengths: str | None = None,
    ) -> Travel:
        """Condition a film of AnimateDiff whose prompt changes over its frames: `{0: "a fox", 16: "a wolf"}`.

        prompts, negative_prompt: by frame, from 0, in any form of `clipcond.prompt.keyframes`; a string without frames is for
        all of them.   frames: of the film; None is the default of the pipeline's call.   interpolation: `linear`, `slerp` or
        `hold`, from each prompt to the next. Further settings are those of a call.
        Draw with `with travelled(pipe, travel): pipe(**travel.kwargs, …)`, under FreeNoise too.
        Raises ConfigError for settings that do not fit, pipelines without a motion adapter, and prompts with schedules, AND or
        `.swap()`.
        """
        film = Film.of(
            self.pipeline,
            keyframes(prompts),
            keyframes("" if negative_prompt is None else negative_prompt),
            frames=frames,
            interpolation=interpolation,
        )
        options = self.planner.options(
            dialect=dialect,
            weighting=weighting,
            chunking=chunking,
            clip_skip=clip_skip,
            pooled=pooled,
            lengths=lengths,
        )
        _refuse_counterfactual(options, "steers pictures, and no travel; leave it out")
        zeros = negative_prompt is None and self.pipeline.force_zeros
        return travel(self.planner, film, options, cache=self.cache, force_zeros=zeros)


def condition(
    pipe: Any,
    prompt: PromptArgument,
    negative_prompt: PromptArgument | None = None,
    **settings: Unpack[PromptSettings],
) -> Conditioning:
    """`Conditioner.from_pipeline(pipe)(prompt, negative_prompt, **settings)` as one function, for pipeline files."""
    return Conditioner.from_pipeline(pipe)(prompt, negative_prompt, **settings)


def composition_of(
    pipe: Any,
    prompt: PromptArgument,
    negative_prompt: PromptArgument | None = None,
    **settings: Unpack[PromptSettings],
) -> Composition:
    """`Conditioner.from_pipeline(pipe).compose(prompt, negative_prompt, **settings)` as one function, for pipeline files."""
    return Conditioner.from_pipeline(pipe).compose(prompt, negative_prompt, **settings)


def counterfactual_of(
    pipe: Any,
    prompt: PromptArgument,
    negative_prompt: PromptArgument | None = None,
    **settings: Any,
) -> Steering:
    """`Conditioner.from_pipeline(pipe).counterfactual(…)` as one function, for pipeline files."""
    return Conditioner.from_pipeline(pipe).counterfactual(prompt, negative_prompt, **settings)


def _steerable(lengths: str | None) -> str | None:
    if lengths == "mask":
        raise ConfigError("lengths is 'mask', which a steering cannot do; leave it out")
    return lengths


def _refuse_counterfactual(options: EncodeOptions, instead: str) -> None:
    if options.method.name == COUNTERFACTUAL:
        raise ConfigError(f"weighting is 'counterfactual', which {instead}")


def _refuse_free_noise(pipeline: PipelineView) -> None:
    if free_noise(pipeline.pipe):
        raise ConfigError(f"{pipeline.name} takes no embeds under FreeNoise; use conditioner.travel(...)")


def _check_images(num_images_per_prompt: int) -> None:
    if num_images_per_prompt < 1:
        raise ConfigError(f"num_images_per_prompt is {num_images_per_prompt}, expected 1 or more")


def _mention(mark: str, prompts: Sides[Prompts]) -> bool:
    """True if a mark stands in any prompt: quicker than reading them all."""
    return any(mark in prompt for each in (*prompts.positive, *prompts.negative) for prompt in each.values())


def _refuse_and(plans: Iterable[PromptPlan]) -> None:
    for plan in plans:
        if any(part.how == "noise" for part in plan.parts):
            raise ConfigError(
                "the prompt has AND in it, whose parts only the denoiser can compose; "
                'use conditioner.compose(...), or write "and"'
            )


def _other_plans(side: Sequence[PromptPlans]) -> dict[str, tuple[PromptPlan, ...]]:
    """The plans of further prompts by the name of their argument."""
    names = [name for name in side[0].by_argument if name[-1].isdigit()] if side else []
    return {name: tuple(each.by_argument[name] for each in side) for name in names}


def _edited(encoded: EncodedSides, edits: Sequence[tuple[Edit, ...]]) -> Edited:
    tensors = encoded.tensors
    return Edited(
        prompt_embeds=tensors["prompt_embeds"],
        pooled_prompt_embeds=tensors.get("pooled_prompt_embeds"),
        edits=tuple(edits),
    )
