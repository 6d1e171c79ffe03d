"""Texts that a detection model sees in a picture: boxes with a score and a text, or a map of probabilities.

OWL-ViT and OWLv2 judge every box by every text. Grounding DINO reads all texts in one sentence and judges every box by
every token of it. CLIPSeg says of every pixel how likely it belongs to a text. Florence-2 is asked for each text alone and
writes its boxes down; their score is the probability of what it wrote (`clipcond.models.florence.Answer`), the same for all
boxes of an answer.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from clipcond.errors import ConfigError, ModelError
from clipcond.models import florence
from clipcond.models.detection import Detector
from clipcond.wording import visible

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from PIL import Image

# scores below which a family's boxes are taken for nothing, as in its library's examples
LEAST: Mapping[str, float] = {
    "owlvit": 0.1,
    "owlv2": 0.1,
    "grounding-dino": 0.25,
    "mm-grounding-dino": 0.25,
    "clipseg": 0.4,
    florence.MODEL_TYPE: 0.0,  # its examples take every box that it wrote down
}


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class Sightings:
    """Q boxes of a picture, good and bad. boxes: (Q, 4) left, top, right, bottom in its pixels, within it.

    scores: (Q,) from 0 to 1, of the text that fits best.   texts: (Q,) its number.
    """

    boxes: NDArray[np.float32]
    scores: NDArray[np.float32]
    texts: NDArray[np.int64]


def check_texts(detector: Detector, texts: Sequence[str]) -> None:
    """Refuse texts beyond what a model reads, and a Florence-2 whose answers cannot be. Raises ModelError and ConfigError."""
    kind = detector.family.model_type
    if kind == florence.MODEL_TYPE:
        florence.check_finds(detector, texts)
        return
    tokenizer = detector.processor.tokenizer
    if kind.endswith("grounding-dino"):
        count, most = len(tokenizer(_sentence(texts))["input_ids"]), int(detector.model.config.max_text_len)
        if count > most:
            raise ConfigError(
                f"the labels together have {count} tokens, of which {detector.name} reads {most}; give fewer"
            )
        return
    most = int(detector.model.config.text_config.max_position_embeddings)
    for text in texts:
        if (count := len(tokenizer(text)["input_ids"])) > most:
            raise ConfigError(
                f"the label {visible(text)!r} has {count} tokens, of which {detector.name} reads {most}; shorten it"
            )


@torch.inference_mode()
def sightings(detector: Detector, image: Image.Image, texts: Sequence[str]) -> Sightings:
    """Look for texts in a picture in RGB, with all but CLIPSeg. Raises ModelError for values that are not finite."""
    if detector.family.model_type == florence.MODEL_TYPE:
        return _written(detector, image, texts)
    if detector.family.model_type.endswith("grounding-dino"):
        boxes, scores, best = _grounded(detector, image, texts)
    else:
        boxes, scores, best = _by_text(detector, image, texts)
    _check_finite(detector, boxes, scores)
    width, height = image.size
    side = (
        max(width, height) if detector.family.model_type == "owlv2" else None
    )  # it sees a square, grey below or right
    corners = torch.cat([boxes[:, :2] - boxes[:, 2:] / 2, boxes[:, :2] + boxes[:, 2:] / 2], dim=1)
    pixels = corners * corners.new_tensor([side or width, side or height] * 2)
    within = pixels.clamp(min=0).minimum(pixels.new_tensor([width, height] * 2))
    return Sightings(boxes=within.cpu().numpy(), scores=scores.cpu().numpy(), texts=best.cpu().numpy())


@torch.inference_mode()
def segments(detector: Detector, image: Image.Image, texts: Sequence[str]) -> NDArray[np.float32]:
    """(M, h, w) float32 probabilities that places of a picture, in RGB, belong to each text. For CLIPSeg."""
    logits = _run(detector, text=list(texts), images=[image] * len(texts), padding=True).logits.float()
    _check_finite(detector, logits)
    probabilities: NDArray[np.float32] = logits.reshape(len(texts), *logits.shape[-2:]).sigmoid().cpu().numpy()
    return probabilities


def _written(detector: Detector, image: Image.Image, texts: Sequence[str]) -> Sightings:
    found = [florence.places(detector, image, text) for text in texts]
    counts = torch.tensor([len(boxes) for boxes, _ in found])
    scores = torch.tensor([probability for _, probability in found])
    return Sightings(
        boxes=torch.cat([boxes for boxes, _ in found]).numpy(),
        scores=scores.repeat_interleave(counts).numpy(),
        texts=torch.arange(len(texts)).repeat_interleave(counts).numpy(),
    )


def _by_text(detector: Detector, image: Image.Image, texts: Sequence[str]) -> tuple[Tensor, Tensor, Tensor]:
    length = {"padding": "max_length", "max_length": detector.model.config.text_config.max_position_embeddings}
    found = _run(detector, text=[list(texts)], images=image, **length)
    best = found.logits[0].float().max(dim=-1)
    return found.pred_boxes[0].float(), best.values.sigmoid(), best.indices


def _grounded(detector: Detector, image: Image.Image, texts: Sequence[str]) -> tuple[Tensor, Tensor, Tensor]:
    """A text's score is the best of its tokens'; those of the stops between texts are nobody's."""
    sentence = _sentence(texts)
    found = _run(detector, text=sentence, images=image)
    logits = found.logits[0].float()
    owners = _owners(detector.processor.tokenizer, sentence, texts)
    of_texts = [
        logits[:, [place for place, owner in enumerate(owners) if owner == number]] for number in range(len(texts))
    ]
    scores = torch.stack([each.amax(dim=-1) for each in of_texts], dim=-1).max(dim=-1)
    return found.pred_boxes[0].float(), scores.values.sigmoid(), scores.indices


def _sentence(texts: Sequence[str]) -> str:
    """The texts as Grounding DINO was trained to read them: small letters, each with a stop."""
    return " ".join(f"{_clause(text)}." for text in texts)


def _clause(text: str) -> str:
    return text.lower().replace(".", " ").strip()


def _owners(tokenizer: Any, sentence: str, texts: Sequence[str]) -> list[int | None]:
    """For each token of the sentence the number of the text that it belongs to. Raises ConfigError for a text without one."""
    ends = np.cumsum([len(_clause(text)) + 2 for text in texts]).tolist()
    starts = [0, *ends[:-1]]
    owners: list[int | None] = []
    for start, end in tokenizer(sentence, return_offsets_mapping=True)["offset_mapping"]:
        within = (n for n, text in enumerate(texts) if starts[n] <= start < end <= starts[n] + len(_clause(text)))
        owners.append(next(within, None))
    for number, text in enumerate(texts):
        if number not in owners:
            raise ConfigError(f"the label {visible(text)!r} has no word that the model reads")
    return owners


def _run(detector: Detector, **given: Any) -> Any:
    """Run the model on some texts and pictures."""
    with detector.exact():
        return detector.model(**detector.inputs(**given))


def _check_finite(detector: Detector, *tensors: Tensor) -> None:
    if not all(bool(torch.isfinite(tensor).all()) for tensor in tensors):
        raise ModelError(f"{detector.name} gave values that are not finite; its weights are damaged, load another copy")
