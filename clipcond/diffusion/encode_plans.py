"""From plans to tensors: all prompts of a call through each encoder in one pass, then weights, parts and equal lengths."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from types import MappingProxyType

import torch
from torch import Tensor

from clipcond.condition.cache import Cache
from clipcond.condition.encoder_input import EncoderInput, encoder_input
from clipcond.condition.encoder_pass import EncoderPass, weigh_together, weighted_alike
from clipcond.condition.families import T5, assemble, layer
from clipcond.condition.lengths import MOST_BYTES, check_memory, mask_to, pad_with, repeat_to, repeated_length
from clipcond.condition.parts import join, mix, wants_empty
from clipcond.condition.pooled import pool
from clipcond.diffusion.adapters import active_adapters
from clipcond.diffusion.findings import (
    EncoderFinding,
    PlacedFinding,
    adapters_not_loaded,
    beyond_one_chunk,
    cut_by_encoder,
    findings_of,
    mean_near_zero,
    negative_unused,
    unused_weights,
    weights_unread,
)
from clipcond.diffusion.language_models import ASK, words_of
from clipcond.diffusion.pipeline_view import PipelineView, bare
from clipcond.diffusion.prompt_plans import EncodeOptions, PromptPlans, Sides
from clipcond.diffusion.shown_pictures import SHOW, within
from clipcond.encode.inversion import Inversions
from clipcond.errors import ConfigError, ModelError

Inputs = Mapping[str, EncoderInput]  # of one picture's prompts, by encoder
_NO_FINGERPRINTS: Mapping[str, str] = MappingProxyType({})
_Key = tuple[object, ...]  # the identities of the plans, by encoder, and what is hidden: equal keys have equal states


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class EncodedSides:
    """The tensors of both sides by the names of the pipeline's arguments, (B, …) on its device, and their findings.

    appended: the last positions that are T5's, 0 in families that append none; None where positions were repeated or masked.
    """

    tensors: dict[str, Tensor]
    findings: tuple[PlacedFinding, ...]
    appended: int | None = 0


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _States:
    """The states of one picture's prompts, weighted and joined, before lengths are equal."""

    concat_width: tuple[Tensor, ...]  # (T, Dᵢ) of each encoder
    append_tokens: Tensor | None  # (T', D)
    pooled: Tensor | None  # (P)
    mask: Tensor | None = None  # (T) bool, True where there is text; of a denoiser that is told
    findings: tuple[EncoderFinding, ...] = ()


