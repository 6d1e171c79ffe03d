"""What every command shares: dispatch, help, exit codes, one-line errors."""

from __future__ import annotations

import os
import shlex
import signal
import subprocess
import sys
from importlib import import_module

import pytest
import typer

import clipcond
from clipcond.cli.app import app
from clipcond.cli.command_groups import COMMANDS, GROUPS
from clipcond.cli.main import main
from clipcond.errors import ModelError, OutputExists


@pytest.fixture
def failing(monkeypatch):
    """Make `clipcond tokens` raise what the test wants."""

    def fail_with(error: BaseException) -> None:
        def plan(*_: object, **__: object) -> None:
            raise error

        monkeypatch.setattr("clipcond.prompt.plan.plan", plan)

    return fail_with


def run(*words: str, **options) -> subprocess.CompletedProcess[str]:
    """The command line in a process of its own, without colours."""
    environment = {key: value for key, value in os.environ.items() if key not in {"FORCE_COLOR", "COLUMNS"}}
    environment |= {"NO_COLOR": "1"} | options.pop("env", {})
    command = [sys.executable, "-c", "import sys; from clipcond.cli import main; sys.exit(main())", *words]
    return subprocess.run(command, capture_output=True, encoding="utf-8", env=environment, **options)


@pytest.mark.parametrize(
    ("error", "asked"),
    [
        (MemoryError(), "MemoryError"),
        (RuntimeError("[enforce fail at alloc_cpu.cpp] . DefaultCPUAllocator: can't allocate memory: you tried to allocate "
                      "4398046511104 bytes. Error code 12"), "you tried to allocate 4398046511104 bytes"),
        (type("OutOfMemoryError", (RuntimeError,), {})("CUDA out of memory. Tried to allocate 2.50 GiB. GPU 0 has a total "
                                                       "capacity of 79.1 GiB"), "Tried to allocate 2.50 GiB"),
    ],
)  # fmt: skip
def test_memory_that_is_full_is_a_line(failing, capsys, error, asked):
    failing(error)
    assert main(["tokens", "a fox"]) == 3
    told = capsys.readouterr().err
    assert told.startswith("error: the memory is full: ")
    assert f"{asked}; a smaller model or input needs less" in told
    assert told.count("\n") == 1
    with pytest.raises(type(error)):
        main(["--debug", "tokens", "a fox"])


@pytest.mark.parametrize(
    ("command", "way"),
    [
        ("train", "a smaller --batch-size or a smaller --grad-cache needs less"), ("rerank", "a smaller --batch-size needs less"),
        ("encode", "a smaller model or input needs less"),
    ],
)  # fmt: skip
def test_memory_that_is_full_names_what_the_command_itself_takes(monkeypatch, capsys, command, way):
    def full(*_):
        raise MemoryError

    monkeypatch.setattr(sys.modules["clipcond.cli.main"], "_run", full)
    assert main([command, "a fox"]) == 3
    assert capsys.readouterr().err.endswith(f"{way}\n")


def test_every_command_has_a_module_and_help(capsys) -> None:
    for module_name in set(COMMANDS.values()):
        import_module(module_name)
    assert main(["--help"]) == 0
    shown = capsys.readouterr().out
    for command in COMMANDS:
        assert command in shown
    assert len(app.registered_commands) == len(COMMANDS)


def test_help_groups_the_commands_and_gives_each_a_line() -> None:
    shown = run("--help", env={"COLUMNS": "80"}).stdout
    assert [line[:-1] for line in shown.splitlines() if line.endswith(":") and line[:1].strip()][-len(GROUPS) :] == [
        *GROUPS
    ]
    listed = shown[shown.index(f"{next(iter(GROUPS))}:") :].splitlines()
    assert [line.split()[0] for line in listed if line.startswith("  ")] == [*COMMANDS]
    assert not [line for line in listed if line.endswith("...")]


def test_help_fits_a_narrow_terminal() -> None:
    shown = run("--help", env={"COLUMNS": "40"})
    assert shown.returncode == 0, shown.stderr
    assert max(map(len, shown.stdout.splitlines())) <= 40


@pytest.mark.parametrize("command", [*COMMANDS])
def test_each_command_explains_itself(command: str, capsys) -> None:
    assert main([command, "--help"]) == 0
    assert f"Usage: clipcond {command}" in capsys.readouterr().out


