"""Conditionings as files: all that is saved comes back, for the encoders that made it; every refusal in one line."""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file

from clipcond.diffusion import conditioning_file as saving
from clipcond.diffusion.conditioner import Conditioner
from clipcond.diffusion.conditioning import TENSORS, Conditioning
from clipcond.diffusion.pipeline_view import view_pipeline
from clipcond.diffusion.plan_documents import from_document, to_document
from clipcond.errors import ConfigError, DataError, ModelError, OutputExists, ResourceMissing, ShapeError
from clipcond.prompt.plan import plan

Pipes = Callable[[str], Any]
Limit = Callable[[int], AbstractContextManager[None]]
FIELDS = (
    "plans", "negative_plans", "other_plans", "findings", "family", "dialect", "clip_skip", "weighting", "chunking",
    "pooled", "lengths", "fingerprints",
)  # fmt: skip


@pytest.fixture
def made(pipes: Pipes) -> Conditioning:
    return Conditioner.from_pipeline(pipes("sd15"))("a red fox", "grey")


def same(first: Conditioning, second: Conditioning) -> None:
    for name in FIELDS:
        assert getattr(first, name) == getattr(second, name), name
    assert first.kwargs.keys() == second.kwargs.keys()
    for name in TENSORS:
        ours, theirs = getattr(first, name), getattr(second, name)
        assert (ours is None) == (theirs is None)
        assert ours is None or torch.equal(ours, theirs)


def rewritten(file: Path, change: Callable[[dict[str, str], dict[str, torch.Tensor]], None]) -> None:
    """The file with its metadata and tensors changed."""
    with safe_open(file, framework="pt") as opened:
        metadata = dict(opened.metadata())
        tensors = {name: opened.get_tensor(name) for name in opened.keys()}  # noqa: SIM118
    metadata.pop("crc32", None)  # a file of an earlier version: what follows is seen without its checksum
    change(metadata, tensors)
    save_file(tensors, file, metadata=metadata)


@pytest.mark.parametrize("family", ["sd15", "sd2", "sdxl", "refiner", "sd3", "flux"])
def test_every_family_comes_back_as_it_was(pipes: Pipes, tmp_path: Path, family: str) -> None:
    conditioner = Conditioner.from_pipeline(pipes(family))
    skip = 0 if family == "flux" else 1
    settings: dict[str, Any] = {"dialect": "comfy", "weighting": "comfy+mean_norm", "pooled": "mean", "clip_skip": skip}
    out = conditioner(["a (red:1.3) fox", "b " * 90], "grey", chunking="word", num_images_per_prompt=2, **settings)
    out.save(tmp_path / "fox.safetensors")
    same(Conditioning.load(tmp_path / "fox.safetensors"), out)
    same(Conditioning.load(tmp_path / "fox.safetensors", pipes(family)), out)


def test_prompts_of_other_encoders_and_masks_come_back(pipes: Pipes, tmp_path: Path) -> None:
    out = Conditioner.from_pipeline(pipes("sdxl"))("a fox", "grey", prompt_2="a (bird:1.2", dialect="a1111")
    out.save(tmp_path / "fox.safetensors")
    same(Conditioning.load(tmp_path / "fox.safetensors"), out)
    assert [each.prompt for each in out.other_plans["prompt_2"]] == ["a (bird:1.2"]


def test_half_precision_and_odd_texts_come_back(pipes: Pipes, tmp_path: Path) -> None:
    out = Conditioner.from_pipeline(pipes("sd15"))("\ud800 “fox”\n🦊\x00", "")
    tensors = {name: tensor.bfloat16() for name, tensor in out.tensors.items()}
    half = Conditioning(**tensors, **{name: getattr(out, name) for name in FIELDS}, takes=out.takes)
    half.save(tmp_path / "fox.safetensors")
    same(Conditioning.load(tmp_path / "fox.safetensors"), half)


