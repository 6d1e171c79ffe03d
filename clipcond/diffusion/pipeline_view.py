"""A view of a loaded pipeline: its family, its text encoders with their tokenizers, and the arguments of its call."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch

from clipcond.condition.encoder_input import empty_row
from clipcond.condition.families import LAYOUTS, T5, FamilyLayout
from clipcond.diffusion.pipeline_shapes import SHAPES, SUPPORTED, Shape, Slot, lacking, shape_of
from clipcond.encode.rows import TokenSequence
from clipcond.encode.t5 import T5Tower
from clipcond.encode.text import TextTower
from clipcond.encode.tower import Tower
from clipcond.errors import ConfigError, ModelError
from clipcond.models.checks import check_finite_weights
from clipcond.prompt.chunking import COMMA
from clipcond.prompt.families import FAMILIES, Encoder, Frame, clip_frame, t5_frame
from clipcond.prompt.language import LanguageTokenizer, from_backend
from clipcond.prompt.layout import EmbeddingToken
from clipcond.prompt.plan import EncoderPlan
from clipcond.prompt.t5 import T5Tokenizer
from clipcond.prompt.tokenizer import BOS, CONTENT, CONTEXT, EOS, VOCABULARY

MOST_T5, MOST_LANGUAGE = 512, 4096  # positions that the pipelines allow
_CLIP = ("CLIPTextModel", "CLIPTextModelWithProjection")
_T5 = ("T5EncoderModel",)
_SPECIAL = CONTEXT - CONTENT  # tokens of a CLIP chunk besides its content


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class PipelineEncoder:
    """One text encoder of a pipeline.

    slot: its place in the pipeline.   positions: of one chunk of a CLIP, special tokens included.   pads_apart: see
    `clipcond.prompt.families.Encoder`.   masks_padding: nothing attends to the padding of its rows.
    """

    name: str
    slot: Slot
    module: Any
    tokenizer: Any
    tower: Tower
    pad_id: int
    positions: int = CONTEXT
    pads_apart: bool = False
    masks_padding: bool = False
    t5: T5Tokenizer | None = None

    @property
    def comma(self) -> int:
        """The id of `,` in the encoder's vocabulary."""
        return COMMA if self.t5 is None else self.t5.rows(",")[-1][0]

    def check(self, plan: EncoderPlan) -> None:
        """Raise ModelError for a token that the tokenizer holds and the encoder has no row for, or none of finite numbers."""
        added, rows = self.added(), int(self.module.get_input_embeddings().num_embeddings)
        for name in dict.fromkeys(t.piece for c in plan.chunks for t in c.tokens if isinstance(t, EmbeddingToken)):
            if name in added and max(added[name]) >= rows:
                raise ModelError(
                    f"the prompt holds {name}, a textual-inversion token of the pipeline's {self.slot.tokenizer}, but its "
                    f"{self.slot.module} has {rows} rows and none for it; load it with pipe.load_textual_inversion"
                )
            if name in added and not self._finite_rows(added[name]):
                raise ModelError(
                    f"the prompt holds {name}, whose vectors in {self.slot.module} have a number that is not finite "
                    "(NaN or infinity); load another copy of the textual inversion"
                )

    @property
    def dtype(self) -> torch.dtype:
        """The dtype that the module computes in: not that of weights which layer-wise casting stores in 8 bits."""
        dtype: torch.dtype = self.module.dtype
        if dtype.itemsize > 1:
            return dtype
        hooks = (getattr(each, "_diffusers_hook", None) for each in self.module.modules())
        casts = (each.get_hook("layerwise_casting") for each in hooks if each is not None)
        computed = (each.compute_dtype for each in casts if each is not None)
        stored = (
            each.dtype for each in self.module.parameters() if each.is_floating_point() and each.dtype.itemsize > 1
        )
        return next(computed, None) or next(stored, torch.float32)

    def _finite_rows(self, ids: Sequence[int]) -> bool:
        """True for weights that are elsewhere at the moment, too."""
        table = self.module.get_input_embeddings().weight
        return bool(table.is_meta or torch.isfinite(table.detach()[list(ids)].float()).all())

    def check_finite(self, pipeline: str) -> None:
        """Raise ModelError, naming the tensor, for a weight or an adapter with a number that is not finite."""
        check_finite_weights(f"{self.slot.module} of {pipeline}", self.module)

    def frame(self, length: int) -> Frame:
        """The frame of a row of so many positions."""
        return clip_frame(length - _SPECIAL) if self.t5 is None else t5_frame(0, length - 1)

    def empty_row(self, length: int) -> TokenSequence:
        """The empty prompt's row of a length."""
        return empty_row(self.pad_id, frame=self.frame(length), length=length, mask_padding=self.masks_padding)

    def added(self) -> dict[str, tuple[int, ...]]:
        """The textual inversions that the tokenizer holds: their names and the ids of their vectors, in order.

        diffusers names the vectors `name`, `name_1`, …; each of these names alone is its one vector, and all of them in a
        row, as `maybe_convert_prompt` writes them, are the inversion once.
        """
        ids = {token: at for token, at in self.tokenizer.get_added_vocab().items() if at >= VOCABULARY}
        found: dict[str, tuple[int, ...]] = {}
        for token in ids:
            names = [token]
            while (following := f"{token}_{len(names)}") in ids:
                names.append(following)
            found[token] = tuple(ids[name] for name in names)
            if len(names) > 1:
                found[" ".join(names)] = found[token]
        return found


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class PipelineView:
    """The parts of a pipeline that conditioning uses.

    call: the arguments of its call and their defaults; of a modular pipeline what its blocks take and hand on.
    """

    pipe: Any
    shape: Shape
    call: Mapping[str, object]
    encoders: Mapping[str, PipelineEncoder]  # those that are there, in the order of the pipeline
    language_tokenizer: LanguageTokenizer | None = None  # of the language model; None, too, for one without offsets

    @property
    def name(self) -> str:
        """The class of the pipeline, for messages."""
        return type(self.pipe).__name__

    @property
    def family(self) -> str:
        """The family, by its name in `clipcond.prompt.families`."""
        return self.shape.family

    @property
    def layout(self) -> FamilyLayout:
        """The parts that the conditioning is made of."""
        return LAYOUTS[self.shape.layout]

    @property
    def modular(self) -> bool:
        """True for a pipeline of Modular Diffusers, whose guider runs each side of guidance by itself."""
        return hasattr(type(self.pipe), "blocks")  # the pipeline's own are copied whenever they are asked for

    @property
    def takes(self) -> frozenset[str]:
        """The names, ours, of the tensors that the pipeline's call takes, and those of all its other arguments."""
        given = frozenset(self.call)
        return given | {ours for ours, theirs in self.shape.arguments.items() if theirs in given}

    @property
    def arguments(self) -> dict[str, str]:
        """The suffix of the prompt argument that each encoder reads: `_2` of `prompt_2`; a refiner reads `prompt`."""
        own = {name: slot.suffix for name, slot in self.shape.slots.items()}
        return own if self.language is None else {**own, self.language.name: self.shape.language_slot.suffix}

    @property
    def device(self) -> torch.device:
        """The device that the pipeline computes on, whatever is offloaded at the moment."""
        device = getattr(self.pipe, "_execution_device", None)
        if device is None or torch.device(device).type == "meta":  # only some parts are offloaded
            return next(iter(self.encoders.values())).tower.device
        return torch.device(device)

    @property
    def dtype(self) -> torch.dtype | None:
        """The dtype that the pipeline casts CLIP's states to: its first encoder's, in SDXL the second one's."""
        if not self.layout.concat_width:
            return None
        which = "clip_g" if self.family == "sdxl" else self.layout.concat_width[0]
        return self.encoders[which].dtype

    @property
    def width(self) -> int | None:
        """The width that SD3's CLIP states are filled up to, None elsewhere."""
        return int(self.pipe.transformer.config.joint_attention_dim) if self.family == "sd3" else None

    @property
    def force_zeros(self) -> bool:
        """True if no negative prompt means zeros, and not the encoded empty one."""
        return self.family == "sdxl" and bool(getattr(self.pipe.config, "force_zeros_for_empty_prompt", False))

    def max_sequence_length(self, value: int | None) -> int:
        """The positions of a T5 row, in HiDream of CLIP's too: the value, or for None the default of the pipeline's call.

        Raises ConfigError outside of 1 to 512 (a language model without T5: 4096), and for a family with neither.
        """
        language = self.language
        if language is None and T5 not in self.layout.encoders:
            if value is not None:
                raise ConfigError(f"max_sequence_length is {value}, but {self.name} has no T5; leave it out")
            return 0
        own = FAMILIES[self.family][T5].limit + 1 if language is None else language.limit
        length = (self._default_length or own) if value is None else value
        most = MOST_T5 if T5 in self.layout.encoders else MOST_LANGUAGE
        least = _SPECIAL + 1 if self.shape.longest else 1
        if not least <= length <= most:
            raise ConfigError(f"max_sequence_length is {length}, expected {least} to {most}, as the pipelines have it")
        return length

    @property
    def _default_length(self) -> int | None:
        default = self.call.get("max_sequence_length")
        return default if isinstance(default, int) else None

    @property
    def language(self) -> Encoder | None:
        """The language model that the pipeline asks itself, None where there is none."""
        return next((each for each in FAMILIES[self.family].values() if each.kind == "language"), None)

    def plan_encoders(self, max_sequence_length: int) -> dict[str, Encoder]:
        """The encoders in the form that a plan is made for, in the order of the pipeline."""
        planned = {
            name: replace(
                FAMILIES[self.family][name],
                limit=self._limit(encoder, max_sequence_length),
                pad_id=encoder.pad_id,
                pads_apart=encoder.pads_apart,
            )
            for name, encoder in self.encoders.items()
        }
        if (language := self.language) is not None:
            limit = language.limit + max_sequence_length - (self._default_length or max_sequence_length)
            planned[language.name] = replace(language, limit=limit)
        return {name: planned[name] for name in FAMILIES[self.family] if name in planned}

    def _limit(self, encoder: PipelineEncoder, max_sequence_length: int) -> int:
        """The content tokens that the pipeline gives an encoder."""
        if encoder.t5 is not None:
            return max_sequence_length - 1
        follows = bool(self.shape.longest)
        return (min(encoder.positions, max_sequence_length) if follows else encoder.positions) - _SPECIAL


