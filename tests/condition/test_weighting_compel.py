"""Side by side with the installed compel, on one tiny random encoder with CLIP's own vocabulary.

One thing of compel's is on purpose: where a fragment goes on in the next chunk, EOS and padding of its chunk are masked too.
"""

from __future__ import annotations

import random
from typing import Any

import pytest
import torch
from torch import Tensor

from clipcond.condition.weighting import MaskedChunk, needs, parse_method, variant_row, weigh
from clipcond.encode.rows import TokenSequence
from clipcond.prompt.plan import plan
from clipcond.prompt.tokenizer import token_ids

(COMMA,) = token_ids(",")
WORDS = "an old red fox sits in the green garden and looks at two small grey stone houses near a wide river "
LONG = (
    f"(a {WORDS})0.8 {WORDS}. (portrait (blue eyes)1.4 of)0.6 {WORDS}, hat-- {WORDS}; {WORDS} scarf++ (rain)0 {WORDS}: "
    f"(snow storm)0.3 {WORDS}"
)
PROMPTS = {
    "up": "a cat++ on a (wooden table)1.3",
    "down": "a cat on a (wooden table)0.7",
    "several fragments": "a cat- on a (wooden table)0.5, (rain)0.25 and fog-- behind (two (old)1.2 trees)0.9",
    "zero": "a cat and a (black dog)0 on grass",
    "nested": "a (portrait of a (smiling woman)1.4 with (glasses)0.5)0.8 in a park",
    "neighbours of one weight": "a (wooden)0.5 (table)0.5 and (red)1.2 (roses)1.2",
    "neighbours of two weights": "a (wooden)0.5 (table)0.7 and roses-",
    "all of it": "(a cat on a table)0.5",
    "first and last word": "(a)0.3 cat on a (table)0.4",
    "punctuation": "red hair-, t-shirt-, 3d++ it's (don't)0.5 'quoted'.",
    "no weights": "a cat on a table",
    "empty": "",
    "three chunks": LONG,
    "a fragment over three chunks": f"a cat. (start {WORDS * 6}. {WORDS * 3} end)0.6 {WORDS}, cat++",
    "fragments over borders": f"{WORDS * 3} (near, the border {WORDS}. {WORDS})0.4 {WORDS * 2}, ({WORDS} {WORDS})0.7 end",
    "a fragment that ends with a chunk": f"{WORDS * 3} (near the border of it,)0.4 {WORDS * 4}",
}  # fmt: skip


MODES = {"compel-sentences": "SENTENCES", "compel-phrases": "PHRASES", "word": "WORDS", "hard": "BRUTAL"}
VOCABULARY = (
    "a red fox, house. tree; sky: extraordinarily antidisestablishmentarianism it's t-shirt 3d don't ! !!! café 火 🎉 50% & "
    r"and/or x_y # 'tis o'clock … \(a\)"
)


@pytest.fixture(scope="module")
def encoder(sd_folder: Any) -> Any:
    """The text encoder and the tokenizer of the tiny pipeline."""
    from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(3)
        model = CLIPTextModel(
            CLIPTextConfig(
                hidden_size=32, intermediate_size=64, num_hidden_layers=3, num_attention_heads=4,
                bos_token_id=49406, eos_token_id=49407, pad_token_id=49407,
            )
        ).eval()  # fmt: skip
        with torch.no_grad():  # as initialised, tokens hardly differ
            for name, weight in model.named_parameters():
                weight.normal_(std=0.5) if "embed" in name else weight.add_(torch.randn_like(weight) * 0.2)
    return model, CLIPTokenizer.from_pretrained(sd_folder / "tokenizer")


@pytest.mark.parametrize("chunking", MODES)
@pytest.mark.parametrize("prompt", PROMPTS.values(), ids=PROMPTS.keys())
def test_the_states_are_those_of_compel(prompt: str, chunking: str, encoder: Any) -> None:
    _compare(prompt, chunking, encoder)


@pytest.mark.parametrize("seed", range(10))
def test_so_are_those_of_random_prompts(seed: int, encoder: Any) -> None:
    rng = random.Random(seed)
    prompt = " ".join(_piece(rng) for _ in range(rng.randint(1, 12)))
    _compare(prompt, rng.choice(list(MODES)), encoder)


