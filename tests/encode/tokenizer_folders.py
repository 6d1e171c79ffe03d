"""Tokenizers of transformers as folders, built here: letters as tokens, and the special tokens of their kind."""

from __future__ import annotations

import string
from pathlib import Path
from typing import Literal

Kind = Literal["bert", "xlm-roberta", "t5", "gemma", "nllb"]
# (the special tokens in the order of their ids, what stands around a text, settings of the folder)
_KINDS = {
    "xlm-roberta": (
        ["<s>", "<pad>", "</s>", "<unk>"],
        "<s> $A </s>",
        {"bos_token": "<s>", "cls_token": "<s>", "eos_token": "</s>", "sep_token": "</s>"},
    ),
    "t5": (["<pad>", "</s>", "<unk>"], "$A </s>", {"eos_token": "</s>"}),
    "gemma": (["<pad>", "<eos>", "<bos>", "<unk>"], "$A <eos>", {"bos_token": "<bos>", "eos_token": "<eos>"}),
    "nllb": (["<s>", "<pad>", "</s>", "<unk>", "eng_Latn"], "eng_Latn $A </s>", {"eos_token": "</s>"}),
}
LETTERS = [*string.ascii_letters, *string.digits, *".,:!?()'-<>/_[]"]
SIZE = 2 * len(LETTERS) + 8  # of each vocabulary, with room


def write_tokenizer(folder: Path, kind: Kind, *, most: int = 1000, inputs: tuple[str, ...] = ()) -> Path:
    """Write a tokenizer of a kind into a folder. most: `model_max_length`.   inputs: `model_input_names`."""
    folder.mkdir(parents=True, exist_ok=True)
    names = {"model_input_names": list(inputs)} if inputs else {}
    if kind == "bert":
        from transformers import BertTokenizer

        words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *LETTERS, *(f"##{letter}" for letter in LETTERS)]
        vocabulary = {word: number for number, word in enumerate(words)}
        BertTokenizer(vocab=vocabulary, model_max_length=most, **names).save_pretrained(folder)
        return folder
    from tokenizers import Tokenizer, models, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    special, template, settings = _KINDS[kind]
    pieces = [*special, *LETTERS, *(f"##{letter}" for letter in LETTERS)]
    tokenizer = Tokenizer(models.WordPiece({piece: n for n, piece in enumerate(pieces)}, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    used = [(token, pieces.index(token)) for token in special if token in template]
    tokenizer.post_processor = processors.TemplateProcessing(single=template, special_tokens=used)
    PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token="<pad>",
        unk_token="<unk>",
        model_max_length=most,
        padding_side="right",
        **settings,
        **names,
    ).save_pretrained(folder)
    return folder
