"""Operations on a conditioning while it is made: the texts that they need, encoded with the prompts, and their arithmetic.

All texts of a call go through the encoders in one pass and have one length, so that every position has its counterpart.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from clipcond.condition.algebra import lerp, slerp, slide, vary
from clipcond.condition.families import T5
from clipcond.diffusion.encode_plans import EncodedSides
from clipcond.diffusion.findings import PlacedFinding
from clipcond.diffusion.pipeline_shapes import PROMPT_AXIS
from clipcond.diffusion.pipeline_view import PipelineView
from clipcond.diffusion.prompt_plans import Prompts, Sides
from clipcond.errors import ConfigError
from clipcond.prompt.operations import Gain, Lerp, Operation, Slerp, Slider, Vary

STATES, POOLED, MASK = "prompt_embeds", "pooled_prompt_embeds", "prompt_attention_mask"
LAYERS = "prompt_embeds_llama3"  # (layers, B, S, D)
_ROWS: Prompts = {"": ""}


def checked(operations: Sequence[Operation], pipeline: PipelineView) -> tuple[Operation, ...]:
    """Return the operations of a call.

    Raises ConfigError for what is none, for an encoder that the pipeline has not, and where a language model's texts differ
    in length.
    """
    if pipeline.shape.fixed:
        raise ConfigError(
            f"the language model of {pipeline.name} gives each text its own length; leave out the operations"
        )
    known = [*pipeline.encoders, *([] if pipeline.language is None else [pipeline.language.name])]
    for each in operations:
        if not isinstance(each, Operation):
            raise ConfigError(f"operations holds {each!r}, expected Lerp, Slerp, Slider, Vary or Gain")
        if isinstance(each, Gain) and each.encoder not in known:
            raise ConfigError(f"gain of {each.encoder}: the encoders of {pipeline.name} are {', '.join(known)}")
    return tuple(operations)


def operand_prompts(operations: Sequence[Operation], prompts: Sides[Prompts]) -> list[Sides[Prompts]]:
    """The texts that the operations need beside the prompts: for each text all prompts' own, in order; the empty one first.

    Raises ConfigError for a slider whose words are not in a prompt.
    """
    if not operations:
        return []
    count = len(prompts.positive)
    needed = [Sides((_ROWS,) * count, ())]
    for each in operations:
        if isinstance(each, Lerp | Slerp):
            needed.append(Sides(({"": each.to},) * count, ()))
        elif isinstance(each, Slider):
            ends = [_ends(each, own) for own in prompts.positive]
            needed += [Sides(tuple(low for low, _ in ends), ()), Sides(tuple(high for _, high in ends), ())]
    return needed


def operated(
    encoded: Sequence[EncodedSides], operations: Sequence[Operation], pipeline: PipelineView
) -> list[EncodedSides]:
    """Apply operations in their order to the positive side of each variant.

    encoded: of each variant its prompts, then the texts of `operand_prompts`.   Returns the variants.
    Raises ConfigError where the length of T5's part is not known.
    """
    each = 2 + sum(_OPERANDS.get(type(operation), 0) for operation in operations)
    return [
        _operated(encoded[at], operations, encoded[at + 1 : at + each], pipeline) for at in range(0, len(encoded), each)
    ]


def _operated(
    prompt: EncodedSides, operations: Sequence[Operation], operands: Sequence[EncodedSides], pipeline: PipelineView
) -> EncodedSides:
    empty, *others = operands
    tensors, rest = dict(prompt.tensors), iter(others)
    for each in operations:
        own = [next(rest).tensors for _ in range(_OPERANDS.get(type(each), 0))]
        step = _Step(each, own, empty.tensors, prompt.tensors, pipeline, prompt.appended)
        tensors |= {name: step.applied(name, tensors[name]) for name in (STATES, POOLED, LAYERS) if name in tensors}
        if MASK in tensors:
            tensors[MASK] = torch.stack([tensors[MASK], *(other[MASK] for other in own)]).any(dim=0)
    return replace(prompt, tensors=tensors, findings=(*prompt.findings, *_findings(prompt, others)))


def _findings(prompt: EncodedSides, operands: Sequence[EncodedSides]) -> list[PlacedFinding]:
    """Those of the operations' texts that the prompt has not too."""
    known = {each.code for each in prompt.findings}
    found = (
        replace(each, argument="operations")
        for operand in operands
        for each in operand.findings
        if each.code not in known
    )
    return list(dict.fromkeys(found))


