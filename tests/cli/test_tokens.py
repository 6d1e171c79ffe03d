"""`clipcond tokens` end to end, in this process."""

from __future__ import annotations

import io
import json
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.cells import cell_len
from rich.console import Console

from clipcond.cli import main
from clipcond.cli.render import excerpt
from clipcond.cli.tokens_plain import plain_request
from clipcond.cli.tokens_view import shade, show, show_line
from clipcond.prompt.analysis.phrases import analyse
from clipcond.prompt.plan import plan
from clipcond.wording import visible

LONG = "a photo of " + "one small red fox and " * 20 + "a silver key"


@pytest.fixture(autouse=True)
def plain_terminal(monkeypatch) -> None:
    monkeypatch.setenv("COLUMNS", "100")
    for name in ("FORCE_COLOR", "NO_COLOR", "TTY_COMPATIBLE"):
        monkeypatch.delenv(name, raising=False)


def drawn(prompt: str, *, width: int = 80, family: str = "sd15", **options) -> str:
    """The view of a prompt in a terminal of that width."""
    file = io.StringIO()
    options = {"force_terminal": True, "color_system": "truecolor", "no_color": False} | options
    show([plan(prompt, family=family)], Console(file=file, width=width, highlight=False, markup=False, **options))
    return file.getvalue()


def test_a_short_prompt(capsys) -> None:
    assert main(["tokens", "a red fox"]) == 0
    seen = capsys.readouterr()
    assert seen.out == "sd15 · clip_l  3/75 → 1 chunk\n\nchunk 1 · 3/75\na red fox\n"
    assert seen.err == ""


def test_a_long_prompt_says_what_is_dropped(capsys) -> None:
    assert main(["tokens", LONG]) == 0
    shown = capsys.readouterr().out
    assert "106/75 → 2 chunks" in shown
    assert "chunk 2 · 31/75" in shown
    assert "a stock pipeline drops 31 tokens" in shown
    assert "chunk 1 · 75/75 · cut: all places are taken" in shown
    lost = shown.partition("a stock pipeline drops 31 tokens\n")[2].partition("\n\n")[0]
    assert lost.endswith("a silver key")


def test_one_dropped_token_is_singular(capsys) -> None:
    main(["tokens", "fox " * 76])
    assert "a stock pipeline drops 1 token\nfox\n" in capsys.readouterr().out


def test_tokens_inside_a_word_are_set_apart_without_colours(capsys) -> None:
    main(["tokens", "an rutkowski fox,"])
    assert "an rut·kowski fox,\n" in capsys.readouterr().out


def test_encoders_that_agree_are_shown_once(capsys) -> None:
    main(["tokens", "a fox", "--family", "sdxl"])
    shown = capsys.readouterr().out
    assert "sdxl · clip_l, clip_g  2/75 → 1 chunk" in shown
    assert shown.count("chunk 1") == 1


def test_an_empty_prompt_is_a_prompt(capsys) -> None:
    assert main(["tokens", ""]) == 0
    assert "0/75 → 1 chunk" in capsys.readouterr().out


def test_a_prompt_that_starts_with_a_dash(capsys) -> None:
    assert main(["tokens", "--json", "--", "-a fox"]) == 0
    assert json.loads(capsys.readouterr().out)["prompt"] == "-a fox"


def test_json_is_the_plan(capsys) -> None:
    assert main(["tokens", LONG, "--family", "sdxl", "--json"]) == 0
    seen = capsys.readouterr()
    assert json.loads(seen.out) == plan(LONG, family="sdxl").to_json()
    assert seen.out.count("\n") == 1
    assert seen.err == ""


def test_json_keeps_the_letters_of_the_prompt(capsys) -> None:
    main(["tokens", "große 狐", "--json"])
    assert '"prompt": "große 狐"' in capsys.readouterr().out


