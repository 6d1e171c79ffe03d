"""Plans of one prompt in short, for a terminal or a page: counts of both readers, warnings, cuts, weights, structure."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import groupby, islice
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from clipcond.prompt.findings import Finding
    from clipcond.prompt.items import Adapter, Item, Schedule
    from clipcond.prompt.plan import Chunk, EncoderPlan, PromptPlan

_CUTS = {"full": "all places are taken", "break": "BREAK", "backtrack": "early, so that what follows stays whole"}
_DIALECT_OF = {"looks-like-a1111": "a1111", "looks-like-comfy": "comfy", "looks-like-compel": "compel"}
_JOINED = {
    "noise": "drawn together (AND)",
    "concatenate": "one behind the other",
    "blend": "blended",
    "sum": "added up",
}
_KINDS = {"lora": "LoRA", "lyco": "LoRA", "hypernet": "hypernetwork"}
_MOST_TEXTS = 6
_MOST_CHANGES = 6  # of a schedule's changes that are listed one by one


def encoder_groups(plans: Sequence[PromptPlan]) -> list[tuple[str, list[EncoderPlan]]]:
    """Return the encoders of one prompt's plans, grouped by equal chunks, each group with its label.

    A label is `sdxl · clip_l, clip_g`, or with several families `sd15, sdxl · clip_l; sd2 · clip_h`.
    """
    found: list[list[tuple[str, EncoderPlan]]] = []
    for plan in plans:
        for encoder in plan.encoders.values():
            same = next((group for group in found if _alike(group[0][1], encoder)), None)
            if same is None:
                found.append([(plan.family, encoder)])
            else:
                same.append((plan.family, encoder))
    return [(_label(group), [encoder for _, encoder in group]) for group in found]


def _alike(one: EncoderPlan, other: EncoderPlan) -> bool:
    return (one.limit, one.unknown, one.chunks) == (other.limit, other.unknown, other.chunks)


def _label(group: Sequence[tuple[str, EncoderPlan]]) -> str:
    families: dict[str, list[str]] = {}
    for family, encoder in group:
        families.setdefault(encoder.name, []).append(family)
    encoders: dict[str, list[str]] = {}
    for name, of in families.items():
        encoders.setdefault(", ".join(of), []).append(name)
    return "; ".join(f"{of} · {', '.join(names)}" for of, names in encoders.items())


def all_warnings(plans: Sequence[PromptPlan]) -> list[Finding]:
    """Return the warnings of all plans of one prompt, each once, by their places in it."""
    return sorted(
        dict.fromkeys(found for plan in plans for found in plan.warnings), key=lambda found: (found.start, found.end)
    )


def cut_reason(chunks: Sequence[Chunk], index: int) -> str:
    """Say in words why a chunk ends; empty at the end of the prompt."""
    chunk, after = chunks[index], chunks[index + 1 : index + 2]
    if chunk.cut == "end":
        return ""
    if chunk.cut == "break" and after and after[0].part != chunk.part:
        return "AND"
    return _CUTS.get(chunk.cut, chunk.cut)


def weighted_passages(prompt: str, encoder: EncoderPlan) -> list[tuple[str, float]]:
    """Return the passages of a prompt with a weight other than 1, in order; neighbours of one weight are one passage."""
    tokens = [token for chunk in encoder.chunks for token in chunk.tokens]
    passages = []
    for weight, same in groupby(tokens, key=lambda token: token.weight):
        run = list(same)
        passage = prompt[run[0].start : run[-1].end].strip(", ")
        if weight != 1 and passage:
            passages.append((passage, weight))
    return passages


def stock_tokens(encoder: EncoderPlan) -> int | None:
    """Return the tokens that a stock pipeline makes of the prompt as it was typed; None where it cuts nothing off."""
    return None if encoder.dropped is None else encoder.limit + encoder.dropped.content_tokens


def stock_reading(encoder: EncoderPlan) -> str:
    """Say what a stock pipeline reads and drops, so that all numbers add up; empty where it reads what clipcond does."""
    count, stock = encoder.content_tokens or 0, stock_tokens(encoder)
    if encoder.dropped is None or stock is None:
        return "a stock pipeline reads the prompt as it is typed, and drops nothing" if count > encoder.limit else ""
    lost = encoder.dropped.content_tokens
    if stock == count:
        return f"a stock pipeline drops {counted(lost, 'token')}"
    return (
        f"clipcond reads {counted(count, 'token')} without marks; "
        f"a stock pipeline reads the marks as text, {counted(stock, 'token')}, and drops {lost}"
    )


def counted(number: int, thing: str) -> str:
    """Write a number with its noun: `1 token`, `2 tokens`."""
    return f"{number:,} {thing}{'' if number == 1 else 's'}"


def dialect_meant(finding: Finding) -> str:
    """Return the dialect whose syntax a warning has found in a plain prompt; empty for all other findings."""
    return _DIALECT_OF.get(finding.code, "")


def with_flag(finding: Finding) -> str:
    """Return a finding's message, with the flag that reads the prompt in the dialect that it seems to be written in."""
    dialect = dialect_meant(finding)
    return f"{finding.message}; --dialect {dialect} reads it" if dialect else finding.message


