"""Long prompts in every family: chunks, pooled policies, clip skip, equal lengths, and one pass for all of it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import pytest
import torch

from clipcond.diffusion.conditioner import Conditioner
from clipcond.errors import ConfigError

Pipes = Callable[[str], Any]
SHORT = "a red fox in the snow, soft light"
LONG = "a red fox, " * 40  # 160 content tokens: three chunks
MIDDLE = "one blue bird and " * 20  # 80 content tokens: two chunks
ALL = ("sd15", "sd2", "sdxl", "refiner", "sd3", "sd3-no-t5", "flux")
UNET = ("sd15", "sd2", "sdxl", "refiner")


def close(a: torch.Tensor, b: torch.Tensor, atol: float = 1e-5) -> None:
    torch.testing.assert_close(a, b, rtol=0, atol=atol)


@contextmanager
def forwards(pipe: Any) -> Iterator[dict[str, list[tuple[int, ...]]]]:
    """The shapes of the ids that each text encoder is called with."""
    shapes: dict[str, list[tuple[int, ...]]] = {}
    with ExitStack() as stack:
        for name in ("text_encoder", "text_encoder_2", "text_encoder_3"):
            if (module := getattr(pipe, name, None)) is not None:
                seen = shapes.setdefault(name, [])
                hook = module.register_forward_pre_hook(
                    lambda _module, given, seen=seen: seen.append(tuple(given[0].shape))
                )
                stack.callback(hook.remove)
        yield shapes


@pytest.mark.parametrize("family", ALL)
@pytest.mark.parametrize("prompt", [SHORT, MIDDLE, LONG])
def test_a_prompt_does_not_depend_on_its_neighbours(pipes: Pipes, family: str, prompt: str) -> None:
    conditioner = Conditioner.from_pipeline(pipes(family))
    alone = conditioner(prompt, "blurry")
    among = conditioner([MIDDLE, prompt, LONG], ["blurry", "blurry", LONG])
    times = among.prompt_embeds.shape[1] // alone.prompt_embeds.shape[1]
    for side in ("prompt_embeds", "negative_prompt_embeds"):
        one, row = getattr(alone, side), getattr(among, side)[1:2]
        if family in UNET:
            close(row, one.repeat(1, times, 1))
        else:  # T5 stands at the end, what fills CLIP up before it
            own = 0 if family == "flux" else 77 * (3 if prompt == LONG else 2 if prompt == MIDDLE else 1)
            close(row[:, :own], one[:, :own])
            length = 512 if family == "flux" else 256
            close(row[:, -length:], one[:, -length:])
    if alone.pooled_prompt_embeds is not None:
        close(among.pooled_prompt_embeds[1:2], alone.pooled_prompt_embeds)  # type: ignore[index]
        close(among.negative_pooled_prompt_embeds[:1], alone.negative_pooled_prompt_embeds)  # type: ignore[index, arg-type]


@pytest.mark.parametrize("family", ALL)
def test_a_list_of_equal_lengths_is_its_single_calls(pipes: Pipes, family: str) -> None:
    conditioner = Conditioner.from_pipeline(pipes(family))
    together = conditioner([SHORT, "a bird"], "grey", num_images_per_prompt=2).kwargs
    single = [conditioner(each, "grey", num_images_per_prompt=2).kwargs for each in (SHORT, "a bird")]
    for name, tensor in together.items():
        close(tensor, torch.cat([each[name] for each in single]))


@pytest.mark.parametrize("family", ALL)
@pytest.mark.parametrize(("weighting", "most"), [("a1111", 1), ("comfy", 1), ("compel", 2)])
def test_everything_goes_through_each_encoder_at_once(pipes: Pipes, family: str, weighting: str, most: int) -> None:
    pipe = pipes(family)
    conditioner = Conditioner.from_pipeline(pipe)
    with forwards(pipe) as shapes:
        conditioner(
            ["a (red:1.3) fox (in snow:0.5)", "(bird:0.4) " + LONG, SHORT],
            "(blurry:1.2)",
            dialect="a1111",
            weighting=weighting,
        )
    assert len(shapes) == {"sd15": 1, "sd2": 1, "refiner": 1, "sd3": 3}.get(family, 2)
    for name, seen in shapes.items():  # masked variants may follow behind the beginning that they share with other rows
        assert len(seen) <= most, name
    rows = 6 + (weighting != "a1111" or family.startswith("sd3"))  # 1 + 3 + 1 chunks, the negative, and the empty one
    if weighting != "compel" and family != "flux":
        assert shapes["text_encoder_2" if family == "refiner" else "text_encoder"] == [(rows, 77)]


@pytest.mark.parametrize("family", ["sdxl", "sd3"])
def test_encoders_side_by_side_have_one_number_of_chunks(pipes: Pipes, family: str) -> None:
    conditioner = Conditioner.from_pipeline(pipes(family))
    out = conditioner(SHORT, "", prompt_2=LONG)
    reference = conditioner(LONG, "")
    assert out.prompt_embeds.shape == reference.prompt_embeds.shape
    empty = conditioner("", "").prompt_embeds[:, :77]
    short = conditioner(SHORT, "").prompt_embeds[:, :77]
    close(out.prompt_embeds[:, :231, 24:64], reference.prompt_embeds[:, :231, 24:64])
    close(out.prompt_embeds[:, :77, :24], short[..., :24])
    close(out.prompt_embeds[:, 77:231, :24], empty[..., :24].repeat(1, 2, 1))


# pooled


@pytest.mark.parametrize(("family", "policy"), [(f, p) for f in ("sdxl", "refiner", "sd3", "flux")
                                                for p in ("first", "last", "mean", "weighted")])  # fmt: skip
def test_pooled_policies_over_the_chunks(pipes: Pipes, family: str, policy: str) -> None:
    conditioner = Conditioner.from_pipeline(pipes(family))
    out = conditioner(LONG, "", pooled=policy)
    (chunks,) = {
        tuple(
            "".join(token.text if token.text == "," else f" {token.text}" for token in chunk.tokens)
            for chunk in each.chunks
        )
        for name, each in out.plans[0].encoders.items()
        if name != "t5"
    }
    vectors = [conditioner(text).pooled_prompt_embeds for text in chunks]
    sizes = [75, 75, 10]
    expected = {
        "first": vectors[0],
        "last": vectors[-1],
        "mean": sum(vectors) / 3,  # type: ignore[arg-type]
        "weighted": sum(size * each for size, each in zip(sizes, vectors, strict=True)) / 160,  # type: ignore[misc]
    }[policy]
    close(out.pooled_prompt_embeds, expected)  # type: ignore[arg-type]


@pytest.mark.parametrize("family", ["sdxl", "refiner", "sd3", "flux"])
def test_pooled_vectors_know_neither_weights_nor_layers(pipes: Pipes, family: str) -> None:
    conditioner = Conditioner.from_pipeline(pipes(family))
    plain = conditioner("a red fox", "grey")
    weighted = conditioner("a (red)1.4 fox-", "(grey)0.5", dialect="compel")
    skipped = plain if family == "flux" else conditioner("a red fox", "grey", clip_skip=1)
    for other in (weighted, skipped):
        close(other.pooled_prompt_embeds, plain.pooled_prompt_embeds)  # type: ignore[arg-type]
        close(other.negative_pooled_prompt_embeds, plain.negative_pooled_prompt_embeds)  # type: ignore[arg-type]
    assert not torch.allclose(weighted.prompt_embeds, plain.prompt_embeds)


# layers


@pytest.mark.parametrize("family", ["sd15", "sd2", "sdxl", "refiner", "sd3"])
@pytest.mark.parametrize("skip", [0, 1, 2])
def test_clip_skip_counts_from_the_familys_own_layer_on_both_sides(pipes: Pipes, family: str, skip: int) -> None:
    pipe = pipes(family)
    out = Conditioner.from_pipeline(pipe)(SHORT, "blurry", clip_skip=skip)
    for states, text in ((out.prompt_embeds, SHORT), (out.negative_prompt_embeds, "blurry")):
        hidden = []
        for module, tokenizer in ((pipe.text_encoder, pipe.tokenizer), *_second(pipe)):
            if module is None:
                continue
            ids = tokenizer(text, padding="max_length", max_length=77, return_tensors="pt").input_ids
            with torch.no_grad():
                layers = module(ids, output_hidden_states=True).hidden_states
            if family in ("sd15", "sd2"):  # A1111's skip + 1
                stack = getattr(module, "text_model", module)
                hidden.append(stack.final_layer_norm(layers[-1 - skip]))
            else:
                hidden.append(layers[-2 - skip])
        expected = torch.cat(hidden, dim=-1)
        close(states[:, :77, : expected.shape[-1]], expected)  # type: ignore[index]


def _second(pipe: Any) -> list[tuple[Any, Any]]:
    return [(pipe.text_encoder_2, pipe.tokenizer_2)] if hasattr(pipe, "text_encoder_2") else []


def test_a_layer_that_is_not_there_is_named(pipes: Pipes) -> None:
    with pytest.raises(ConfigError, match="clip_skip is 1, expected 0: this family takes no token states"):
        Conditioner.from_pipeline(pipes("flux"))(SHORT, clip_skip=1)
    with pytest.raises(ConfigError, match="clip_skip is 9, expected 0 to 2 for clip_l of StableDiffusionXLPipeline"):
        Conditioner.from_pipeline(pipes("sdxl"))(SHORT, clip_skip=9)
    with pytest.raises(ConfigError, match="clip_skip is -1, expected 0 or more"):
        Conditioner.from_pipeline(pipes("sdxl"))(SHORT, clip_skip=-1)
    with pytest.raises(ConfigError, match="clip_skip"):
        Conditioner.from_pipeline(pipes("sdxl"))(SHORT, clip_skip=3)


# lengths


@pytest.mark.parametrize("family", UNET)
def test_empty_chunks_instead_of_repetition(pipes: Pipes, family: str) -> None:
    conditioner = Conditioner.from_pipeline(pipes(family))
    out = conditioner([LONG, MIDDLE], SHORT, lengths="pad_empty")
    assert out.prompt_embeds.shape[1] == 231
    middle, empty = conditioner(MIDDLE, MIDDLE).prompt_embeds, conditioner("").prompt_embeds
    close(out.prompt_embeds[1:], torch.cat([middle, empty], dim=1))
    short = conditioner(SHORT).prompt_embeds
    close(out.negative_prompt_embeds[:1], torch.cat([short, empty, empty], dim=1))  # type: ignore[index]


def test_sd3_fills_clip_up_before_t5(pipes: Pipes) -> None:
    conditioner = Conditioner.from_pipeline(pipes("sd3"))
    out = conditioner(LONG, SHORT)
    assert out.prompt_embeds.shape == (1, 231 + 256, 96)
    short, empty = conditioner(SHORT).prompt_embeds, conditioner("").prompt_embeds[:, :77]
    close(out.negative_prompt_embeds, torch.cat([short[:, :77], empty, empty, short[:, 77:]], dim=1))  # type: ignore[arg-type]


@pytest.mark.parametrize("family", ["sd3", "flux"])
def test_repetition_is_there_for_those_who_ask(pipes: Pipes, family: str) -> None:
    conditioner = Conditioner.from_pipeline(pipes(family))
    behind = {"prompt_3" if family == "sd3" else "prompt_2": ["fox " * 153, SHORT]}  # 154 rows of T5, and 77
    out = conditioner(["a bird", SHORT], "", lengths="lcm", max_sequence_length=77, **behind)
    assert out.prompt_embeds.shape[1] == 154 * (3 if family == "sd3" else 1)
    one = conditioner(SHORT, lengths="lcm", max_sequence_length=77).prompt_embeds
    close(out.prompt_embeds[1:], one.repeat(1, out.prompt_embeds.shape[1] // one.shape[1], 1))


@pytest.mark.parametrize("family", ["sd3", "flux"])
def test_a_text_beyond_t5s_length_is_read_whole(pipes: Pipes, family: str) -> None:
    pipe = pipes(family)
    conditioner, many = Conditioner.from_pipeline(pipe), "fox " * 100  # 100 pieces and the end
    out = conditioner([many, SHORT], max_sequence_length=64)
    module, tokenizer = (
        (pipe.text_encoder_2, pipe.tokenizer_2) if family == "flux" else (pipe.text_encoder_3, pipe.tokenizer_3)
    )
    with torch.no_grad():
        whole = module(tokenizer(many, return_tensors="pt").input_ids)[0]
        empty = module(torch.tensor([[1] + [0] * 100]))[0]
    assert whole.shape[1] == 101
    close(out.prompt_embeds[:1, -101:], whole)
    short = conditioner(SHORT, max_sequence_length=64).prompt_embeds[:, -64:]
    close(out.prompt_embeds[1:, -101:], torch.cat([short, empty[:, 64:]], dim=1))


def test_a_length_of_t5_that_no_pipeline_has_is_named(pipes: Pipes) -> None:
    for wrong in (0, 513):
        with pytest.raises(ConfigError, match=f"max_sequence_length is {wrong}, expected 1 to 512"):
            Conditioner.from_pipeline(pipes("flux"))(SHORT, max_sequence_length=wrong)
    with pytest.raises(ConfigError, match="max_sequence_length is 77, but StableDiffusionXLPipeline has no T5"):
        Conditioner.from_pipeline(pipes("sdxl"))(SHORT, max_sequence_length=77)


def test_a_mask_for_a_pipeline_that_takes_one(pipes: Pipes) -> None:
    import diffusers

    class Masked(diffusers.StableDiffusionPipeline):  # type: ignore[misc]
        def __call__(
            self, prompt_embeds, negative_prompt_embeds, prompt_attention_mask, negative_prompt_attention_mask
        ):  # type: ignore[no-untyped-def]
            return None

    parts = {name: part for name, part in pipes("sd15").components.items() if name != "image_encoder"}
    pipe = Masked(**parts, requires_safety_checker=False)
    conditioner = Conditioner.from_pipeline(pipe)
    out = conditioner(LONG, SHORT, lengths="mask", num_images_per_prompt=2)
    assert list(out.kwargs) == [
        "prompt_embeds", "negative_prompt_embeds", "prompt_attention_mask", "negative_prompt_attention_mask",
    ]  # fmt: skip
    mask = out.negative_prompt_attention_mask
    assert mask is not None
    assert mask.dtype == torch.bool
    assert mask.tolist() == [[True] * 77 + [False] * 154] * 2
    assert out.prompt_attention_mask.all()  # type: ignore[union-attr]
    close(out.negative_prompt_embeds[:1, :77], conditioner(SHORT).prompt_embeds)  # type: ignore[index]
    assert (out.negative_prompt_embeds[:, 77:] == 0).all()  # type: ignore[index]
    latents = torch.randn(1, 4, 8, 8, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():  # as exact as repetition
        plain = pipe.unet(latents, 500, conditioner(SHORT).prompt_embeds)[0]
        masked = pipe.unet(latents, 500, out.negative_prompt_embeds[:1], encoder_attention_mask=mask[:1])[0]  # type: ignore[index]
    close(plain, masked)


def test_lengths_that_meet_too_far_off_are_refused(pipes: Pipes) -> None:
    conditioner = Conditioner.from_pipeline(pipes("sd15"))
    prompts = ["fox " * 75 * chunks for chunks in (7, 8, 9)]
    with pytest.raises(ConfigError, match=r"rows of 77, 539, 616, 693 tokens meet at 38808 by repetition; .*pad_empty"):
        conditioner(prompts)
    assert conditioner(prompts, lengths="pad_empty").prompt_embeds.shape[1] == 693
    assert conditioner(prompts[:2]).prompt_embeds.shape[1] == 56 * 77