@pytest.mark.parametrize(
    ("typed", "read"),
    [
        ("(hello!, world)0.5", "(hello! , world)0.5"),
        ("(a,, b)1.2", "(a , , b)1.2"),
        ("(wait...)0.7", "(wait . . .)0.7"),
    ],
)
def test_in_brackets_compel_parts_runs_of_punctuation_at_commas_and_full_stops(
    typed: str, read: str, encoder: Any
) -> None:
    theirs, ids = _compel(typed, "WORDS", *encoder)
    ours, _ = _ours(read, "word", encoder[0])
    torch.testing.assert_close(ours.flatten(0, 1), theirs, rtol=0, atol=1e-4)
    assert ids != list(_ours(typed, "word", encoder[0])[1][0].ids)  # clipcond reads what was typed


def _piece(rng: random.Random, depth: int = 0) -> str:
    """Words, a word with marks, or a group of such in brackets with a weight."""
    kind = rng.random()
    if kind < 0.45:
        return " ".join(rng.choices(VOCABULARY.split(), k=rng.randint(1, 12)))
    if kind < 0.6 or depth == 2:
        return rng.choice(["cat", "t-shirt", "x"]) + rng.choice(["+", "-", "++", "---"])
    inside = " ".join(_piece(rng, depth + 1) for _ in range(rng.randint(1, 3)))
    return f"({inside})" + rng.choice(["0.5", "0", "0.9", "1.2", "++", "--", "", "1.0", "0.333"])


def _compare(prompt: str, chunking: str, encoder: Any) -> None:
    theirs, ids = _compel(prompt, MODES[chunking], *encoder)
    ours, rows = _ours(prompt, chunking, encoder[0])
    assert [number for row in rows for number in row.ids] == ids
    torch.testing.assert_close(ours.flatten(0, 1), theirs, rtol=0, atol=1e-4)


def _compel(prompt: str, mode: str, model: Any, tokenizer: Any) -> tuple[Tensor, list[int]]:
    """compel's states (T, D) and ids."""
    from clipcond.runtime.torchvision_repair import repair

    repair()
    compel = pytest.importorskip("compel")
    from compel.embeddings_provider import SplitLongTextMode

    encode = compel.Compel(tokenizer, model, truncate_long_prompts=False, split_long_text_mode=SplitLongTextMode[mode])
    states, ids = encode(prompt, return_tokenization=True)
    return states[0], ids[0][0].flatten().tolist()


def _ours(prompt: str, chunking: str, model: Any) -> tuple[Tensor, list[TokenSequence]]:
    """Our states (K, L, D) and rows."""
    laid = plan(prompt, dialect="compel", chunking=chunking).encoders["clip_l"]
    rows = [TokenSequence(tuple(ids)) for ids in laid.ids()]
    weights, segments = torch.ones(len(rows), 77), torch.full((len(rows), 77), -1)
    for number, chunk in enumerate(laid.chunks):
        inside = slice(1, 1 + len(chunk.tokens))
        weights[number, inside] = torch.tensor([token.weight for token in chunk.tokens])
        segments[number, inside] = torch.tensor(chunk.segments, dtype=torch.int64)
    method = parse_method("compel")
    wanted = needs(weights, segments, method)
    weighed = weigh(
        torch.stack([_forward(model, row) for row in rows]),
        weights,
        segments,
        method=method,
        empty=_forward(model, TokenSequence((49406, *[49407] * 76))) if wanted.empty else None,
        variants={each: _encoded(model, rows, each) for each in wanted.variants},
    )
    return weighed.hidden, rows


def _encoded(model: Any, rows: list[TokenSequence], variant: MaskedChunk) -> Tensor:
    return _forward(model, variant_row(rows[variant.chunk], variant, COMMA))


def _forward(model: Any, row: TokenSequence) -> Tensor:
    """States (L, D) of one row by a pass of its own."""
    mask = torch.ones(1, len(row.ids), dtype=torch.int64)
    mask[0, list(row.masked)] = 0
    with torch.no_grad():
        states: Tensor = model(torch.tensor([row.ids]), attention_mask=mask).last_hidden_state[0]
    return states