def test_only_the_module_of_the_command_is_imported() -> None:
    script = (
        "import sys; from clipcond.cli import main; main(['tokens', 'a fox', '--json']);"
        "print([m for m in sys.modules if m.startswith('clipcond.cli.')], file=sys.stderr)"
    )
    shown = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    loaded = {"command_groups", "exit_codes", "interruption", "main", "render", "stand_ins", "tokens_plain"}
    assert set(eval(shown.stderr)) == {f"clipcond.cli.{name}" for name in loaded}


def test_the_version_is_printed(capsys) -> None:
    assert main(["--version"]) == 0
    assert capsys.readouterr().out == f"clipcond {clipcond.__version__}\n"


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["nonsense"], "No such command 'nonsense'"),
        (["tokens"], "give either a PROMPT or --file FILE"),
        (["tokens", "a fox", "--nonsense"], "No such option"),
        (["--nonsense", "tokens"], "No such option"),
    ],
)
def test_wrong_usage_is_2(words: list[str], message: str, capsys) -> None:
    assert main(words) == 2
    seen = capsys.readouterr()
    assert message in seen.err
    assert seen.out == ""


def test_no_command_shows_the_help_and_is_2(capsys) -> None:
    assert main([]) == 2
    assert "Usage: clipcond" in "".join(capsys.readouterr())


def test_our_errors_are_one_line_and_3(failing, capsys) -> None:
    failing(ModelError("no model\n named 'x';   try mini"))
    assert main(["tokens", "a fox"]) == 3
    assert capsys.readouterr() == ("", "error: no model named 'x'; try mini\n")


def test_errors_of_two_parents_keep_their_text(failing, capsys) -> None:
    failing(OutputExists("out.png is in the way"))
    assert main(["tokens", "a fox"]) == 3
    assert capsys.readouterr().err == "error: out.png is in the way\n"


def test_errors_of_the_system_are_one_line_and_3(failing, capsys) -> None:
    failing(PermissionError(13, "Permission denied", "secret.txt"))
    assert main(["tokens", "a fox"]) == 3
    assert capsys.readouterr().err == "error: secret.txt: Permission denied\n"


def test_an_error_of_the_system_without_a_file_has_no_number(failing, capsys) -> None:
    failing(OSError(28, "No space left on device"))
    assert main(["tokens", "a fox"]) == 3
    assert capsys.readouterr().err == "error: No space left on device\n"


def test_an_error_without_text_says_its_name(failing, capsys) -> None:
    failing(ModelError())
    assert main(["tokens", "a fox"]) == 3
    assert capsys.readouterr().err == "error: ModelError\n"


def test_debug_keeps_the_traceback(failing) -> None:
    failing(ModelError("no such model"))
    with pytest.raises(ModelError, match="no such model"):
        main(["--debug", "tokens", "a fox"])


def test_a_bug_keeps_its_traceback(failing) -> None:
    failing(ValueError("a bug"))
    with pytest.raises(ValueError, match="a bug"):
        main(["tokens", "a fox"])


def test_an_interruption_is_130(failing) -> None:
    failing(KeyboardInterrupt())
    assert main(["tokens", "a fox"]) == 130


def test_an_interruption_while_a_module_loads_is_130(monkeypatch) -> None:
    def interrupt(_: str) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(sys.modules["clipcond.cli.main"], "import_module", interrupt)
    assert main(["tokens", "--help"]) == 130