def _language_tokenizer(name: str, parts: Mapping[str, Any], slot: Slot) -> LanguageTokenizer | None:
    """The tokenizer of a language model, None for one without offsets. Raises ModelError where model or tokenizer is missing."""
    for part in (slot.tokenizer, slot.module):
        if parts.get(part) is None:
            raise ModelError(f"{name} has no {part}, which reads the prompt too; load it with that")
    tokenizer = parts[slot.tokenizer]
    backend = getattr(getattr(tokenizer, "tokenizer", tokenizer), "backend_tokenizer", None)  # or in a processor
    return None if backend is None else from_backend(backend)


def _call_of(pipe: Any) -> Mapping[str, object]:
    """The arguments of a pipeline's call and their defaults."""
    blocks = getattr(pipe, "blocks", None)
    if blocks is None or not hasattr(blocks, "intermediate_outputs"):
        return _arguments(type(pipe).__call__)
    given = {each.name: each.default for each in blocks.inputs if each.name is not None}
    return {each.name: None for each in blocks.intermediate_outputs} | given


@lru_cache(maxsize=32)
def _arguments(call: Callable[..., object]) -> Mapping[str, object]:
    """The arguments of the call of a class of pipelines and their defaults."""
    return {name: each.default for name, each in inspect.signature(call).parameters.items()}


