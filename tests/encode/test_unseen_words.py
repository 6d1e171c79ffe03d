"""Words that a text tower never learned."""

from __future__ import annotations

import pytest
import torch

from clipcond.encode.text import TextTower
from clipcond.encode.unseen_words import tell_unseen, unseen_words
from clipcond.prompt.plan import plan


@pytest.fixture(scope="module")
def tower() -> TextTower:
    """A tower of random weights whose rows of `fox`, `kowski` and the comma are zero."""
    from transformers import CLIPTextConfig, CLIPTextModel

    config = CLIPTextConfig(hidden_size=16, intermediate_size=16, num_hidden_layers=1, num_attention_heads=2)
    model = CLIPTextModel(config)
    tokens = plan("fox rutkowski ,").encoders["clip_l"].chunks[0].tokens
    with torch.no_grad():
        for token in (tokens[0], tokens[2], tokens[3]):
            model.get_input_embeddings().weight[token.id] = 0
    return TextTower.from_transformers(model)


def words(tower: TextTower, prompt: str, **options: object) -> tuple[str, ...]:
    planned = plan(prompt, **options)
    return unseen_words(tower, [token for chunk in planned.encoders["clip_l"].chunks for token in chunk.tokens])


def test_a_word_with_a_zero_row_is_unseen_each_once_in_order(tower: TextTower) -> None:
    assert words(tower, "a Rutkowski fox, a dog, Fox") == ("rutkowski", "fox")
    assert words(tower, "a dog") == ()
    assert words(tower, "") == ()


def test_punctuation_and_textual_inversions_are_no_words(tower: TextTower) -> None:
    assert words(tower, "a dog, a cat") == ()
    assert words(tower, "a fox", embeddings={"fox": 2}, dialect="a1111") == ()


def test_a_message_names_a_few_words() -> None:
    assert tell_unseen((), "mini") == ""
    assert tell_unseen(("fox",), "mini") == "mini has never seen the word fox; it reads nothing there"
    assert "the words 0, 1, 2, 3, 4, 5, 6, 7 and 2 more;" in tell_unseen([str(n) for n in range(10)], "mini")