def test_a_prompt_that_changes_comes_back_with_its_callback(pipes: Pipes, tmp_path: Path) -> None:
    pipe, file = pipes("sd15"), tmp_path / "fox.safetensors"
    out = Conditioner.from_pipeline(pipe)("a [red:blue:2] [fox|bird]", "grey", dialect="a1111", steps=4)
    out.save(file)
    with pytest.raises(
        ConfigError, match=r"the prompt of .*fox\.safetensors changes over the steps; load it with the pip"
    ):
        Conditioning.load(file)
    back = Conditioning.load(file, pipe)
    same(back, out)
    assert out.callback is not None
    assert back.callback is not None
    assert back.callback.timeline == out.callback.timeline
    assert back.callback.tensor_inputs == out.callback.tensor_inputs
    for ours, theirs in zip(out.callback.states, back.callback.states, strict=True):
        assert ours.keys() == theirs.keys()
        assert all(torch.equal(ours[name], theirs[name]) for name in ours)

    def shorten(metadata: dict[str, str], tensors: dict[str, torch.Tensor]) -> None:
        tensors["1/prompt_embeds"] = tensors["1/prompt_embeds"][:, :5].contiguous()

    rewritten(file, shorten)
    with pytest.raises(DataError, match="the tensors of its schedule do not fit one another; write it again"):
        Conditioning.load(file, pipe)


def test_the_schedule_is_in_the_words_of_format_2(pipes: Pipes, tmp_path: Path) -> None:
    file = tmp_path / "fox.safetensors"
    Conditioner.from_pipeline(pipes("sd15"))("a [red:blue:2]", "grey", dialect="a1111", steps=4).save(file)
    with safe_open(file, framework="pt") as opened:
        document = json.loads(opened.metadata()["conditioning"])
    variants = [["a red", "grey"], ["a blue", "grey"]]
    assert document["schedule"] == {"steps": 4, "lasts": [2, 4], "runs": [0, 1], "variants": variants}


def test_anything_with_a_view_of_its_pipeline_can_stand_for_the_conditioner(
    pipes: Pipes, made: Conditioning, tmp_path: Path
) -> None:
    made.save(tmp_path / "fox.safetensors")
    holder = SimpleNamespace(pipeline=view_pipeline(pipes("sd15")))
    back = Conditioning.load(tmp_path / "fox.safetensors", conditioner=holder)
    same(back, made)
    assert back.takes == holder.pipeline.takes


def test_swaps_come_back(pipes: Pipes, tmp_path: Path) -> None:
    pipe = pipes("sd15")
    out = Conditioner.from_pipeline(pipe)('a "fox".swap("bird", t_start=0.3)', "grey", dialect="compel")
    assert out.edited is not None
    out.save(tmp_path / "fox.safetensors")
    for back in (
        Conditioning.load(tmp_path / "fox.safetensors"),
        Conditioning.load(tmp_path / "fox.safetensors", pipe),
    ):
        same(back, out)
        assert back.edited is not None
        assert back.edited.edits == out.edited.edits
        assert torch.equal(back.edited.prompt_embeds, out.edited.prompt_embeds)


def test_what_was_loaded_can_be_saved_again(made: Conditioning, tmp_path: Path) -> None:
    made.save(tmp_path / "a.safetensors")
    Conditioning.load(tmp_path / "a.safetensors").save(tmp_path / "b.safetensors")
    same(Conditioning.load(tmp_path / "b.safetensors"), made)


def test_other_encoders_and_families_are_refused_unless_forced(
    pipes: Pipes, fresh: Pipes, made: Conditioning, tmp_path: Path
) -> None:
    file = tmp_path / "fox.safetensors"
    made.save(file)
    with pytest.raises(
        ModelError, match=r"fox\.safetensors was made for family sd15, and StableDiffusionXLPipeline is of"
    ):
        Conditioning.load(file, pipes("sdxl"))
    other = fresh("sd15")
    with torch.no_grad():
        next(iter(other.text_encoder.parameters()))[0] += 1
    with pytest.raises(
        ModelError, match=r"was made by another clip_l than StableDiffusionPipeline has .*encode the prompt"
    ):
        Conditioning.load(file, other)
    with pytest.raises(ModelError, match="was made by another clip_l"):
        Conditioning.load(file, conditioner=Conditioner.from_pipeline(other))
    same(Conditioning.load(file, other, force=True), made)
    other.text_encoder.to(torch.bfloat16)
    with pytest.raises(ModelError, match="number format"):
        Conditioning.load(file, other)
    assert Conditioning.load(file, other, force=True).prompt_embeds.dtype == torch.bfloat16