def test_json_of_a_broken_argument_is_json(capsys) -> None:
    assert main(["tokens", "a \udcff fox", "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert document["prompt"] == "a \udcff fox"
    assert document["warnings"][0]["code"] == "broken-unicode"


@pytest.mark.parametrize(("prompt", "code"), [("a fox", 0), (LONG, 1)])
@pytest.mark.parametrize("options", [[], ["--json"]])
def test_failing_on_truncation(prompt: str, code: int, options: list[str], capsys) -> None:
    assert main(["tokens", prompt, "--fail-on-truncation", *options]) == code
    assert capsys.readouterr().out != ""


# files


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "prompts.txt"
    path.write_bytes("\ufeffa fox\r\n\n".encode() + LONG.encode() + b"\na (fox:1.2)")
    return path


def test_a_line_for_each_prompt_of_a_file(file, capsys) -> None:
    assert main(["tokens", "--file", str(file)]) == 0
    seen = capsys.readouterr()
    lines = seen.out.splitlines()
    assert lines[0] == f"{'   1  2/75 → 1 chunk':<26}  a fox"
    assert lines[1] == "   2  0/75 → 1 chunk"
    assert lines[2] == f"{'   3  106/75 → 2 chunks':<26}  {LONG}"
    assert lines[3] == f"{'   4  8/75 → 1 chunk':<26}  looks-like-a1111  a (fox:1.2)"
    assert seen.err == "4 prompts, 1 of them truncated by a stock pipeline\n"


def test_json_lines_of_a_file(file, capsys) -> None:
    assert main(["tokens", "--file", str(file), "--json", "--family", "sd2"]) == 0
    seen = capsys.readouterr()
    assert [json.loads(line) for line in seen.out.splitlines()] == [
        plan(prompt, family="sd2").to_json() for prompt in ("a fox", "", LONG, "a (fox:1.2)")
    ]
    assert seen.err == ""


def test_a_file_fails_on_truncation_when_one_prompt_does(file, tmp_path, capsys) -> None:
    assert main(["tokens", "--file", str(file), "--fail-on-truncation"]) == 1
    short = tmp_path / "short.txt"
    short.write_text("a fox\na dog\n")
    assert main(["tokens", "--file", str(short), "--fail-on-truncation"]) == 0
    assert capsys.readouterr().err.endswith("2 prompts, 0 of them truncated by a stock pipeline\n")


def test_standard_input(monkeypatch, capsys) -> None:
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO("ein Füchslein\n".encode())))
    assert main(["tokens", "--file", "-", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["prompt"] == "ein Füchslein"
    assert not sys.stdin.closed


def test_a_dash_as_the_prompt_is_standard_input(monkeypatch, capsys) -> None:
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"a fox\na dog\n")))
    assert main(["tokens", "-", "--json"]) == 0
    assert [json.loads(line)["prompt"] for line in capsys.readouterr().out.splitlines()] == ["a fox", "a dog"]


def test_an_empty_file_has_no_prompts(tmp_path, capsys) -> None:
    empty = tmp_path / "empty.txt"
    empty.touch()
    assert main(["tokens", "--file", str(empty)]) == 0
    assert capsys.readouterr() == ("", "0 prompts, 0 of them truncated by a stock pipeline\n")


def test_a_prompt_and_a_file_are_too_much(file, capsys) -> None:
    assert main(["tokens", "a fox", "--file", str(file)]) == 2
    assert "give either a PROMPT or --file FILE" in capsys.readouterr().err


@pytest.mark.parametrize("options", [["--family", "sd9"], ["--dialect", "tongue"]])
def test_an_unknown_family_or_dialect_is_wrong_usage(options: list[str], capsys) -> None:
    assert main(["tokens", "a fox", *options]) == 2
    assert f"{options[0]} {options[1]} does not exist; there are" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("options", "family", "dialect"),
    [
        (["--family", "SDXL", "--dialect", "A1111"], "sdxl", "a1111"),
        (["--family", "sd-1.5", "--dialect", "ComfyUI"], "sd15", "comfy"),
        (["--family", "Flux.1-dev", "--dialect", "Automatic1111"], "flux", "a1111"),
    ],
)
def test_names_ignore_case_and_punctuation(options: list[str], family: str, dialect: str, capsys) -> None:
    assert main(["tokens", "a fox", "--json", *options]) == 0
    document = json.loads(capsys.readouterr().out)
    assert (document["family"], document["dialect"]) == (family, dialect)


def test_the_nearest_name_is_told(capsys) -> None:
    assert main(["tokens", "a fox", "--family", "sdx1"]) == 2
    assert "did you mean sdxl?" in capsys.readouterr().err
    assert main(["tokens", "a fox", "--chunking", "phrases"]) == 2
    assert "did you mean phrase?" in capsys.readouterr().err


# what was probably meant


@pytest.mark.parametrize(
    ("words", "hint"),
    [
        (["a", "red", "fox"], 'hint: put the prompt in quotes: clipcond tokens "a red fox"\n'),
        (["-1 dog"], "hint: put -- before a prompt that begins with a dash: clipcond tokens -- '-1 dog'\n"),
        (["-1dog"], "clipcond tokens -- -1dog\n"),
    ],
)
def test_a_prompt_that_the_shell_took_apart_earns_a_hint(words: list[str], hint: str, capsys) -> None:
    assert main(["tokens", *words]) == 2
    assert hint in capsys.readouterr().err


def test_a_pipe_without_a_dash_earns_a_hint(monkeypatch, capsys) -> None:
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"a fox\n")))
    assert main(["tokens"]) == 2
    assert "hint: to read prompts from a pipe, give - as the prompt: … | clipcond tokens -" in capsys.readouterr().err


def test_the_name_of_a_file_as_a_prompt_earns_a_note(tmp_path, monkeypatch, capsys) -> None:
    monkeypatch.chdir(tmp_path)
    Path("prompts.txt").touch()
    Path("a.PNG").touch()
    assert main(["tokens", "prompts.txt"]) == 0
    assert capsys.readouterr().err == "note: prompts.txt is a file: --file prompts.txt counts each of its lines\n"
    assert main(["tokens", "a.PNG", "--json"]) == 0
    assert capsys.readouterr().err == "note: a.PNG is a file: --infotext a.PNG counts the prompt in it\n"
    assert main(["tokens", "other.txt"]) == 0
    assert capsys.readouterr().err == ""


