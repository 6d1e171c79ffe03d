"""Image-text matching: BLIP and BLIP-2 read a picture and a text together, and say how likely they belong together.

A dual encoder compares vectors, which can be kept; a matching model has to read every pair, which is dearer and finer. It
is for the best few of a ranking.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.nn.functional import normalize

from clipcond.encode.image import Normalisation
from clipcond.encode.shapes import check_finite
from clipcond.encode.text_layout import TextLayout
from clipcond.encode.tokenizers import LibraryTokenizer, library_layout
from clipcond.errors import ConfigError
from clipcond.images.preprocess import Preprocess
from clipcond.models.checks import one_line_errors
from clipcond.models.dual import ready
from clipcond.models.spec import ModelSpec, parse_spec
from clipcond.models.transformers_dual import picture_preprocess, text_length, text_tokenizer
from clipcond.models.transformers_model import library_place, read_library_model, with_library
from clipcond.runtime.devices import device_of, exact_convolutions


class _Reader(Protocol):
    """A matching model's own arithmetic. states: (B, S, D) of pictures; ids, mask: (B, L) of texts."""

    def states(self, pixels: Tensor) -> Tensor:
        """(B, 3, H, W) normalised pixels → (B, S, D)."""

    def pair_logits(self, states: Tensor, ids: Tensor, mask: Tensor) -> Tensor:
        """(B, 2): against and for."""

    def picture_vectors(self, states: Tensor) -> Tensor:
        """(B, Q, P): Q vectors a picture."""

    def text_vectors(self, ids: Tensor, mask: Tensor) -> Tensor:
        """(B, P)."""


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class Matcher:
    """A matching model. Texts beyond its length are cut: `beyond` says what of one is."""

    name: str
    model: Any
    preprocess: Preprocess
    tokenizer: LibraryTokenizer
    layout: TextLayout
    reader: _Reader
    notes: tuple[str, ...] = ()

    @classmethod
    def load(cls, spec: str, *, device: str | None = None) -> Matcher:
        """Load `hf:ID` or a folder, on `device` or else on the GPU where there is one. Raises ModelError."""
        return load_matcher(spec, device=str(device_of(device)))

    def beyond(self, text: str) -> str:
        """The part of a text that the model does not read; empty where all of it fits."""
        return self.tokenizer.beyond(text, self.layout.content)

    def match(self, images: Sequence[Image.Image], texts: Sequence[str], batch_size: int = 32) -> Tensor:
        """(N, M) float32 probabilities on the CPU that each of N pictures and each of M texts belong together.

        Raises ConfigError for none of either and a batch size below 1, ModelError for values that are not finite.
        """
        return self.match_logits(images, texts, batch_size).softmax(dim=-1)[..., 1]

    @torch.inference_mode()
    def match_logits(self, images: Sequence[Image.Image], texts: Sequence[str], batch_size: int = 32) -> Tensor:
        """(N, M, 2) float32: against and for, as the matching head gives them. Raises what `match` does."""
        ids, mask = self._rows(texts)
        found = torch.empty(len(images), len(texts), 2)
        for at, states in self._states(images, batch_size):
            pairs = torch.cartesian_prod(torch.arange(len(states)), torch.arange(len(ids)))
            for picture, text in (some.T for some in torch.split(pairs, batch_size)):
                own, said = picture.to(ids.device), text.to(ids.device)
                logits = self.reader.pair_logits(states[own], ids[said], mask[said])
                found[picture + at, text] = logits.float().cpu()
        check_finite("matching", found)
        return found

    @torch.inference_mode()
    def contrast(self, images: Sequence[Image.Image], texts: Sequence[str], batch_size: int = 32) -> Tensor:
        """(N, M) float32 cosines by the contrastive heads: of BLIP-2's vectors of a picture the one nearest to the text.

        Raises what `match` does.
        """
        ids, mask = self._rows(texts)
        parts = [
            self.reader.text_vectors(ids[at : at + batch_size], mask[at : at + batch_size])
            for at in range(0, len(ids), batch_size)
        ]
        vectors = normalize(torch.cat(parts).float(), dim=-1)
        found = torch.empty(len(images), len(texts))
        for at, states in self._states(images, batch_size):
            seen = normalize(self.reader.picture_vectors(states).float(), dim=-1)
            found[at : at + len(states)] = (seen @ vectors.T).amax(dim=1).cpu()
        check_finite("matching", found)
        return found

    def _rows(self, texts: Sequence[str]) -> tuple[Tensor, Tensor]:
        if not texts:
            raise ConfigError("no texts to match; expected one or more")
        ids, mask = self.layout.rows([self.layout.chunks(ids)[0] for ids in self.tokenizer.ids(texts)])
        device = next(self.model.parameters()).device
        return torch.tensor(ids, device=device), torch.tensor(mask, device=device)

    def _states(self, images: Sequence[Image.Image], batch_size: int) -> Iterator[tuple[int, Tensor]]:
        if not images:
            raise ConfigError("no pictures to match; expected one or more")
        if batch_size < 1:
            raise ConfigError(f"batch_size is {batch_size}; expected 1 or more")
        normalisation, weight = Normalisation(self.preprocess), next(self.model.parameters())
        for at in range(0, len(images), batch_size):
            pixels = np.stack([self.preprocess.pixels(image) for image in images[at : at + batch_size]])
            with exact_convolutions(weight.device, weight.dtype):
                states = self.reader.states(normalisation(pixels, weight.device).to(weight.dtype))
            yield at, states


