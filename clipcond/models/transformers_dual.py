"""Dual encoders of transformers: CLIP, MetaCLIP 2, SigLIP, ALIGN, AltCLIP, Chinese-CLIP, BLIP and CLIPSeg."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from clipcond.encode.image import ImageTower
from clipcond.encode.logits import LogitHead
from clipcond.encode.text_embedder import Forward, TextEmbedder
from clipcond.encode.text_layout import TextLayout
from clipcond.encode.tokenizers import ClipTokenizer, LibraryTokenizer, library_layout, siglip_clean
from clipcond.errors import ModelError
from clipcond.images.patches import HEADER_BITS, PatchPreprocess
from clipcond.images.preprocess import Preprocess
from clipcond.models.dual import DualEncoder, dual_from_transformers, logit_head, on_device_of, ready
from clipcond.models.spec import ModelSpec, Overrides
from clipcond.models.tokenizer_files import stated_class
from clipcond.models.transformers_model import LibraryModel, read_library_model, with_library
from clipcond.prompt.tokenizer import BOS, CONTEXT, EOS

_CONVOLUTIONS = ("align",)  # whose pictures may have any size


def load_transformers(spec: str, named: ModelSpec, where: str, device: str) -> DualEncoder:
    """Load a dual encoder from a folder or, by its id, from the hub or its cache. Raises ModelError."""
    return with_library(spec, where, lambda: _load(spec, named.overrides, where, device))


def _load(spec: str, overrides: Overrides, where: str, device: str) -> DualEncoder:
    loaded = read_library_model(spec, overrides, where, "dual")
    stated = {f"image_{name}": value for name, value in overrides.preprocess.items()}
    processor = {**loaded.processor, **stated}
    if loaded.family.model_type == "clip":
        return dual_from_transformers(spec, loaded.model, processor, device, loaded.notes)
    preprocess = picture_preprocess(spec, loaded, processor)
    texts = text_embedder(loaded)
    model = ready(spec, loaded.model, device)
    head, notes = _head(spec, model)
    return DualEncoder(
        name=spec,
        texts=texts,
        image=ImageTower(model, preprocess, _image_forward(model, preprocess), _picture_modules(model)),
        head=head,
        notes=(*loaded.notes, *notes),
    )


def picture_preprocess(spec: str, loaded: LibraryModel, processor: Any) -> Preprocess:
    """The preprocessing of a model's pictures. Raises ModelError where it makes others than the model reads."""
    if loaded.family.model_type == "siglip2":
        return PatchPreprocess.from_settings(processor, int(loaded.config.vision_config.patch_size))
    preprocess = Preprocess.from_processor(processor)
    own = getattr(loaded.config.vision_config, "image_size", None)
    if loaded.family.model_type not in _CONVOLUTIONS and own not in (None, preprocess.height):
        raise ModelError(
            f"{spec} reads pictures of {own}×{own}, but its image processor makes {preprocess.width}×{preprocess.height}"
        )
    return preprocess


def text_embedder(loaded: LibraryModel) -> TextEmbedder:
    """The embedder of a model's texts: its tokenizer, its length, and what it makes of padding. Raises ModelError."""
    habit = loaded.family.habit
    assert habit is not None, "every family with texts has its habit"
    if loaded.family.clip_tokens:
        return TextEmbedder(
            tokenizer=ClipTokenizer("transformers"),
            layout=TextLayout(length=CONTEXT, before=(BOS,), after=(EOS,), pad=0, padded="longest"),  # causal
            forward=_text_forward(loaded.model, masked=True),
            pooling=habit.pooling,
        )
    tokenizer = text_tokenizer(loaded)
    states_mask = "attention_mask" in tokenizer.tokenizer.model_input_names
    return TextEmbedder(
        tokenizer=tokenizer,
        layout=library_layout(tokenizer, text_length(loaded, tokenizer), masked=habit.masked),
        forward=_text_forward(loaded.model, masked=habit.masked or states_mask),
        pooling=habit.pooling,
    )


def text_tokenizer(loaded: LibraryModel) -> LibraryTokenizer:
    """The tokenizer of a model, with what SigLIP's own does to a text before."""
    siglip = stated_class(loaded.tokenizer).startswith("SiglipTokenizer")
    return LibraryTokenizer(loaded.tokenizer, clean=siglip_clean if siglip else str)