# infotexts, negative prompts, templates

INFOTEXT = "a (red:1.2) fox\nNegative prompt: blurry, bad\nSteps: 20, Sampler: Euler a, CFG scale: 7, Seed: 1"


def test_a_pasted_infotext_is_taken_apart(capsys) -> None:
    assert main(["tokens", INFOTEXT, "--json"]) == 0
    seen = capsys.readouterr()
    document = json.loads(seen.out)
    assert (document["prompt"], document["dialect"]) == ("a (red:1.2) fox", "a1111")
    assert document["negative"]["prompt"] == "blurry, bad"
    assert document["common_chunks"] == {"clip_l": 1}
    assert seen.err == "note: an infotext: prompt, negative prompt, 4 settings, read as a1111\n"
    assert main(["tokens", INFOTEXT, "--dialect", "comfy", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["dialect"] == "comfy"


@pytest.mark.parametrize(
    "prompt", ["a fox: red, steps: two", "Steps: of stone, a fox", "a negative prompt for a camera"]
)
def test_a_prompt_is_no_infotext(prompt: str, capsys) -> None:
    assert main(["tokens", prompt, "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == plan(prompt).to_json()


def test_an_infotext_of_a_picture_a_text_and_a_pipe(tmp_path, monkeypatch, capsys) -> None:
    from PIL import Image
    from PIL.PngImagePlugin import PngInfo

    text = PngInfo()
    text.add_text("parameters", INFOTEXT)
    Image.new("RGB", (4, 4)).save(tmp_path / "a.png", pnginfo=text)
    (tmp_path / "a.txt").write_text("\ufeff" + INFOTEXT, encoding="utf-8")
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(INFOTEXT.encode())))
    documents = []
    for source in (tmp_path / "a.png", tmp_path / "a.txt", "-"):
        assert main(["tokens", "--infotext", str(source), "--json"]) == 0
        documents.append(json.loads(capsys.readouterr().out))
    assert documents[0]["prompt"] == "a (red:1.2) fox"
    assert documents[0] == documents[1] == documents[2]


def test_what_is_no_infotext_is_one_line_and_3(tmp_path, capsys) -> None:
    from PIL import Image

    Image.new("RGB", (4, 4)).save(tmp_path / "a.png")
    (tmp_path / "a.bin").write_bytes(b"\xff\xfe\x00")
    for name, told in (
        ("a.png", "carries no prompt"),
        ("a.bin", "neither a picture nor UTF-8"),
        ("no", "no such file"),
    ):
        assert main(["tokens", "--infotext", str(tmp_path / name)]) == 3
        err = capsys.readouterr().err
        assert told in err
        assert err.count("\n") == 1


def test_a_negative_prompt_is_counted_with_the_common_length(capsys) -> None:
    assert main(["tokens", LONG, "--negative", "bad " * 160]) == 0
    shown = capsys.readouterr().out
    assert "106/75 → 2 chunks" in shown
    assert "\nnegative prompt\nsd15 · clip_l  160/75 → 3 chunks\n" in shown
    assert shown.endswith("\nboth sides get 6 chunks (462 rows), the shorter repeated\n")
    assert main(["tokens", LONG, "--negative", "bad " * 160, "--family", "sd3"]) == 0
    assert "both sides get 3 chunks (231 rows), the shorter filled up" in " ".join(capsys.readouterr().out.split())


def test_a_negative_prompt_that_is_cut_fails_on_truncation(capsys) -> None:
    assert main(["tokens", "a fox", "--negative", LONG, "--fail-on-truncation"]) == 1


def test_a_page_has_the_negative_prompt_below(tmp_path, capsys) -> None:
    assert main(["tokens", "a fox", "--negative", "blurry", "--html", str(tmp_path / "a.html")]) == 0
    page = (tmp_path / "a.html").read_text()
    assert "<h2>Negative prompt</h2>" in page
    assert "Both sides get 1 chunk (77 rows)." in page


@pytest.mark.parametrize("prompt", ["a {red|blue} fox", "a __colours__ fox", "{2$$a|b|c}"])
def test_a_literal_template_earns_a_note(prompt: str, capsys) -> None:
    assert main(["tokens", prompt]) == 0
    assert "is read as it stands; --expand fills it in" in capsys.readouterr().err


@pytest.mark.parametrize("prompt", ["a {red} fox", "snake__case", "a | b", "{}"])
def test_braces_that_are_no_template_earn_none(prompt: str, capsys) -> None:
    assert main(["tokens", prompt]) == 0
    assert capsys.readouterr().err == ""


def test_expand_fills_a_template_in_before_it_is_counted(tmp_path, capsys) -> None:
    (tmp_path / "mine.txt").write_text("scarlet\n")
    command = ["tokens", "a __mine__ {fox|fox}", "--expand", "--wildcards", str(tmp_path), "--json"]
    assert main(command) == 0
    assert json.loads(capsys.readouterr().out)["prompt"] == "a scarlet fox"


def test_bytes_that_are_not_utf8_are_one_line_and_3(tmp_path, capsys) -> None:
    path = tmp_path / "latin.txt"
    path.write_bytes(b"a fox\nein F\xfcchslein\n")
    assert main(["tokens", "--file", str(path)]) == 3
    seen = capsys.readouterr()
    assert seen.err == f"error: {path}: line 2 is not UTF-8 (byte 0xfc at 5); save it as UTF-8\n"
    assert "a fox" in seen.out


def test_bytes_of_standard_input_that_are_not_utf8(monkeypatch, capsys) -> None:
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"\xff\n")))
    assert main(["tokens", "--file", "-"]) == 3
    assert capsys.readouterr().err.startswith("error: standard input: line 1 is not UTF-8 (byte 0xff at 0)")