_OPERANDS: Mapping[type, int] = {Lerp: 1, Slerp: 1, Slider: 2}


@dataclass(frozen=True, slots=True, eq=False)
class _Step:
    """One operation with the tensors that it needs, each of all rows."""

    operation: Operation
    operands: Sequence[Mapping[str, Tensor]]
    empty: Mapping[str, Tensor]
    prompt: Mapping[str, Tensor]
    pipeline: PipelineView
    appended: int | None

    def applied(self, name: str, x: Tensor) -> Tensor:
        """A tensor (B, T, D), (B, P) or (layers, B, S, D) after the operation."""
        own, empty = [each[name] for each in self.operands], self.empty[name]
        match self.operation:
            case Lerp(t=t):
                return lerp(x, own[0], t)
            case Slerp(t=t, about=about):
                return slerp(x, own[0], t, empty if about == "empty" else None)
            case Slider(t=t):
                return slide(x, self.prompt[name], own[0], own[1], t)
            case Vary(strength=strength, seed=seed):
                axis = PROMPT_AXIS.get(name, 0)
                return vary(x.movedim(axis, 0), empty.movedim(axis, 0), strength, seed).movedim(0, axis)
            case Gain(encoder=encoder, factor=factor):
                return self._gain(name, x, encoder, factor)

    def _gain(self, name: str, x: Tensor, encoder: str, factor: float) -> Tensor:
        if factor == 1:
            return x
        louder = lerp(self.empty[name], x, factor)
        if name == LAYERS:
            return x if encoder in self.pipeline.encoders else louder
        if name == POOLED:
            columns = _columns(encoder, self.pipeline.layout.pooled, self._pooled_widths())
            return x if columns is None else _within(x, louder, slice(None), columns)
        if self.appended is None:
            raise ConfigError(
                f"gain of {encoder}: texts were repeated to one length, which mixes encoders; use pad_empty"
            )
        positions = x.shape[1] - self.appended
        if encoder == T5:
            return _within(x, louder, slice(positions, None), slice(None))
        names = self.pipeline.layout.concat_width
        widths = [self.pipeline.encoders[each].tower.width for each in names]
        columns = _columns(encoder, names, widths)
        return x if columns is None else _within(x, louder, slice(positions), columns)

    def _pooled_widths(self) -> list[int]:
        layout, encoders = self.pipeline.layout, self.pipeline.encoders
        projected = layout.pooled_from == "projected"
        return [
            int(encoders[each].module.config.projection_dim) if projected else encoders[each].tower.width
            for each in layout.pooled
        ]


def _columns(encoder: str, names: Sequence[str], widths: Sequence[int]) -> slice | None:
    """The columns of an encoder among those that are laid side by side; None where it is not among them."""
    if encoder not in names:
        return None
    at = names.index(encoder)
    start = sum(widths[:at])
    return slice(start, start + widths[at])


def _within(x: Tensor, other: Tensor, positions: slice, columns: slice) -> Tensor:
    """x, with a block of another one's."""
    made = x.clone()
    if x.ndim == 3:
        made[:, positions, columns] = other[:, positions, columns]
    else:
        made[:, columns] = other[:, columns]
    return made


def _ends(slider: Slider, prompts: Prompts) -> tuple[Prompts, Prompts]:
    """The two wordings of one picture's prompts; a further encoder's own prompt stays where it lacks the words."""
    low, high = {}, {}
    for suffix, text in prompts.items():
        try:
            low[suffix], high[suffix] = slider.ends(text)
        except ConfigError:
            if not suffix:
                raise
            low[suffix] = high[suffix] = text
    return low, high
