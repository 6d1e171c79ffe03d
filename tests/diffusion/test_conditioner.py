"""The Conditioner: equal to the stock pipeline within 75 tokens, exact beyond, clear about what it does not take."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from clipcond.condition.cache import Cache
from clipcond.diffusion.conditioner import Conditioner, condition
from clipcond.encode.fingerprint import Fingerprint
from clipcond.errors import ConfigError, ModelError, ShapeError

SHORT = "a red fox in the snow, soft light"
LONG = "a red fox, " * 40  # 160 content tokens: three chunks
MIDDLE = "one blue bird and " * 20  # 80 content tokens: two chunks


def close(a: torch.Tensor, b: torch.Tensor, atol: float = 1e-6) -> None:
    torch.testing.assert_close(a, b, rtol=0, atol=atol)


def stock(pipe: Any, prompt: Any, negative: Any, count: int = 1) -> tuple[torch.Tensor, torch.Tensor]:
    with torch.no_grad():
        return pipe.encode_prompt(prompt, "cpu", count, True, negative)  # type: ignore[no-any-return]


@contextmanager
def forwards(pipe: Any) -> Iterator[list[torch.Size]]:
    """The shapes of the ids that the text encoder is called with."""
    shapes: list[torch.Size] = []
    hook = pipe.text_encoder.register_forward_pre_hook(lambda _module, given: shapes.append(given[0].shape))
    try:
        yield shapes
    finally:
        hook.remove()


@pytest.mark.parametrize("prompt", ["", SHORT, "w " * 74, "w " * 75, "ü¡ 日本 🦊\n\n tab\t", "!!! \x00"])
@pytest.mark.parametrize("negative", ["", None, "blurry, low quality"])
def test_short_prompts_equal_the_pipelines_own(sd_pipe: Any, prompt: str, negative: str | None) -> None:
    out = Conditioner.from_pipeline(sd_pipe)(prompt, negative)
    ours, theirs = (out.prompt_embeds, out.negative_prompt_embeds), stock(sd_pipe, prompt, negative)
    for a, b in zip(ours, theirs, strict=True):
        close(a, b)


def test_the_weights_are_looked_at_once_a_call_and_a_change_is_seen(
    sd_pipe: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    looks: list[object] = []
    own = Fingerprint.__call__
    monkeypatch.setattr(Fingerprint, "__call__", lambda self: (looks.append(self), own(self))[1])
    conditioner = Conditioner.from_pipeline(sd_pipe, cache=Cache())
    before = conditioner(SHORT, dialect="a1111")
    assert len(looks) == 1
    assert torch.equal(conditioner(SHORT, dialect="a1111").prompt_embeds, before.prompt_embeds)
    weight = next(sd_pipe.text_encoder.parameters())
    with torch.no_grad():
        weight.mul_(1.5)
    try:
        after = conditioner(SHORT, dialect="a1111")
    finally:
        with torch.no_grad():
            weight.div_(1.5)
    assert len(looks) == 3
    assert after.fingerprints != before.fingerprints
    assert not torch.equal(after.prompt_embeds, before.prompt_embeds)


@pytest.mark.property
@settings(deadline=None, max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.text(max_size=40).filter(lambda text: "|>" not in text))
def test_any_short_text_equals_the_pipelines_own(sd_pipe: Any, prompt: str) -> None:
    out = condition(sd_pipe, prompt, "")
    if out.prompt_embeds.shape[1] == 77:
        close(out.prompt_embeds, stock(sd_pipe, prompt, "")[0])


def test_lists_equal_the_pipelines_own(sd_pipe: Any) -> None:
    prompts, negatives = [SHORT, "", SHORT], ["blurry", "", "grey"]
    out = Conditioner.from_pipeline(sd_pipe)(prompts, negatives, num_images_per_prompt=2)
    ours, theirs = (out.prompt_embeds, out.negative_prompt_embeds), stock(sd_pipe, prompts, negatives, 2)
    for a, b in zip(ours, theirs, strict=True):
        assert a.shape == (6, 77, 32)
        close(a, b)
    assert out.prompts == tuple(prompts)
    assert out.negative_prompts == tuple(negatives)


def test_a_long_prompt_is_its_chunks_end_to_end(sd_pipe: Any) -> None:
    out = Conditioner.from_pipeline(sd_pipe)(LONG)
    (encoder,) = out.plans[0].encoders.values()
    assert len(encoder.chunks) == 3
    with torch.no_grad():
        parts = [sd_pipe.text_encoder(torch.tensor([chunk.ids(49407)]))[0] for chunk in encoder.chunks]
    close(out.prompt_embeds, torch.cat(parts, dim=1))
    close(out.negative_prompt_embeds, stock(sd_pipe, "", "")[0].repeat(1, 3, 1))


def test_every_chunk_goes_through_the_encoder_once_and_together(sd_pipe: Any) -> None:
    conditioner = Conditioner.from_pipeline(sd_pipe)
    with forwards(sd_pipe) as shapes:
        conditioner([SHORT, MIDDLE, SHORT, ""], ["", SHORT, "blurry", ""])
    assert shapes == [(5, 77)]  # SHORT, two of MIDDLE, empty, blurry


def test_lengths_meet_at_their_least_common_multiple(sd_pipe: Any) -> None:
    out = Conditioner.from_pipeline(sd_pipe)([LONG, MIDDLE], SHORT)
    assert out.prompt_embeds.shape == out.negative_prompt_embeds.shape == (2, 6 * 77, 32)
    alone = Conditioner.from_pipeline(sd_pipe)(MIDDLE, SHORT)
    close(out.prompt_embeds[1:], alone.prompt_embeds.repeat(1, 3, 1))
    latents, time = torch.randn(1, 4, 8, 8, generator=torch.Generator().manual_seed(0)), torch.tensor([500])
    with torch.no_grad():  # the U-Net does not notice
        for long, short in (
            (out.prompt_embeds[1:], alone.prompt_embeds),
            (out.negative_prompt_embeds[:1], stock(sd_pipe, SHORT, "")[0]),
        ):
            close(sd_pipe.unet(latents, time, long)[0], sd_pipe.unet(latents, time, short)[0], 1e-5)


def test_clip_skip_is_the_pipelines_numbering_on_both_sides(sd_pipe: Any) -> None:
    out = Conditioner.from_pipeline(sd_pipe)(SHORT, "blurry", clip_skip=1)
    stack = getattr(sd_pipe.text_encoder, "text_model", sd_pipe.text_encoder)
    for states, text in ((out.prompt_embeds, SHORT), (out.negative_prompt_embeds, "blurry")):
        ids = sd_pipe.tokenizer(text, padding="max_length", return_tensors="pt").input_ids
        with torch.no_grad():
            close(
                states, stack.final_layer_norm(sd_pipe.text_encoder(ids, output_hidden_states=True).hidden_states[-2])
            )
    with pytest.raises(ConfigError, match="clip_skip is 4, expected 0"):
        condition(sd_pipe, SHORT, clip_skip=4)


def test_the_pipeline_takes_what_it_gives(sd_pipe: Any) -> None:
    out = condition(sd_pipe, SHORT, LONG)
    image = sd_pipe(**out.kwargs, num_inference_steps=2, output_type="np").images
    assert image.shape == (1, 16, 16, 3)
    assert not out.prompt_embeds.requires_grad


@pytest.fixture
def copy(sd_folder: Any) -> Any:
    """A pipeline that a test may change."""
    from clipcond.diffusion.pipelines import load_pipeline

    return load_pipeline(sd_folder, device="cpu")


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_encoders_keep_their_dtype(copy: Any, dtype: torch.dtype) -> None:
    copy.to(dtype)
    out = condition(copy, SHORT, "blurry")
    assert out.prompt_embeds.dtype == dtype
    close(out.prompt_embeds, stock(copy, SHORT, "")[0])


def test_second_generation_encoders_pad_with_zero(copy: Any) -> None:
    copy.tokenizer.pad_token = "!"
    conditioner = Conditioner.from_pipeline(copy)
    assert (conditioner.family, conditioner.pad_id) == ("sd2", 0)
    out = conditioner(SHORT, "blurry")
    close(out.prompt_embeds, stock(copy, SHORT, "blurry")[0])
    close(out.negative_prompt_embeds, stock(copy, SHORT, "blurry")[1])


@pytest.mark.parametrize("variant", ["StableDiffusionImg2ImgPipeline", "StableDiffusionInpaintPipeline"])
def test_variants_of_the_pipeline_are_taken(sd_pipe: Any, variant: str) -> None:
    import diffusers

    parts = {name: part for name, part in sd_pipe.components.items() if name != "image_encoder"}
    pipe = getattr(diffusers, variant)(**parts, requires_safety_checker=False)
    close(condition(pipe, SHORT).prompt_embeds, stock(sd_pipe, SHORT, "")[0])


def test_an_added_token_is_never_read_as_plain_text(copy: Any) -> None:
    copy.tokenizer.add_tokens("<Cat-Toy>")
    conditioner = Conditioner.from_pipeline(copy)
    close(conditioner(SHORT).prompt_embeds, stock(copy, SHORT, "")[0])
    with pytest.raises(ModelError, match="<Cat-Toy>, a textual-inversion token"):
        conditioner("a photo of a <cat-toy>")


class Other:
    def __init__(self, **components: object) -> None:
        self.components = components
        self.__dict__.update(components)

    def __call__(self, prompt: str) -> None: ...


class Embeddable(Other):
    def __call__(self, prompt_embeds: object, negative_prompt_embeds: object) -> None: ...  # type: ignore[override]


class Pooling(Other):
    def __call__(self, prompt_embeds: object, pooled_prompt_embeds: object) -> None: ...  # type: ignore[override]


def test_other_pipelines_are_named(sd_pipe: Any, copy: Any) -> None:
    with pytest.raises(
        ModelError, match=r"Other has no unet and no transformer; supported are pipelines of the Stable"
    ):
        Conditioner.from_pipeline(Other(text_encoder_2=1))
    with pytest.raises(ModelError, match=r"Other is of a family with prior; supported"):
        Conditioner.from_pipeline(Other(prior=1, unet=1))
    with pytest.raises(ModelError, match="Other has no tokenizer; supported"):
        Conditioner.from_pipeline(Other(transformer=1))
    with pytest.raises(ModelError, match="Linear has no unet and no transformer; supported"):
        Conditioner.from_pipeline(torch.nn.Linear(2, 2))
    parts = {"tokenizer": sd_pipe.tokenizer, "unet": sd_pipe.unet}
    with pytest.raises(ModelError, match="Other takes no prompt_embeds"):
        Conditioner.from_pipeline(Other(**parts, text_encoder=sd_pipe.text_encoder))
    with pytest.raises(ModelError, match="a text encoder of class Linear"):
        Conditioner.from_pipeline(Embeddable(**parts, text_encoder=torch.nn.Linear(2, 2)))
    copy.text_encoder.config.use_attention_mask = True
    with pytest.raises(ModelError, match="masks its padding"):
        Conditioner.from_pipeline(copy)


def test_another_vocabulary_is_refused(copy: Any) -> None:
    from transformers import CLIPTextConfig, CLIPTextModel

    tiny = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    copy.text_encoder = CLIPTextModel(CLIPTextConfig(**tiny, vocab_size=1000))
    with pytest.raises(ModelError, match="over an encoder of 1000, expected CLIP's vocabulary of 49408"):
        Conditioner.from_pipeline(copy)
    copy.text_encoder = CLIPTextModel(CLIPTextConfig(**tiny, vocab_size=49408, max_position_embeddings=2))
    with pytest.raises(ModelError, match="text_encoder of 2 positions, expected 3 or more"):
        Conditioner.from_pipeline(copy)


def test_chunks_are_as_long_as_the_encoder_and_its_tokenizer_are(copy: Any) -> None:
    from transformers import CLIPTextConfig, CLIPTextModel

    tiny = {
        "hidden_size": 16,
        "intermediate_size": 16,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
        "eos_token_id": 2,
    }
    copy.text_encoder = CLIPTextModel(CLIPTextConfig(**tiny, max_position_embeddings=248))
    assert condition(copy, SHORT).prompt_embeds.shape[1] == 77  # as many as the pipeline fills a prompt up to
    copy.tokenizer.model_max_length = 248
    middle = "a red fox, " * 50  # 200 content tokens
    out = condition(copy, [middle, SHORT], "blurry")
    close(out.prompt_embeds, stock(copy, [middle, SHORT], ["blurry"] * 2)[0])
    assert not out.plans[0].truncated
    long = condition(copy, middle * 2, "blurry", dialect="a1111")
    assert long.prompt_embeds.shape[1] == long.negative_prompt_embeds.shape[1] == 2 * 248
    assert [len(chunk.tokens) for chunk in long.plans[0].encoders["clip_l"].chunks] == [244, 156]  # at a comma
    assert long.plans[0].encoders["clip_l"].limit == 246
    assert len(condition(copy, [SHORT, middle * 2], lengths="pad_empty").prompt_embeds[0]) == 2 * 248


def test_numbers_that_do_not_fit_are_named(sd_pipe: Any) -> None:
    with pytest.raises(ConfigError, match="list of prompts is empty"):
        condition(sd_pipe, [])
    with pytest.raises(ConfigError, match="1 negative prompts for 2 prompts; give one for all or one for each"):
        condition(sd_pipe, [SHORT, LONG], ["x"])
    with pytest.raises(ConfigError, match="0 negative prompts for 2 prompts; give one for all or one for each"):
        condition(sd_pipe, [SHORT, LONG], [])
    with pytest.raises(ConfigError, match="num_images_per_prompt is 0"):
        condition(sd_pipe, SHORT, num_images_per_prompt=0)
    with pytest.raises(ConfigError, match="unknown dialect 'klingon'"):
        condition(sd_pipe, SHORT, dialect="klingon")
    with pytest.raises(ConfigError, match="unknown weighting 'a111'; did you mean 'a1111'"):
        condition(sd_pipe, SHORT, weighting="a111")
    with pytest.raises(ConfigError, match="unknown policy for pooled vectors 'frist'; did you mean 'first'"):
        condition(sd_pipe, SHORT, pooled="frist")
    with pytest.raises(ConfigError, match="lengths is 'long', expected one of lcm, mask, pad_empty"):
        condition(sd_pipe, SHORT, lengths="long")
    with pytest.raises(ConfigError, match=r"takes no prompt_attention_mask; use 'lcm' or 'pad_empty'"):
        condition(sd_pipe, SHORT, lengths="mask")
    with pytest.raises(
        ConfigError, match="prompt_2 is given, but StableDiffusionPipeline has no encoder that reads it"
    ):
        condition(sd_pipe, SHORT, prompt_2="x")
    with pytest.raises(ConfigError, match="max_sequence_length is 128, but StableDiffusionPipeline has no T5"):
        condition(sd_pipe, SHORT, max_sequence_length=128)


def test_both_sides_have_one_shape(sd_pipe: Any) -> None:
    from dataclasses import replace

    out = condition(sd_pipe, SHORT)
    with pytest.raises(ShapeError, match="negative_prompt_embeds: axis T is 154, expected 77"):
        replace(out, negative_prompt_embeds=out.prompt_embeds.repeat(1, 2, 1))


@pytest.mark.parametrize(
    ("prompt", "kind"), [(None, "NoneType"), (["a", None], "NoneType"), (b"a", "bytes"), ([["a"]], "list")]
)
def test_what_is_no_text_is_named(sd_pipe: Any, prompt: Any, kind: str) -> None:
    with pytest.raises(ConfigError, match=f"^prompt is or holds a {kind}, expected a string or a list of strings"):
        condition(sd_pipe, prompt)
    if isinstance(prompt, list):
        with pytest.raises(ConfigError, match=f"^negative_prompt is or holds a {kind}"):
            condition(sd_pipe, SHORT, prompt)