def test_a_file_that_is_not_there_is_one_line_and_3(tmp_path, capsys) -> None:
    assert main(["tokens", "--file", str(tmp_path / "nope.txt")]) == 3
    assert capsys.readouterr().err.endswith("nope.txt: no such file; give a text file with a prompt per line, or - for "
                                            "standard input\n")  # fmt: skip


def test_a_folder_is_one_line_and_3(tmp_path, capsys) -> None:
    assert main(["tokens", "--file", str(tmp_path)]) == 3
    assert capsys.readouterr().err == f"error: {tmp_path}: Is a directory\n"


# the view


def test_colours_change_at_every_token() -> None:
    shown = drawn("rutkowski fox")
    blue, yellow = "\x1b[30;48;2;165;216;255m", "\x1b[30;48;2;255;224;102m"
    assert f"{blue}rut\x1b[0m{yellow}kowski\x1b[0m {blue}fox\x1b[0m" in shown
    assert "·k" not in shown


def test_sixteen_colours_stay_two() -> None:
    assert "\x1b[30;46mrut\x1b[0m\x1b[30;43mkowski\x1b[0m" in drawn("rutkowski", color_system="standard")


def test_what_is_dropped_is_red() -> None:
    assert "\x1b[31mfox\x1b[0m" in drawn("fox " * 76)


def test_no_color_marks_boundaries() -> None:
    shown = drawn("rutkowski", no_color=True)
    assert "rut·kowski" in shown
    assert "48;2" not in shown


@pytest.mark.parametrize("width", [40, 120])
@pytest.mark.parametrize(
    "prompt", [LONG, "漢字 " * 60 + "<|endoftext|>", "x" * 300 + " (a:1.2)", LONG + " (b:1.3)\nmore"]
)
def test_no_line_is_wider_than_the_terminal(prompt: str, width: int) -> None:
    lines = drawn(prompt, width=width, color_system=None).splitlines()
    assert max(map(cell_len, lines)) <= width


def test_a_line_of_a_file_is_cut_to_the_terminal() -> None:
    file = io.StringIO()
    console = Console(file=file, width=40, force_terminal=True, color_system="truecolor")
    show_line(7, plan(LONG), console)
    show_line(8, plan("漢字" * 30), console)
    first, second = file.getvalue().splitlines()
    assert "…" in first
    assert "…" in second


def test_the_escapes_of_a_prompt_do_not_reach_the_terminal() -> None:
    shown = drawn("a \x1b[2J\x07fox\u202e\n(b:1.2)", color_system=None)
    assert "\x1b" not in shown
    assert "\x07" not in shown
    assert "\u202e" not in shown
    assert "␛" in shown
    assert "↵" in shown


def test_carets_stand_under_the_passage() -> None:
    assert excerpt("first\nan (red:1.3) fox\nlast", 9, 18, 40) == ("an (red:1.3) fox", "   ^^^^^^^^^")
    assert excerpt("漢字 (a:2) b", 3, 8, 40) == ("漢字 (a:2) b", "     ^^^^^")
    assert excerpt("漢(漢:2)", 1, 6, 40) == ("漢(漢:2)", "  ^^^^^^")
    assert excerpt("(a:\n1.2)", 0, 8, 40) == ("(a:", "^^^")
    assert excerpt("a" * 50 + "(b:2)" + "c" * 50, 50, 55, 20) == ("…" + "a" * 13 + "(b:2)…", " " * 14 + "^^^^^")


@pytest.mark.property
@given(text=st.text("a漢\u0301\n é👩", min_size=1, max_size=80), data=st.data(), width=st.integers(20, 60))
def test_an_excerpt_fits_and_shows_the_passage(text: str, data, width: int) -> None:
    start = data.draw(st.integers(0, len(text) - 1))
    end = data.draw(st.integers(start + 1, len(text)))
    line, carets = excerpt(text, start, end, width)
    assert "\n" not in line
    assert cell_len(line) <= width
    assert 0 < len(carets) <= width + 1