@pytest.mark.skipif(os.name == "nt", reason="pipes close otherwise on Windows")
def test_a_reader_that_leaves_is_not_an_error() -> None:
    script = "import sys; from clipcond.cli import main; sys.exit(main())"
    command = [sys.executable, "-c", script, "tokens", "--file", "-", "--json"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert None not in (process.stdin, process.stdout, process.stderr)
        process.stdout.close()
        process.stdin.write(b"a fox\n" * 2000)
        process.stdin.close()
        assert process.stderr.read() == b""
    assert process.returncode == 141


@pytest.mark.skipif(os.name == "nt", reason="pipes close otherwise on Windows")
def test_a_reader_that_leaves_before_the_last_flush_is_not_an_error() -> None:
    script = "import sys; from clipcond.cli import main; sys.exit(main())"
    with subprocess.Popen(
        [sys.executable, "-c", script, "tokens", "a fox"], stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as process:
        assert None not in (process.stdout, process.stderr)
        process.stdout.close()
        assert process.stderr.read() == b""
    assert process.returncode == 141


def test_an_ascii_terminal_gets_escapes() -> None:
    shown = run("tokens", "é", env={"PYTHONIOENCODING": "ascii"})
    assert shown.returncode == 0, shown.stderr
    assert "\\xe9" in shown.stdout
    as_json = run("tokens", "é", "--json", env={"PYTHONIOENCODING": "ascii"})
    assert '"prompt": "\\u00e9"' in as_json.stdout


def test_the_c_locale_gets_escapes() -> None:
    """There Python opens stdout as ASCII with `surrogateescape`."""
    locale = {"LC_ALL": "C", "PYTHONCOERCECLOCALE": "0", "PYTHONUTF8": "0", "PYTHONIOENCODING": ""}
    shown = run("tokens", "foxes\u2019", env=locale)
    assert (shown.returncode, shown.stderr) == (0, "")
    assert "foxes" in shown.stdout


@pytest.mark.skipif(os.name == "nt", reason="closed by the shell")
@pytest.mark.parametrize("closed", ["<&-", ">&-", "2>&-"])
def test_a_closed_stream_is_not_a_bug(closed: str) -> None:
    script = "import sys; from clipcond.cli import main; sys.exit(main())"
    command = f"exec {shlex.quote(sys.executable)} -c '{script}' tokens --file - {closed}"
    run = subprocess.run(["sh", "-c", command], stdin=subprocess.DEVNULL, capture_output=True, text=True)
    assert run.returncode == 0
    assert "Traceback" not in run.stderr


def test_main_takes_the_arguments_of_the_process(monkeypatch, capsys) -> None:
    monkeypatch.setattr(sys, "argv", ["clipcond", "--version"])
    assert main() == 0
    assert capsys.readouterr().out.startswith("clipcond ")


def test_typer_is_used_by_its_public_names() -> None:
    assert all(hasattr(typer, name) for name in ("Typer", "Option", "Argument", "Exit", "BadParameter", "echo"))


# what was meant, what steers a terminal, what an encoding lacks


def test_help_is_a_command_too(capsys) -> None:
    assert main(["help"]) == 0
    assert "Usage: clipcond" in capsys.readouterr().out
    assert main(["help", "tokens"]) == 0
    assert "Usage: clipcond tokens" in capsys.readouterr().out


@pytest.mark.parametrize("command", [*COMMANDS])
def test_each_help_has_three_examples_and_no_type_in_angle_brackets(command: str) -> None:
    shown = run(command, "--help", env={"COLUMNS": "140"})
    assert shown.stdout.count(f"  clipcond {command}") == 3
    assert "<bool>" not in shown.stdout
    assert "BOOLEAN" not in shown.stdout


@pytest.mark.parametrize(
    ("words", "hint"),
    [
        (["a red fox"], "hint: name a command before the prompt: clipcond tokens 'a red fox'"),
        (["generate", "a", "red", "fox", "-o", "x"], 'hint: put the prompt in quotes: clipcond generate "a red fox"'),
        (
            ["generate", "--file", "a.txt", "-o", "x"],
            "hint: --infotext FILE draws the prompt in a text file or a picture",
        ),
        (["translate", "a", "fox", "--to", "compel"], 'clipcond translate "a fox"'),
        (["expand", "-1 {dog|cat}"], "clipcond expand -- '-1 {dog|cat}'"),
    ],
)
def test_wrong_usage_says_what_was_meant(words: list[str], hint: str, capsys) -> None:
    assert main(words) == 2
    assert hint in capsys.readouterr().err


HOSTILE = "a\x1b[2J\x9b31m\u202e\u2066b\x07"


def clean(text: str) -> bool:
    return all(character == "\n" or (character.isprintable()) for character in text)


@pytest.mark.parametrize(
    "words",
    [
        [HOSTILE],
        ["tokens", "a", HOSTILE],
        ["tokens", "--" + HOSTILE],
        ["tokens", "a", "--family", HOSTILE],
        ["tokens", "--file", HOSTILE],
        ["tokens", "--infotext", HOSTILE],
        ["tokens", "a", "--html", f"no/{HOSTILE}"],
        ["tokens", "<|endoftext|>" + HOSTILE],
        ["tokens", f"a ({HOSTILE}:1.2) {{{HOSTILE}|b}}", "--dialect", "a1111", "--explain"],
        ["translate", f"embedding:{HOSTILE} ({HOSTILE}:1.2)", "--from", "comfy", "--to", "compel"],
        ["expand", f"__{HOSTILE}__ {{{HOSTILE}"],
        ["rerank", HOSTILE, "--prompt", "x"],
        ["generate", "x", "--pipeline", HOSTILE, "--out", "nowhere"],
        ["models", HOSTILE],
    ],
)
def test_no_message_carries_what_steers_a_terminal(words: list[str], capsys, monkeypatch, tmp_path) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("NO_COLOR", "1")
    main(words)
    seen = capsys.readouterr()
    assert clean(seen.err), repr(seen.err)
    if words[0] not in ("expand", "translate"):  # whose output is the text itself
        assert clean(seen.out), repr(seen.out)


def test_json_escapes_what_steers_a_terminal_and_stays_the_same_document(capsys) -> None:
    import json

    assert main(["tokens", HOSTILE, "--json"]) == 0
    out = capsys.readouterr().out
    assert clean(out)
    assert json.loads(out)["prompt"] == HOSTILE


def test_an_ascii_terminal_gets_stand_ins_of_one_cell_and_carets_stay_in_place() -> None:
    ascii_only = {"PYTHONIOENCODING": "ascii", "COLUMNS": "100"}
    shown = run("tokens", "é fox, rutkowski, é fox", "--dialect", "a1111", env=ascii_only)
    assert (shown.returncode, shown.stderr) == (0, "")
    lines = shown.stdout.splitlines()
    assert lines[0] == "sd15 | clip_l  8/75 > 1 chunk"
    assert "\\xe9 fox, rut|kowski, \\xe9 fox" in lines
    carets = next(number for number, line in enumerate(lines) if line.strip(" ") == "^^^^^^^^")
    assert lines[carets - 1][lines[carets].index("^") :] == "\\xe9 fox"


def test_warnings_of_libraries_are_notes_in_one_line(failing, monkeypatch, capsys) -> None:
    import warnings

    def warn(*_: object, **__: object) -> None:
        warnings.warn("Truncated File\n \x1b[2JRead", UserWarning, stacklevel=1)

    monkeypatch.setattr("clipcond.workflows.templates.run", warn)
    monkeypatch.setattr("clipcond.cli.expand.run", warn, raising=False)
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        with pytest.raises(AttributeError):
            main(["expand", "x"])
    assert capsys.readouterr().err == "note: Truncated File ␛[2JRead\n"


# Ctrl-C


@pytest.mark.skipif(os.name == "nt", reason="signals are others on Windows")
def test_a_bug_keeps_its_traceback_in_a_background_job_too(failing) -> None:
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        failing(ValueError("a bug"))
        with pytest.raises(ValueError, match="a bug"):
            main(["tokens", "a fox"])
    finally:
        signal.signal(signal.SIGINT, before)


INTERRUPT = """
import os, signal, sys
signal.signal(signal.SIGINT, signal.default_int_handler)  # a job in the background starts with it ignored
class Interrupting:
    def find_spec(self, name, path=None, target=None):
        if name == {module!r}:
            sys.meta_path.remove(self)
            try:
                os.kill(os.getpid(), signal.SIGINT)
                for _ in range(100000): pass
            except BaseException:
                {then}
sys.meta_path.insert(0, Interrupting())
from clipcond.cli import main
sys.exit(main({words!r}))
"""


@pytest.mark.skipif(os.name == "nt", reason="signals are others on Windows")
@pytest.mark.parametrize("then", ["pass", "raise", "raise ImportError(name)", "raise RuntimeError(name) from None"])
@pytest.mark.parametrize(
    ("module", "words"),
    [
        ("clipcond.workflows.tokens", ["tokens", "a fox"]),
        ("typer", ["translate", "a fox", "--to", "compel"]),
        ("torch", ["encode", "a fox", "-o", "fox.safetensors"]),
    ],
)
def test_an_interruption_in_the_first_second_is_130_whatever_an_import_makes_of_it(
    module: str, words: list[str], then: str, tmp_path
) -> None:
    script = INTERRUPT.format(module=module, then=then, words=words)
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == 130, done.stderr
    assert "Traceback" not in done.stderr
    assert done.stderr == "interrupted\n" or (then == "pass" and not done.stderr)
    assert not list(tmp_path.iterdir())
    assert not done.stdout or then == "pass"