def test_a_loaded_conditioning_makes_the_same_picture(pipes: Pipes, made: Conditioning, tmp_path: Path) -> None:
    pipe = pipes("sd15")
    made.save(tmp_path / "fox.safetensors")
    back = Conditioning.load(tmp_path / "fox.safetensors", pipe)

    def draw(out: Conditioning) -> torch.Tensor:
        generator = torch.Generator().manual_seed(0)
        picture: torch.Tensor = pipe(**out.kwargs, num_inference_steps=2, generator=generator, output_type="pt").images
        return picture

    assert torch.equal(draw(made), draw(back))


def test_is_complete_or_not_there(made: Conditioning, tmp_path: Path, file_size_limit: Limit) -> None:
    file = tmp_path / "fox.safetensors"

    with file_size_limit(100), pytest.raises(OSError, match=r"File too large: '.*fox\.safetensors'"):
        made.save(file)
    assert list(tmp_path.iterdir()) == []
    made.save(file)
    before = file.read_bytes()
    with pytest.raises(OutputExists, match=r"fox\.safetensors is there already; choose another name or ask for over"):
        made.save(file)
    assert [file.read_bytes(), *tmp_path.iterdir()] == [before, file]
    with pytest.raises(ResourceMissing, match=r"there is no folder .*nowhere; make it, or choose another name"):
        made.save(tmp_path / "nowhere" / "fox.safetensors")