def load_matcher(spec: str, *, device: str = "cpu") -> Matcher:
    """Load the matching model that `spec` names, in float32, every weight in place: `hf:ID`, `hf:FOLDER` or a folder.

    Raises ModelError if there is no such model, it or its tokenizer cannot be read, or it is none that matches.
    """
    spec = spec.strip()
    with one_line_errors(spec):
        named = parse_spec(spec)
        where = library_place(spec, named, "a matching model (BLIP, BLIP-2)")
        return with_library(spec, where, lambda: _load(spec, named, where, device))


def _load(spec: str, named: ModelSpec, where: str, device: str) -> Matcher:
    loaded = read_library_model(spec, named.overrides, where, "matching")
    stated = {f"image_{name}": value for name, value in named.overrides.preprocess.items()}
    preprocess = picture_preprocess(spec, loaded, {**loaded.processor, **stated})
    tokenizer = text_tokenizer(loaded)
    model = ready(spec, loaded.model, device)
    return Matcher(
        name=spec,
        model=model,
        preprocess=preprocess,
        tokenizer=tokenizer,
        layout=library_layout(tokenizer, text_length(loaded, tokenizer), masked=True),
        reader=_Blip2(model) if hasattr(model, "qformer") else _Blip(model),
        notes=loaded.notes,
    )


class _Blip:
    """transformers' BlipForImageTextRetrieval."""

    def __init__(self, model: Any) -> None:
        self._model = model

    def states(self, pixels: Tensor) -> Tensor:
        states: Tensor = self._model.vision_model(pixel_values=pixels).last_hidden_state
        return states

    def pair_logits(self, states: Tensor, ids: Tensor, mask: Tensor) -> Tensor:
        read = self._model.text_encoder(
            input_ids=ids,
            attention_mask=mask,
            encoder_hidden_states=states,
            encoder_attention_mask=torch.ones(states.shape[:-1], dtype=torch.long, device=states.device),
        )
        logits: Tensor = self._model.itm_head(read.last_hidden_state[:, 0])
        return logits

    def picture_vectors(self, states: Tensor) -> Tensor:
        vectors: Tensor = self._model.vision_proj(states[:, :1])
        return vectors

    def text_vectors(self, ids: Tensor, mask: Tensor) -> Tensor:
        read = self._model.text_encoder(input_ids=ids, attention_mask=mask)
        vectors: Tensor = self._model.text_proj(read.last_hidden_state[:, 0])
        return vectors


class _Blip2:
    """transformers' Blip2ForImageTextRetrieval: learned queries read the picture, alone or beside the text."""

    def __init__(self, model: Any) -> None:
        self._model = model

    def states(self, pixels: Tensor) -> Tensor:
        states: Tensor = self._model.vision_model(pixel_values=pixels).last_hidden_state
        return states

    def pair_logits(self, states: Tensor, ids: Tensor, mask: Tensor) -> Tensor:
        queries = self._model.query_tokens.expand(len(states), -1, -1)
        read = self._model.qformer(
            query_embeds=self._model.embeddings(input_ids=ids, query_embeds=queries),
            query_length=queries.shape[1],
            attention_mask=torch.cat([mask.new_ones(queries.shape[:-1]), mask], dim=1),
            **self._cross(states),
        )
        logits: Tensor = self._model.itm_head(read.last_hidden_state[:, : queries.shape[1]])
        return logits.mean(dim=1)

    def picture_vectors(self, states: Tensor) -> Tensor:
        queries = self._model.query_tokens.expand(len(states), -1, -1)
        read = self._model.qformer(query_embeds=queries, **self._cross(states))
        vectors: Tensor = self._model.vision_projection(read.last_hidden_state)
        return vectors

    def text_vectors(self, ids: Tensor, mask: Tensor) -> Tensor:
        read = self._model.qformer(
            query_embeds=self._model.embeddings(input_ids=ids), query_length=0, attention_mask=mask
        )
        vectors: Tensor = self._model.text_projection(read.last_hidden_state[:, 0])
        return vectors

    def _cross(self, states: Tensor) -> dict[str, Tensor]:
        mask = torch.ones(states.shape[:-1], dtype=torch.long, device=states.device)
        return {"encoder_hidden_states": states, "encoder_attention_mask": mask}
