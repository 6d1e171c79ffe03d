"""A Florence-2 for tests: tiny, random, with the processor of the real one, whose letters are tokens."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch

from clipcond.runtime.torchvision_repair import repair

SIDE, IMAGE_TOKENS, POSITIONS = 64, 5, 160
_SPECIAL = ["<s>", "<pad>", "</s>", "<unk>", "<mask>"]
_WRITTEN = ["<od>", "<poly>", "</poly>", "<sep>", "<image>", *(f"<loc_{bin}>" for bin in range(1000))]
_ANSWERS = ("pure_text", "description_with_bboxes_or_polygons", "phrase_grounding")


def write_florence(folder: Path, **preprocessor: Any) -> Path:
    """A folder with a model of random weights and its processor. preprocessor: further settings of its pictures."""
    repair()
    import transformers

    tokenizer = _tokenizer()
    layers = {
        f"{part}_{name}": number
        for part in ("encoder", "decoder")
        for name, number in {"layers": 1, "ffn_dim": 16, "attention_heads": 2}.items()
    }
    text = {"model_type": "bart", "vocab_size": len(tokenizer), "d_model": 16, "max_position_embeddings": POSITIONS}
    vision = {"embed_dim": [16] * 4, "num_heads": [2] * 4, "num_groups": [2] * 4, "depths": [1] * 4}
    ends = {"bos_token_id": 0, "pad_token_id": 1, "eos_token_id": 2, "decoder_start_token_id": 2}
    config = transformers.Florence2Config(
        text_config={**text, **layers, **ends, "forced_eos_token_id": 2},
        vision_config={**vision, "projection_dim": 16},
        image_token_id=tokenizer.image_token_id,
        **ends,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = transformers.Florence2ForConditionalGeneration(config)
        for weight in model.parameters():  # as initialised, every answer is as good as the next
            if weight.ndim > 1:
                weight.data.normal_(std=0.3)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    pictures = {
        "image_processor_type": "CLIPImageProcessor",
        "processor_class": "Florence2Processor",
        "image_seq_length": IMAGE_TOKENS,
        "size": {"height": SIDE, "width": SIDE},
        "do_center_crop": False,
    }
    (folder / "preprocessor_config.json").write_text(json.dumps(pictures | preprocessor))
    answers = {"processor_class": "Florence2Processor", "post_processor_config": {kind: {} for kind in _ANSWERS}}
    (folder / "processor_config.json").write_text(json.dumps(answers))
    return folder


def _tokenizer() -> Any:
    from tokenizers.pre_tokenizers import ByteLevel
    from transformers import BartTokenizer

    words = [*_SPECIAL, *sorted(ByteLevel.alphabet())]
    vocabulary = {word: number for number, word in enumerate(words)}
    tokenizer = BartTokenizer(vocab=vocabulary, merges=[], extra_special_tokens={"image_token": "<image>"})
    tokenizer.add_tokens(_WRITTEN, special_tokens=True)
    return tokenizer