def test_a_file_system_without_links_will_do(
    made: Conditioning, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(self: Path, target: Path) -> None:
        raise OSError(1, "Operation not permitted")

    monkeypatch.setattr(Path, "hardlink_to", refuse)
    made.save(tmp_path / "fox.safetensors")
    same(Conditioning.load(tmp_path / "fox.safetensors"), made)
    with pytest.raises(OutputExists, match="is there already"):
        made.save(tmp_path / "fox.safetensors")


def test_the_first_format_is_read(pipes: Pipes, made: Conditioning, tmp_path: Path) -> None:
    file = tmp_path / "old.safetensors"
    metadata = {
        "format": "clipcond.conditioning/1",
        "prompt": json.dumps(["a red fox"]),
        "negative_prompt": json.dumps(["grey"]),
        "family": "sd15",
        "dialect": "plain",
        "clip_skip": "0",
    }
    save_file(made.tensors, file, metadata=metadata)
    back = Conditioning.load(file)
    assert (back.plans, back.negative_plans, back.clip_skip) == (made.plans, made.negative_plans, 0)
    assert torch.equal(back.prompt_embeds, made.prompt_embeds)
    with pytest.raises(ModelError, match="does not say which clip_l made it"):
        Conditioning.load(file, pipes("sd15"))
    assert torch.equal(Conditioning.load(file, pipes("sd15"), force=True).prompt_embeds, made.prompt_embeds)


def test_truncated_and_foreign_files_are_one_line(made: Conditioning, tmp_path: Path) -> None:
    file = tmp_path / "fox.safetensors"
    made.save(file)
    content = file.read_bytes()
    for size in (0, 4, 100, len(content) // 2, len(content) - 1):
        file.write_bytes(content[:size])
        with pytest.raises(DataError, match="is not a safetensors file") as caught:
            Conditioning.load(file)
        assert "\n" not in str(caught.value)
    save_file({"prompt_embeds": torch.zeros(1)}, file, metadata={"format": "pt"})
    with pytest.raises(DataError, match="holds no conditioning; expected a file that"):
        Conditioning.load(file)
    save_file({"prompt_embeds": torch.zeros(1)}, file, metadata={"format": "clipcond.conditioning/7"})
    with pytest.raises(DataError, match=r"is of format 'clipcond.conditioning/7', newer than .*update to read it"):
        Conditioning.load(file)
    with pytest.raises(ResourceMissing, match="no conditioning at"):
        Conditioning.load(tmp_path)


@pytest.mark.parametrize(
    ("document", "reason"),
    [
        ("{", "Expecting property name"),
        ("[]", "list indices must be"),
        ("{}", "KeyError"),
        ("[" * 100_000, "recursion"),
    ],
)
def test_a_damaged_document_is_one_line(made: Conditioning, tmp_path: Path, document: str, reason: str) -> None:
    file = tmp_path / "fox.safetensors"
    made.save(file)
    rewritten(file, lambda metadata, tensors: metadata.update(conditioning=document))
    with pytest.raises(DataError, match=f"holds a damaged conditioning: .*{reason}.*; write it again") as caught:
        Conditioning.load(file)
    assert "\n" not in str(caught.value)


def test_tensors_that_do_not_fit_are_damage(made: Conditioning, tmp_path: Path) -> None:
    file = tmp_path / "fox.safetensors"
    made.save(file)
    rewritten(file, lambda metadata, tensors: tensors.update(negative_prompt_embeds=torch.zeros(1, 2, 3)))
    with pytest.raises(DataError, match="damaged conditioning: negative_prompt_embeds: axis T is 2, expected"):
        Conditioning.load(file)
    rewritten(file, lambda metadata, tensors: tensors.pop("prompt_embeds"))  # type: ignore[arg-type, return-value]
    with pytest.raises(DataError, match="damaged conditioning"):
        Conditioning.load(file)


@pytest.mark.parametrize("family", ["sd15", "sdxl"])
@pytest.mark.parametrize("dialect", ["plain", "a1111", "comfy", "compel"])
def test_plans_come_back_to_the_last_field(family: str, dialect: str) -> None:
    for prompt in (
        "a (red:1.3) [fox] " * 30,
        "x AND (y :1.2 <lora:a:0.3:0.5> cat",
        '("a++", "b").and(1, 2)',
        "cat " * 74 + "supercalifragilistic \ud800",
        "",
    ):
        planned = plan(prompt, dialect=dialect, family=family, embeddings={"cat": 3} if dialect == "a1111" else None)
        assert from_document(json.loads(json.dumps(to_document(planned)))) == planned


def test_the_format_is_named_in_the_file(made: Conditioning, tmp_path: Path) -> None:
    made.save(tmp_path / "fox.safetensors")
    with safe_open(tmp_path / "fox.safetensors", framework="pt") as opened:
        metadata = opened.metadata()
    assert metadata["format"] == saving.FORMAT
    document = json.loads(metadata["conditioning"])
    assert [each["prompt"] for each in document["plans"]] == ["a red fox"]
    assert document["fingerprints"].keys() == {"clip_l"}


@pytest.mark.parametrize(
    ("family", "other", "reason"),
    [
        ("sd15", "sdxl", "holds no pooled vector, and StableDiffusionXLPipeline takes one"),
        ("sdxl", "sd15", "holds a pooled vector, and StableDiffusionPipeline takes none"),
        ("sdxl", "refiner", "holds states that are 64 wide, and StableDiffusionXLImg2ImgPipeline takes 40"),
    ],
)
def test_what_does_not_fit_at_all_cannot_be_forced(
    family: str, other: str, reason: str, pipes: Pipes, tmp_path: Path
) -> None:
    file = tmp_path / "fox.safetensors"
    Conditioner.from_pipeline(pipes(family))("a red fox", "grey").save(file)
    with pytest.raises(ModelError, match=reason):
        Conditioning.load(file, pipes(other), force=True)


def test_a_file_without_a_checksum_is_still_read(made: Conditioning, tmp_path: Path) -> None:
    file = tmp_path / "fox.safetensors"
    made.save(file)
    rewritten(file, lambda metadata, tensors: None)
    same(Conditioning.load(file), made)


@pytest.mark.parametrize("dtype", [torch.int64, torch.bool, torch.complex64, torch.float8_e4m3fn])
def test_states_of_another_kind_of_numbers_are_one_line(made: Conditioning, tmp_path: Path, dtype: torch.dtype) -> None:
    file = tmp_path / "fox.safetensors"
    made.save(file)
    rewritten(file, lambda metadata, tensors: tensors.update(prompt_embeds=tensors["prompt_embeds"].to(dtype)))
    kind = str(dtype).removeprefix("torch.")
    with pytest.raises(DataError, match=rf"tensor prompt_embeds is of {kind}, expected float16, bfloat16, float32, f"):
        Conditioning.load(file)


def test_no_flipped_bit_is_accepted(made: Conditioning, tmp_path: Path) -> None:
    file = tmp_path / "fox.safetensors"
    made.save(file)
    content = file.read_bytes()
    header = int.from_bytes(content[:8], "little") + 8
    places = random.Random(0)
    for number in range(300):
        damaged = bytearray(content)
        at = places.randrange(0 if number % 2 else header, header if number % 2 else len(content))
        damaged[at] ^= 1 << places.randrange(8)
        file.write_bytes(damaged)
        with pytest.raises(DataError) as caught:
            Conditioning.load(file)
        assert "\n" not in str(caught.value)


def test_a_wrong_checksum_says_so(made: Conditioning, tmp_path: Path) -> None:
    file = tmp_path / "fox.safetensors"
    made.save(file)

    def change(metadata: dict[str, str], tensors: dict[str, torch.Tensor]) -> None:
        metadata["crc32"] = "1"

    rewritten(file, change)
    with pytest.raises(DataError, match="its checksum does not fit its content; write it again"):
        Conditioning.load(file)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
@pytest.mark.parametrize("name", ["prompt_embeds", "negative_prompt_embeds", "negative_pooled_prompt_embeds"])
def test_a_number_that_is_not_finite_is_refused_by_its_tensor(
    pipes: Pipes, tmp_path: Path, name: str, value: float
) -> None:
    out = Conditioner.from_pipeline(pipes("sdxl"))("a red fox", "grey")
    file = tmp_path / "fox.safetensors"
    out.save(file)

    def spoil(metadata: dict[str, str], tensors: dict[str, torch.Tensor]) -> None:
        tensors[name].view(-1)[3] = value

    rewritten(file, spoil)
    with pytest.raises(DataError, match=rf"tensor {name} has a number that is not finite \(NaN or infinity\)"):
        Conditioning.load(file)
    with pytest.raises(DataError, match=rf"tensor {name} has a number that is not finite"):
        replace(out, **{name: out.tensors[name] * value}).save(tmp_path / "new.safetensors")
    assert not (tmp_path / "new.safetensors").exists()


def test_a_schedules_later_steps_are_finite_too(pipes: Pipes, tmp_path: Path) -> None:
    file = tmp_path / "fox.safetensors"
    Conditioner.from_pipeline(pipes("sd15"))("[fox:cat:0.5]", dialect="a1111", steps=4).save(file)

    def spoil(metadata: dict[str, str], tensors: dict[str, torch.Tensor]) -> None:
        tensors["1/prompt_embeds"].fill_(float("nan"))

    rewritten(file, spoil)
    with pytest.raises(DataError, match="tensor 1/prompt_embeds has a number that is not finite"):
        Conditioning.load(file, pipes("sd15"))


@pytest.mark.parametrize(
    ("shape", "reason"),
    [
        ((0, 77, 32), "axis B is 0, expected 1 or more"),
        ((1, 0, 32), "axis T is 0, expected 1 or more"),
        ((1, 77, 0), "axis D is 0, expected 1 or more"),
        ((3, 77, 32), r"axis B is 3, expected a multiple of its 2 prompts"),
    ],
)
def test_empty_and_odd_batches_are_one_line(pipes: Pipes, tmp_path: Path, shape: tuple[int, ...], reason: str) -> None:
    file = tmp_path / "fox.safetensors"
    Conditioner.from_pipeline(pipes("sd15"))(["a red fox", "a cat"], "grey").save(file)
    names = ("prompt_embeds", "negative_prompt_embeds")
    rewritten(file, lambda metadata, tensors: tensors.update({name: torch.zeros(shape) for name in names}))
    with pytest.raises(DataError, match=f"damaged conditioning: prompt_embeds: {reason}"):
        Conditioning.load(file)


def test_a_mask_of_another_length_is_refused(made: Conditioning) -> None:
    with pytest.raises(ShapeError, match="prompt_attention_mask: axis T is 5, expected 77"):
        replace(made, prompt_attention_mask=torch.ones(1, 5, dtype=torch.bool))