def structure(plan: PromptPlan) -> tuple[tuple[str, str], ...]:
    """Return all that a plan's prompt holds beside words and weights, as pairs of a label and one line of text.

    Adapters that are taken out of the text, changes over the steps, parts and their weights.
    """
    found = [*_adapters(plan.adapters), *_changes(plan), *_parts(plan)]
    return tuple(found)


def _adapters(adapters: Iterable[Adapter]) -> Iterator[tuple[str, str]]:
    kinds: dict[str, list[Adapter]] = {}
    for adapter in adapters:
        kinds.setdefault(_KINDS.get(adapter.kind, f"<{adapter.kind}:…> tag"), []).append(adapter)
    for kind, same in kinds.items():
        yield f"{counted(len(same), kind)} taken out", " · ".join(map(_adapter, same))


def _adapter(adapter: Adapter) -> str:
    denoiser = "" if adapter.unet_weight is None else f" (denoiser ×{adapter.unet_weight:.4g})"
    return f"{adapter.name} ×{adapter.weight:.4g}{denoiser}"


def _changes(plan: PromptPlan) -> Iterator[tuple[str, str]]:
    if plan.dialect != "a1111" or "[" not in plan.prompt:
        return
    from clipcond.prompt.dialects.parse import parse

    found = list(_schedules(parse(plan.prompt, plan.dialect).items))
    if not found:
        return
    shown = [_change(plan.prompt, schedule) for schedule in found[:_MOST_CHANGES]]
    more = [f"and {len(found) - len(shown)} more"] if len(found) > len(shown) else []
    yield "changes", " · ".join([*shown, *more])
    if plan.steps is not None:
        yield f"texts over {plan.steps} steps", _step_texts(plan.prompt, plan.steps)


def _step_texts(prompt: str, steps: int) -> str:
    """Return the texts of a scheduled prompt with their steps, or their number where they are many."""
    from clipcond.prompt.dialects.schedules import schedule_of

    schedule = schedule_of(prompt, steps)
    if len(schedule.texts) > _MOST_TEXTS:
        return f"{len(schedule.distinct)} different ones, from “{_short(schedule.texts[0].text)}” on"
    return " · ".join(
        f"{each.first}–{each.last} “{_short(each.text)}”"
        if each.last > each.first
        else f"{each.first} “{_short(each.text)}”"
        for each in schedule.texts
    )


def _short(text: str) -> str:
    text = " ".join(text.split())
    return text if len(text) <= 60 else text[:59] + "…"


def _schedules(items: Iterable[Item]) -> Iterator[Schedule]:
    """Yield the schedules among items, those inside of others too, by their places."""
    from clipcond.prompt.items import Schedule

    for item in items:
        if isinstance(item, Schedule):
            yield item
            for option in item.options:
                yield from _schedules(option)


def _change(prompt: str, schedule: Schedule) -> str:
    texts = [_option(prompt, option) for option in schedule.options]
    if schedule.kind == "alternate":
        return f"{' | '.join(texts)} in turn"
    when = f"step {schedule.when}" if isinstance(schedule.when, int) else f"{schedule.when:.4g}"
    if isinstance(schedule.when, float) and schedule.when <= 1:
        when = f"{100 * schedule.when:.4g} %"
    return f"{' → '.join(texts)} at {when}"


def _option(prompt: str, items: Sequence[Item]) -> str:
    text = " ".join(prompt[items[0].start : items[-1].end].split()) if items else ""
    return (text if len(text) <= 30 else text[:29] + "…") or "nothing"


def _parts(plan: PromptPlan) -> Iterator[tuple[str, str]]:
    if len(plan.parts) > 1:
        weights = [f"{part.weight:.4g}" for part in islice(plan.parts, 12)]
        listed = ", ".join(weights[:-1]) + f" and {weights[-1]}" if len(plan.parts) == len(weights) else "…"
        yield f"{len(plan.parts)} parts", f"{_JOINED[plan.parts[0].how]}, weights {listed}"
