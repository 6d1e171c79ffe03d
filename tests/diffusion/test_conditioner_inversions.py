"""Textual inversions that the pipeline holds: its own ids, whole in their chunks, pooled at the true EOS."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch

from clipcond.diffusion.conditioner import Conditioner
from clipcond.encode.inversion import Inversion
from clipcond.errors import ModelError

Pipes = Callable[[str], Any]


def close(a: torch.Tensor, b: torch.Tensor, atol: float = 1e-5) -> None:
    torch.testing.assert_close(a, b, rtol=0, atol=atol)


def noise(count: int, width: int, seed: int = 3) -> torch.Tensor:
    return torch.randn(count, width, generator=torch.Generator().manual_seed(seed))


@torch.no_grad()
def own(pipe: Any, prompt: str) -> torch.Tensor:
    return pipe.encode_prompt(prompt, "cpu", 1, False)[0]  # type: ignore[no-any-return]


@pytest.fixture
def toys(fresh: Pipes) -> Any:
    """A pipeline with `<toy>` of three vectors, and `<toy-box>` and `sks` of one."""
    pipe = fresh("sd15")
    pipe.load_textual_inversion(noise(3, 32), token="<toy>")
    pipe.load_textual_inversion(noise(1, 32, 4), token="<toy-box>")
    pipe.load_textual_inversion(noise(1, 32, 5), token="sks")
    return pipe


@pytest.mark.parametrize(
    "prompt", ["a <toy> in the snow", "<toy-box>", "sks, <toy>, <toy-box> and <toy>", "a <TOY>", "<toy>", "<toy>_2"]
)
def test_they_are_read_as_the_pipeline_reads_them(toys: Any, prompt: str) -> None:
    close(Conditioner.from_pipeline(toys)(prompt).prompt_embeds, own(toys, prompt.lower()))


def test_a_name_inside_of_a_word_is_part_of_the_word(toys: Any, pipes: Pipes) -> None:
    close(Conditioner.from_pipeline(toys)("asks a fox").prompt_embeds, own(pipes("sd15"), "asks a fox"))


def test_a_prompt_that_the_pipeline_expanded_is_not_expanded_again(toys: Any) -> None:
    conditioner = Conditioner.from_pipeline(toys)
    expanded = toys.maybe_convert_prompt("a <toy> fox", toys.tokenizer)
    assert expanded == "a <toy> <toy>_1 <toy>_2 fox"
    close(conditioner(expanded).prompt_embeds, conditioner("a <toy> fox").prompt_embeds)


@pytest.mark.parametrize("chunking", ["hard", "a1111", "word", "phrase", "comfy", "compel-sentences"])
def test_vectors_stay_together_in_every_chunk(toys: Any, chunking: str) -> None:
    prompt = "fox " * 74 + "<toy> fox"
    out = Conditioner.from_pipeline(toys)(prompt, chunking=chunking)
    chunks = out.plans[0].encoders["clip_l"].chunks
    held = [[token.text for token in chunk.tokens].count("<toy>") for chunk in chunks]
    assert held == [0, 3]
    names = ["<toy>", "<toy>_1", "<toy>_2"]
    ids = toys.tokenizer.convert_tokens_to_ids([*["fox</w>"] * (len(chunks[1].tokens) - 4), *names, "fox</w>"])
    with torch.no_grad():
        expected = toys.text_encoder(torch.tensor([[49406, *ids, *[49407] * (76 - len(ids))]]))[0]
    close(out.prompt_embeds[:, 77:], expected)


def test_the_pooled_vector_is_at_the_first_eos(fresh: Pipes) -> None:
    pipe = fresh("sdxl")
    vectors = noise(2, 24), noise(2, 40)
    pipe.load_textual_inversion(vectors[0], token="<toy>", text_encoder=pipe.text_encoder, tokenizer=pipe.tokenizer)
    pipe.load_textual_inversion(vectors[1], token="<toy>", text_encoder=pipe.text_encoder_2, tokenizer=pipe.tokenizer_2)
    out = Conditioner.from_pipeline(pipe)("a <toy> in the snow", "grey <toy>")
    theirs = pipe.encode_prompt("a <toy> in the snow", negative_prompt="grey <toy>")
    close(out.prompt_embeds, theirs[0])
    close(out.negative_prompt_embeds, theirs[1])  # type: ignore[arg-type]
    assert not torch.allclose(out.pooled_prompt_embeds, theirs[2])  # type: ignore[arg-type]  # transformers pools at the token
    ids = pipe.tokenizer_2(
        pipe.maybe_convert_prompt("a <toy> in the snow", pipe.tokenizer_2), return_tensors="pt"
    ).input_ids
    with torch.no_grad():
        last = pipe.text_encoder_2(ids, output_hidden_states=True).last_hidden_state[:, -1]
        close(out.pooled_prompt_embeds, pipe.text_encoder_2.text_projection(last))  # type: ignore[arg-type]


def test_encoders_may_have_different_numbers_of_vectors(fresh: Pipes) -> None:
    pipe = fresh("sdxl")
    for count, width, number in ((3, 24, ""), (1, 40, "_2")):
        parts = {
            "text_encoder": getattr(pipe, f"text_encoder{number}"),
            "tokenizer": getattr(pipe, f"tokenizer{number}"),
        }
        pipe.load_textual_inversion(noise(count, width), token="<toy>", **parts)
    conditioner = Conditioner.from_pipeline(pipe)
    out = conditioner("fox " * 74 + "<toy>")
    assert [len(each.chunks) for each in out.plans[0].encoders.values()] == [2, 1]
    empty = conditioner("").prompt_embeds
    close(out.prompt_embeds[:, 77:, 24:], empty[..., 24:])
    assert not torch.allclose(out.prompt_embeds[:, 77:, :24], empty[..., :24])


def test_an_encoder_without_vectors_reads_the_name_and_it_is_said(fresh: Pipes) -> None:
    pipe = fresh("sdxl")
    pipe.load_textual_inversion(noise(1, 24), token="<toy>", text_encoder=pipe.text_encoder, tokenizer=pipe.tokenizer)
    out = Conditioner.from_pipeline(pipe)("a <toy>")
    (found,) = out.findings
    assert (found.code, found.start, found.end, found.argument) == ("embedding-unfit", 2, 7, "prompt")
    close(out.prompt_embeds, pipe.encode_prompt("a <toy>")[0])


def test_vectors_from_elsewhere_equal_those_in_the_pipeline(fresh: Pipes) -> None:
    pipe, vectors = fresh("sd15"), noise(2, 32)
    given = Conditioner.from_pipeline(pipe, embeddings=Inversion(name="<toy>", vectors={"clip_l": vectors}))
    ours = given("a <toy> fox, " * 20, "<toy>")
    assert len(pipe.tokenizer) == 49408  # the pipeline is as it was
    pipe.load_textual_inversion(vectors, token="<toy>")
    loaded = Conditioner.from_pipeline(pipe)("a <toy> fox, " * 20, "<toy>")
    close(ours.prompt_embeds, loaded.prompt_embeds)
    close(ours.negative_prompt_embeds, loaded.negative_prompt_embeds)  # type: ignore[arg-type]


def test_weights_of_an_embedding_are_its_vectors(toys: Any) -> None:
    conditioner = Conditioner.from_pipeline(toys)
    out = conditioner("a (<toy>:0.5) fox", dialect="a1111", weighting="no_norm").prompt_embeds
    plain = conditioner("a <toy> fox").prompt_embeds
    close(out[:, 2:5], plain[:, 2:5] * 0.5)
    close(out[:, 5:], plain[:, 5:])


def test_a_token_without_a_row_is_named(fresh: Pipes) -> None:
    pipe = fresh("sdxl")
    pipe.tokenizer_2.add_tokens("<Cat-Toy>")
    conditioner = Conditioner.from_pipeline(pipe)
    conditioner("a fox")
    with pytest.raises(
        ModelError, match=r"<Cat-Toy>, a textual-inversion token of the pipeline's tokenizer_2, but its "
    ):
        conditioner("a photo of a <cat-toy>")


def test_comfys_dialect_names_them_its_own_way(toys: Any) -> None:
    conditioner = Conditioner.from_pipeline(toys)
    out = conditioner("a (embedding:toy:0.5) fox, embedding:sks", dialect="comfy", weighting="none")
    close(out.prompt_embeds, own(toys, "a <toy> fox, sks"))
    assert [each.code for each in out.findings] == ["weights-unused"]
    out = conditioner("a <toy> fox", dialect="comfy")
    (found,) = out.findings
    assert (found.code, found.start, found.end) == ("embedding-as-text", 2, 7)
    assert found.message.endswith("which this dialect writes embedding:toy")


@pytest.mark.parametrize("counts", [(3, 2), (2, 3)])
def test_comfys_dialect_gives_a_name_to_the_one_that_bears_it(fresh: Pipes, counts: tuple[int, int]) -> None:
    pipe, (own_count, given_count) = fresh("sd15"), counts
    pipe.load_textual_inversion(noise(own_count, 32), token="<toy>")
    given = Inversion(name="toy", vectors={"clip_l": noise(given_count, 32, 9)})
    conditioner = Conditioner.from_pipeline(pipe, embeddings=given)
    out = conditioner("a embedding:toy", dialect="comfy")
    alone = Conditioner.from_pipeline(fresh("sd15"), embeddings=given)("a embedding:toy", dialect="comfy")
    assert len(out.plans[0].encoders["clip_l"].chunks[0].tokens) == 1 + given_count
    close(out.prompt_embeds, alone.prompt_embeds)
    close(conditioner("a <toy>").prompt_embeds, own(pipe, "a <toy>"))


def test_comfys_dialect_tells_a_token_from_one_in_brackets(fresh: Pipes) -> None:
    for names in (("sks", "<sks>"), ("<sks>", "sks")):
        pipe = fresh("sd15")
        for name in names:
            pipe.load_textual_inversion(noise(1 + 2 * (name == "sks"), 32, len(name)), token=name)
        close(Conditioner.from_pipeline(pipe)("a embedding:sks", dialect="comfy").prompt_embeds, own(pipe, "a sks"))