def encode_plans(
    pipeline: PipelineView,
    variants: Sequence[Sides[PromptPlans]],
    options: EncodeOptions,
    *,
    inversions: Inversions,
    cache: Cache | None = None,
    force_zeros: bool = False,
    num_images_per_prompt: int = 1,
    fingerprints: Mapping[str, str] = _NO_FINGERPRINTS,
) -> list[EncodedSides]:
    """Encode the plans of all variants in one pass of each encoder and bring them to one length.

    force_zeros: zeros in place of the negative side's states.   num_images_per_prompt: the times that rows are repeated.
    fingerprints: of the encoders as they are now, where the caller has them.
    Returns the tensors of each variant, in order.
    """
    takes_negative = "negative_prompt_embeds" in pipeline.takes
    encoded = [Sides(each.positive, each.negative if takes_negative and not force_zeros else ()) for each in variants]
    batch = _Batch(pipeline, options, inversions)
    positive = [plans for sides in encoded for plans in sides.positive]
    negative = [plans for sides in encoded for plans in sides.negative]
    states = batch.encode([*positive, *negative], cache, fingerprints)
    embeds = batch.equal_lengths(states, (len(positive) + len(negative)) * num_images_per_prompt)

    def side(prefix: str, plans: Sequence[PromptPlans]) -> dict[str, Tensor]:
        keys = [_key(each) for each in plans]
        columns = {name: [each[name] for each in map(embeds.__getitem__, keys)] for name in embeds[keys[0]]}
        stacked = {f"{prefix}{name}": torch.stack(column) for name, column in columns.items()}
        if num_images_per_prompt > 1:
            stacked = {name: each.repeat_interleave(num_images_per_prompt, dim=0) for name, each in stacked.items()}
        if pipeline.shape.language:
            stacked |= _asked(pipeline, prefix, plans, stacked, options, num_images_per_prompt)
        _check_finite(stacked)
        return stacked

    done = []
    for whole, sides in zip(variants, encoded, strict=True):
        tensors = side("", sides.positive)
        if sides.negative:
            tensors |= side("negative_", sides.negative)
        elif whole.negative and takes_negative:
            rows = len(whole.negative) * num_images_per_prompt  # of regions one for all prompts
            tensors |= {f"negative_{name}": _zeros(tensor[:rows]) for name, tensor in tensors.items()}
        plans = (*sides.positive, *sides.negative)
        findings = [found for each in plans for found in findings_of(each, states[_key(each)].findings)]
        if not takes_negative:
            findings += negative_unused(whole.negative, pipeline.name)
        if pipeline.language is not None:
            findings += cut_by_encoder(plans, pipeline.language.name)
            findings += weights_unread(plans, pipeline.language.name, pipeline.layout)
        if pipeline.layout.one_chunk:
            findings += beyond_one_chunk(plans, pipeline.layout.concat_width[0], pipeline.name)
        both = (*whole.positive, *whole.negative)
        if any(plan.adapters for each in both for plan in each.by_argument.values()):
            findings += adapters_not_loaded(both, active_adapters(pipeline.pipe))
        done.append(EncodedSides(tensors=tensors, findings=tuple(findings), appended=batch.appended))
    return done


def _asked(
    pipeline: PipelineView,
    prefix: str,
    plans: Sequence[PromptPlans],
    encoded: Mapping[str, Tensor],
    options: EncodeOptions,
    images: int,
) -> dict[str, Tensor]:
    """The states that the pipeline's own method has its language model give of the prompts of one side."""
    assert pipeline.language is not None
    name = pipeline.language.name
    texts = [words_of(each.by_encoder[name]) for each in plans]
    pooled, length = encoded[f"{prefix}pooled_prompt_embeds"], options.max_sequence_length
    if (ask := ASK.get(pipeline.shape.language)) is not None:
        found = ask(pipeline.pipe, texts, pooled, images, length)
    else:
        reader = pipeline.plan_encoders(length, options.picture_positions)[name]
        read = [within(each, reader, pipeline.language_tokenizer) for each in texts]
        shown = [options.pictures[each.index] for each in plans]
        found = SHOW[pipeline.shape.language](pipeline.pipe, read, shown, prefix, pooled, images, length)
    return {f"{prefix}{name}": tensor for name, tensor in found.items()}


