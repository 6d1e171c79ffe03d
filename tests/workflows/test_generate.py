"""The job of `clipcond generate`, without its command: files, verdicts, events, and what a prompt does to a picture."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

from clipcond.errors import ConfigError, OptionsError, OutputExists, ResourceMissing
from clipcond.prompt.infotext import Infotext, parse_infotext
from clipcond.rerank.ranking import rerank
from clipcond.rerank.scorer import Scorer
from clipcond.workflows.encode import EncodeOptions
from clipcond.workflows.encode import run as encode
from clipcond.workflows.events import Advanced, Event, Finished, Note, Started
from clipcond.workflows.generate import GenerateOptions, PictureDone, WrittenPicture, run
from clipcond.workflows.prompt_options import PromptOptions

LONG = "a red circle in the top left, " * 20
RANDOM = "the mean of the weighted states is near zero"  # of an encoder of random weights it is


def draw(folder: Path, out: Path, prompt: PromptOptions, **more: Any) -> tuple[tuple[WrittenPicture, ...], list[Event]]:
    """Two pictures of four steps, and the events on the way."""
    events: list[Event] = []
    options = {"pipeline": str(folder), "count": 2, "steps": 4} | more
    return run(GenerateOptions(out=out, prompt=prompt, **options), events.append), events


def a1111(prompt: str, **more: Any) -> PromptOptions:
    return PromptOptions(prompt=prompt, dialect="a1111", **more)


def notes(events: Sequence[Event]) -> list[str]:
    return [event.text for event in events if isinstance(event, Note) and RANDOM not in event.text]


def pixels(pictures: Sequence[WrittenPicture]) -> list[bytes]:
    found = []
    for picture in pictures:
        with Image.open(picture.path) as image:
            found.append(image.tobytes())
    return found


def infotext(picture: WrittenPicture) -> Infotext:
    with Image.open(picture.path) as image:
        return parse_infotext(image.info["parameters"])


def test_pictures_come_as_events_and_as_the_result(sd_folder: Path, tmp_path: Path) -> None:
    pictures, events = draw(sd_folder, tmp_path / "a", PromptOptions(prompt="a fox"), seed=7, batch_size=1)
    assert [picture.path for picture in pictures] == [tmp_path / "a" / f"0000{n}-{n + 7}.png" for n in range(2)]
    assert [event.picture for event in events if isinstance(event, PictureDone)] == list(pictures)
    assert [event for event in events if isinstance(event, Started)] == [
        Started(f"loading {sd_folder}"),
        Started("generating", 8, "steps"),
    ]
    assert sum(event.count for event in events if isinstance(event, Advanced)) == 8
    assert isinstance(events[-1], Finished)
    done = [number for number, event in enumerate(events) if isinstance(event, PictureDone)]
    assert any(isinstance(event, Advanced) for event in events[done[0] : done[1]])  # the first came before the second
    assert "kept" not in pictures[0].to_json()


def test_same_seed_same_bytes(sd_folder: Path, tmp_path: Path) -> None:
    contents = []
    for name, seed in (("a", 0), ("b", 0), ("c", 3)):
        pictures, _ = draw(sd_folder, tmp_path / name, PromptOptions(prompt=LONG), seed=seed)
        contents.append([picture.path.read_bytes() for picture in pictures])
    assert contents[0] == contents[1]
    assert not set(contents[0]) & set(contents[2])


def test_keep_moves_the_others_aside(sd_folder: Path, dual_folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "a"
    pictures, events = draw(sd_folder, out, PromptOptions(prompt=LONG), count=3, keep=1, rerank_model=str(dual_folder))
    assert [picture.kept for picture in pictures] == [True, False, False]
    scores = [picture.score or 0.0 for picture in pictures]
    assert scores == sorted(scores, reverse=True)
    assert pictures[0].path.parent == out
    assert {picture.path.parent for picture in pictures[1:]} == {out / "rejected"}
    assert all(picture.path.is_file() for picture in pictures)
    assert len(list(out.rglob("*.png"))) == 3
    assert all(event.picture.kept is None for event in events if isinstance(event, PictureDone))


def test_a_picture_that_went_away_is_not_judged(
    sd_folder: Path, dual_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from clipcond.rerank import ranking

    def without_the_first(paths: list[Path], prompt: str, **options: Any) -> Any:
        paths[0].unlink()
        return original(paths, prompt, **options)

    original = ranking.rerank
    monkeypatch.setattr(ranking, "rerank", without_the_first)
    pictures, _ = draw(
        sd_folder, tmp_path / "a", PromptOptions(prompt=LONG), count=3, keep=2, rerank_model=str(dual_folder)
    )
    assert [picture.kept for picture in pictures] == [True, True, False]
    assert (pictures[2].seed, pictures[2].score) == (0, None)
    assert pictures[2].to_json()["error"]


def test_the_ranking_reads_words_without_marks_as_rerank_does(
    sd_folder: Path, dual_folder: Path, tmp_path: Path
) -> None:
    prompt = a1111("a (red:1.3) fox, <lora:ink:1>, in the snow AND the sea :0.5")
    pictures, _ = draw(sd_folder, tmp_path / "a", prompt, count=2, keep=1, rerank_model=str(dual_folder))
    ranking = rerank([picture.path for picture in pictures], scorer=Scorer.load(str(dual_folder)))
    assert {row.prompt for row in ranking.rows} == {"a red fox, in the snow the sea"}
    assert [round(row.cosine or 0.0, 6) for row in ranking.rows] == [picture.score for picture in pictures]


def test_files_in_the_way_cost_nothing(sd_folder: Path, tmp_path: Path) -> None:
    (tmp_path / "rejected").write_text("mine")
    prompt = PromptOptions(prompt="x")
    with pytest.raises(OutputExists, match="rejected is a file; name a folder for the pictures"):
        draw(sd_folder, tmp_path, prompt, keep=1)
    with pytest.raises(OutputExists, match="rejected is a file; name a folder for the pictures"):
        draw(sd_folder, tmp_path / "rejected", prompt)
    with pytest.raises(ResourceMissing, match=r"no conditioning at .*none: there is no such file"):
        draw(tmp_path / "none", tmp_path / "a", PromptOptions(), conditioning=tmp_path / "none")


@pytest.mark.parametrize(
    ("prompt", "more", "message"),
    [
        ({}, {}, "give a PROMPT, or --infotext FILE, or --conditioning FILE"),
        ({"prompt": "x"}, {"force": True}, "--force is about a --conditioning FILE"),
        ({"prompt": "x"}, {"keep": 3, "count": 2}, "--keep 3 of --count 2 pictures"),
        ({"prompt": " "}, {"keep": 1}, "--keep needs a PROMPT"),
        ({"prompt": "x", "pooled": "last"}, {"stock": True}, "leave out --pooled"),
        ({"prompt": "x"}, {"conditioning": Path("f")}, "--conditioning FILE says what PROMPT would"),
        ({"clip_skip": 1}, {"conditioning": Path("f")}, "--conditioning FILE says what --clip-skip would"),
    ],
)
def test_options_that_contradict_one_another(
    tmp_path: Path, prompt: dict[str, Any], more: dict[str, Any], message: str
) -> None:
    with pytest.raises(OptionsError, match=message):
        GenerateOptions(out=tmp_path, prompt=PromptOptions(**prompt), **more)


def test_stock_notes_what_is_dropped(sd_folder: Path, tmp_path: Path) -> None:
    pictures, events = draw(sd_folder, tmp_path / "a", PromptOptions(prompt=LONG), stock=True)
    assert {picture.through for picture in pictures} == {"stock"}
    (note,) = notes(events)
    assert note.startswith("prompt: the stock pipeline reads 75 of 160 tokens and drops “")


def test_weights_reach_the_picture(sd_folder: Path, tmp_path: Path) -> None:
    weighted, _ = draw(sd_folder, tmp_path / "a", a1111("a (red:1.9) fox"))
    none, _ = draw(sd_folder, tmp_path / "b", a1111("a red fox"))
    comfy, _ = draw(sd_folder, tmp_path / "c", a1111("a (red:1.9) fox", weighting="comfy"))
    assert len({pixels(pictures)[0] for pictures in (weighted, none, comfy)}) == 3


def test_a_schedule_changes_the_prompt_on_the_way(sd_folder: Path, tmp_path: Path) -> None:
    prompts = ["a [red:blue:2] fox", "a red fox", "a blue fox", "a [red:blue:4] fox"]
    drawn = {
        prompt: pixels(draw(sd_folder, tmp_path / str(number), a1111(prompt))[0])
        for number, prompt in enumerate(prompts)
    }
    assert drawn["a [red:blue:4] fox"] == drawn["a red fox"]  # of four steps
    assert len({found[0] for found in drawn.values()}) == 3


def test_a_saved_schedule_brings_its_steps(sd_folder: Path, tmp_path: Path) -> None:
    file = tmp_path / "fox.safetensors"
    encode(EncodeOptions(out=file, prompt=a1111("a [red:blue:2] fox"), model=str(sd_folder), steps=4))
    pictures, _ = draw(sd_folder, tmp_path / "a", PromptOptions(), conditioning=file, steps=None, count=1)
    assert (pictures[0].steps, pictures[0].prompt) == (4, "a [red:blue:2] fox")
    with pytest.raises(OptionsError, match="was encoded for --steps 4, not 6; leave --steps out"):
        draw(sd_folder, tmp_path / "b", PromptOptions(), conditioning=file, steps=6)


def test_and_composes(sd_folder: Path, tmp_path: Path) -> None:
    both, _ = draw(sd_folder, tmp_path / "a", a1111("a red fox AND a blue bird :0.8"))
    one, _ = draw(sd_folder, tmp_path / "b", a1111("a red fox"))
    alone, _ = draw(sd_folder, tmp_path / "c", a1111("a red fox AND a blue bird :0"))
    assert pixels(both) != pixels(one)
    assert infotext(both[0]).prompt == "a red fox AND a blue bird :0.8"
    for theirs, ours in zip(pixels(one), pixels(alone), strict=True):
        assert max(abs(a - b) for a, b in zip(theirs, ours, strict=True)) <= 1
    with pytest.raises(ConfigError, match="the parts of AND are read by all encoders; leave out --prompt-2"):
        draw(sd_folder, tmp_path / "d", a1111("a AND b", prompt_2="c"))


def test_embeddings_are_read_by_their_names(sd_folder: Path, tmp_path: Path) -> None:
    folder = tmp_path / "embeddings"
    folder.mkdir()
    prompt = PromptOptions(prompt="a furry fox", embeddings=folder)
    before, events = draw(sd_folder, tmp_path / "a", prompt)
    assert notes(events) == [f"{folder}: no embeddings there"]
    save_file({"emb_params": torch.ones(2, 32)}, folder / "furry.safetensors")
    after, events = draw(sd_folder, tmp_path / "b", prompt)
    assert notes(events) == []
    assert pixels(before) != pixels(after)


def test_the_name_of_a_file_as_a_prompt_earns_a_note(
    sd_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("fox.txt").write_text("a red fox")
    _, events = draw(sd_folder, tmp_path / "a", PromptOptions(prompt="fox.txt"), count=1, steps=1)
    assert notes(events) == [
        "the prompt is the name of the file fox.txt, and is read as it stands; --infotext fox.txt draws what is in it"
    ]


def test_a_lora_without_its_folder_is_noted(sd_folder: Path, tmp_path: Path) -> None:
    _, events = draw(sd_folder, tmp_path / "a", a1111("a fox <lora:fur:0.8>"), count=1, steps=1)
    assert notes(events) == ["the prompt asks for fur, which is left out; --lora-dir DIR names the folder"]
    _, events = draw(sd_folder, tmp_path / "b", a1111("a fox <lora:fur:0.8> <lora:ink:1>"), count=1, steps=1)
    assert notes(events) == ["the prompt asks for fur, ink, which are left out; --lora-dir DIR names the folder"]


def test_a_lora_changes_the_picture(sd_folder: Path, tmp_path: Path) -> None:
    pytest.importorskip("peft", reason="diffusers loads adapters through peft")
    layer, folder = "unet.down_blocks.0.attentions.0.transformer_blocks.0.attn2.to_k", tmp_path / "loras"
    folder.mkdir()
    save_file(
        {f"{layer}.lora_A.weight": 9 * torch.eye(32)[:2], f"{layer}.lora_B.weight": torch.eye(32)[:, :2].contiguous()},
        folder / "fur.safetensors",
    )
    with_lora, _ = draw(sd_folder, tmp_path / "a", a1111("a fox <lora:fur:2>", lora_dir=folder))
    without, _ = draw(sd_folder, tmp_path / "b", a1111("a fox", lora_dir=folder))
    assert pixels(with_lora) != pixels(without)
    assert infotext(with_lora[0]).prompt == "a fox <lora:fur:2>"