def bare(token: str) -> str:
    """The name of a textual inversion without the brackets that diffusers' names usually have."""
    return token[1:-1] if len(token) > 2 and token[0] == "<" and token[-1] == ">" else token


def view_pipeline(pipe: Any) -> PipelineView:
    """View a diffusers pipeline. Raises ModelError, naming its class and what it lacks, for one that is not supported."""
    name = type(pipe).__name__
    if isinstance(pipe, (str, Path)):
        raise ModelError(
            f"{str(pipe)!r} is the name of a pipeline; load it first: clipcond.load_pipeline({str(pipe)!r})"
        )
    parts = getattr(pipe, "components", {})
    call = _call_of(pipe)
    shape_name = shape_of(name, parts, call)
    shape = SHAPES[shape_name]
    encoders = {}
    for encoder, slot in shape.slots.items():
        if encoder not in shape.optional or parts.get(slot.module) is not None:
            encoders[encoder] = _encoder(name, parts, encoder, slot, shape)
    if shape_name == "sd15" and encoders["clip_l"].pad_id == 0:  # the tokenizer tells OpenCLIP's tower from OpenAI's
        shape, encoders = SHAPES["sd2"], {"clip_h": replace(encoders["clip_l"], name="clip_h")}
    tokenizer = _language_tokenizer(name, parts, shape.language_slot) if shape.language else None
    view = PipelineView(pipe=pipe, shape=shape, call=call, encoders=encoders, language_tokenizer=tokenizer)
    _check_positions(name, encoders, view.layout)
    if shape_name == "refiner":
        _check_refiner(name, parts, encoders["clip_g"])
    if missing := lacking(shape, view.takes):
        raise ModelError(f"{name} takes no {missing}; {SUPPORTED}")
    return view