@pytest.mark.property
@given(text=st.text())
def test_what_is_visible_is_one_sign_for_one_character(text: str) -> None:
    shown = visible(text)
    assert len(shown) == len(text)
    assert not set(shown) & set(map(chr, [*range(32), *range(127, 160)]))


# dialects, families, chunking, embeddings

MARKED = "a (red:1.5) fox, [small] (blurry:0) BREAK a dog"


def test_marks_of_a_dialect_are_no_tokens(capsys) -> None:
    assert main(["tokens", MARKED, "--dialect", "a1111"]) == 0
    shown = capsys.readouterr().out
    assert "chunk 1 · 6/75 · cut: BREAK\na (red:1.5) fox, [small] (blurry:0) BREAK\n" in shown
    assert "chunk 2 · 2/75\na dog\n" in shown
    assert "weights  red ×1.5 · small ×0.9091 · blurry ×0\n" in shown


def test_an_opening_bracket_stays_with_its_chunk(capsys) -> None:
    assert main(["tokens", "a dog BREAK (red:1.5) fox", "--dialect", "a1111"]) == 0
    shown = capsys.readouterr().out
    assert "\na dog BREAK\n" in shown
    assert "\n(red:1.5) fox\n" in shown


def test_parts_are_cut_by_and(capsys) -> None:
    assert main(["tokens", "a dog AND a cat", "--dialect", "a1111"]) == 0
    assert "cut: AND" in capsys.readouterr().out


def test_weights_are_colour() -> None:
    looks = [shade(0, weight) for weight in (1.0, 1.1, 1.5, 2.0, 9.0)]
    reds = [red - blue for red, _, blue in looks]
    assert reds == sorted(reds)
    assert looks[0] == (0xA5, 0xD8, 0xFF)
    assert looks[1] != looks[0]
    assert looks[3] == looks[4] == (0xFF, 0x8A, 0x65)
    assert shade(1, 0.0) == (0x98, 0x98, 0x98)
    assert shade(0, -1.0) == (0xCC, 0x99, 0xFF)
    planned = plan("a (red:2) fox", dialect="a1111")
    file = io.StringIO()
    show([planned], Console(file=file, force_terminal=True, color_system="truecolor", highlight=False, markup=False))
    assert "\x1b[30;48;2;255;99;71mred\x1b[0m" in file.getvalue()
    assert "\x1b[2m(\x1b[0m" not in file.getvalue()
    assert "\x1b[2m (\x1b[0m" in file.getvalue()


def test_auto_decides_and_says_why(capsys) -> None:
    assert main(["tokens", MARKED, "--dialect", "auto", "--json"]) == 0
    seen = capsys.readouterr()
    assert json.loads(seen.out) == plan(MARKED, dialect="a1111").to_json()
    assert seen.err.startswith("note: dialect a1111: ")
    assert main(["tokens", "a fox", "--dialect", "auto"]) == 0
    assert capsys.readouterr().err.startswith("note: dialect plain: ")