def text_length(loaded: LibraryModel, tokenizer: LibraryTokenizer) -> int:
    """The most positions of a text: those of the model, of its tokenizer and of its training, whichever is least."""
    habit, config = loaded.family.habit, loaded.config
    text = getattr(config, "qformer_config", None) or config.text_config
    assert habit is not None
    most = [int(text.max_position_embeddings) - habit.lost, int(tokenizer.tokenizer.model_max_length)]
    return min([*most, habit.length] if habit.length is not None else most)


def _text_forward(model: Any, *, masked: bool) -> Forward:
    if hasattr(model, "text_proj"):  # BlipForImageTextRetrieval

        def features(ids: Tensor, mask: Tensor) -> Any:
            return model.text_proj(model.text_encoder(input_ids=ids, attention_mask=mask).last_hidden_state[:, 0])

    else:

        def features(ids: Tensor, mask: Tensor) -> Any:
            return model.get_text_features(input_ids=ids, attention_mask=mask)

    def forward(ids: Tensor, mask: Tensor) -> Tensor:
        return _projected(features(*on_device_of(model, ids, mask if masked else torch.ones_like(mask))))

    return forward


def _image_forward(model: Any, preprocess: Preprocess) -> Callable[[Tensor], Tensor]:
    if isinstance(preprocess, PatchPreprocess):
        return lambda pixels: _projected(model.get_image_features(**patch_inputs(pixels, preprocess)))
    if hasattr(model, "vision_proj"):  # BlipForImageTextRetrieval
        return lambda pixels: model.vision_proj(model.vision_model(pixel_values=pixels).last_hidden_state[:, 0])
    return lambda pixels: _projected(model.get_image_features(pixel_values=pixels))


def _picture_modules(model: Any) -> list[nn.Module]:
    """The modules that pictures go through, and texts do not; none where the model keeps them under other names."""
    owner = getattr(model, "clip", model)  # CLIPSegForImageSegmentation
    names = ("vision_model", "visual_projection", "vision_proj")
    return [module for name in names if isinstance(module := getattr(owner, name, None), nn.Module)]


def patch_inputs(pixels: Tensor, preprocess: PatchPreprocess) -> dict[str, Tensor]:
    """The arguments of a NaFlex model's call, of (N, 3, H, W) normalised pixels of `PatchPreprocess`.

    pixel_values: (N, patches, 3 · patch²), 0 where there is none.   pixel_attention_mask: (N, patches).   spatial_shapes:
    (N, 2), rows and columns.
    """
    side, count = preprocess.patch, len(pixels)
    half = (0.5 - preprocess.mean[0]) / preprocess.std[0]
    bits = pixels[:, 0, :side].reshape(count, -1)[:, : 2 * HEADER_BITS].reshape(count, 2, HEADER_BITS) > half
    grid = (bits.long() << torch.arange(HEADER_BITS, device=bits.device)).sum(dim=2)
    mask = torch.arange(preprocess.most, device=grid.device) < grid.prod(dim=1, keepdim=True)
    patches = pixels[:, :, side:].reshape(count, 3, preprocess.most, side, side).permute(0, 2, 3, 4, 1).flatten(2)
    return {"pixel_values": patches * mask[..., None], "pixel_attention_mask": mask.long(), "spatial_shapes": grid}


def _projected(features: Any) -> Tensor:
    """The features of transformers 5, which come with the states of the last layer, or those of 4."""
    projected: Tensor = features if isinstance(features, Tensor) else features.pooler_output
    return projected


def _head(spec: str, model: Any) -> tuple[LogitHead, tuple[str, ...]]:
    if hasattr(model, "temperature"):  # ALIGN
        temperature = float(model.temperature)
        if not temperature > 0:
            raise ModelError(f"{spec} has a temperature of {temperature}; expected a number above 0")
        return LogitHead(scale=1 / temperature), ()
    if not hasattr(model, "logit_scale"):
        return LogitHead(scale=1.0), (f"{spec} comes without its temperature: its logits are plain cosines",)
    return logit_head(spec, model), ()