def _check_refiner(name: str, parts: Mapping[str, Any], encoder: PipelineEncoder) -> None:
    """Raise ModelError for a base model that was loaded without its first encoder, which looks like a refiner."""
    wanted = getattr(parts["unet"].config, "cross_attention_dim", None)
    if isinstance(wanted, int) and wanted != encoder.tower.width:
        raise ModelError(
            f"{name} has no text_encoder, and its U-Net reads states of width {wanted} where text_encoder_2 gives "
            f"{encoder.tower.width}; load it with both encoders"
        )


def _encoder(name: str, parts: Mapping[str, Any], encoder: str, slot: Slot, shape: Shape) -> PipelineEncoder:
    """View one encoder of a pipeline. Raises ModelError for one that is not supported."""
    module, tokenizer = parts.get(slot.module), parts.get(slot.tokenizer)
    for part, found in ((slot.tokenizer, tokenizer), (slot.module, module)):
        if found is None:
            raise ModelError(f"{name} has no {part}; {SUPPORTED}")
    kind = type(getattr(module, "_orig_mod", module)).__name__  # a compiled module wraps its own
    if kind not in (_T5 if encoder == T5 else _CLIP):
        raise ModelError(f"{name} has a text encoder of class {kind} as {slot.module}; {SUPPORTED}")
    masks_padding = encoder in LAYOUTS[shape.layout].masks_padding
    if encoder == T5:
        return replace(_t5(name, slot, module, tokenizer), masks_padding=masks_padding)
    if getattr(module.config, "use_attention_mask", False):  # type: ignore[union-attr]
        raise ModelError(f"{name} has a text encoder that masks its padding (use_attention_mask); {SUPPORTED}")
    tower = TextTower.from_transformers(module)  # type: ignore[arg-type]
    _check_vocabulary(name, tokenizer, tower)
    return PipelineEncoder(
        name=encoder,
        slot=slot,
        module=module,
        tokenizer=tokenizer,
        tower=tower,
        pad_id=tokenizer.pad_token_id,  # type: ignore[union-attr]
        positions=_positions(name, slot, shape.longest or int(tokenizer.model_max_length), tower),  # type: ignore[union-attr]
        pads_apart=0 in tokenizer("a!").input_ids,  # type: ignore[misc]
        masks_padding=masks_padding,
    )


def _t5(name: str, slot: Slot, module: Any, tokenizer: Any) -> PipelineEncoder:
    backend = getattr(tokenizer, "backend_tokenizer", None)
    if backend is None:
        raise ModelError(f"{name} has a slow {slot.tokenizer} of class {type(tokenizer).__name__}; load the fast one")
    try:
        read = T5Tokenizer.from_backend(backend)
    except ConfigError as error:
        raise ModelError(f"{name} has a {slot.tokenizer} that is not T5's: {error}") from error
    tower = T5Tower.from_transformers(module)
    return PipelineEncoder(
        name=T5,
        slot=slot,
        module=module,
        tokenizer=tokenizer,
        tower=tower,
        pad_id=tokenizer.pad_token_id,
        t5=read,
    )


def _check_vocabulary(name: str, tokenizer: Any, tower: TextTower) -> None:
    """Raise ModelError unless ids mean to this pipeline what they mean to clipcond."""
    sample = list(tokenizer("a cat").input_ids)
    if tokenizer.vocab_size != VOCABULARY or sample != [BOS, 320, 2368, EOS] or tower.vocabulary < VOCABULARY:
        raise ModelError(
            f"{name} has a tokenizer of {tokenizer.vocab_size} entries over an encoder of {tower.vocabulary}, "
            f"expected CLIP's vocabulary of {VOCABULARY}; {SUPPORTED}"
        )


def _positions(name: str, slot: Slot, filled: int, tower: TextTower) -> int:
    """The positions of one chunk: as many as the pipeline fills a prompt up to, and its encoder has.

    Raises ModelError for none that would hold a word.
    """
    found = min(filled, tower.context)
    if found <= _SPECIAL:
        raise ModelError(f"{name} has a {slot.module} of {found} positions, expected {_SPECIAL + 1} or more")
    return found


def _check_positions(name: str, encoders: Mapping[str, PipelineEncoder], layout: FamilyLayout) -> None:
    """Raise ModelError for encoders whose states cannot stand beside one another, since they differ in length."""
    found = {each: encoders[each] for each in layout.concat_width}
    if len({each.positions for each in found.values()}) > 1:
        lengths = " and ".join(f"{each.positions} in {each.slot.module}" for each in found.values())
        raise ModelError(f"{name} has chunks of {lengths}, expected one length; load encoders of one")