def test_auto_decides_for_each_line(tmp_path, capsys) -> None:
    path = tmp_path / "prompts.txt"
    path.write_text(f"{MARKED}\na fox\n")
    assert main(["tokens", "--file", str(path), "--dialect", "auto", "--json"]) == 0
    seen = capsys.readouterr()
    assert [json.loads(line)["dialect"] for line in seen.out.splitlines()] == ["a1111", "plain"]
    assert seen.err == ""
    assert main(["tokens", "--file", str(path), "--dialect", "auto", "--stats", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["content_tokens"] == 10


def test_all_families_are_shown_together(capsys) -> None:
    assert main(["tokens", "a fox", "--family", "all"]) == 0
    shown = capsys.readouterr().out
    first = " ".join(shown.split("\n\n")[0].split())
    assert first.startswith(
        "sd15, sdxl, sd3, flux, hunyuan-video, hunyuan-video-i2v, kandinsky5, kandinsky5-video, kandinsky5-i2i, "
        "kandinsky6 · clip_l; sd2 ·"
    )
    assert first.endswith("sdxl, sd3, cascade · clip_g 2/75 → 1 chunk")
    assert "sd3 · t5  " in shown
    assert "flux · t5  " in shown
    assert "hunyuan-video · llama  unknown" in shown
    assert "hidream · clip_l, clip_g  2/126 → 1 chunk" in shown


def test_json_of_all_families_is_one_object(capsys) -> None:
    assert main(["tokens", "a fox", "--family", "all", "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert document["prompt"] == "a fox"
    assert [one["family"] for one in document["plans"]] == [
        "sd15", "sd2", "sdxl", "sd3", "flux", "hidream", "cascade", "hunyuan-video", "hunyuan-video-i2v", "kandinsky5",
        "kandinsky5-video", "kandinsky5-i2i", "kandinsky6",
    ]  # fmt: skip
    assert document["plans"][0] == plan("a fox").to_json()


def test_two_dialects_beside_each_other(capsys) -> None:
    assert main(["tokens", MARKED, "--compare", "a1111"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == f"prompt  {MARKED}"
    assert lines[1] == "plain: 21 tokens, a1111: 8 tokens"
    assert any(line.startswith("dialect plain ") and "dialect a1111" in line for line in lines)
    assert any("21/75 → 1 chunk" in line and "8/75 → 2 chunks" in line for line in lines)


def test_two_dialects_below_each_other_in_a_narrow_terminal(monkeypatch, capsys) -> None:
    monkeypatch.setenv("COLUMNS", "60")
    assert main(["tokens", MARKED, "--compare", "a1111"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line for line in lines if line.startswith("dialect")] == ["dialect plain", "dialect a1111"]


@pytest.mark.parametrize(
    ("prompt", "dialect", "other", "told"),
    [
        ("a fox", "plain", "a1111", "plain and a1111: the same tokens and weights"),
        ("((a fox))", "a1111", "comfy", "a1111 and comfy: the same tokens and weights"),
        ("((a fox:1.2))", "a1111", "comfy", "a1111 and comfy: the same tokens, other weights"),
    ],
)
def test_the_difference_in_one_line(prompt: str, dialect: str, other: str, told: str, capsys) -> None:
    assert main(["tokens", prompt, "--dialect", dialect, "--compare", other]) == 0
    assert capsys.readouterr().out.splitlines()[1] == told


def test_what_an_unknown_tokenizer_would_tell_is_not_told(tmp_path: Path, monkeypatch, capsys) -> None:
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path))
    marked = ["tokens", "a (red:1.3) fox", "--compare", "a1111", "--family"]
    assert main([*marked, "flux2"]) == 0
    assert capsys.readouterr().out.splitlines()[1] == "plain and a1111: unknown, without a tokenizer"
    assert main([*marked, "kandinsky5"]) == 0  # by CLIP, whose tokens are known
    assert capsys.readouterr().out.splitlines()[1] == "plain: 9 tokens, a1111: 3 tokens"
    assert main(["tokens", "a fox", "--explain", "--family", "flux2"]) == 0
    assert capsys.readouterr().out.splitlines()[-1] == "phrases  unknown"
    assert main(["tokens", "a fox", "--explain", "--family", "kandinsky5"]) == 0
    assert capsys.readouterr().out.splitlines()[-1].split() == ["1", "2", "1", "a", "fox"]


def test_json_of_two_dialects(capsys) -> None:
    assert main(["tokens", MARKED, "--compare", "a1111", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["plans"] == [
        plan(MARKED).to_json(),
        plan(MARKED, dialect="a1111").to_json(),
    ]


def test_a_chunking(capsys) -> None:
    prompt = "fox " * 74 + "rutkowski"
    assert main(["tokens", prompt, "--chunking", "word"]) == 0
    shown = capsys.readouterr().out
    assert "chunk 1 · 74/75 · cut: early, so that what follows stays whole" in shown
    assert "note padding-wasted: chunk 1 ends early, here, and 1 place is padding" in shown
    assert "word-split" not in shown


def test_an_unknown_chunking_is_wrong_usage(capsys) -> None:
    assert main(["tokens", "a fox", "--chunking", "nope"]) == 2
    assert "--chunking nope does not exist; there are hard, a1111, word" in capsys.readouterr().err


def test_embeddings_of_a_folder_count_as_vectors(tmp_path, capsys) -> None:
    from safetensors.numpy import save_file

    save_file({"emb_params": np.zeros((8, 768), np.float32)}, tmp_path / "style8.safetensors")
    (tmp_path / "broken.safetensors").write_bytes(b"nothing")
    prompt = "a fox, style8, style8"
    assert main(["tokens", prompt, "--dialect", "a1111", "--embeddings", str(tmp_path)]) == 0
    seen = capsys.readouterr()
    assert "20/75 → 1 chunk" in seen.out
    assert "rare-word" not in seen.out
    assert "note repeated-phrase: said twice; the repetition takes 8 tokens" in seen.out
    assert "broken.safetensors: " in seen.err


def test_an_empty_folder_of_embeddings_is_told(tmp_path, capsys) -> None:
    assert main(["tokens", "a fox", "--embeddings", str(tmp_path)]) == 0
    assert capsys.readouterr().err == f"note: {tmp_path}: no embeddings there\n"


def test_a_folder_of_embeddings_that_is_not_there_is_3(tmp_path, capsys) -> None:
    assert main(["tokens", "a fox", "--embeddings", str(tmp_path / "no")]) == 3
    assert "no: no such folder; give one with" in capsys.readouterr().err


def test_t5_counts_with_its_own_tokenizer(capsys) -> None:
    tokenizer = Path(__file__).parents[2].parent / "shared/data/tokenizers/flux"
    if not tokenizer.is_dir():
        pytest.skip("no ../shared/data/tokenizers/flux here: T5 is not counted")
    assert main(["tokens", "a rutkowski fox", "--family", "flux", "--t5-tokenizer", str(tokenizer)]) == 0
    shown = capsys.readouterr().out
    assert "flux · clip_l  4/75 → 1 chunk" in shown
    assert "flux · t5  " in shown
    assert "/511 → 1 chunk" in shown


def test_a_t5_tokenizer_that_is_not_there_is_3(tmp_path, capsys) -> None:
    assert main(["tokens", "a fox", "--family", "flux", "--t5-tokenizer", str(tmp_path / "no")]) == 3
    assert "no T5 tokenizer there" in capsys.readouterr().err


def test_what_marks_cost_a_stock_pipeline(capsys) -> None:
    assert main(["tokens", "(fox:1.2) " * 12, "--dialect", "a1111"]) == 0
    shown = capsys.readouterr().out
    assert "12/75 → 1 chunk" in shown
    assert (
        "clipcond reads 12 tokens without marks; a stock pipeline reads the marks as text, 84 tokens, and drops 9\n"
        in shown.replace(" \n", " ")
    )


def test_a_warning_about_another_dialect_comes_first_with_the_flag_to_type(capsys) -> None:
    assert main(["tokens", "a (red:1.3) fox"]) == 0
    first, *rest = capsys.readouterr().out.splitlines()
    assert first.startswith("warning looks-like-a1111: ")
    assert (first + rest[0]).endswith("--dialect a1111 reads it")
    main(["tokens", "a fox++ there"])
    shown = capsys.readouterr().out
    assert shown.startswith("warning looks-like-compel: ")
    assert "--dialect compel reads it" in shown.replace("\n", " ")


CIVITAI = (
    "masterpiece, (best quality, absurdres:1.2), a [cat:dog:0.4] in a [red|blue] hat, [wolf:12] ((smile, (wink))), "
    "<lora:add_detail:0.8>, <lyco:x:1:0.5> forest AND a dog :0.8"
)


def test_loras_schedules_and_parts_stand_in_one_line_each(capsys, monkeypatch) -> None:
    monkeypatch.setenv("COLUMNS", "160")
    assert main(["tokens", CIVITAI, "--dialect", "a1111"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert "2 LoRAs taken out  add_detail ×0.8 · x ×1 (denoiser ×0.5)" in lines
    assert "changes  cat → dog at 40 % · red | blue in turn · nothing → wolf at step 12" in lines
    (texts,) = [line for line in lines if line.startswith("texts over 20 steps  ")]
    assert texts.startswith(
        "texts over 20 steps  6 different ones, from “masterpiece, (best quality, absurdres:1.2), a cat"
    )
    assert "2 parts  drawn together (AND), weights 1 and 0.8" in lines
    assert "weights  best quality, absurdres ×1.2 · smile ×1.21 · wink ×1.331" in lines


def test_a_scheduled_prompt_counts_at_its_longest_and_lists_its_texts(capsys) -> None:
    assert main(["tokens", f"[fox:{'w ' * 90}:0.5]", "--dialect", "a1111"]) == 0
    assert capsys.readouterr().out.startswith("sd15 · clip_l  90/75 → 2 chunks")
    assert main(["tokens", "a fox [in snow:in rain:0.5]", "--dialect", "a1111", "--steps", "8"]) == 0
    assert "texts over 8 steps  1–4 “a fox in snow” · 5–8 “a fox in rain”" in capsys.readouterr().out
    assert main(["tokens", "[night:day:30] fox", "--dialect", "a1111", "--steps", "10"]) == 0
    assert "schedule-unread: none of the 10 steps reads this" in capsys.readouterr().out
    assert main(["tokens", "a fox", "--steps", "0"]) == 2
    assert "--steps is 0, expected 1 or more" in capsys.readouterr().err


def test_no_phrase_of_the_table_ends_inside_of_a_bracket(capsys) -> None:
    assert main(["tokens", CIVITAI, "--dialect", "a1111", "--explain"]) == 0
    shown = capsys.readouterr().out
    assert "~ (best quality, absurdres:1.2) ×1.2\n" in shown
    assert "  a [cat:dog:0.4] in a [red|blue] hat\n" in shown
    assert "[wolf:12] ((smile, (wink))) ×1.331\n" in shown


def test_commas_are_no_blocks_of_colour() -> None:
    assert "fox\x1b[0m, \x1b[" in drawn("a fox, a dog")


def test_a_legend_says_what_the_colours_mean() -> None:
    assert "each block of colour is a token, each comma too\x1b[0m" in drawn("a fox")
    assert "a · stands between" not in drawn("a fox", no_color=True)
    assert "a · stands between tokens that no space parts" in drawn("a rutkowski", no_color=True)
    file = io.StringIO()
    planned = plan("(a:2) fox, [b] (c:-1)", dialect="a1111")
    show([planned], Console(file=file, force_terminal=True, color_system="truecolor", highlight=False, width=200))
    assert "redder: weight above 1; grayer: below 1; violet: below 0" in file.getvalue()


# notes


def test_notes_stand_under_their_passages(capsys) -> None:
    assert main(["tokens", "漢字狐 👩‍🚀 ❤️, a fox, a fox"]) == 0
    lines = capsys.readouterr().out.splitlines()
    at = lines.index("note repeated-phrase: said twice; the repetition takes 2 tokens")
    assert lines[at + 1] == "漢字狐 👩‍🚀 ❤️, a fox, a fox"
    before = cell_len("漢字狐 👩‍🚀 ❤️, a fox, ")
    assert lines[at + 2] == " " * before + "^^^^^"


@pytest.mark.parametrize(
    ("before", "cells"),
    [("漢字", 4), ("e\u0301", 1), ("👩", 2), ("👍🏽", 2), ("🇩🇪", 2), ("ｆ", 2), ("\u200b", 0), ("\x07", 1)],
)
def test_carets_are_measured_in_cells(before: str, cells: int) -> None:
    text = f"{before} (fox:1.2)"
    assert excerpt(text, len(before) + 1, len(text), 40)[1] == " " * (cells + 1) + "^" * 9


def test_many_warnings_are_told_in_numbers(capsys) -> None:
    assert main(["tokens", "<|endoftext|> " * 60]) == 0
    shown = capsys.readouterr().out
    assert shown.count("warning ") == 50
    assert f"\nand {len(plan('<|endoftext|> ' * 60).warnings) - 50} more warnings\n" in shown


def test_a_long_passage_is_cut_in_time() -> None:
    text = "a (" + "x" * 200_000
    started = time.perf_counter()
    assert excerpt(text, 2, len(text), 40) == ("…(" + "x" * 37 + "…", " " + "^" * 38)
    assert time.perf_counter() - started < 20  # a guard against quadratic time, no benchmark


def test_phrases_are_explained(capsys) -> None:
    assert main(["tokens", "masterpiece, a red fox, a red fox, " + "a dog, " * 30, "--explain"]) == 0
    lines = capsys.readouterr().out.splitlines()
    at = lines.index("phrases  1 of 100 tokens are boilerplate (1%, marked ~)")
    assert lines[at + 1 : at + 5] == [
        "  token  tokens  chunk",
        "      1       1      1  ~ masterpiece",
        "      3       3      1  a red fox",
        "      7       3      1  (again) a red fox",
    ]
    assert any(line.endswith("  1–2  (again) a dog") or line.endswith("    2  (again) a dog") for line in lines)


def test_an_explanation_in_json(capsys) -> None:
    assert main(["tokens", "a fox, a fox", "--explain", "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert document.pop("analysis") == analyse(plan("a fox, a fox")).to_json()
    assert document == plan("a fox, a fox").to_json()


# the way without Typer

PLAIN = [
    ["a fox"],
    [""],
    ["a fox", "--json"],
    ["--family", "sdxl", "a fox", "--fail-on-truncation"],
    ["--family=sd2", "--dialect=plain", "--json", "a = fox"],
    ["--file", "-"],
    ["--file=prompts.txt", "--family", "sd2", "--family", "sdxl"],
    ["a fox", "--family", "all", "--dialect", "auto", "--explain", "--html=fox.html"],
    ["a fox", "--compare", "a1111", "--chunking", "word", "--embeddings", "folder"],
    ["--file", "x.txt", "--stats"],
    ["--live"],
    ["--live", "a fox"],
]
NOT_PLAIN = [
    [],
    ["a fox", "a dog"],
    ["a fox", "--file", "x.txt"],
    ["--json"],
    ["--", "a fox"],
    ["-h"],
    ["-"],
    ["--js", "a fox"],
    ["--json=1", "a fox"],
    ["a fox", "--family"],
    ["a fox", "--family", "sd9"],
    ["a fox", "--dialect=tongue"],
    ["a fox", "--file", "--json"],
    ["a fox", "--stats"],
    ["a fox", "--chunking", "nope"],
    ["a fox", "--compare", "plain"],
    ["--live", "--file", "x.txt"],
]


@pytest.mark.parametrize("words", PLAIN)
def test_a_plain_request_is_what_typer_makes_of_it(words: list[str], monkeypatch) -> None:
    made = []
    monkeypatch.setattr("clipcond.cli.tokens.run", lambda request: made.append(request) or 0)
    monkeypatch.setattr("clipcond.cli.tokens_plain.plain_request", lambda _: None)
    assert main(["tokens", *words]) == 0
    assert made == [plain_request(words)]


@pytest.mark.parametrize("words", NOT_PLAIN)
def test_the_rest_is_left_to_typer(words: list[str]) -> None:
    assert plain_request(words) is None


def test_both_ways_give_the_same_output(monkeypatch, capsys) -> None:
    outputs = []
    for reader in (plain_request, lambda _: None):
        monkeypatch.setattr("clipcond.cli.tokens_plain.plain_request", reader)
        outputs += [(main(["tokens", LONG, "--fail-on-truncation", "--json"]), capsys.readouterr().out)]
    assert outputs[0] == outputs[1]
    assert outputs[0][0] == 1
