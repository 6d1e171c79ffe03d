"""Runs of `generate` that stop and go on: numbers, seeds, records, moves; infotexts and templates as their prompts."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from clipcond.errors import DataError, ModelError, OptionsError, ResourceMissing
from clipcond.images.write import highest
from clipcond.prompt.infotext import parse_infotext
from clipcond.workflows.events import Event, Note
from clipcond.workflows.generate import GenerateOptions, PictureDone, WrittenPicture, run
from clipcond.workflows.prompt_options import PromptOptions

LONG = "a red circle in the top left, " * 20
RANDOM = "the mean of the weighted states is near zero"


class Stop(Exception):
    pass


def draw(
    folder: Path, out: Path, *, stop_after: int | None = None, **more: Any
) -> tuple[list[WrittenPicture], list[str]]:
    """The pictures of a run, in order, and its notes; `stop_after` so many pictures it is stopped."""
    texts: list[str] = []
    done = 0

    def take(event: Event) -> None:
        nonlocal done
        if isinstance(event, Note) and RANDOM not in event.text:
            texts.append(event.text)
        if isinstance(event, PictureDone):
            done += 1
            if done == stop_after:
                raise Stop

    options = {"pipeline": str(folder), "count": 4, "steps": 2, "batch_size": 2, "prompt": PromptOptions(prompt=LONG)}
    return list(run(GenerateOptions(out=out, **options | more), take)), texts


def contents(folder: Path) -> dict[str, bytes]:
    return {file.name: file.read_bytes() for file in sorted(folder.rglob("*.png"))}


def names(pictures: Sequence[WrittenPicture]) -> list[str]:
    return [picture.path.name for picture in pictures]


@pytest.mark.parametrize("stopped", [1, 2, 3, 4])
def test_a_stopped_run_goes_on_and_ends_with_the_same_bytes(stopped: int, sd_folder: Path, tmp_path: Path) -> None:
    whole, _ = draw(sd_folder, tmp_path / "whole")
    out = tmp_path / "parts"
    with pytest.raises(Stop):
        draw(sd_folder, out, stop_after=stopped)
    assert stopped <= len(contents(out)) <= 4
    pictures, notes = draw(sd_folder, out)
    assert notes == [f"goes on with the run that was stopped: {stopped} of 4 pictures are there"]
    assert names(pictures) == names(whole)
    assert contents(out) == contents(tmp_path / "whole")
    assert not list(out.glob(".*"))


def test_another_command_takes_the_next_numbers_and_names_the_stopped_run(sd_folder: Path, tmp_path: Path) -> None:
    with pytest.raises(Stop):
        draw(sd_folder, tmp_path, stop_after=2)
    pictures, notes = draw(sd_folder, tmp_path, prompt=PromptOptions(prompt="a star"), count=1)
    assert names(pictures) == ["00002-2.png"]
    assert notes == [
        f"{tmp_path} has pictures; these start at number 2, with seed 2",
        f"{tmp_path} holds a run that was stopped; the same command as then finishes it",
    ]
    pictures, _ = draw(sd_folder, tmp_path)
    assert names(pictures) == ["00000-0.png", "00001-1.png", "00002-2.png", "00003-3.png"]
    assert [picture.seed for picture in pictures] == [0, 1, 2, 3]


def test_the_same_command_again_takes_the_next_numbers_and_a_new_seed(sd_folder: Path, tmp_path: Path) -> None:
    first, _ = draw(sd_folder, tmp_path)
    second, notes = draw(sd_folder, tmp_path)
    assert names(second) == ["00004-4.png", "00005-5.png", "00006-6.png", "00007-7.png"]
    assert notes == [f"{tmp_path} has pictures; these start at number 4, with seed 4"]
    third, _ = draw(sd_folder, tmp_path, seed=0)
    assert names(third) == ["00008-0.png", "00009-1.png", "00010-2.png", "00011-3.png"]
    assert [one.path.read_bytes() for one in first] == [one.path.read_bytes() for one in third]


def test_numbers_of_other_files_do_not_count(tmp_path: Path) -> None:
    for name in ("00007-3.png", "mine.png", "99999-x.png", "00002-44.png"):
        (tmp_path / name).touch()
    assert highest([tmp_path, tmp_path / "none"]) == (7, 44)
    assert highest([tmp_path / "none"]) is None


def test_a_run_killed_among_its_moves_is_put_right(
    sd_folder: Path, dual_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from clipcond import files

    keep = {"keep": 1, "rerank_model": str(dual_folder)}
    whole, _ = draw(sd_folder, tmp_path / "whole", **keep)
    moves: list[Path] = []

    def move_one(path: Path, target: Path) -> Path:
        if moves:
            raise Stop
        moves.append(path)
        return original(path, target)

    original = files.move_file
    monkeypatch.setattr(files, "move_file", move_one)
    out = tmp_path / "parts"
    with pytest.raises(Stop):
        draw(sd_folder, out, **keep)
    monkeypatch.undo()
    assert len(list((out / "rejected").iterdir())) == 1
    kept = next(picture for picture in whole if picture.kept).path.name
    (out / kept).rename(out / "rejected" / kept)  # as if an earlier verdict had been another
    pictures, _ = draw(sd_folder, out, **keep)
    assert [(one.path.relative_to(out), one.kept, one.score) for one in pictures] == [
        (one.path.relative_to(tmp_path / "whole"), one.kept, one.score) for one in whole
    ]
    assert contents(out) == contents(tmp_path / "whole")
    assert not list(out.glob(".*"))


def test_a_full_disk_names_the_file_and_the_same_command_goes_on(
    sd_folder: Path, tmp_path: Path, file_size_limit: Callable[[int], AbstractContextManager[None]]
) -> None:
    with file_size_limit(100), pytest.raises(OSError, match=r"00000-0\.png") as raised:
        draw(sd_folder, tmp_path)
    assert raised.value.filename == str(tmp_path / "00000-0.png")
    assert [file.suffix for file in tmp_path.iterdir()] == [".json"]  # the record, and nothing half written
    pictures, _ = draw(sd_folder, tmp_path)
    assert names(pictures)[0] == "00000-0.png"


def test_the_remains_of_a_killed_writer_go(sd_folder: Path, tmp_path: Path) -> None:
    with pytest.raises(Stop):
        draw(sd_folder, tmp_path, stop_after=2)
    (tmp_path / ".00002-2.png.abc.unfinished").write_text("half")
    draw(sd_folder, tmp_path)
    assert not list(tmp_path.glob(".*"))


@pytest.mark.parametrize("record", ["", "{}", "[]", '{"first": -1, "seed": 0}', '{"first": "x", "seed": 0}'])
def test_a_damaged_record_is_none(record: str, sd_folder: Path, tmp_path: Path) -> None:
    with pytest.raises(Stop):
        draw(sd_folder, tmp_path, stop_after=1)
    (path,) = tmp_path.glob(".clipcond-run-*.json")
    path.write_text(record)
    _, notes = draw(sd_folder, tmp_path)
    assert "has pictures; these start at number" in notes[0]


# infotexts and templates


INFOTEXT = (
    "a (red:1.2) circle\nNegative prompt: grey\nSteps: 3, Sampler: Euler a, CFG scale: 4.5, Seed: 77, Size: 64x64"
)


def picture_with(text: str, path: Path) -> Path:
    info = PngInfo()
    info.add_text("parameters", text)
    Image.new("RGB", (8, 8)).save(path, pnginfo=info)
    return path


def test_an_infotext_gives_prompts_seed_and_settings_and_flags_win(sd_folder: Path, tmp_path: Path) -> None:
    source = str(picture_with(INFOTEXT, tmp_path / "source.png"))
    none = {"steps": None, "count": 1}
    (one,), notes = draw(sd_folder, tmp_path / "a", infotext=source, prompt=PromptOptions(), **none)
    assert (one.prompt, one.negative_prompt, one.seed) == ("a (red:1.2) circle", "grey", 77)
    assert (one.steps, one.guidance_scale) == (3, 4.5)
    assert notes[0] == "an infotext: prompt, negative prompt, 5 settings, read as a1111"
    assert notes[1] == "not taken from the infotext: Sampler, Size"
    given = PromptOptions(negative_prompt="blue", dialect="comfy")
    (one,), _ = draw(sd_folder, tmp_path / "b", infotext=source, prompt=given, seed=5, count=1, steps=2)
    assert (one.prompt, one.negative_prompt, one.seed, one.steps) == ("a (red:1.2) circle", "blue", 5, 2)
    with Image.open(one.path) as image:
        assert parse_infotext(image.info["parameters"]).settings["Prompt dialect"] == "comfy"


def test_a_pasted_infotext_is_drawn_as_the_named_one(sd_folder: Path, tmp_path: Path) -> None:
    source = str(picture_with(INFOTEXT, tmp_path / "source.png"))
    named, _ = draw(sd_folder, tmp_path / "a", infotext=source, prompt=PromptOptions(), count=1, steps=None)
    pasted, _ = draw(sd_folder, tmp_path / "b", prompt=PromptOptions(prompt=INFOTEXT), count=1, steps=None)
    assert contents(tmp_path / "a") == contents(tmp_path / "b")
    assert named[0].seed == pasted[0].seed == 77


def test_our_own_pictures_are_made_again_from_themselves(sd_folder: Path, tmp_path: Path) -> None:
    settings = PromptOptions(prompt="a (red)1.3 fox", dialect="compel", weighting="comfy", clip_skip=1, pooled="mean")
    draw(sd_folder, tmp_path / "a", prompt=settings, count=1, seed=9)
    (first,) = (tmp_path / "a").glob("*.png")
    draw(sd_folder, tmp_path / "b", prompt=PromptOptions(), infotext=str(first), count=1, steps=None)
    assert contents(tmp_path / "a") == contents(tmp_path / "b")


def test_each_picture_of_a_template_has_the_prompt_of_its_seed(sd_folder: Path, tmp_path: Path) -> None:
    from clipcond.prompt.wildcards import expand

    template = "a {red|blue|green|white} circle"
    pictures, _ = draw(sd_folder, tmp_path / "a", prompt=PromptOptions(prompt=template), expand=True, seed=3)
    assert [one.prompt for one in pictures] == [expand(template, seed=seed).prompts[0] for seed in range(3, 7)]
    assert len({one.prompt for one in pictures}) > 1
    alone, _ = draw(sd_folder, tmp_path / "b", prompt=PromptOptions(prompt=pictures[2].prompt), count=1, seed=5)
    with Image.open(alone[0].path) as one, Image.open(pictures[2].path) as other:
        assert one.info["parameters"] == other.info["parameters"]


def test_pictures_of_a_template_are_ranked_each_by_its_prompt(
    sd_folder: Path, dual_folder: Path, tmp_path: Path
) -> None:
    prompt = PromptOptions(prompt="a {red|blue|green|white} circle")
    more = {"expand": True, "keep": 2, "rerank_model": str(dual_folder)}
    pictures, _ = draw(sd_folder, tmp_path, prompt=prompt, **more)
    assert [one.kept for one in pictures] == [True, True, False, False]


def test_a_literal_template_earns_a_note(sd_folder: Path, tmp_path: Path) -> None:
    _, notes = draw(sd_folder, tmp_path, prompt=PromptOptions(prompt="a {red|blue} fox"), count=1)
    assert notes == ["{red|blue} is read as it stands; --expand fills it in, clipcond expand lists what it gives"]


# before any model


def test_what_is_missing_is_told_before_a_model_loads(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "clipcond.diffusion.pipelines", None)  # an import would fail
    here, prompt = Path("mini"), PromptOptions(prompt="x")
    cases: list[tuple[dict[str, Any], type[Exception], str]] = [
        ({"conditioning": tmp_path / "no", "prompt": PromptOptions()}, ResourceMissing, "no conditioning at"),
        ({"infotext": str(tmp_path / "no"), "prompt": PromptOptions()}, ResourceMissing, "no such file"),
        ({"prompt": PromptOptions(prompt="x", embeddings=tmp_path / "no")}, ResourceMissing, "textual inversions"),
        ({"prompt": PromptOptions(prompt="x", lora_dir=tmp_path / "no")}, ResourceMissing, "with LoRAs"),
        ({"prompt": prompt, "wildcards": (tmp_path / "no",)}, ResourceMissing, "lists of wildcards"),
        ({"prompt": prompt, "keep": 1, "rerank_model": "./nowhere"}, ModelError, r"no model '\./nowhere'"),
    ]
    for more, error, message in cases:
        with pytest.raises(error, match=message):
            draw(here, tmp_path / "out", **more)
    with pytest.raises(ModelError, match=r"no pipeline '\./nowhere'"):
        draw(Path("./nowhere"), tmp_path / "out", pipeline="./nowhere")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    "content", [b"", b"short", (10**9).to_bytes(8, "little") + b"{}", (4).to_bytes(8, "little") + b"null"]
)
def test_a_bad_header_is_told_before_a_model_loads(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "bad.safetensors").write_bytes(content)
    with pytest.raises(DataError, match="is no conditioning"):
        draw(Path("mini"), tmp_path / "out", conditioning=tmp_path / "bad.safetensors", prompt=PromptOptions())


def test_a_device_that_does_not_exist_names_three() -> None:
    with pytest.raises(OptionsError, match=r"--device gpu does not exist; name cpu, cuda \(.*\) or mps"):
        GenerateOptions(out=Path("x"), prompt=PromptOptions(prompt="x"), device="gpu")


def test_words_that_the_model_has_never_seen_are_named(tmp_path: Path) -> None:
    _, notes = draw(
        Path("mini"), tmp_path, pipeline="mini", prompt=PromptOptions(prompt="a Red Fox in the snow"), count=1
    )
    assert notes == ["mini has never seen the words fox, snow; it reads nothing there"]
