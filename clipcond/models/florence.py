"""Florence-2: answers that a model writes to a command about a picture, places in it among the words as tokens.

Commands and answers are those of transformers' Florence2Processor. A place is one of 1000 bins across or down.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from PIL import Image
from torch import Tensor

from clipcond.errors import ConfigError, ModelError
from clipcond.models.detection import Detector
from clipcond.runtime.quiet import quiet_calls
from clipcond.wording import first_line, visible

MODEL_TYPE = "florence2"
CAPTIONS: Mapping[str, str] = {
    "short": "<CAPTION>",
    "detailed": "<DETAILED_CAPTION>",
    "more-detailed": "<MORE_DETAILED_CAPTION>",
}
_FIND = (
    "<OPEN_VOCABULARY_DETECTION>"  # phrase grounding cuts a text into phrases and drops those that it thinks too vague
)
_BEAMS, _LONGEST = 3, 1024  # as in the model's own examples
_READABLE = "post_process_generation"


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """An answer without its start, end and padding, which the probability leaves out as well.

    probability: the exponential of the mean log-probability of its tokens, each given those before it; 0 of an empty one.
    whole: it ended by itself, not at the model's last position.
    """

    text: str
    probability: float
    whole: bool


def check_command(detector: Detector, command: str, texts: Sequence[str] = ("",)) -> None:
    """Refuse a processor that does not read the answers to a command, and texts that the model does not read whole.

    Raises ModelError and ConfigError.
    """
    processor, name = detector.processor, detector.name
    if not hasattr(processor, _READABLE):
        raise ModelError(f"{name} has a {type(processor).__name__}; expected the Florence2Processor of its model")
    kind = processor.tasks_answer_post_processing_type[command]
    if kind not in (processor.post_processor_config or {}):
        raise ModelError(
            f"{name} has no post_processor_config for {kind}, so its answers cannot be read; copy processor_config.json "
            "from the model that it was made from"
        )
    sizes = detector.model.config.text_config
    if len(processor.tokenizer) > sizes.vocab_size:
        raise ModelError(
            f"the tokenizer of {name} has {len(processor.tokenizer)} tokens, its model {sizes.vocab_size}; "
            "copy the processor from the model that it was made from"
        )
    for text in texts:
        if "<" in text:
            raise ConfigError(
                f"the label {visible(text)!r} has a '<', with which Florence-2's commands begin; say it in words"
            )
        count = len(processor(text=command + text)["input_ids"][0]) + 2  # start and end, which come with a picture
        most = sizes.max_position_embeddings - processor.num_image_tokens
        if count > most:
            raise ConfigError(
                f"the label {visible(text)!r} has {count} tokens with the command, of which {name} reads {most}; shorten it"
            )


def check_finds(detector: Detector, texts: Sequence[str]) -> None:
    """Refuse what `places` cannot be asked with. Raises ModelError and ConfigError."""
    check_command(detector, _FIND, texts)
    if getattr(detector.processor.image_processor, "do_center_crop", False):
        raise ModelError(
            f"{detector.name} crops its pictures, so its places are not the picture's; "
            "set do_center_crop to false in preprocessor_config.json"
        )


def places(detector: Detector, image: Image.Image, text: str) -> tuple[Tensor, float]:
    """Ask where a text is in a picture in RGB. Returns (n, 4) float32 corners in its pixels and the answer's probability.

    Of an outline the box around it; a box whose corners are the wrong way round is left out. An answer without a place, an
    empty one above all, has none. Raises ModelError.
    """
    answer = answer_to(detector, image, _FIND + text)
    found = _read(detector, answer, _FIND, image.size)
    boxes = [*found["bboxes"], *(_around(shape) for shape in found["polygons"])]
    corners = torch.tensor(boxes, dtype=torch.float32).reshape(-1, 4)
    return corners[(corners[:, 2:] >= corners[:, :2]).all(dim=1)], answer.probability


def caption(detector: Detector, image: Image.Image, style: str) -> Answer:
    """Describe a picture in RGB. style: of `CAPTIONS`. Raises ModelError."""
    command = CAPTIONS[style]
    answer = answer_to(detector, image, command)
    text = _read(detector, answer, command, image.size)
    return Answer(text=text, probability=answer.probability, whole=answer.whole)


@torch.inference_mode()
def answer_to(detector: Detector, image: Image.Image, command: str) -> Answer:
    """Have the model write its answer: the best of three beams, no token drawn. Raises ModelError where it cannot."""
    config = detector.model.config.text_config
    most = min(_LONGEST, config.max_position_embeddings) - 1
    try:
        with quiet_calls(), detector.exact():
            written = detector.model.generate(
                **detector.inputs(text=command, images=image),
                num_beams=_BEAMS, num_return_sequences=1, do_sample=False, max_new_tokens=most,
                return_dict_in_generate=True, output_logits=True,
            )  # fmt: skip
            steps = detector.model.compute_transition_scores(
                written.sequences, written.logits, written.beam_indices, normalize_logits=True
            )[0]
    except Exception as error:  # the library raises many kinds; a user needs one line
        raise ModelError(f"{detector.name} gives no answer: {first_line(error)}") from error
    return _answer(detector, written.sequences[0, -len(steps) :], steps.float(), len(steps) < most)


def _answer(detector: Detector, tokens: Tensor, steps: Tensor, whole: bool) -> Answer:
    """tokens: (S,) ids that were written.   steps: (S,) their log-probabilities."""
    tokenizer = detector.processor.tokenizer
    around = tokens.new_tensor([tokenizer.bos_token_id, tokenizer.eos_token_id, tokenizer.pad_token_id])
    said = ~torch.isin(tokens, around)
    if not bool(torch.isfinite(steps[said]).all()):
        raise ModelError(f"{detector.name} gave values that are not finite; its weights are damaged, load another copy")
    text = tokenizer.decode(tokens[said].tolist(), skip_special_tokens=False, clean_up_tokenization_spaces=False)
    return Answer(text=text, probability=float(steps[said].mean().exp()) if bool(said.any()) else 0.0, whole=whole)


def _read(detector: Detector, answer: Answer, command: str, size: tuple[int, int]) -> Any:
    """The answer as the processor reads it."""
    return detector.processor.post_process_generation(text=answer.text, task=command, image_size=size)[command]


def _around(shape: Sequence[Sequence[int]]) -> tuple[int, int, int, int]:
    """The box around all outlines of a thing, each x, y, x, y, …"""
    across, down = [x for line in shape for x in line[::2]], [y for line in shape for y in line[1::2]]
    return min(across), min(down), max(across), max(down)
