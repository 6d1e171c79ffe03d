"""All texts that an explanation needs: the prompt of both sides in its parts, whole and with each phrase masked."""

from __future__ import annotations

from dataclasses import dataclass, replace

from clipcond.diffusion.conditioner import Conditioner
from clipcond.diffusion.explain.counterfactuals import PartTexts, TextRow, encode_counterfactuals
from clipcond.diffusion.explain.settings import ExplainSettings
from clipcond.diffusion.explain.spans import PhraseSpan, check_asked, phrase_spans, tokens_of
from clipcond.diffusion.prompt_plans import PromptPlans, Prompts, Sides
from clipcond.diffusion.timeline import first_scheduled
from clipcond.errors import ConfigError
from clipcond.prompt.plan import PromptPlan


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class ExplainedTexts:
    """The phrases of a prompt, and its texts in the order in which the denoiser is given them.

    cut: the numbers of the phrases that no text holds a token of.   chunks: the most of any text in a CLIP encoder.
    """

    spans: tuple[PhraseSpan, ...]
    sides: Sides[PartTexts]
    cut: frozenset[int]
    chunks: int
    has_pooled: bool

    @property
    def parts(self) -> tuple[PartTexts, ...]:
        """Of both sides."""
        return (*self.sides.positive, *self.sides.negative)

    @property
    def rows(self) -> list[TextRow]:
        """The rows of a step: the empty text, then of each part the whole text, those with a phrase masked, and where
        there is a pooled vector the whole text with the pooled vectors of these.
        """
        found = [self.parts[0].empty]
        for part in self.parts:
            found += [part.whole, *part.masked]
            if self.has_pooled:
                found += [{**part.whole, POOLED: each[POOLED]} for each in part.masked]
        return found


POOLED = "pooled_prompt_embeds"


def explained_texts(
    conditioner: Conditioner, prompt: str, negative_prompt: str | None, settings: ExplainSettings, *, guided: bool
) -> ExplainedTexts:
    """Plan both sides, find their phrases, and encode every text once.

    guided: False where the negative prompt is not read.
    Raises ConfigError for a prompt without phrases, a phrase that it does not have, and a prompt that changes over the steps.
    """
    planner = conditioner.planner
    options = planner.options(**settings.reading)
    others = {"_2": settings.prompt_2, "_3": settings.prompt_3}
    prompts = planner.prompts(prompt, negative_prompt, others=others)
    empty = planner.plans(planner.prompts(""), options, {}).positive[0]
    if not guided:
        prompts = Sides(prompts.positive, ())
    _refuse_schedule(prompts, settings.dialect)
    plans = planner.plans(prompts, options, {})
    spans = _spans(plans, settings)
    if settings.stock:
        plans = Sides(tuple(map(_cut, plans.positive)), tuple(map(_cut, plans.negative)))
    held = {
        number
        for number, span in enumerate(spans)
        for plan in _first_plans(plans, span.side)
        if any(True for each in plan.encoders.values() for _ in tokens_of(each, span))
    }
    sides = encode_counterfactuals(conditioner, plans, empty, spans, options)
    return ExplainedTexts(
        spans=spans,
        sides=Sides(sides.positive, tuple(each for each in sides.negative if each.phrases)),  # a row saved
        cut=frozenset(range(len(spans))) - held,
        chunks=max(_clip_chunks(each) for each in (*plans.positive, *plans.negative)),
        has_pooled=POOLED in sides.positive[0].whole,
    )


def _refuse_schedule(prompts: Sides[Prompts], dialect: str) -> None:
    if dialect == "a1111" and (changing := first_scheduled(prompts)) is not None:
        raise ConfigError(
            f"the prompt {changing[:60]!r} changes over the steps; explain the text of one of its steps, with neither "
            "[from:to:when] nor [a|b]"
        )


def _spans(plans: Sides[PromptPlans], settings: ExplainSettings) -> tuple[PhraseSpan, ...]:
    positive, negative = _first_plans(plans, "prompt"), _first_plans(plans, "negative_prompt")
    if settings.phrases is not None:
        check_asked([*positive, *negative], settings.phrases)
    found = [
        *(span for each in positive for span in phrase_spans(each, by=settings.by, asked=settings.phrases)),
        *(
            span
            for each in negative
            for span in phrase_spans(each, by=settings.by, asked=settings.phrases, side="negative_prompt")
        ),
    ]
    if not found:
        raise ConfigError("the prompt has no phrase in it; give one of some words")
    return tuple(found)


def _first_plans(plans: Sides[PromptPlans], side: str) -> list[PromptPlan]:
    return [each.by_argument[side] for each in (plans.positive if side == "prompt" else plans.negative)]


def _cut(plans: PromptPlans) -> PromptPlans:
    """The part that a stock pipeline reads: the first chunk of each encoder. Raises ConfigError for a text beyond T5's limit."""
    made = {id(plan): _first_chunks(plan) for plan in plans.by_encoder.values()}
    return replace(
        plans,
        by_encoder={name: made[id(plan)] for name, plan in plans.by_encoder.items()},
        by_argument={name: made.get(id(plan), plan) for name, plan in plans.by_argument.items()},
    )


def _first_chunks(plan: PromptPlan) -> PromptPlan:
    encoders = {}
    for name, encoder in plan.encoders.items():
        if encoder.truncated and len(encoder.chunks) == 1:
            raise ConfigError(f"the prompt is longer than {name} reads in a stock pipeline; explain it without stock")
        encoders[name] = replace(encoder, chunks=encoder.chunks[:1])
    return replace(plan, encoders=encoders)


def _clip_chunks(plans: PromptPlans) -> int:
    counts = [len(plan.encoders[name].chunks) for name, plan in plans.by_encoder.items() if name != "t5"]
    return max(counts, default=1)
