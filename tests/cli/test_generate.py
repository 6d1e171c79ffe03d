"""`clipcond generate`, end to end on tiny random models."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

from clipcond.cli import main
from clipcond.images.metadata.reading import plain_prompt
from clipcond.prompt.infotext import Infotext, parse_infotext

LONG = "a red circle in the top left, " * 20
Capture = pytest.CaptureFixture[str]


def run(capsys: Capture, *arguments: object) -> tuple[list[dict[str, Any]], str]:
    """The JSON lines of a command that must succeed, and what it said on stderr."""
    code = main([str(argument) for argument in arguments])
    out, err = capsys.readouterr()
    assert code == 0, err
    return [json.loads(line) for line in out.splitlines()], err


def failure(capsys: Capture, *arguments: object) -> tuple[int, str]:
    code = main([str(argument) for argument in arguments])
    out, err = capsys.readouterr()
    assert out == ""
    return code, err


def make(capsys: Capture, folder: Path, out: Path, *more: object) -> tuple[list[dict[str, Any]], str]:
    return run(capsys, "generate", LONG, "--pipeline", folder, "--out", out, "-n", 3, "--steps", 2, *more)


def test_writes_pictures_and_a_line_for_each(capsys: Capture, sd_folder: Path, tmp_path: Path) -> None:
    lines, err = make(capsys, sd_folder, tmp_path / "a", "--seed", 7, "--guidance", 3, "--negative-prompt", "grey")
    assert err == ""
    assert [line["path"] for line in lines] == [str(tmp_path / "a" / f"0000{n}-{n + 7}.png") for n in range(3)]
    assert lines[1] == {
        "path": str(tmp_path / "a" / "00001-8.png"),
        "seed": 8,
        "prompt": LONG,
        "negative_prompt": "grey",
        "steps": 2,
        "guidance_scale": 3.0,
        "pipeline": str(sd_folder),
        "through": "conditioner",
        "device": "cuda:0" if torch.cuda.is_available() else "cpu",
    }
    with Image.open(lines[1]["path"]) as image:
        found = parse_infotext(image.info["parameters"])
    assert (found.prompt, found.negative_prompt) == (LONG.strip(), "grey")
    assert (found.settings["Seed"], found.settings["CFG scale"]) == ("8", "3")


def test_stock_says_what_is_dropped(capsys: Capture, sd_folder: Path, tmp_path: Path) -> None:
    lines, err = make(capsys, sd_folder, tmp_path / "a", "--stock")
    assert {line["through"] for line in lines} == {"stock"}
    assert "note: prompt: the stock pipeline reads 75 of 160 tokens and drops “" in err
    assert err.count("\n") == 1


def test_keep_moves_the_others_aside(capsys: Capture, sd_folder: Path, dual_folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "a"
    lines, _ = make(capsys, sd_folder, out, "--keep", 1, "--rerank-model", dual_folder)
    assert [line["kept"] for line in lines] == [True, False, False]
    assert [line["score"] for line in lines] == sorted((line["score"] for line in lines), reverse=True)
    assert Path(lines[0]["path"]).parent == out
    assert {Path(line["path"]).parent for line in lines[1:]} == {out / "rejected"}
    assert all(Path(line["path"]).is_file() for line in lines)
    assert len(list(out.rglob("*.png"))) == 3


def test_progress_is_for_terminals_and_on_stderr(
    capsys: Capture, sd_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.stderr.isatty", lambda: True)
    monkeypatch.setenv("FORCE_COLOR", "1")  # Rich takes this for a terminal
    lines, err = make(capsys, sd_folder, tmp_path / "a")
    assert len(lines) == 3
    assert "generating" in err


def test_nothing_is_overwritten(capsys: Capture, sd_folder: Path, tmp_path: Path) -> None:
    (tmp_path / "00000-0.png").write_text("mine")
    lines, err = make(capsys, sd_folder, tmp_path)
    assert [Path(line["path"]).name for line in lines] == ["00001-1.png", "00002-2.png", "00003-3.png"]
    assert err == f"note: {tmp_path} has pictures; these start at number 1, with seed 1\n"
    assert (tmp_path / "00000-0.png").read_text() == "mine"
    (tmp_path / "00000-0.png").rename(tmp_path / "rejected")
    code, err = failure(capsys, "generate", "x", "--pipeline", sd_folder, "--out", tmp_path, "--keep", 1)
    assert code == 3
    assert "rejected is a file; name a folder for the pictures" in err


def test_a_pipeline_that_is_not_there_is_one_line(capsys: Capture, tmp_path: Path) -> None:
    code, err = failure(capsys, "generate", "x", "--pipeline", "./nowhere", "--out", tmp_path)
    assert code == 3
    assert err.startswith("error: no pipeline './nowhere': there is no such folder; a pipeline is `mini`, a folder")
    assert list(tmp_path.iterdir()) == []


def test_a_rerank_model_that_is_not_there_costs_no_pictures(capsys: Capture, sd_folder: Path, tmp_path: Path) -> None:
    given = ["generate", "x", "--pipeline", sd_folder, "--out", tmp_path, "--keep", 1, "--rerank-model", "./nowhere"]
    code, err = failure(capsys, *given)
    assert code == 3
    assert "nowhere" in err
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (["x", "-n", "2", "--keep", "3"], "--keep 3 of --count 2 pictures"),
        (["", "--keep", "1"], "--keep needs a PROMPT"),
        (["x", "-n", "0"], "--count"),
        (["x", "--dtype", "int8"], "--dtype"),
    ],
)
def test_wrong_usage_exits_with_2(capsys: Capture, tmp_path: Path, arguments: list[str], text: str) -> None:
    code, err = failure(capsys, "generate", *arguments, "--out", tmp_path / "a")
    assert code == 2
    assert text in err


RANDOM = "the mean of the weighted states is near zero"  # of an encoder of random weights it is


def infotext(file: str | Path) -> Infotext:
    with Image.open(file) as image:
        return parse_infotext(image.info["parameters"])


def few(capsys: Capture, folder: Path, prompt: str, out: Path, *more: object) -> list[dict[str, Any]]:
    """Two pictures of a prompt, without a word on stderr."""
    lines, err = run(capsys, "generate", prompt, "-p", folder, "-o", out, "-n", 2, "--steps", 4, *more)
    assert not [line for line in err.splitlines() if RANDOM not in line]
    return lines


def test_a_picture_says_how_its_prompt_was_read(capsys: Capture, sd_folder: Path, tmp_path: Path) -> None:
    prompt = "a (red:1.3) fox"
    usual = few(capsys, sd_folder, prompt, tmp_path / "a", "--dialect", "a1111")
    settings = infotext(usual[0]["path"]).settings
    assert not [name for name in settings if name.startswith(("Prompt", "Clip"))]
    given = ["--dialect", "compel", "--weighting", "comfy+length_norm", "--chunking", "phrase", "--clip-skip", 1]
    other = few(
        capsys, sd_folder, "a (red)1.3 fox", tmp_path / "b", *given, "--pooled", "mean", "--lengths", "pad_empty"
    )
    found = infotext(other[0]["path"])
    assert found.prompt == "a (red)1.3 fox"
    assert plain_prompt(found) == "a red fox"
    assert {name: value for name, value in found.settings.items() if name.startswith(("Prompt", "Clip"))} == {
        "Clip skip": "2",
        "Prompt dialect": "compel",
        "Prompt weighting": "comfy+length_norm",
        "Prompt chunking": "phrase",
        "Prompt pooled": "mean",
        "Prompt lengths": "pad_empty",
    }
    stock, _ = make(capsys, sd_folder, tmp_path / "c", "--stock")
    assert infotext(stock[0]["path"]).settings["Prompt dialect"] == "plain"


def test_auto_says_which_dialect_it_is(capsys: Capture, sd_folder: Path, tmp_path: Path) -> None:
    given = ["generate", "a (red:1.3) fox", "-p", sd_folder, "-o", tmp_path, "-n", 1, "--steps", 1, "--dialect", "auto"]
    (line,), err = run(capsys, *given)
    assert err.splitlines()[0] == "note: dialect a1111: (red:1.3) is A1111 syntax"
    assert "Prompt dialect" not in infotext(line["path"]).settings


def test_a_saved_conditioning_makes_the_same_files(capsys: Capture, sd_folder: Path, tmp_path: Path) -> None:
    prompt, how = "a (red:1.3) fox [by day:by night:0.5]", ["--dialect", "a1111", "--negative-prompt", "grey"]
    file = tmp_path / "fox.safetensors"
    run(capsys, "encode", prompt, "-m", sd_folder, "-o", file, "--steps", 4, "--clip-skip", 1, *how)
    direct = few(capsys, sd_folder, prompt, tmp_path / "a", "--clip-skip", 1, *how)
    given = ["generate", "--conditioning", file, "-p", sd_folder, "-o", tmp_path / "b", "-n", 2, "--steps", 4]
    loaded, _ = run(capsys, *given)
    assert [{**line, "path": ""} for line in loaded] == [{**line, "path": ""} for line in direct]
    assert [Path(line["path"]).read_bytes() for line in loaded] == [Path(line["path"]).read_bytes() for line in direct]


def test_a_conditioning_of_other_encoders_is_refused_unless_forced(
    capsys: Capture, sd_folder: Path, tmp_path: Path
) -> None:
    file = tmp_path / "fox.safetensors"
    run(capsys, "encode", "a red fox", "-m", sd_folder, "-o", file)
    given = ["generate", "--conditioning", file, "-p", sd_folder, "-n", 1, "--steps", 1, "--dtype", "bfloat16"]
    code, err = failure(capsys, *given, "-o", tmp_path / "a")
    assert (code, err.count("\n")) == (3, 1)
    assert "fox.safetensors was made by another clip_l than StableDiffusionPipeline has" in err
    assert not (tmp_path / "a").exists()
    lines, _ = run(capsys, *given, "-o", tmp_path / "a", "--force")
    assert len(lines) == 1
    code, err = failure(capsys, "generate", "--conditioning", tmp_path / "none", "-p", sd_folder, "-o", tmp_path / "b")
    assert (code, err) == (3, f"error: no conditioning at {tmp_path / 'none'}: there is no such file\n")


def test_a_saved_schedule_brings_its_steps(capsys: Capture, sd_folder: Path, tmp_path: Path) -> None:
    file, how = tmp_path / "fox.safetensors", ["-p", sd_folder, "-n", 1]
    run(capsys, "encode", "a [red:blue:2] fox", "-m", sd_folder, "-o", file, "--dialect", "a1111", "--steps", 4)
    ((line,), _) = run(capsys, "generate", "--conditioning", file, *how, "-o", tmp_path / "a")
    assert line["steps"] == 4
    code, err = failure(capsys, "generate", "--conditioning", file, *how, "-o", tmp_path / "b", "--steps", 6)
    assert (code, (tmp_path / "b").exists()) == (2, False)
    assert "was encoded for --steps 4, not 6" in " ".join(err.replace("│", " ").split())


def test_the_parts_of_and_have_no_second_prompt(capsys: Capture, sd_folder: Path, tmp_path: Path) -> None:
    given = ["generate", "a AND b", "-p", sd_folder, "-o", tmp_path / "d", "--dialect", "a1111", "--prompt-2", "c"]
    code, err = failure(capsys, *given)
    assert (code, err) == (3, "error: the parts of AND are read by all encoders; leave out --prompt-2 and --prompt-3\n")


def test_a_folder_without_embeddings_is_a_note_and_no_folder_an_error(
    capsys: Capture, sd_folder: Path, tmp_path: Path
) -> None:
    given = ["generate", "a fox", "-p", sd_folder, "-n", 1, "--steps", 1, "-o", tmp_path / "a", "--embeddings"]
    (tmp_path / "embeddings").mkdir()
    _, err = run(capsys, *given, tmp_path / "embeddings")
    assert err == f"note: {tmp_path / 'embeddings'}: no embeddings there\n"
    code, err = failure(capsys, *given[:-2], tmp_path / "b", "--embeddings", tmp_path / "nowhere")
    assert code == 3
    assert "nowhere" in err


def test_a_lora_needs_its_folder(capsys: Capture, sd_folder: Path, tmp_path: Path) -> None:
    given = ["generate", "a fox <lora:fur:0.8>", "-p", sd_folder, "-n", 1, "--steps", 1, "--dialect", "a1111"]
    (line,), err = run(capsys, *given, "-o", tmp_path / "a")
    assert err == "note: the prompt asks for fur, which is left out; --lora-dir DIR names the folder\n"
    assert infotext(line["path"]).prompt == "a fox <lora:fur:0.8>"
    (tmp_path / "loras").mkdir()
    code, err = failure(capsys, *given, "-o", tmp_path / "b", "--lora-dir", tmp_path / "loras")
    assert (code, err.count("\n")) == (3, 1)
    assert "no adapter 'fur'" in err


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        ([], "give a PROMPT, or --infotext FILE, or --conditioning FILE"),
        (["x", "--conditioning", "f"], "--conditioning FILE says what PROMPT would; leave one of them out"),
        (["--conditioning", "f", "--clip-skip", "1"], "--conditioning FILE says what --clip-skip would"),
        (["--conditioning", "f", "--negative-prompt", "x"], "--conditioning FILE says what --negative-prompt would"),
        (["--conditioning", "f", "--stock"], "--stock has no use for a --conditioning"),
        (["x", "--force"], "--force is about a --conditioning FILE; leave it out"),
        (["x", "--stock", "--dialect", "a1111"], "--stock leaves the prompt to the pipeline; leave out --dialect"),
        (["x", "--stock", "--lora-dir", "d"], "--stock leaves the prompt to the pipeline; leave out --lora-dir"),
        (["x", "--weighting", "comfi"], "--weighting: unknown weighting 'comfi'"),
        (["x", "--chunking", "soft"], "--chunking soft does not exist; there are hard"),
        (["x", "--dialect", "b1111"], "--dialect"),
        (["x", "--pooled", "best"], "--pooled"),
        (["x", "--lengths", "short"], "--lengths"),
        (["x", "--clip-skip", "-1"], "--clip-skip"),
    ],
)
def test_wrong_conditioning_options_exit_with_2(
    capsys: Capture, tmp_path: Path, arguments: list[str], text: str
) -> None:
    code, err = failure(capsys, "generate", *arguments, "--out", tmp_path / "a")
    assert code == 2
    assert text in " ".join(err.replace("│", " ").split())


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (["x", "--clip-skip", "9"], "clip_skip is 9, expected"),
        (["x", "--prompt-2", "y"], "prompt_2 is given, but StableDiffusionPipeline has no encoder that reads it"),
        (["x", "--lengths", "mask"], "takes no prompt_attention_mask"),
    ],
)
def test_what_the_pipeline_cannot_is_one_line(
    capsys: Capture, sd_folder: Path, tmp_path: Path, arguments: list[str], text: str
) -> None:
    code, err = failure(capsys, "generate", *arguments, "-p", sd_folder, "--out", tmp_path / "a")
    assert (code, err.count("\n")) == (3, 1)
    assert text in err
    assert not (tmp_path / "a").exists()


# lines for people, interruptions, full disks


def test_a_terminal_gets_a_line_for_people(
    capsys: Capture, sd_folder: Path, dual_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("clipcond.cli.generate.on_terminal", lambda: True)
    arguments = ["generate", LONG, "-p", str(sd_folder), "-n", "2", "--steps", "1"]
    assert main([*arguments, "-o", str(tmp_path / "a"), "--seed", "4"]) == 0
    assert capsys.readouterr().out == f"{tmp_path}/a/00000-4.png  seed 4\n{tmp_path}/a/00001-5.png  seed 5\n"
    assert main([*arguments, "-o", str(tmp_path / "b"), "--keep", "1", "--rerank-model", str(dual_folder)]) == 0
    first, second = capsys.readouterr().out.splitlines()
    assert first.startswith("kept      ")
    assert second.startswith("rejected  ")
    assert "/b/rejected/0000" in second
    assert main([*arguments, "-o", str(tmp_path / "c"), "--json"]) == 0
    assert len([json.loads(line) for line in capsys.readouterr().out.splitlines()]) == 2


def test_an_interruption_says_in_one_sentence_what_is_saved(
    capsys: Capture, sd_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from clipcond.images import write

    def interrupted(*given: Any, **more: Any) -> None:
        if written:
            raise KeyboardInterrupt
        written.append(given)
        original(*given, **more)

    written: list[object] = []
    original = write.write_picture
    monkeypatch.setattr(write, "write_picture", interrupted)
    arguments = ["generate", LONG, "-p", str(sd_folder), "-n", "3", "--steps", "1", "-o", str(tmp_path)]
    assert main(arguments) == 130
    assert capsys.readouterr().err == (
        f"interrupted: 1 of 3 pictures are in {tmp_path}; the same command makes the rest\n"
    )
    monkeypatch.undo()
    lines, err = run(capsys, *arguments)
    assert [line["seed"] for line in lines] == [0, 1, 2]
    assert err == "note: goes on with the run that was stopped: 1 of 3 pictures are there\n"


def test_an_interruption_while_loading_saves_nothing_and_says_so(
    capsys: Capture, sd_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("clipcond.diffusion.pipelines.load_pipeline", interrupt)
    assert main(["generate", "x", "-p", str(sd_folder), "-o", str(tmp_path / "a")]) == 130
    assert capsys.readouterr() == ("", "interrupted: no picture was finished\n")
    assert not (tmp_path / "a").exists()


def test_a_disk_that_fills_up_leaves_what_was_finished(
    capsys: Capture, sd_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from clipcond.images import write

    def full(image: Any, path: Path, **more: Any) -> None:
        if path.name.startswith("00001"):
            raise OSError(28, "No space left on device", str(path))
        original(image, path, **more)

    original = write.write_picture
    monkeypatch.setattr(write, "write_picture", full)
    code = main(["generate", LONG, "-p", str(sd_folder), "-n", "3", "--steps", "1", "-o", str(tmp_path)])
    assert code == 3
    assert capsys.readouterr().err == (
        f"note: 1 of 3 pictures are in {tmp_path}; the same command makes the rest\n"
        f"error: {tmp_path}/00001-1.png: No space left on device\n"
    )


def test_a_device_that_does_not_exist_names_three(capsys: Capture, tmp_path: Path) -> None:
    code, err = failure(capsys, "generate", "x", "-o", tmp_path / "a", "--device", "gpu")
    assert code == 2
    assert "name cpu, cuda (cuda:1 is the second of several) or mps" in err


MODELS = """import sys
class Wall:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {"torch", "transformers", "diffusers", "open_clip"}:
            raise AssertionError("tried to import " + name)
