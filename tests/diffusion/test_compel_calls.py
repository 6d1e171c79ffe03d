"""compel's `.and()`, `.blend()` and `.swap()`, side by side with the installed compel on one tiny random pipeline.

compel raises for an empty prompt in a call, and pools the text with its marks in it; neither is compared.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch

from clipcond.diffusion.conditioner import Conditioner

WORDS = "an old red fox sits in the green garden and looks at two small grey stone houses near a wide river "
LONG = f"{WORDS * 3} (near the border)0.6 {WORDS} cat++ {WORDS}"
MODES = {"compel-sentences": "SENTENCES", "compel-phrases": "PHRASES", "word": "WORDS", "hard": "BRUTAL"}
CALLS = {
    "and": '("a red fox", "a blue bird").and()',
    "and with weights": '("a red fox", "a blue bird", "snow").and(1, 0.5, 1.7)',
    "and of one": '("a red fox").and(0.3)',
    "and with weights inside": '("a (red)1.4 fox in (snow)0.5", "(blue)0.2 bird-", "light++").and(0.6, 1, 2)',
    "long and": f'("{LONG}", "a blue bird", "{WORDS * 6}").and(0.5, 1, 0.25)',
    "blend": '("a red fox", "a blue bird").blend(0.7, 0.3)',
    "blend that is normalised": '("a red fox", "a blue bird").blend(3, 2)',
    "blend that is not": '("a red fox", "a blue bird").blend(0.8, 0.8, no_normalize)',
    "negative blend": '("a red fox", "a blue bird").blend(1, -0.4, no_normalize)',
    "blend of three": '("a red fox", "a blue bird", "snow").blend(1, 1, 0.5)',
    "blend without weights": '("a red fox", "a blue bird").blend()',
    "blend with weights inside": '("a (red)1.4 fox in (snow)0.5", "(blue)0.2 bird-").blend(0.4, 0.6)',
    "long blend": f'("{LONG}", "a blue bird").blend(0.4, 0.6)',
    "long blend of other lengths": f'("a bird-", "{LONG}", "{WORDS * 4}").blend(1, -1, 0.5, no_normalize)',
    "brackets for quotes": '((a red++ fox), "a bird").blend(1, 1)',
    "no call": f"a (red)0.5 fox++ {WORDS}",
}  # fmt: skip


def compel_of(pipe: Any, mode: str = "WORDS", number: str = "") -> Any:
    """compel around an encoder of a pipeline, with the layer that the family has."""
    compel = pytest.importorskip("compel")
    from compel.embeddings_provider import ReturnedEmbeddingsType, SplitLongTextMode

    kinds = ReturnedEmbeddingsType
    two = hasattr(pipe, "text_encoder_2")
    return compel.Compel(
        tokenizer=getattr(pipe, f"tokenizer{number}"),
        text_encoder=getattr(pipe, f"text_encoder{number}"),
        truncate_long_prompts=False,
        split_long_text_mode=getattr(SplitLongTextMode, mode),
        returned_embeddings_type=(
            kinds.PENULTIMATE_HIDDEN_STATES_NON_NORMALIZED if two else kinds.LAST_HIDDEN_STATES_NORMALIZED
        ),
    )


def close(ours: Any, theirs: Any) -> None:
    torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-4)


CASES = [(name, mode) for name in CALLS for mode in (MODES if "long" in name else ["word"])]


@pytest.mark.parametrize(("name", "chunking"), CASES)
def test_the_states_are_those_of_compel(name: str, chunking: str, pipes: Callable[[str], Any]) -> None:
    pipe, prompt = pipes("sd15"), CALLS[name]
    out = Conditioner.from_pipeline(pipe)(prompt, dialect="compel", chunking=chunking, lengths="pad_empty")
    close(out.prompt_embeds, compel_of(pipe, MODES[chunking])(prompt))


@pytest.mark.parametrize("prompt", CALLS.values(), ids=CALLS.keys())
def test_so_are_those_of_both_encoders_of_sdxl(prompt: str, pipes: Callable[[str], Any]) -> None:
    pipe = pipes("sdxl")
    out = Conditioner.from_pipeline(pipe)(prompt, dialect="compel", lengths="pad_empty")
    theirs = [compel_of(pipe, number=number)(prompt) for number in ("", "_2")]
    close(out.prompt_embeds, torch.cat(theirs, dim=-1))


def test_a_batch_is_padded_as_compel_pads_it(pipes: Callable[[str], Any]) -> None:
    pipe, prompts = pipes("sd15"), list(CALLS.values())
    out = Conditioner.from_pipeline(pipe)(prompts, LONG, dialect="compel", lengths="pad_empty")
    compel = compel_of(pipe)
    theirs = compel.pad_conditioning_tensors_to_same_length(
        [compel(prompts), *[compel(LONG).repeat(len(prompts), 1, 1)]]
    )
    close(out.prompt_embeds, theirs[0])
    close(out.negative_prompt_embeds, theirs[1])


SWAPS = {
    "a word": "a cat.swap(dog) in snow",
    "several words": 'a "red cat".swap("big blue dog", s_end=0.3) in the snow',
    "options": "a fox.swap(bird, s_start=0.1, s_end=0.5, t_start=0.3, t_end=0.9)",
    "shape freedom": "a fox.swap(bird, shape_freedom=0.5) in snow",
    "with weights": "a (red)1.3 fox.swap(bird) in (the snow)0.6",
    "weighted": "a (red fox)1.3.swap(bird) in snow",
    "a word that goes": 'a "red ".swap("") fox',
    "two": "a fox.swap(big bird) in snow.swap(soft light), grey",
    "long": f"a fox.swap(bird) in {WORDS * 5}",
    "longer than the original": f'a fox.swap("{WORDS * 5}") in snow',
}  # fmt: skip


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("prompt", SWAPS.values(), ids=SWAPS.keys())
def test_swaps_are_those_of_compel(prompt: str, pipes: Callable[[str], Any]) -> None:
    pipe = pipes("sd15")
    out = Conditioner.from_pipeline(pipe)(prompt, dialect="compel", lengths="pad_empty")
    compel = compel_of(pipe)
    conditioning, options = compel.build_conditioning_tensor_for_conjunction(compel.parse_prompt_string(prompt))
    theirs = options.get("cross_attention_control")
    close(out.prompt_embeds, conditioning)
    if theirs is None:  # no swap to compel
        assert out.edited is None
        return
    assert out.edited is not None
    close(out.prompt_embeds, theirs.original_conditioning)
    close(out.edited.prompt_embeds, theirs.edited_conditioning)
    ((edit,),) = out.edited.edits
    assert list(edit.spans) == theirs.edit_opcodes
    assert edit.options[0] == pytest.approx(theirs.edit_options)


def test_swaps_in_a_batch_and_in_parts(pipes: Callable[[str], Any]) -> None:
    make = Conditioner.from_pipeline(pipes("sdxl"))
    prompts = ["a bird", '("a fox.swap(bird)", "snow").and(1, 0.5)']
    out = make(prompts, "grey", dialect="compel", num_images_per_prompt=2)
    assert out.edited is not None
    assert out.edited.edits[0] == ()
    (edit,) = out.edited.edits[1]
    assert edit.part == 0
    assert edit.spans == (("equal", 0, 1, 0, 1), ("equal", 1, 2, 1, 2), ("replace", 2, 3, 2, 3), ("equal", 3, 4, 3, 4))
    by_hand = make(["a bird", '("a bird", "snow").and(1, 0.5)'], "grey", dialect="compel", num_images_per_prompt=2)
    close(out.edited.prompt_embeds, by_hand.prompt_embeds)
    close(out.edited.pooled_prompt_embeds, by_hand.pooled_prompt_embeds)
    plain = make(["a bird", '("a fox", "snow").and(1, 0.5)'], "grey", dialect="compel", num_images_per_prompt=2)
    for name, tensor in plain.tensors.items():
        close(out.tensors[name], tensor)
    assert out.prompts == tuple(prompts)
    assert plain.edited is None