class _Batch:
    """The plans of one call on their way through the encoders of a pipeline."""

    def __init__(self, pipeline: PipelineView, options: EncodeOptions, inversions: Inversions) -> None:
        self._pipeline, self._layout, self._options = pipeline, pipeline.layout, options
        self._device = pipeline.device  # asked once: offload hooks are looked for in every module
        self.appended: int | None = 0
        self._passes: dict[str, EncoderPass] = {}
        self._vector_names: dict[str, dict[str, Sequence[int | str]]] = {}
        for name, encoder in pipeline.encoders.items():
            self._vector_names[name] = _vector_names(inversions, name, encoder.added())
            self._passes[name] = EncoderPass(
                encoder.tower,
                method=options.method,
                comma=encoder.comma,
                empty_row=encoder.empty_row,
                vectors=inversions.vectors(name),
            )

    def encode(
        self, plans: Sequence[PromptPlans], cache: Cache | None, fingerprints: Mapping[str, str]
    ) -> dict[_Key, _States]:
        """Encode every different row once and return the states of all plans."""
        distinct = {_key(each): each for each in plans}
        inputs = {key: self._inputs(each) for key, each in distinct.items()}
        for own in inputs.values():
            self._collect(own)
        if self._options.lengths == "pad_empty":
            self._collect_padding(list(inputs.values()))
        for name, encoder_pass in self._passes.items():
            skip, final_norm = layer(self._layout, name, self._options.clip_skip)
            try:
                encoder_pass.run(clip_skip=skip, final_norm=final_norm, cache=cache, fingerprint=fingerprints.get(name))
            except ModelError:  # of states that are not finite
                self._pipeline.encoders[name].check_finite(self._pipeline.name)
                raise
        states = {key: self._states(each) for key, each in inputs.items()}
        used = () if self._options.method.name == "none" else tuple(filter(self._gives_states, self._passes))
        for key, each in distinct.items():
            weighted = {name: own.weighted for name, own in inputs[key].items() if any(own.weighted)}
            if weighted:
                unused = unused_weights(each.by_encoder, weighted, used)
                states[key] = replace(states[key], findings=(*unused, *states[key].findings))
        return states

    def _inputs(self, plans: PromptPlans) -> Inputs:
        inputs = {}
        for name, encoder in self._pipeline.encoders.items():
            plan = plans.by_encoder[name]
            encoder.check(plan.encoders[name])
            names = self._vector_names[name]
            hidden = plans.hidden_from(name)
            inputs[name] = encoder_input(
                plan.encoders[name],
                parts=plan.parts,
                vector_names=names,
                hidden=hidden,
                mask_padding=encoder.masks_padding,
            )
        return inputs

    def _gives_states(self, name: str) -> bool:
        """True if an encoder's token states are used, and not only its pooled vector."""
        return name == T5 or name in self._layout.concat_width

    # rows

    def _collect(self, inputs: Inputs) -> None:
        for name, each in inputs.items():
            for part in each.by_part:
                self._passes[name].add(part, weighted=self._gives_states(name))
            if each.parts and wants_empty(each.parts, [len(part.rows) for part in each.by_part]):
                self._passes[name].add_empty(each.length)
        chunks = {
            (inputs[name].joined_chunks, tuple(len(part.rows) for part in inputs[name].by_part))
            for name in self._layout.concat_width
        }
        if len(chunks) > 1:
            self._collect_empty_chunks()

    def _collect_padding(self, inputs: Sequence[Inputs]) -> None:
        if len({each[name].joined_chunks for each in inputs for name in self._layout.concat_width}) > 1:
            self._collect_empty_chunks()
        if T5 in self._passes:
            lengths = {each[T5].joined_chunks * each[T5].length for each in inputs}
            if len(lengths) > 1:
                self._passes[T5].add_empty(max(lengths))

    def _collect_empty_chunks(self) -> None:
        for name in self._layout.concat_width:
            self._passes[name].add_empty(self._pipeline.encoders[name].positions)

    # states

    def _states(self, inputs: Inputs) -> _States:
        layout, near_zero = self._layout, list[EncoderFinding]()
        pieces: dict[str, list[Tensor]] = {name: [] for name in inputs}
        for group in self._groups(inputs):
            for parts in zip(*[inputs[name].by_part for name in group], strict=True):
                passes = [self._passes[name] for name in group]
                hidden, failed = weigh_together(passes, parts, method=self._options.method)
                for name, states in zip(group, hidden, strict=True):
                    pieces[name].append(states)
                spans = [span for chunk in failed if (span := parts[0].weighted[chunk]) is not None]
                near_zero += [(group[0], mean_near_zero(*span)) for span in spans]
        wide = [pieces[name] for name in layout.concat_width]
        if len(wide) > 1 and len({len(each) for each in wide}) == 1:
            wide = self._equal_chunks(wide)
        joined = [self._joined(name, inputs[name], each) for name, each in zip(layout.concat_width, wide, strict=True)]
        if layout.one_chunk:
            joined = [
                each[: self._pipeline.encoders[name].positions]
                for name, each in zip(layout.concat_width, joined, strict=True)
            ]
        return _States(
            concat_width=tuple(self._filled(joined)),
            append_tokens=self._append_tokens(inputs, pieces) if layout.append_tokens else None,
            pooled=self._pooled(inputs) if layout.pooled else None,
            mask=self._mask(inputs[layout.concat_width[0]]) if layout.one_chunk else None,
            findings=tuple(near_zero),
        )

    def _groups(self, inputs: Inputs) -> Iterator[Sequence[str]]:
        """The encoders that give token states; together those that are weighted as one, for which weights must be alike."""
        names = self._layout.concat_width
        if self._layout.joint_mean and weighted_alike([inputs[name] for name in names]):
            yield names
        else:
            yield from ((name,) for name in names)
        if T5 in self._passes:
            yield (T5,)

    def _joined(self, name: str, inputs: EncoderInput, parts: Sequence[Tensor]) -> Tensor:
        """(T, D) of one encoder from its parts (K, L, D)."""
        if not inputs.parts:
            return parts[0].flatten(0, 1)
        return join(parts, inputs.parts, self._passes[name].empty(inputs.length))

    def _equal_chunks(self, wide: Sequence[list[Tensor]]) -> list[list[Tensor]]:
        """Each part with as many chunks in every encoder, empty ones where it has fewer."""
        filled: list[list[Tensor]] = [[] for _ in wide]
        for part in zip(*wide, strict=True):
            rows = self._filled([states.flatten(0, 1) for states in part])
            for states, row, own in zip(part, rows, filled, strict=True):
                own.append(row.reshape(-1, states.shape[1], states.shape[2]))
        return filled

    def _filled(self, wide: Sequence[Tensor], length: int = 0) -> list[Tensor]:
        """States (T, Dᵢ) of the encoders of `concat_width`, brought to one length with empty chunks."""
        length = max([length, *(len(each) for each in wide)])
        filled = []
        for name, states in zip(self._layout.concat_width, wide, strict=True):
            if len(states) < length:
                empty = self._passes[name].empty(self._pipeline.encoders[name].positions)
                assert empty is not None  # collected with the rows
                states = pad_with(states[None], empty.to(states), length)[0]
            filled.append(states)
        return filled

    def _append_tokens(self, inputs: Inputs, pieces: Mapping[str, Sequence[Tensor]]) -> Tensor:
        if T5 in inputs:
            return self._joined(T5, inputs[T5], pieces[T5]).to(self._pipeline.encoders[T5].dtype)
        positions, width = self._options.max_sequence_length, self._pipeline.width or 0
        return torch.zeros(positions, width, dtype=self._pipeline.dtype)

    def _pooled(self, inputs: Inputs) -> Tensor:
        policy, which = self._options.pooled, self._layout.pooled_from
        vectors = []
        for name in self._layout.pooled:
            each, encoder_pass = inputs[name], self._passes[name]
            if each.end_to_end:
                vector = pool(encoder_pass.pooled(each, which), each.counts, policy)
            else:  # a blend of prompts is pooled as the blend of their vectors
                own = [pool(encoder_pass.pooled(part, which), part.counts, policy) for part in each.by_part]
                vector = mix(own, each.parts)
            vectors.append(vector)
        return torch.cat([vector.to(self._device) for vector in vectors], dim=-1)

    def _mask(self, inputs: EncoderInput) -> Tensor:
        """(L) bool, True at the special tokens and the text of the first chunk."""
        firsts = [inputs.counts[0]] if inputs.end_to_end else [each.counts[0] for each in inputs.by_part]
        return torch.arange(inputs.length, device=self._device) < max(firsts) + 2

    # lengths

    def equal_lengths(self, states: Mapping[_Key, _States], count: int) -> dict[_Key, dict[str, Tensor]]:
        """The tensors of each prompt by the names of arguments: states (T, D) of one length T, vector (P), mask (T).

        count: the rows of all tensors together, prompts that repeat and several images of a prompt counted.
        """
        if not (self._layout.concat_width or self._layout.append_tokens):
            return {
                key: {"pooled_prompt_embeds": each.pooled} for key, each in states.items() if each.pooled is not None
            }
        if self._options.lengths == "pad_empty":
            states = self._padded(states)
        rows = [self._assembled(each) for each in states.values()]
        lengths = {len(each) for each in rows}
        if self._layout.append_tokens:
            own = {len(each.append_tokens) for each in states.values() if each.append_tokens is not None}
            self.appended = own.pop() if len(own) == len(lengths) == 1 else None
        per_token = count * rows[0].shape[1] * rows[0].element_size()
        masks: list[Tensor] = []
        if self._options.lengths == "mask":
            masked = [mask_to(each[None], max(lengths)) for each in rows]
            rows, masks = [each[0] for each, _ in masked], [mask[0] for _, mask in masked]
        elif len(lengths) > 1:
            length = repeated_length(sorted(lengths), per_token)
            rows = [repeat_to(each[None], length)[0] for each in rows]
        if len(rows[0]) * per_token > MOST_BYTES:
            check_memory(count, len(rows[0]), len(rows[0]) * per_token // count)
        tensors = {key: {"prompt_embeds": row} for key, row in zip(states, rows, strict=True)}
        for key, mask in zip(tensors, masks, strict=False):
            tensors[key]["prompt_attention_mask"] = mask
        for key, each in states.items():
            if each.pooled is not None:
                tensors[key]["pooled_prompt_embeds"] = each.pooled
            if each.mask is not None:
                tensors[key]["prompt_attention_mask"] = each.mask
        return tensors

    def _assembled(self, states: _States) -> Tensor:
        return assemble(
            [each.to(self._device) for each in states.concat_width],
            None if states.append_tokens is None else states.append_tokens.to(self._device),
            width=self._pipeline.width,
            dtype=self._pipeline.dtype,
        )

    def _padded(self, states: Mapping[_Key, _States]) -> dict[_Key, _States]:
        """As many empty chunks for each prompt as the longest needs, and T5's rows with the end of an empty prompt."""
        most = max((len(wide) for each in states.values() for wide in each.concat_width), default=0)
        appended = [each.append_tokens for each in states.values() if each.append_tokens is not None]
        longest = max(map(len, appended), default=0)
        padded = {}
        for key, each in states.items():
            tail = each.append_tokens
            if tail is not None and len(tail) < longest:
                empty = self._passes[T5].empty(longest)
                assert empty is not None  # collected with the rows
                tail = torch.cat([tail, empty[len(tail) :].to(tail)])
            padded[key] = replace(each, concat_width=tuple(self._filled(each.concat_width, most)), append_tokens=tail)
        return padded


def _key(plans: PromptPlans) -> _Key:
    return (*map(id, plans.by_encoder.values()), plans.hidden)


def _vector_names(
    inversions: Inversions, encoder: str, added: Mapping[str, tuple[int, ...]]
) -> dict[str, Sequence[int | str]]:
    """The names of each textual inversion's vectors: ids of the pipeline's own, digests of the others."""
    return {**{bare(token): ids for token, ids in added.items()}, **inversions.digests(encoder), **added}


def _check_finite(tensors: Mapping[str, Tensor]) -> None:
    """Raise ConfigError for numbers that are not finite: encoders give none, weights and narrow dtypes may."""
    for name, tensor in tensors.items():
        if tensor.is_floating_point() and not tensor.is_meta and not bool(torch.isfinite(tensor).all()):
            dtype = str(tensor.dtype).removeprefix("torch.")
            raise ConfigError(
                f"{name} would hold numbers that are not finite in {dtype}, which make black pictures; "
                "take smaller weights in the prompt, or a pipeline in float32"
            )


def _zeros(tensor: Tensor) -> Tensor:
    """Zeros for states and pooled vectors; a mask stays."""
    return tensor if tensor.dtype == torch.bool else torch.zeros_like(tensor)