sys.meta_path.insert(0, Wall())
from clipcond.cli import main
sys.exit(main(sys.argv[1:]))
"""


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (["generate", "x", "-o", "a", "-p", "./nowhere"], 3),
        (["generate", "x", "-o", "a", "--embeddings", "nowhere"], 3),
        (["generate", "-o", "a", "--conditioning", "nowhere"], 3),
        (["generate", "-o", "a", "--infotext", "nowhere"], 3),
        (["generate", "", "-o", "a", "--keep", "1"], 2),
        (["generate", "x", "-o", "a", "--device", "gpu"], 2),
        (["encode", "x", "-o", "nowhere/x.safetensors"], 3),
        (["encode", "x", "-o", "x.safetensors", "--model", "./nowhere"], 3),
        (["rerank", "nowhere.png", "--prompt", ""], 2),
        (["rerank", "nowhere/*.png", "--prompt", "x"], 3),
        (["evaluate", "--model", "mini", "--data", "nowhere.csv"], 3),
        (["evaluate", "--model", "./nowhere", "--data", "nowhere.csv"], 3),
        (["train", "nowhere.toml"], 3),
        (["train", "--data", "nowhere.csv", "--model", "./nowhere", "--out", "run"], 3),
        (["train", "--data", "nowhere.csv", "--model", "mini", "--out", "run"], 3),
    ],
)
def test_what_is_missing_is_told_before_torch_is_imported(arguments: list[str], code: int, tmp_path: Path) -> None:
    import subprocess
    import sys

    done = subprocess.run(
        [sys.executable, "-c", MODELS, *arguments], capture_output=True, text=True, cwd=tmp_path, timeout=60
    )
    assert done.returncode == code, done.stderr
    assert "Traceback" not in done.stderr
    assert done.stderr.startswith("error: ")
    assert not list(tmp_path.iterdir())
