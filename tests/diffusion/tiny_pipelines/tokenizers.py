"""Tokenizers without a network: CLIP's own vocabulary, a T5 of some words, and words for language models."""

from __future__ import annotations

import json
import tempfile
from functools import lru_cache
from pathlib import Path
from typing import Any

from clipcond.resources import embedded

T5_WORDS = (
    "a", "red", "fox", "in", "the", "snow", "blue", "bird", "and", "blurry", "grey", "photo", "of", "soft", "light",
)  # fmt: skip
_MARKS = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789,.:;!?()[]<>/+-_'\""


def clip_tokenizer(pad: str | None = None) -> Any:
    """CLIP's tokenizer as OpenAI's towers have it; with a padding of `!` as OpenCLIP's have it."""
    from transformers import CLIPTokenizer

    folder = embedded("pipeline") / "tokenizer"
    more = {} if pad is None else {"pad_token": pad}
    return CLIPTokenizer.from_pretrained(folder, model_max_length=77, **more)


def t5_tokenizer() -> Any:
    """transformers' T5 tokenizer of some words, letters and marks."""
    from transformers import T5TokenizerFast

    with tempfile.TemporaryDirectory() as folder:
        _write_t5(Path(folder))
        return T5TokenizerFast.from_pretrained(folder, extra_ids=0)


def _write_t5(folder: Path) -> None:
    from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors

    pieces = [("<pad>", 0.0), ("</s>", 0.0), ("<unk>", 0.0), ("▁", -2.0)]
    pieces += [(f"▁{word}", -1.0) for word in T5_WORDS]
    pieces += [(letter, -4.0) for letter in _MARKS]
    tokenizer = Tokenizer(models.Unigram(pieces, unk_id=2))
    tokenizer.normalizer = normalizers.NFKC()
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.WhitespaceSplit(), pre_tokenizers.Metaspace(prepend_scheme="always")]
    )
    tokenizer.decoder = decoders.Metaspace()
    tokenizer.post_processor = processors.TemplateProcessing(single="$A </s>", special_tokens=[("</s>", 1)])
    tokenizer.save(str(folder / "tokenizer.json"))
    config = {"tokenizer_class": "T5Tokenizer", "eos_token": "</s>", "pad_token": "<pad>", "unk_token": "<unk>",
              "extra_ids": 0, "model_max_length": 512}  # fmt: skip
    (folder / "tokenizer_config.json").write_text(json.dumps(config), encoding="utf-8")


def word_tokenizer(*texts: str) -> Any:
    """A fast tokenizer with an id for each word of some texts; called as a processor of pictures and texts, too."""
    from tokenizers import Regex, Tokenizer, models, pre_tokenizers

    split = pre_tokenizers.Split(Regex(r"<\|\w+\|>|<image>|\w+|[^\w\s]|\n+"), behavior="isolated")
    pieces = pre_tokenizers.Sequence([split, pre_tokenizers.Split(Regex(" +"), behavior="removed")])
    words = dict.fromkeys(word for text in texts for word, _ in pieces.pre_tokenize_str(text))
    names = ("<pad>", "<unk>", *(word for word in words if word not in ("<pad>", "<unk>")))
    tokenizer = Tokenizer(models.WordLevel({name: number for number, name in enumerate(names)}, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pieces
    return _words_class()(tokenizer_object=tokenizer, pad_token="<pad>", unk_token="<unk>", padding_side="right")


@lru_cache(maxsize=1)
def _words_class() -> Any:
    from transformers import PreTrainedTokenizerFast

    class Words(PreTrainedTokenizerFast):
        def __call__(self, text: Any = None, images: Any = None, videos: Any = None, **more: Any) -> Any:
            return super().__call__(text, **more)

    return Words
