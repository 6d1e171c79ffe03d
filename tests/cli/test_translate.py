"""`clipcond translate`: the text on stdout, losses on stderr, exit codes."""

import json

import pytest

from clipcond.cli import main
from clipcond.prompt.dialects.names import DIALECTS


def test_the_dialects_are_those_of_the_parser_in_any_case(capsys):
    for dialect in DIALECTS:
        assert main(["translate", "a fox", "--from", dialect.upper(), "--to", dialect.title()]) == 0
    assert main(["translate", "a fox", "--to", "A111"]) == 2
    assert "--to A111 does not exist; there are plain, a1111, comfy, compel; did you mean a1111?" in (
        capsys.readouterr().err
    )


def test_the_reason_of_a_detected_dialect_steers_no_terminal(capsys):
    assert main(["translate", "a (\x1b[2J\u202e:1.2) fox", "--to", "comfy"]) == 0
    err = capsys.readouterr().err
    assert err == "from a1111: (␛[2J�:1.2) is A1111 syntax\n"


def test_the_text_is_all_there_is_on_stdout(capsys):
    assert main(["translate", "a (red:1.3) fox", "--from", "a1111", "--to", "compel"]) == 0
    assert capsys.readouterr() == ("a (red)1.3 fox\n", "")


def test_losses_stand_on_stderr_with_their_place(capsys, monkeypatch):
    monkeypatch.setenv("NO_COLOR", "1")
    words = ["translate", "a 狐 BREAK (b:1.2)", "--from", "a1111", "--to", "plain"]
    assert main(words) == 0
    said = capsys.readouterr()
    assert said.out == "a 狐 b\n"
    assert said.err == (
        "lost-break: BREAK starts no chunk there\n"
        "a 狐 BREAK (b:1.2)\n"
        "     ^^^^^\n"
        "lost-weight: the weight 1.2 cannot be said there\n"
        "a 狐 BREAK (b:1.2)\n"
        "            ^\n"
    )
    assert main([*words, "--fail-on-loss"]) == 1
    assert main(["translate", "a fox", "--from", "a1111", "--to", "plain", "--fail-on-loss"]) == 0


def test_json_is_one_document(capsys):
    assert main(["translate", "a BREAK b", "--from", "a1111", "--to", "comfy", "--json"]) == 0
    said = capsys.readouterr()
    assert said.err == ""
    assert json.loads(said.out) == {
        "prompt": "a BREAK b",
        "from": "a1111",
        "to": "comfy",
        "text": "a b",
        "lost": [
            {"code": "lost-break", "message": "BREAK starts no chunk there", "start": 2, "end": 7, "text": "BREAK"}
        ],
    }


def test_the_source_can_be_found_out(capsys):
    assert main(["translate", "a (red:1.3) fox", "--to", "compel"]) == 0
    said = capsys.readouterr()
    assert said.out == "a (red)1.3 fox\n"
    assert said.err.startswith("from a1111: ")
    assert main(["translate", "a (red:1.3) fox", "--to", "compel", "--json"]) == 0
    said = capsys.readouterr()
    assert (json.loads(said.out)["from"], said.err) == ("a1111", "")


def test_a_prompt_may_start_with_a_dash(capsys):
    assert main(["translate", "--from", "compel", "--to", "a1111", "--", "-fox+"]) == 0
    assert capsys.readouterr().out == "(-fox:1.1)\n"


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["a fox"], "Missing option '--to'"),
        (["a fox", "--to", "klingon"], "--to klingon does not exist; there are plain"),
        (["--to", "plain"], "Missing argument 'PROMPT'"),
    ],
)
def test_wrong_usage(words, message, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "200")
    assert main(["translate", *words]) == 2
    assert message in capsys.readouterr().err
